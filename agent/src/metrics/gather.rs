//! All sources asked at once: the samples that one page or one evaluation sees.
//!
//! Sorted by metric name, in each source's own order within a metric. Adds `seismo.metric.series`, so that
//! the size of the page is on the page. Cost: one stable sort over what is nearly sorted already.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::Arc;

use crate::model::metric::{Kind, Metric, Sample, Source, Value};
use crate::model::spelling::prometheus_name;

pub static SERIES: Metric = Metric {
    name: "seismo.metric.series",
    unit: "{series}",
    kind: Kind::Gauge,
    description: "Series that each metric has at present",
    labels: &["metric"],
};

/// The present value of every series of every source.
pub fn gather(sources: &[Arc<dyn Source>]) -> Vec<Sample> {
    let mut samples = Vec::new();
    for source in sources {
        source.collect(&mut samples);
    }
    // Most neighbours are of one metric: names are compared only where they are not.
    samples.sort_by(|one, other| match std::ptr::eq(one.metric, other.metric) {
        true => Ordering::Equal,
        false => one.metric.name.cmp(other.metric.name),
    });
    let sizes: Vec<Sample> = samples
        .chunk_by(|one, other| std::ptr::eq(one.metric, other.metric) || one.metric.name == other.metric.name)
        .filter_map(|family| Some((family.first()?.metric, family.len())))
        .map(|(metric, series)| Sample {
            metric: &SERIES,
            labels: vec![Cow::Owned(prometheus_name(metric))],
            value: Value::Count(series as u64),
        })
        .collect();
    let place = samples.partition_point(|sample| sample.metric.name < SERIES.name);
    samples.splice(place..place, sizes);
    samples
}

#[cfg(test)]
mod tests {
    use super::*;

    static ZEBRAS: Metric =
        Metric { name: "zebras", unit: "{animal}", kind: Kind::Gauge, description: "Zebras", labels: &["herd"] };
    static ANTS: Metric =
        Metric { name: "ants", unit: "{animal}", kind: Kind::Counter, description: "Ants", labels: &[] };

    struct Zoo(&'static str);

    impl Source for Zoo {
        fn collect(&self, out: &mut Vec<Sample>) {
            let herd = Cow::Borrowed(self.0);
            out.push(Sample { metric: &ZEBRAS, labels: vec![herd], value: Value::Count(1) });
            if self.0 == "north" {
                out.push(Sample { metric: &ANTS, labels: vec![], value: Value::Count(9) });
            }
        }
    }

    #[test]
    fn samples_of_all_sources_come_sorted_by_metric_with_their_number() {
        let samples = gather(&[Arc::new(Zoo("south")), Arc::new(Zoo("north"))]);
        let seen: Vec<String> = samples
            .iter()
            .map(|sample| format!("{}{:?} {:?}", sample.metric.name, sample.labels, sample.value))
            .collect();
        assert_eq!(
            seen,
            [
                r#"ants[] Count(9)"#,
                r#"seismo.metric.series["ants_total"] Count(1)"#,
                r#"seismo.metric.series["zebras"] Count(2)"#,
                r#"zebras["south"] Count(1)"#,
                r#"zebras["north"] Count(1)"#,
            ]
        );
    }
}
