//! Counters, gauges and histograms that are observed in the agent itself, one series per label set.
//!
//! Bound: `series_limit` label sets per metric (default 2000), the rest is merged into one overflow series
//! and counted. Cost of a measurement on a known series: an uncontended lock, a keyed hash over the labels
//! and a comparison, no allocation. Label values come from the network, hence the keyed hash.
//! It reads no clock: idleness is counted from one call of [`Table::expire`] to the next.

use std::borrow::Cow;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use indexmap::Equivalent;

use super::{Config, prometheus_name};
use crate::model::exemplar::{Exemplars, Shown};
use crate::model::exponential::Exponential;
use crate::model::hashing::OrderedMap;
use crate::model::metric::{Histogram, Kind, LabelValues, Metric, Sample, Source, Value};
use crate::semconv::DURATION_BOUNDS;

pub static SERIES_OVERFLOW: Metric = Metric {
    name: "seismo.metric.series.overflow",
    unit: "{measurement}",
    kind: Kind::Counter,
    description: "Measurements that went to the overflow series because their metric had too many label sets",
    labels: &["metric"],
};

/// See the module's documentation.
#[derive(Debug)]
pub struct Table {
    config: Config,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    series: OrderedMap<Key, Series>,
    families: OrderedMap<&'static str, Family>,
}

/// What is known of a metric with at least one series, now or before.
#[derive(Debug)]
struct Family {
    metric: &'static Metric,
    label_sets: usize,
    overflowed: u64,
}

#[derive(Debug)]
struct Key {
    metric: &'static Metric,
    /// Empty for the overflow series of a metric that has labels.
    labels: Box<[Box<str>]>,
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.metric.name == other.metric.name && self.labels == other.labels
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash(self.metric, self.labels.iter().map(AsRef::as_ref), state);
    }
}

/// A key that borrows its labels, for looking up.
struct Seek<'a> {
    metric: &'static Metric,
    labels: &'a [&'a str],
}

impl Hash for Seek<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash(self.metric, self.labels.iter().copied(), state);
    }
}

impl Equivalent<Key> for Seek<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.metric.name == key.metric.name
            && self.labels.len() == key.labels.len()
            && self.labels.iter().zip(&key.labels).all(|(one, other)| **one == **other)
    }
}

fn hash<'a, H: Hasher>(metric: &Metric, labels: impl Iterator<Item = &'a str>, state: &mut H) {
    metric.name.hash(state);
    for label in labels {
        label.hash(state);
    }
}

#[derive(Debug)]
struct Series {
    value: Accumulator,
    /// Measured since the last look.
    touched: bool,
    /// First look that found nothing new.
    idle_since_ns: u64,
}

#[derive(Debug)]
enum Accumulator {
    Count(u64),
    Gauge(f64),
    Histogram { counts: Box<[u64; DURATION_BOUNDS.len() + 1]>, sum: f64, fine: Exponential, exemplars: Shown },
}

impl Accumulator {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Counter => Self::Count(0),
            Kind::Gauge => Self::Gauge(0.0),
            Kind::Histogram => Self::Histogram {
                counts: Box::new([0; DURATION_BOUNDS.len() + 1]),
                sum: 0.0,
                fine: Exponential::quarters(),
                exemplars: Shown::default(),
            },
        }
    }

    fn read(&self, metric: &Metric) -> Value {
        match self {
            Self::Count(ns) if metric.unit == "s" => Value::Float(*ns as f64 * 1e-9),
            Self::Count(count) => Value::Count(*count),
            Self::Gauge(value) => Value::Float(*value),
            Self::Histogram { counts, sum, fine, .. } => {
                let bounds = Cow::Borrowed(&DURATION_BOUNDS[..]);
                Value::Exponential(fine.clone(), Histogram { bounds, counts: counts.to_vec(), sum: *sum })
            }
        }
    }
}

/// Index of the classic bucket of a duration.
pub fn bucket(seconds: f64) -> u8 {
    const { assert!(DURATION_BOUNDS.len() < u8::MAX as usize) };
    DURATION_BOUNDS.partition_point(|bound| *bound < seconds) as u8
}

