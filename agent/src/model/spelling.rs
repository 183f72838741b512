//! Prometheus spelling of OpenTelemetry names, derived and never typed: dots become underscores, the unit
//! becomes a suffix, counters end in `_total`.
//!
//! Follows OpenTelemetry's compatibility rules: an annotation unit (`{request}`) adds nothing, `1` is
//! `_ratio` on gauges only, a suffix that the name already ends with is not repeated. Allocates one string
//! per name; callers cache it per metric, not per sample.

use std::borrow::Cow;
use std::fmt;

use super::metric::{Kind, Metric, Sample};
use crate::semconv::OTEL_METRIC_OVERFLOW;

/// UCUM units that metrics may have, and their suffixes.
const UNITS: [(&str, &str); 4] = [("s", "seconds"), ("By", "bytes"), ("Hz", "hertz"), ("Cel", "celsius")];

/// A metric's name in the parts that an exposition format needs apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spelling {
    /// Without the unit's suffix and without `_total`.
    pub base: String,
    pub unit: Option<&'static str>,
    pub kind: Kind,
}

impl Spelling {
    pub fn of(metric: &Metric) -> Self {
        let name = label_name(metric.name);
        let unit = match metric.unit {
            "1" if metric.kind == Kind::Gauge => Some("ratio"),
            unit => UNITS.iter().find(|(ucum, _)| *ucum == unit).map(|(_, suffix)| *suffix),
        };
        let stem = unit.and_then(|unit| name.strip_suffix(unit)?.strip_suffix('_')).unwrap_or(&name);
        Self { base: stem.to_owned(), unit, kind: metric.kind }
    }

    /// Name of the family: base and unit (what OpenMetrics calls the metric).
    pub fn family(&self) -> String {
        match self.unit {
            Some(unit) => format!("{}_{unit}", self.base),
            None => self.base.clone(),
        }
    }
}

impl fmt::Display for Spelling {
    /// The name that a query uses; histograms add `_bucket`, `_sum` and `_count` to it.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = if self.kind == Kind::Counter { "_total" } else { "" };
        write!(out, "{}{total}", self.family())
    }
}

/// The name that a query uses (`http.server.request.duration` in `s` → `http_server_request_duration_seconds`).
pub fn prometheus_name(metric: &Metric) -> String {
    Spelling::of(metric).to_string()
}

/// `http.route` → `http_route`; borrowed when nothing changes.
pub fn label_name(dotted: &str) -> Cow<'_, str> {
    let bad = |character: char| !(character.is_ascii_alphanumeric() || character == '_');
    if dotted.contains(bad) { Cow::Owned(dotted.replace(bad, "_")) } else { Cow::Borrowed(dotted) }
}

/// Whether the metric's unit has a spelling.
pub fn knows_unit(unit: &str) -> bool {
    unit == "1" || (unit.starts_with('{') && unit.ends_with('}')) || UNITS.iter().any(|(ucum, _)| *ucum == unit)
}

/// A sample's labels, dotted names. An empty value is no label, as in Prometheus' data model.
pub fn labels(sample: &Sample) -> impl Iterator<Item = (&'static str, &str)> {
    let overflow = sample.labels.is_empty() && !sample.metric.labels.is_empty();
    let named = sample.metric.labels.iter().zip(&sample.labels).map(|(name, value)| (*name, value.as_ref()));
    named.filter(|(_, value)| !value.is_empty()).chain(overflow.then_some((OTEL_METRIC_OVERFLOW, "true")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &'static str, unit: &'static str, kind: Kind, expected: &str) {
        let metric = Metric { name, unit, kind, description: "", labels: &[] };
        assert_eq!(prometheus_name(&metric), expected);
    }

    #[test]
    fn prometheus_names_follow_from_name_unit_and_kind() {
        check("seismo.syscalls", "{call}", Kind::Counter, "seismo_syscalls_total");
        check("seismo.socket.io", "By", Kind::Counter, "seismo_socket_io_bytes_total");
        check("process.cpu.time", "s", Kind::Counter, "process_cpu_time_seconds_total");
        check("seismo.probe.run", "s", Kind::Counter, "seismo_probe_run_seconds_total");
        check("http.server.request.duration", "s", Kind::Histogram, "http_server_request_duration_seconds");
        check("seismo.metric.series", "{series}", Kind::Gauge, "seismo_metric_series");
    }

    #[test]
    fn a_ratio_is_spelled_on_gauges_only() {
        check("seismo.pipeline.fill", "1", Kind::Gauge, "seismo_pipeline_fill_ratio");
        check("seismo.things", "1", Kind::Counter, "seismo_things_total");
    }

    #[test]
    fn a_unit_that_the_name_ends_with_is_not_repeated() {
        check("seismo.workload.bytes", "By", Kind::Counter, "seismo_workload_bytes_total");
        check("seismo.pressure.waiting_seconds", "s", Kind::Counter, "seismo_pressure_waiting_seconds_total");
        // Not a suffix of its own: only a whole word counts.
        check("seismo.kilobytes", "By", Kind::Gauge, "seismo_kilobytes_bytes");
    }

    #[test]
    fn label_names_lose_their_dots() {
        assert_eq!(label_name("http.response.status_code"), "http_response_status_code");
        assert!(matches!(label_name("device"), Cow::Borrowed("device")));
    }

    #[test]
    fn empty_labels_are_left_out_and_overflow_is_marked() {
        static METRIC: Metric =
            Metric { name: "a.b", unit: "1", kind: Kind::Gauge, description: "", labels: &["x.y", "z"] };
        let sample = |labels: &[&'static str]| Sample {
            metric: &METRIC,
            labels: labels.iter().map(|label| Cow::Borrowed(*label)).collect(),
            value: super::super::metric::Value::Count(1),
        };
        assert_eq!(labels(&sample(&["1", ""])).collect::<Vec<_>>(), [("x.y", "1")]);
        assert_eq!(labels(&sample(&[])).collect::<Vec<_>>(), [("otel.metric.overflow", "true")]);
    }
}
