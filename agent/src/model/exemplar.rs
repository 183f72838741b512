//! A trace that stands for the values of a histogram's bucket, as OpenMetrics has it.
//!
//! One a bucket at most, the newest. Kept beside the samples, not in them: pages in OpenMetrics and protobuf show it, and OTLP.

use std::collections::HashMap;

use super::metric::{LabelValues, Metric, Sample};
use super::span::{SpanId, TraceId};

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exemplar {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    /// What was observed, in the metric's unit.
    pub value: f64,
    /// Unix time of the observation, ns.
    pub wall_ns: u64,
    /// The span's number in the store of spans.
    pub place: u64,
}

/// Exemplars by the index of their bucket, ascending; the last index is that of +Inf.
pub type Buckets = Vec<(u8, Exemplar)>;

/// The exemplars of a page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exemplars(HashMap<&'static str, HashMap<LabelValues, Buckets>>);

impl Exemplars {
    pub fn insert(&mut self, metric: &'static Metric, labels: LabelValues, buckets: Buckets) {
        self.0.entry(metric.name).or_default().insert(labels, buckets);
    }

    /// Those of a sample's series.
    pub fn of(&self, sample: &Sample) -> &[(u8, Exemplar)] {
        let series = self.0.get(sample.metric.name).and_then(|series| series.get(&sample.labels));
        series.map_or(&[], Vec::as_slice)
    }
}
