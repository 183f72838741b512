//! `histogram_quantile` over classic buckets, with linear interpolation inside the bucket.

use indexmap::IndexMap;

use super::value::Point;
use crate::store::Labels;
use crate::store::query::{BUCKET_LABEL, METRIC_NAME};

/// Relative difference of two counts below which they are one number with rounding errors.
const SMALL_DELTA: f64 = 1e-12;

#[derive(Clone, Copy, Debug)]
struct Bucket {
    upper_bound: f64,
    /// Observations up to the bound.
    count: f64,
}

/// One quantile per histogram; series without a readable `le` are left out.
pub(super) fn histogram_quantile(quantile: f64, points: &[Point]) -> Vec<Point> {
    let mut histograms: IndexMap<Labels, Vec<Bucket>> = IndexMap::new();
    for point in points {
        if let Ok(upper_bound) = point.labels.get(BUCKET_LABEL).parse() {
            let labels = point.labels.filter(|name| name != BUCKET_LABEL && name != METRIC_NAME);
            histograms.entry(labels).or_default().push(Bucket { upper_bound, count: point.value });
        }
    }
    let value = |(labels, buckets)| Point { labels, value: bucket_quantile(quantile, buckets) };
    histograms.into_iter().map(value).collect()
}

fn bucket_quantile(quantile: f64, mut buckets: Vec<Bucket>) -> f64 {
    if quantile.is_nan() {
        return f64::NAN;
    } else if quantile < 0.0 {
        return f64::NEG_INFINITY;
    } else if quantile > 1.0 {
        return f64::INFINITY;
    }
    buckets.sort_by(|one, other| one.upper_bound.total_cmp(&other.upper_bound));
    if buckets.last().is_none_or(|last| last.upper_bound != f64::INFINITY) {
        return f64::NAN;
    }
    merge_equal_bounds(&mut buckets);
    make_monotonic(&mut buckets);
    let [finite @ .., last] = buckets.as_slice() else { return f64::NAN };
    let Some(highest) = finite.last() else { return f64::NAN };
    if last.count == 0.0 || last.count.is_nan() {
        return f64::NAN;
    }
    let rank = quantile * last.count;
    let index = finite.partition_point(|bucket| bucket.count < rank);
    let Some(bucket) = finite.get(index) else { return highest.upper_bound };
    let below = index.checked_sub(1).and_then(|below| finite.get(below));
    match below {
        None if bucket.upper_bound <= 0.0 => bucket.upper_bound,
        below => {
            let (start, less) = below.map_or((0.0, 0.0), |below| (below.upper_bound, below.count));
            start + (bucket.upper_bound - start) * ((rank - less) / (bucket.count - less))
        }
    }
}

/// Different spellings of one bound (`1`, `1.0`) are one bucket.
fn merge_equal_bounds(buckets: &mut Vec<Bucket>) {
    buckets.dedup_by(|later, first| {
        let same = later.upper_bound == first.upper_bound;
        if same {
            first.count += later.count;
        }
        same
    });
}

/// Counts that were not read at one instant may go down from bucket to bucket.
fn make_monotonic(buckets: &mut [Bucket]) {
    let mut highest = buckets.first().map_or(0.0, |bucket| bucket.count);
    for bucket in buckets.iter_mut().skip(1) {
        let small = (bucket.count - highest).abs() / (bucket.count.abs() + highest.abs()) < SMALL_DELTA;
        if bucket.count < highest || small {
            bucket.count = highest;
        }
        highest = bucket.count;
    }
}
