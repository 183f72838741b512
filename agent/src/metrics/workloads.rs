//! Values of single workloads to series with the labels that the configuration chose.
//!
//! Workloads whose chosen labels are the same are added up: counts, levels and histograms alike. At most `limit` series a
//! metric, those that came first; the values of the others are one series, marked as overflow. Pure; one hash of the labels a
//! value.

use std::borrow::Cow;

use indexmap::IndexMap;

use crate::model::metric::{Histogram, LabelValues, Metric, Sample, Value};
use crate::model::workload::{WorkloadLabel, WorkloadSample};

/// Adds up `samples` and appends the series. Their metrics' labels begin with those of [`crate::workload_labels`].
pub fn by_workload(
    samples: impl IntoIterator<Item = WorkloadSample>,
    chosen: &[WorkloadLabel],
    limit: usize,
    out: &mut Vec<Sample>,
) {
    let mut metrics: IndexMap<&'static str, (&'static Metric, IndexMap<LabelValues, Value>)> = IndexMap::new();
    for WorkloadSample { workload, sample } in samples {
        let (_, series) = metrics.entry(sample.metric.name).or_insert_with(|| (sample.metric, IndexMap::new()));
        let mut labels: LabelValues = match &workload {
            Some(workload) => WorkloadLabel::ALL
                .map(|label| if chosen.contains(&label) { workload.label(label) } else { "" })
                .map(|value| Cow::Owned(value.to_owned()))
                .into(),
            None => Vec::new(),
        };
        if !labels.is_empty() {
            labels.extend(sample.labels);
            if series.len() >= limit && !series.contains_key(&labels) {
                labels.clear();
            }
        }
        match series.get_mut(&labels) {
            Some(sum) => add(sum, sample.value),
            None => _ = series.insert(labels, sample.value),
        }
    }
    out.extend(
        metrics.into_values().flat_map(|(metric, series)| {
            series.into_iter().map(move |(labels, value)| Sample { metric, labels, value })
        }),
    );
}

/// Values of one metric are of one form; histograms of one metric have the same bounds.
fn add(sum: &mut Value, more: Value) {
    match (sum, more) {
        (Value::Count(sum), Value::Count(more)) => *sum = sum.saturating_add(more),
        (Value::Float(sum), Value::Float(more)) => *sum += more,
        (Value::Histogram(sum), Value::Histogram(more)) => add_buckets(sum, &more),
        (Value::Exponential(sum, classic), Value::Exponential(more, more_classic)) => {
            sum.add(&more);
            add_buckets(classic, &more_classic);
        }
        (sum, more) => debug_assert!(false, "{sum:?} and {more:?} are not added"),
    }
}

fn add_buckets(sum: &mut Histogram, more: &Histogram) {
    debug_assert_eq!(sum.bounds, more.bounds);
    sum.counts.iter_mut().zip(&more.counts).for_each(|(sum, more)| *sum += more);
    sum.sum += more.sum;
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::metric::Kind;
    use crate::model::workload::Workload;
    use crate::workload_labels;

    static STARTS: Metric = Metric {
        name: "test.starts",
        unit: "{start}",
        kind: Kind::Counter,
        description: "Starts",
        labels: workload_labels!["how"],
    };

    fn workload(service: &str, cgroup: &str) -> Arc<Workload> {
        let pod_name = Some("web-1".to_owned());
        Arc::new(Workload {
            service_name: service.to_owned(),
            cgroup: cgroup.to_owned(),
            pod_name,
            ..Workload::default()
        })
    }

    fn sample(workload: Option<&Arc<Workload>>, how: &'static str, value: Value) -> WorkloadSample {
        let sample = Sample { metric: &STARTS, labels: vec![how.into()], value };
        WorkloadSample { workload: workload.cloned(), sample }
    }

    fn lines(samples: Vec<WorkloadSample>, chosen: &[WorkloadLabel], limit: usize) -> Vec<String> {
        let mut out = Vec::new();
        by_workload(samples, chosen, limit, &mut out);
        out.iter().map(|sample| format!("{} {:?}", sample.labels.join(","), sample.value)).collect()
    }

    #[test]
    fn workloads_with_the_same_chosen_labels_are_one_series() {
        let (one, other) = (workload("shop", "/a"), workload("shop", "/b"));
        let samples = || {
            vec![
                sample(Some(&one), "fork", Value::Count(1)),
                sample(Some(&other), "fork", Value::Count(2)),
                sample(Some(&other), "exec", Value::Count(4)),
            ]
        };
        use WorkloadLabel::{Cgroup, K8sPodName, ServiceName};
        assert_eq!(lines(samples(), &[ServiceName], 9), ["shop,,,,,fork Count(3)", "shop,,,,,exec Count(4)"]);
        assert_eq!(
            lines(samples(), &[Cgroup, K8sPodName], 9),
            [",,,web-1,/a,fork Count(1)", ",,,web-1,/b,fork Count(2)", ",,,web-1,/b,exec Count(4)"]
        );
        assert_eq!(lines(samples(), &[], 9), [",,,,,fork Count(3)", ",,,,,exec Count(4)"]);
    }

    #[test]
    fn what_is_above_the_limit_is_in_the_overflow_series_and_nothing_is_lost() {
        let workloads: Vec<_> = (0..5).map(|number| workload(&format!("job-{number}"), "/")).collect();
        let mut samples: Vec<_> =
            workloads.iter().map(|workload| sample(Some(workload), "fork", Value::Count(10))).collect();
        samples.push(sample(None, "fork", Value::Count(1)));
        samples.push(sample(Some(&workloads[0]), "fork", Value::Count(5)));
        assert_eq!(
            lines(samples, &[WorkloadLabel::ServiceName], 2),
            ["job-0,,,,,fork Count(15)", "job-1,,,,,fork Count(10)", " Count(31)"]
        );
    }

    #[test]
    fn histograms_and_levels_are_added_up_too() {
        let one = workload("shop", "/");
        let histogram = |counts: [u64; 2], sum| {
            Value::Histogram(Histogram { bounds: vec![1.0].into(), counts: counts.to_vec(), sum })
        };
        let samples = vec![
            sample(Some(&one), "a", histogram([1, 2], 0.5)),
            sample(Some(&one), "a", histogram([3, 4], 1.5)),
            sample(Some(&one), "b", Value::Float(0.5)),
            sample(Some(&one), "b", Value::Float(0.25)),
        ];
        let mut out = Vec::new();
        by_workload(samples, &[], 9, &mut out);
        assert_eq!(
            out.into_iter().map(|sample| sample.value).collect::<Vec<_>>(),
            [histogram([4, 6], 2.0), Value::Float(0.75)]
        );
    }
}
