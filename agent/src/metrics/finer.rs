//! Classic buckets as narrow as the configuration wants them, for histograms whose counts are exponential.
//!
//! Families choose few buckets, since each is a series for every workload or system call; native histograms keep all that
//! the kernel tells apart. Here the classic ones are made again from those, between the same ends and not narrower.

use std::sync::Arc;

use crate::model::metric::{Sample, Source, Value};

/// A source with other classic buckets.
pub struct Finer {
    source: Arc<dyn Source>,
    octaves: usize,
}

impl Finer {
    /// `octaves` a bucket; 0: as the source makes them.
    pub fn over(source: Arc<dyn Source>, octaves: usize) -> Arc<dyn Source> {
        if octaves == 0 { source } else { Arc::new(Self { source, octaves }) }
    }
}

impl Source for Finer {
    fn collect(&self, out: &mut Vec<Sample>) {
        let before = out.len();
        self.source.collect(out);
        for sample in out.iter_mut().skip(before) {
            if let Value::Exponential(native, classic) = &mut sample.value
                && let Some((first, last)) = classic.bounds.first().zip(classic.bounds.last())
            {
                let exponent = |bound: f64| bound.log2().round() as i32;
                // Never narrower than what was told apart.
                let octaves = self.octaves.next_multiple_of(native.octaves_per_bucket());
                *classic = native.classic(exponent(*first)..=exponent(*last), octaves, classic.sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::exponential::Exponential;
    use crate::model::metric::{Kind, Metric};

    static WAIT: Metric = Metric { name: "wait", unit: "s", kind: Kind::Histogram, description: "W", labels: &[] };

    struct Coarse;

    impl Source for Coarse {
        fn collect(&self, out: &mut Vec<Sample>) {
            let native = Exponential::of_lanes(&[1, 2, 3, 4, 5], 0, -3);
            let classic = native.classic(-3..=1, 4, 7.0);
            out.push(Sample { metric: &WAIT, labels: vec![], value: Value::Exponential(native, classic) });
        }
    }

    fn classic(octaves: usize) -> (Vec<f64>, Vec<u64>) {
        let mut out = Vec::new();
        Finer::over(Arc::new(Coarse), octaves).collect(&mut out);
        let found = out.first().and_then(|sample| sample.value.histogram());
        found.map(|histogram| (histogram.bounds.to_vec(), histogram.counts.clone())).unwrap_or_default()
    }

    #[test]
    fn buckets_are_as_wide_as_asked_for_and_keep_every_observation() {
        assert_eq!(classic(0), (vec![0.125, 2.0], vec![1, 14, 0]));
        assert_eq!(classic(2), (vec![0.125, 0.5, 2.0], vec![1, 5, 9, 0]));
        assert_eq!(classic(1), (vec![0.125, 0.25, 0.5, 1.0, 2.0], vec![1, 2, 3, 4, 5, 0]));
    }
}
