//! What a metric is and what a measured value looks like, before any exposition format.
//!
//! Names are OpenTelemetry's (dotted, with a UCUM unit); the Prometheus spelling is derived in `metrics`.

use std::borrow::Cow;

use super::exponential::Exponential;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Monotonic sum since the agent started.
    Counter,
    Gauge,
    Histogram,
}

/// Definition of a metric: one `static` beside the code that fills it, listed in the metrics registry.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// Dotted name (`http.server.request.duration`).
    pub name: &'static str,
    /// UCUM: `s`, `By`, `1`, or an annotation such as `{request}`.
    pub unit: &'static str,
    pub kind: Kind,
    /// One sentence, ends without a full stop.
    pub description: &'static str,
    /// Dotted label names, in the order in which values are given.
    pub labels: &'static [&'static str],
}

/// Values of a metric's labels, in its order.
pub type LabelValues = Vec<Cow<'static, str>>;

/// A cumulative histogram as measured. `counts` has one entry more than `bounds` (the last is +Inf).
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// Inclusive upper bounds, ascending, in the metric's unit.
    pub bounds: Cow<'static, [f64]>,
    /// Observations in each bucket (not cumulative over buckets).
    pub counts: Vec<u64>,
    pub sum: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Whole counts stay exact up to 2^64.
    Count(u64),
    Float(f64),
    Histogram(Histogram),
    /// With the classic buckets that show the same.
    Exponential(Exponential, Histogram),
}

impl Value {
    /// The classic buckets of a histogram.
    pub const fn histogram(&self) -> Option<&Histogram> {
        match self {
            Self::Histogram(histogram) | Self::Exponential(_, histogram) => Some(histogram),
            Self::Count(_) | Self::Float(_) => None,
        }
    }
}

/// A measured value of one series; cumulative since start for counters and histograms.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub metric: &'static Metric,
    /// Empty although the metric has labels: the series that took what was above the cardinality limit.
    pub labels: LabelValues,
    pub value: Value,
}

/// Whatever can be asked for its present values: kernel maps, the request table, the agent's own health.
pub trait Source: Send + Sync {
    /// Appends one sample per series. Errors are counted by the source and shown as absent series.
    fn collect(&self, out: &mut Vec<Sample>);
}
