//! Since when each cumulative series has been counted, as OTLP wants it said of every point.
//!
//! Series of the first export were counted since the agent began; one that appears later since the export before, when it
//! was not there, and one whose value went down as well. Metrics that the kernel had been counting before the agent began
//! have an unknown beginning: said as OpenTelemetry has it, by the time of their first point. Memory: some 50 bytes a
//! series, and only those of the last export. Keyed hash, since labels come from the network.
//!
//! And what was added to each since the export before ([`Starts::added`]), for receivers that want deltas. That takes the
//! value beside (a histogram's buckets), and series that are not there are remembered for [`ABSENT`] exports: one whose
//! source could not be read for a moment would be sent twice.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};

use crate::model::exponential::Exponential;
use crate::model::metric::{Histogram, Sample, Value};

/// Exports for which the last value of a series is known that is gone.
const ABSENT: u64 = 5;

#[derive(Debug)]
struct Known {
    start_ns: u64,
    /// What has been counted, of a histogram the observations.
    total: f64,
    /// As it was at the last export, at `seen_ns`, where the next is to say what was added.
    last: Option<Value>,
    seen_ns: u64,
    round: u64,
}

#[derive(Debug)]
pub(super) struct Starts {
    hasher: RandomState,
    known: HashMap<u64, Known>,
    /// Of metrics that are older than the agent.
    older: HashSet<&'static str>,
    /// When everything that is new now was not there yet.
    before_ns: u64,
    round: u64,
}

impl Starts {
    /// `began_ns`: Unix time at which the agent began to count. `older`: names of metrics that count since before.
    pub(super) fn new(began_ns: u64, older: impl IntoIterator<Item = &'static str>) -> Self {
        Self {
            hasher: RandomState::new(),
            known: HashMap::new(),
            older: older.into_iter().collect(),
            before_ns: began_ns,
            round: 0,
        }
    }

    /// Unix time since which a sample's value, of a counter or a histogram, has been counted.
    pub(super) fn of(&mut self, sample: &Sample, now_ns: u64) -> u64 {
        self.known(sample, now_ns).start_ns
    }

    /// What was added to a sample's value since it was exported last, and when that was. Of a metric that is older than the
    /// agent nothing, the first time; of one that went down all there is: it was counted anew.
    pub(super) fn added(&mut self, sample: &Sample, now_ns: u64) -> (u64, Value) {
        let is_older = self.older.contains(sample.metric.name);
        let known = self.known(sample, now_ns);
        let last = match known.last.replace(sample.value.clone()) {
            None if is_older => Some(sample.value.clone()),
            last => last,
        };
        let added = last.and_then(|last| since(&sample.value, &last)).unwrap_or_else(|| sample.value.clone());
        (std::mem::replace(&mut known.seen_ns, now_ns), added)
    }

    fn known(&mut self, sample: &Sample, now_ns: u64) -> &mut Known {
        let total = match &sample.value {
            Value::Count(count) => *count as f64,
            Value::Float(value) => *value,
            Value::Histogram(histogram) => histogram.counts.iter().sum::<u64>() as f64,
            Value::Exponential(native, _) => native.count() as f64,
        };
        let (before_ns, round) = (self.before_ns, self.round);
        let fresh_ns = if self.older.contains(sample.metric.name) { now_ns } else { before_ns };
        let key = self.hasher.hash_one((sample.metric.name, &sample.labels));
        let fresh = Known { start_ns: fresh_ns, total, last: None, seen_ns: fresh_ns, round };
        let known = self.known.entry(key).or_insert(fresh);
        if total < known.total {
            known.start_ns = before_ns;
        }
        (known.total, known.round) = (total, round);
        known
    }

    /// Every series was asked about: the others are gone.
    pub(super) fn end(&mut self, now_ns: u64) {
        let round = self.round;
        self.known.retain(|_, known| round - known.round <= if known.last.is_some() { ABSENT } else { 0 });
        (self.before_ns, self.round) = (now_ns, round + 1);
    }
}

/// `None`: `last` is not what `now` was before.
fn since(now: &Value, last: &Value) -> Option<Value> {
    match (now, last) {
        (Value::Count(now), Value::Count(last)) => now.checked_sub(*last).map(Value::Count),
        (Value::Float(now), Value::Float(last)) => (now >= last).then_some(Value::Float(now - last)),
        (Value::Histogram(now), Value::Histogram(last)) => between(now, last).map(Value::Histogram),
        (Value::Exponential(now, bounds), Value::Exponential(last, last_bounds)) => {
            Some(Value::Exponential(between_native(now, last)?, between(bounds, last_bounds)?))
        }
        _ => None,
    }
}

fn between(now: &Histogram, last: &Histogram) -> Option<Histogram> {
    if now.bounds != last.bounds || now.counts.len() != last.counts.len() {
        return None;
    }
    let pairs = now.counts.iter().zip(&last.counts);
    let counts = pairs.map(|(now, last)| now.checked_sub(*last)).collect::<Option<_>>()?;
    Some(Histogram { bounds: now.bounds.clone(), counts, sum: now.sum - last.sum })
}

fn between_native(now: &Exponential, last: &Exponential) -> Option<Exponential> {
    if (now.schema, now.zero_threshold) != (last.schema, last.zero_threshold) {
        return None;
    }
    let mut counts = now.counts.clone();
    for (place, count) in last.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let index = i64::from(last.first) + i64::try_from(place).ok()? - i64::from(now.first);
        let slot = counts.get_mut(usize::try_from(index).ok()?)?;
        *slot = slot.checked_sub(*count)?;
    }
    Some(Exponential { zero: now.zero.checked_sub(last.zero)?, counts, ..now.clone() })
}

