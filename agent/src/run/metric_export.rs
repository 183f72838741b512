//! All metrics on their way out over OTLP: at an interval every source is asked, as for a page, and what it says is sent.
//!
//! Gathering and encoding run off the thread that serves; a look that takes longer than the interval delays the next one. The
//! last look is after everything has ended, so that the final counts are sent. Nothing of this runs unless an endpoint is
//! configured.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use crate::clock;
use crate::config::Config;
use crate::exporters::otlp::OtlpMetrics;
use crate::exporters::{Account, Items, otlp};
use crate::host::kernel_files;
use crate::metrics::{CPU_TIME, Table, gather};
use crate::model::metric::Source;
use crate::store::spans::Spans;

/// How long sending may take once the agent stops.
const GRACE: Duration = Duration::from_millis(500);

/// Handles to what is looked at.
#[derive(Clone)]
pub struct Looked {
    pub sources: Arc<[Arc<dyn Source>]>,
    pub table: Arc<Table>,
    pub spans: Arc<Spans>,
}

pub struct MetricExport {
    config: otlp::Config,
    account: Arc<Account>,
    host_name: String,
    began_ns: u64,
}

impl MetricExport {
    /// `None` where metrics are not sent. Series are said to count from now on.
    pub fn new(config: &Config, host_name: Option<String>) -> Option<Self> {
        config.export.otlp.takes_metrics().then(|| Self {
            config: config.export.otlp.clone(),
            account: Arc::new(Account::new("otlp", Items::Points)),
            host_name: host_name.unwrap_or_default(),
            began_ns: clock::wall_ns(),
        })
    }

    /// The exporter's own metrics.
    pub fn source(&self) -> Arc<dyn Source> {
        Arc::clone(&self.account) as Arc<dyn Source>
    }

    /// Looks and sends until the agent has stopped.
    pub async fn run(self, looked: Looked, mut stopped: watch::Receiver<bool>) {
        let older = kernel_files::METRICS.iter().map(|metric| metric.name).chain([CPU_TIME.name]);
        let mut otlp = match OtlpMetrics::start(&self.config, self.account, &self.host_name, self.began_ns, older) {
            Ok(Some(otlp)) => otlp,
            Ok(None) => return,
            Err(error) => return log::error!("metrics are not exported: {error}"),
        };
        let interval = self.config.metrics.interval.0;
        let mut every = tokio::time::interval_at(Instant::now() + interval, interval);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut end = false;
        while !end {
            tokio::select! {
                _ = every.tick() => {}
                _ = stopped.wait_for(|stopped| *stopped) => end = true,
            }
            let looked = looked.clone();
            let look = tokio::task::spawn_blocking(move || {
                // Before the counts, so that each stands for a value that is counted.
                let exemplars = looked.table.exemplars(&looked.spans.held());
                otlp.take(&gather(&looked.sources), &exemplars, clock::wall_ns());
                otlp
            });
            otlp = match look.await {
                Ok(otlp) => otlp,
                Err(error) => return log::error!("the export of metrics stopped: {error}"),
            };
        }
        let unsent = otlp.finish(GRACE).await;
        if unsent > 0 {
            log::warn!("{unsent} points of metrics could not be sent before the end");
        }
    }
}
