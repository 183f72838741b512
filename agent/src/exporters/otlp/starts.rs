//! Since when each cumulative series has been counted, as OTLP wants it said of every point.
//!
//! Series of the first export were counted since the agent began; one that appears later since the export before, when it
//! was not there, and one whose value went down as well. Metrics that the kernel had been counting before the agent began
//! have an unknown beginning: said as OpenTelemetry has it, by the time of their first point. Memory: some 40 bytes a
//! series, and only those of the last export. Keyed hash, since labels come from the network.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};

use crate::model::metric::{Sample, Value};

#[derive(Debug)]
struct Known {
    start_ns: u64,
    value: f64,
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
        let value = match &sample.value {
            Value::Count(count) => *count as f64,
            Value::Float(value) => *value,
            Value::Histogram(histogram) => histogram.counts.iter().sum::<u64>() as f64,
            Value::Exponential(native, _) => native.count() as f64,
        };
        let (before_ns, round) = (self.before_ns, self.round);
        let fresh_ns = if self.older.contains(sample.metric.name) { now_ns } else { before_ns };
        let key = self.hasher.hash_one((sample.metric.name, &sample.labels));
        let known = self.known.entry(key).or_insert(Known { start_ns: fresh_ns, value, round });
        if value < known.value {
            known.start_ns = before_ns;
        }
        (known.value, known.round) = (value, round);
        known.start_ns
    }

    /// Every series was asked about: the others are gone.
    pub(super) fn end(&mut self, now_ns: u64) {
        let round = self.round;
        self.known.retain(|_, known| known.round == round);
        (self.before_ns, self.round) = (now_ns, round + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::Starts;
    use crate::model::metric::{Kind, Metric, Sample, Value};

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
}
