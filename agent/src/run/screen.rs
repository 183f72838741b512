//! Fills the terminal's one-screen summary from the same samples that the metrics page shows.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use crate::cli::logger;
use crate::clock;
use crate::config::Config;
use crate::health::{Health, ProbeState, Stage};
use crate::metrics::gather;
use crate::model::metric::{Histogram, Sample, Source};
use crate::semconv::{ERROR_TYPE, SERVICE_NAME};
use crate::store::spans::{SpanFilter, Spans};
use crate::tui::{ServiceRow, Summary};

/// Spans and log lines that a screen has room for.
const ROWS: usize = 50;

/// Takes pictures; rates are between one and the next.
pub struct Picture {
    listen: String,
    started: Instant,
    sources: Arc<[Arc<dyn Source>]>,
    health: Arc<Health>,
    spans: Arc<Spans>,
    last: Instant,
    last_records: u64,
    last_services: HashMap<String, Service>,
}

/// Server requests of one service since the start.
#[derive(Clone, Debug, Default)]
struct Service {
    requests: u64,
    errors: u64,
    bounds: Vec<f64>,
    counts: Vec<u64>,
}

impl Picture {
    pub fn new(config: &Config, sources: Arc<[Arc<dyn Source>]>, health: Arc<Health>, spans: Arc<Spans>) -> Self {
        let now = Instant::now();
        Self {
            listen: config.listen.to_string(),
            started: now,
            sources,
            health,
            spans,
            last: now,
            last_records: 0,
            last_services: HashMap::new(),
        }
    }

    /// The summary of now.
    pub fn take(&mut self) -> Summary {
        let now = Instant::now();
        let seconds = now.duration_since(self.last).as_secs_f64().max(0.001);
        let services = services(&gather(&self.sources));
        let rows = services.iter().map(|(name, service)| row(name, service, self.last_services.get(name), seconds));
        let rows = rows.collect();
        let records = self.health.stage(Stage::Collected).entered.load(std::sync::atomic::Ordering::Relaxed);
        let probes = self.health.probes();
        let wanted: Vec<_> = probes.iter().filter(|probe| probe.state != ProbeState::Disabled).collect();
        let summary = Summary {
            listen: self.listen.clone(),
            uptime: self.started.elapsed(),
            now_ns: clock::wall_ns(),
            not_ready: self.health.ready().err(),
            probes_active: wanted.iter().filter(|probe| probe.state == ProbeState::Active).count(),
            probes_total: wanted.len(),
            probes_wanting: wanted
                .iter()
                .filter(|probe| probe.state != ProbeState::Active)
                .map(|probe| format!("{}: {}", probe.program, probe.reason))
                .collect(),
            records_per_s: records.saturating_sub(self.last_records) as f64 / seconds,
            losses: self
                .health
                .drops()
                .into_iter()
                .filter(|(_, count)| *count > 0)
                .map(|((stage, reason), count)| (format!("{} {reason}", stage.name()), count))
                .collect(),
            services: rows,
            spans: self.spans.recent(&SpanFilter::default(), ROWS),
            log: logger::held(ROWS),
        };
        self.last = now;
        self.last_records = records;
        self.last_services = services;
        summary
    }
}

/// Adds up every server-side request histogram by service.
fn services(samples: &[Sample]) -> HashMap<String, Service> {
    let mut services: HashMap<String, Service> = HashMap::new();
    let server = samples.iter().filter(|sample| sample.metric.name.contains(".server."));
    for sample in server {
        let label = |name: &str| {
            let place = sample.metric.labels.iter().position(|label| *label == name)?;
            sample.labels.get(place).map(|value| &**value)
        };
        let (Some(name), Some(histogram)) = (label(SERVICE_NAME), sample.value.histogram()) else { continue };
        let service = services.entry(name.to_owned()).or_default();
        let requests: u64 = histogram.counts.iter().sum();
        service.requests += requests;
        if label(ERROR_TYPE).is_some_and(|error| !error.is_empty()) {
            service.errors += requests;
        }
        add(service, histogram);
    }
    services
}

fn add(service: &mut Service, histogram: &Histogram) {
    if service.bounds.is_empty() {
        service.bounds = histogram.bounds.to_vec();
        service.counts = vec![0; histogram.counts.len()];
    }
    for (sum, count) in service.counts.iter_mut().zip(&histogram.counts) {
        *sum += count;
    }
}

fn row(name: &str, now: &Service, before: Option<&Service>, seconds: f64) -> ServiceRow {
    let none = Service::default();
    let before = before.unwrap_or(&none);
    let gained: Vec<u64> = now
        .counts
        .iter()
        .enumerate()
        .map(|(index, count)| count.saturating_sub(before.counts.get(index).copied().unwrap_or(0)))
        .collect();
    ServiceRow {
        service: name.to_owned(),
        requests_per_s: now.requests.saturating_sub(before.requests) as f64 / seconds,
        errors_per_s: now.errors.saturating_sub(before.errors) as f64 / seconds,
        p50_ns: quantile(0.5, &now.bounds, &gained),
        p99_ns: quantile(0.99, &now.bounds, &gained),
    }
}

/// Upper bound of the bucket that holds the quantile, ns; `None` without observations or above the last bound.
fn quantile(share: f64, bounds: &[f64], counts: &[u64]) -> Option<u64> {
    let rank = (counts.iter().sum::<u64>() as f64 * share).ceil() as u64;
    if rank == 0 {
        return None;
    }
    let mut seen = 0;
    let place = counts.iter().position(|count| {
        seen += count;
        seen >= rank
    })?;
    bounds.get(place).map(|bound| (bound * 1e9) as u64)
}

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn a_quantile_is_the_bound_of_its_bucket() {
        let bounds = [0.001, 0.01, 0.1];
        assert_eq!(quantile(0.5, &bounds, &[5, 5, 0, 0]), Some(1_000_000));
        assert_eq!(quantile(0.99, &bounds, &[5, 5, 0, 0]), Some(10_000_000));
        assert_eq!(quantile(0.99, &bounds, &[0, 0, 0, 1]), None);
        assert_eq!(quantile(0.5, &bounds, &[0, 0, 0, 0]), None);
    }
}