impl Table {
    pub fn new(config: Config) -> Self {
        Self { config, inner: Mutex::default() }
    }

    /// Adds to a counter, to one of seconds in ns. `labels` are values in the metric's order.
    pub fn add(&self, metric: &'static Metric, labels: &[&str], count: u64) {
        debug_assert_eq!(metric.kind, Kind::Counter, "{}", metric.name);
        self.measure(metric, labels, |value| {
            if let Accumulator::Count(sum) = value {
                *sum = sum.wrapping_add(count);
            }
        });
    }

    /// Sets a gauge.
    pub fn set(&self, metric: &'static Metric, labels: &[&str], to: f64) {
        debug_assert_eq!(metric.kind, Kind::Gauge, "{}", metric.name);
        self.measure(metric, labels, |value| {
            if let Accumulator::Gauge(present) = value {
                *present = to;
            }
        });
    }

    /// Counts a duration into a histogram with [`DURATION_BOUNDS`], and into an exponential one. Returns the exemplars of the
    /// series that took it.
    pub fn observe(&self, metric: &'static Metric, labels: &[&str], seconds: f64) -> Option<Shown> {
        debug_assert_eq!(metric.kind, Kind::Histogram, "{}", metric.name);
        self.measure(metric, labels, |value| {
            let Accumulator::Histogram { counts, sum, fine, exemplars } = value else { return None };
            if let Some(count) = counts.get_mut(usize::from(bucket(seconds))) {
                *count += 1;
            }
            *sum += seconds;
            fine.observe(seconds);
            Some(exemplars.clone())
        })
    }

    /// The exemplars whose spans have one of these numbers in the store of spans.
    pub fn exemplars(&self, stored: &Range<u64>) -> Exemplars {
        let mut out = Exemplars::default();
        for (key, series) in &self.lock().series {
            let Accumulator::Histogram { exemplars, .. } = &series.value else { continue };
            let there = exemplars.stored(stored);
            if !there.is_empty() {
                out.insert(key.metric, key.values(), there);
            }
        }
        out
    }

    /// Forgets series that were idle for longer than the configured time. Call it every minute or so.
    pub fn expire(&self, now_ns: u64) {
        let ttl_ns = self.config.ttl.as_ns();
        let mut inner = self.lock();
        let Inner { series, families } = &mut *inner;
        series.retain(|key, series| {
            if std::mem::take(&mut series.touched) {
                series.idle_since_ns = now_ns;
            }
            let keep = now_ns.saturating_sub(series.idle_since_ns) <= ttl_ns;
            if !keep
                && !key.is_overflow()
                && let Some(family) = families.get_mut(key.metric.name)
            {
                family.label_sets -= 1;
            }
            keep
        });
    }

    fn measure<R>(&self, metric: &'static Metric, labels: &[&str], apply: impl FnOnce(&mut Accumulator) -> R) -> R {
        debug_assert_eq!(labels.len(), metric.labels.len(), "{}", metric.name);
        let mut inner = self.lock();
        let series = match inner.series.get_index_of(&Seek { metric, labels }) {
            Some(index) => index,
            None => inner.admit(metric, labels, self.config.series_limit),
        };
        let series = &mut inner.series[series];
        series.touched = true;
        apply(&mut series.value)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Index of a new series, or of the overflow series when the metric is full.
    fn admit(&mut self, metric: &'static Metric, labels: &[&str], limit: usize) -> usize {
        let family =
            self.families.entry(metric.name).or_insert_with(|| Family { metric, label_sets: 0, overflowed: 0 });
        let labels = if labels.is_empty() || family.label_sets < limit {
            family.label_sets += 1;
            labels.iter().map(|label| Box::from(*label)).collect()
        } else {
            family.overflowed += 1;
            Box::default()
        };
        let entry = self.series.entry(Key { metric, labels });
        let index = entry.index();
        entry.or_insert_with(|| Series { value: Accumulator::new(metric.kind), touched: true, idle_since_ns: 0 });
        index
    }
}

impl Key {
    fn values(&self) -> LabelValues {
        self.labels.iter().map(|label| Cow::Owned(String::from(&**label))).collect()
    }