#[cfg(test)]
mod tests {
    use super::Starts;
    use crate::model::exponential::Exponential;
    use crate::model::metric::{Histogram, Kind, Metric, Sample, Value};

    static CALLS: Metric =
        Metric { name: "calls", unit: "{call}", kind: Kind::Counter, description: "C", labels: &["route"] };
    static BOOT: Metric = Metric { name: "boot", unit: "s", kind: Kind::Counter, description: "B", labels: &["route"] };

    fn sample(metric: &'static Metric, route: &'static str, value: u64) -> Sample {
        Sample { metric, labels: vec![route.into()], value: Value::Count(value) }
    }

    #[test]
    fn a_series_counts_since_it_was_last_seen_not_to_be_there() {
        let mut starts = Starts::new(100, ["boot"]);
        let mut export = |now_ns, samples: &[Sample]| {
            let found: Vec<_> = samples.iter().map(|sample| starts.of(sample, now_ns)).collect();
            starts.end(now_ns);
            found
        };
        let [a, b] = [|value| sample(&CALLS, "/a", value), |value| sample(&CALLS, "/b", value)];
        assert_eq!(export(200, &[a(5), sample(&BOOT, "", 70)]), [100, 200]);
        assert_eq!(export(300, &[a(5), b(1), sample(&BOOT, "", 71)]), [100, 200, 200]);
        assert_eq!(export(400, &[a(4), b(1)]), [300, 200], "a value that went down was counted anew");
        assert_eq!(export(500, &[b(1)]), [200]);
        assert_eq!(export(600, &[a(9), b(1)]), [500, 200], "it was gone for an export");
    }

    #[test]
    fn only_the_series_of_the_last_export_are_remembered() {
        let mut starts = Starts::new(0, []);
        for round in 0..10 {
            (0..100).for_each(|value| _ = starts.of(&sample(&CALLS, "/", value), round));
            starts.end(round);
        }
        assert_eq!(starts.known.len(), 1);
        starts.end(11);
        assert_eq!(starts.known.len(), 0);
    }

    #[test]
    fn a_delta_is_what_was_added_since_the_series_was_last_there() {
        let mut starts = Starts::new(100, ["boot"]);
        let mut export = |now_ns, samples: &[Sample]| {
            let found: Vec<_> = samples.iter().map(|sample| starts.added(sample, now_ns)).collect();
            starts.end(now_ns);
            found
        };
        let count = Value::Count;
        let [a, b] = [|value| sample(&CALLS, "/a", value), |value| sample(&CALLS, "/b", value)];
        assert_eq!(export(200, &[a(5), sample(&BOOT, "", 70)]), [(100, count(5)), (200, count(0))]);
        assert_eq!(
            export(300, &[a(5), b(1), sample(&BOOT, "", 71)]),
            [(200, count(0)), (200, count(1)), (200, count(1))]
        );
        assert_eq!(export(400, &[a(4)]), [(300, count(4))], "a value that went down was counted anew");
        assert_eq!(export(500, &[b(3)]), [(300, count(2))], "its source could not be read");
        (6..=11).for_each(|at| assert!(export(at * 100, &[]).is_empty()));
        assert_eq!(export(1200, &[b(3)]), [(1100, count(3))], "forgotten");
    }

    #[test]
    fn deltas_of_histograms_add_up_to_what_was_observed() {
        let all = |values: &[f64]| {
            let mut native = Exponential::quarters();
            values.iter().for_each(|value| native.observe(*value));
            let high = values.iter().filter(|value| **value > 2.0).count() as u64;
            let counts = vec![values.len() as u64 - high, high];
            let classic = Histogram { bounds: vec![2.0].into(), counts, sum: values.iter().sum() };
            Sample { metric: &CALLS, labels: vec!["/".into()], value: Value::Exponential(native, classic) }
        };
        let mut starts = Starts::new(0, []);
        let values = [1.0, 3.0, 0.0, 0.001, 1.0, 4096.0];
        for (now_ns, range) in [(1, 0..2), (2, 2..2), (3, 2..6)] {
            let (_, added) = starts.added(&all(&values[..range.end]), now_ns);
            starts.end(now_ns);
            let (Value::Exponential(seen, classic), Value::Exponential(expected, _)) =
                (added, all(&values[range.clone()]).value)
            else {
                panic!("another kind");
            };
            let buckets = |native: &Exponential| -> Vec<(i32, u64)> {
                let indexed = native.counts.iter().enumerate().map(|(at, count)| (native.first + at as i32, *count));
                indexed.filter(|(_, count)| *count > 0).collect()
            };
            assert_eq!((buckets(&seen), seen.zero), (buckets(&expected), expected.zero), "{range:?}");
            assert_eq!(classic.sum, values[range.clone()].iter().sum::<f64>(), "{range:?}");
            assert_eq!(classic.counts.iter().sum::<u64>() as usize, range.len());
        }
        // A coarser one is another: everything is told again.
        let coarser = Exponential { schema: 1, ..Exponential::quarters() };
        let classic = Histogram { bounds: vec![2.0].into(), counts: vec![9, 0], sum: 9.0 };
        let value = Value::Exponential(coarser, classic);
        let sample = Sample { metric: &CALLS, labels: vec!["/".into()], value: value.clone() };
        assert_eq!(starts.added(&sample, 4).1, value);
    }
}
