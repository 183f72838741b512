//! What may be a metric: the check that every definition of the agent passes together, run by a test.
//!
//! A definition is a `static` beside the code that fills it; this file lists those of `metrics` itself and
//! checks lists that other units hand in. It keeps nothing at run time.

use std::collections::BTreeMap;

use super::{gather, health, process, requests, table};
use crate::model::metric::{Kind, Metric};
use crate::model::spelling::{knows_unit, label_name, prometheus_name};

/// Every metric that this unit fills.
pub static OWN: &[&Metric] = &[
    &gather::SERIES,
    &health::BUILD_INFO,
    &health::HEAP,
    &health::PIPELINE_RECORDS,
    &health::PROBE_RUN,
    &health::PROBE_MISSED,
    &health::CPU_UNCOUNTED,
    &health::PROBE_RUNS,
    &health::PROBE_STATE,
    &health::PROBE_TIER,
    &health::RECORDS_DROPPED,
    &process::CPU,
    &process::MAX_FDS,
    &process::OPEN_FDS,
    &process::RESIDENT_MEMORY,
    &process::START_TIME,
    &process::THREADS,
    &process::VIRTUAL_MEMORY,
    &requests::INCOMPLETE_EXCHANGES,
    &table::SERIES_OVERFLOW,
];

/// Says everything that is wrong with a set of definitions, one sentence each.
pub fn check_definitions<'a>(metrics: impl IntoIterator<Item = &'a Metric>) -> Vec<String> {
    let mut problems = Vec::new();
    let mut known: BTreeMap<String, &Metric> = BTreeMap::new();
    for metric in metrics {
        let name = prometheus_name(metric);
        problems.extend(check_one(metric).into_iter().map(|problem| format!("{}: {problem}", metric.name)));
        match known.get(&name) {
            Some(other) if *other != metric => problems.push(format!(
                "{}: its Prometheus name {name} belongs to another definition, {}",
                metric.name, other.name
            )),
            _ => _ = known.insert(name, metric),
        }
    }
    problems
}

fn check_one(metric: &Metric) -> Vec<String> {
    let mut problems = Vec::new();
    let words = |name: &str| {
        name.starts_with(|first: char| first.is_ascii_lowercase())
            && name.chars().all(|each| each.is_ascii_lowercase() || each.is_ascii_digit() || "._".contains(each))
    };
    if !words(metric.name) {
        problems.push("the name has more than a-z, 0-9, dots and underscores".to_owned());
    }
    if !knows_unit(metric.unit) {
        problems.push(format!("the unit {:?} has no Prometheus spelling", metric.unit));
    }
    let description = metric.description;
    if description.is_empty() || description.ends_with('.') || description.contains(['\n', '\\']) {
        problems.push("the description is one line, not empty, without a full stop at its end".to_owned());
    }
    for (index, label) in metric.labels.iter().enumerate() {
        let reserved = match metric.kind {
            Kind::Histogram => *label == "le",
            Kind::Counter | Kind::Gauge => *label == "quantile",
        };
        if !words(label) || reserved || label.starts_with("__") {
            problems.push(format!("{label:?} can't be a label"));
        }
        if metric.labels[..index].iter().any(|other| label_name(other) == label_name(label)) {
            problems.push(format!("the label {label:?} is there twice"));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_definitions_are_sound_and_sorted() {
        assert_eq!(check_definitions(OWN.iter().copied()), Vec::<String>::new());
        assert!(OWN.iter().all(|metric| !metric.name.ends_with("_total")));
    }

    #[test]
    fn what_is_wrong_with_a_definition_is_said() {
        let good = Metric { name: "a.b", unit: "s", kind: Kind::Counter, description: "Time", labels: &["x.y"] };
        assert!(check_definitions([&good, &good]).is_empty());
        let cases = [
            (Metric { name: "a_b", labels: &[], ..copy(&good) }, "a_b: its Prometheus name a_b_seconds_total belongs"),
            (Metric { name: "A.b", ..copy(&good) }, "the name has more"),
            (Metric { unit: "furlong", name: "c", ..copy(&good) }, "the unit \"furlong\" has no"),
            (Metric { description: "Ends.", name: "d", ..copy(&good) }, "the description is one line"),
            (Metric { labels: &["x.y", "x_y"], name: "e", ..copy(&good) }, "\"x_y\" is there twice"),
            (Metric { labels: &["le"], name: "f", kind: Kind::Histogram, ..copy(&good) }, "\"le\" can't be a label"),
        ];
        for (bad, expected) in &cases {
            let problems = check_definitions([&good, bad]);
            assert!(problems.len() == 1 && problems.iter().all(|text| text.contains(expected)), "{problems:?}");
        }
    }

    fn copy(metric: &Metric) -> Metric {
        Metric {
            name: metric.name,
            unit: metric.unit,
            kind: metric.kind,
            description: metric.description,
            labels: metric.labels,
        }
    }
}