    fn is_overflow(&self) -> bool {
        self.labels.is_empty() && !self.metric.labels.is_empty()
    }
}

impl Source for Table {
    fn collect(&self, out: &mut Vec<Sample>) {
        let inner = self.lock();
        out.extend(inner.series.iter().map(|(key, series)| Sample {
            metric: key.metric,
            labels: key.values(),
            value: series.value.read(key.metric),
        }));
        out.extend(inner.families.values().filter(|family| !family.metric.labels.is_empty()).map(|family| Sample {
            metric: &SERIES_OVERFLOW,
            labels: vec![Cow::Owned(prometheus_name(family.metric))],
            value: Value::Count(family.overflowed),
        }));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::model::exemplar::Exemplar;
    use crate::model::span::{SpanId, TraceId};
    use crate::section::Interval;

    static CALLS: Metric = Metric {
        name: "test.calls",
        unit: "{call}",
        kind: Kind::Counter,
        description: "Calls",
        labels: &["route", "code"],
    };
    static TIME: Metric =
        Metric { name: "test.time", unit: "s", kind: Kind::Histogram, description: "Time", labels: &["route"] };
    static LEVEL: Metric =
        Metric { name: "test.level", unit: "1", kind: Kind::Gauge, description: "Level", labels: &[] };

    fn read(table: &Table, metric: &Metric) -> Vec<(Vec<String>, Value)> {
        let mut samples = Vec::new();
        table.collect(&mut samples);
        samples
            .into_iter()
            .filter(|sample| sample.metric == metric)
            .map(|sample| (sample.labels.iter().map(|label| label.to_string()).collect(), sample.value))
            .collect()
    }

    fn strings(labels: &[&str]) -> Vec<String> {
        labels.iter().map(|label| (*label).to_owned()).collect()
    }

    #[test]
    fn measurements_of_equal_labels_meet_in_one_series() {
        let table = Table::new(Config::default());
        table.add(&CALLS, &["/", "200"], 2);
        table.add(&CALLS, &["/", "500"], 1);
        table.add(&CALLS, &[&String::from("/"), "200"], 3);
        table.set(&LEVEL, &[], 0.5);
        table.set(&LEVEL, &[], 0.25);
        assert_eq!(
            read(&table, &CALLS),
            [(strings(&["/", "200"]), Value::Count(5)), (strings(&["/", "500"]), Value::Count(1))]
        );
        assert_eq!(read(&table, &LEVEL), [(vec![], Value::Float(0.25))]);
    }

    #[test]
    fn labels_that_only_join_alike_are_different_series() {
        let table = Table::new(Config::default());
        table.add(&CALLS, &["ab", "c"], 1);
        table.add(&CALLS, &["a", "bc"], 1);
        assert_eq!(read(&table, &CALLS).len(), 2);
    }

    #[test]
    fn a_duration_on_a_bound_counts_below_it() {
        let table = Table::new(Config::default());
        for seconds in [0.0001, 0.00011, 10.0, 10.1] {
            table.observe(&TIME, &["/"], seconds);
        }
        let (_, Value::Exponential(fine, histogram)) = read(&table, &TIME).remove(0) else { panic!("not a histogram") };
        assert_eq!((fine.count(), fine.counts.last()), (4, Some(&2)));
        assert_eq!(histogram.counts.len(), DURATION_BOUNDS.len() + 1);
        assert_eq!(histogram.counts[..2], [1, 1]);
        assert_eq!(histogram.counts[15..], [1, 1]);
        assert!((histogram.sum - 20.10021).abs() < 1e-12);
    }

    fn exemplar(value: f64, wall_ns: u64, place: u64) -> Exemplar {
        Exemplar { trace_id: TraceId([1; 16]), span_id: SpanId([2; 8]), value, wall_ns, place }
    }

    /// Bucket and number of each exemplar of the only series, or of the one that took the overflow.
    fn shown(table: &Table, stored: Range<u64>) -> Vec<(u8, u64)> {
        let exemplars = table.exemplars(&stored);
        let mut samples = Vec::new();
        table.collect(&mut samples);
        let all = samples.iter().flat_map(|sample| exemplars.of(sample));
        all.map(|(bucket, exemplar)| (*bucket, exemplar.place)).collect()
    }

    #[test]
    fn a_bucket_shows_its_newest_trace_as_long_as_the_span_is_stored() {
        let table = Table::new(Config::default());
        let observe = |seconds, wall_ns, place| {
            let series = table.observe(&TIME, &["/"], seconds).unwrap();
            series.show(bucket(seconds), exemplar(seconds, wall_ns, place));
        };
        for (seconds, wall_ns, place) in [(20.0, 5, 1), (0.0002, 7, 2), (0.00025, 6, 3), (0.0001, 8, 4)] {
            observe(seconds, wall_ns, place);
        }
        assert_eq!(shown(&table, 0..9), [(0, 4), (1, 2), (16, 1)]);
        assert_eq!(shown(&table, 2..4), [(1, 2)]);
        observe(0.00025, 9, 5);
        assert_eq!(shown(&table, 2..9), [(0, 4), (1, 5)]);
    }

    #[test]
    fn the_overflow_series_has_the_exemplars_of_what_it_took() {
        let table = Table::new(Config { series_limit: 1, ..Config::default() });
        let mut last = None;
        for (place, route) in ["/a", "/b", "/c"].into_iter().enumerate() {
            let series = table.observe(&TIME, &[route], 1.0).unwrap();
            series.show(bucket(1.0), exemplar(1.0, 1, place as u64));
            last = Some(series);
        }
        assert_eq!(shown(&table, 0..9), [(12, 0), (12, 2)]);
        table.expire(1);
        table.expire(u64::MAX);
        last.unwrap().show(12, exemplar(1.0, 2, 3));
        assert_eq!(shown(&table, 0..9), [], "of a series that is gone");
    }

    #[test]
    fn label_sets_above_the_limit_share_the_overflow_series_and_are_counted() {
        let table = Table::new(Config { series_limit: 2, ..Config::default() });
        for route in ["/a", "/b", "/c", "/d", "/c", "/a"] {
            table.add(&CALLS, &[route, "200"], 1);
        }
        assert_eq!(
            read(&table, &CALLS),
            [
                (strings(&["/a", "200"]), Value::Count(2)),
                (strings(&["/b", "200"]), Value::Count(1)),
                (vec![], Value::Count(3)),
            ]
        );
        assert_eq!(read(&table, &SERIES_OVERFLOW), [(strings(&["test_calls_total"]), Value::Count(3))]);
    }

    #[test]
    fn an_idle_series_expires_and_makes_room() {
        let minute = 60_000_000_000;
        let table = Table::new(Config { series_limit: 1, ttl: Interval::secs(3600), ..Config::default() });
        table.add(&CALLS, &["/a", "200"], 7);
        table.expire(1000 * minute);
        table.expire(1060 * minute);
        assert_eq!(read(&table, &CALLS).len(), 1, "an hour is not longer than an hour");
        table.add(&CALLS, &["/a", "200"], 1);
        table.expire(1061 * minute);
        table.expire(1121 * minute);
        assert_eq!(read(&table, &CALLS), [(strings(&["/a", "200"]), Value::Count(8))]);
        table.expire(1122 * minute);
        assert_eq!(read(&table, &CALLS), []);
        table.add(&CALLS, &["/b", "200"], 1);
        assert_eq!(read(&table, &CALLS), [(strings(&["/b", "200"]), Value::Count(1))]);
    }

    #[test]
    fn a_known_series_is_found_without_much_work() {
        let table = Table::new(Config::default());
        let rounds = 200_000;
        let start = std::time::Instant::now();
        for _ in 0..rounds {
            table.add(&CALLS, &["/api/v1/user/{id}", "200"], 1);
        }
        let per_call = start.elapsed() / rounds;
        println!("{per_call:?} per measurement");
        // Ten times the release budget: catches an allocation storm, not a busy machine.
        assert!(per_call < std::time::Duration::from_micros(5));
    }
}
