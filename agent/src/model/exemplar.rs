//! A trace that stands for the values of a histogram's bucket, as OpenMetrics has it.
//!
//! One a bucket at most, the newest. Kept beside the samples, not in them: pages in OpenMetrics and protobuf show it, and OTLP.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

/// The exemplars of one series, for who observed a value of it and names its trace later. A series that is gone shows none.
#[derive(Clone, Debug, Default)]
pub struct Shown(Arc<Mutex<Buckets>>);

impl Shown {
    /// A bucket shows the newest: scrapers refuse an exemplar that is older than the one they have.
    pub fn show(&self, bucket: u8, exemplar: Exemplar) {
        let mut buckets = self.lock();
        match buckets.binary_search_by_key(&bucket, |(bucket, _)| *bucket) {
            Ok(at) => {
                if let Some((_, present)) = buckets.get_mut(at)
                    && present.wall_ns <= exemplar.wall_ns
                {
                    *present = exemplar;
                }
            }
            Err(at) => buckets.insert(at, (bucket, exemplar)),
        }
    }

    /// Those whose spans have one of these numbers in the store of spans.
    pub fn stored(&self, numbers: &Range<u64>) -> Buckets {
        self.lock().iter().filter(|(_, exemplar)| numbers.contains(&exemplar.place)).copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Buckets> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of the same series.
impl PartialEq for Shown {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

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
