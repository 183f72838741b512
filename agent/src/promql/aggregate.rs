//! Aggregations: one row each, over the groups that `by` and `without` make.
//!
//! Sums are compensated (Kahan–Neumaier), as in Prometheus: the order of the series does not matter.

use indexmap::IndexMap;

use super::binary::Matching;
use super::value::Point;
use crate::store::Labels;

/// A row of [`AGGREGATIONS`].
#[derive(Debug)]
pub(super) struct Aggregation {
    pub name: &'static str,
    /// Value of a group; it has at least one element.
    fold: fn(&[f64]) -> f64,
}

/// All aggregations, by name.
pub(super) static AGGREGATIONS: &[Aggregation] = &[
    Aggregation { name: "avg", fold: average },
    Aggregation { name: "count", fold: |values| values.len() as f64 },
    Aggregation { name: "max", fold: |values| extreme(values, |value, best| value > best) },
    Aggregation { name: "min", fold: |values| extreme(values, |value, best| value < best) },
    Aggregation { name: "sum", fold: sum },
];

pub(super) fn find(name: &str) -> Option<&'static Aggregation> {
    AGGREGATIONS.iter().find(|aggregation| aggregation.name == name)
}

/// One element per group, in the order in which groups were met.
pub(super) fn aggregate(aggregation: &Aggregation, grouping: &Matching, points: Vec<Point>) -> Vec<Point> {
    let mut groups: IndexMap<Labels, Vec<f64>> = IndexMap::new();
    for point in points {
        groups.entry(grouping.group(&point.labels)).or_default().push(point.value);
    }
    groups.into_iter().map(|(labels, values)| Point { labels, value: (aggregation.fold)(&values) }).collect()
}

/// The best value; NaN only when there is nothing else.
fn extreme(values: &[f64], better: fn(f64, f64) -> bool) -> f64 {
    let pick = |best: f64, value: f64| if best.is_nan() || better(value, best) { value } else { best };
    values.iter().copied().fold(f64::NAN, pick)
}

fn sum(values: &[f64]) -> f64 {
    let (mut sum, mut lost) = (0.0f64, 0.0f64);
    for value in values {
        let next = sum + value;
        if next.is_infinite() {
            lost = 0.0;
        } else if sum.abs() >= value.abs() {
            lost += (sum - next) + value;
        } else {
            lost += (value - next) + sum;
        }
        sum = next;
    }
    if sum.is_infinite() { sum } else { sum + lost }
}

/// The mean; where the sum would overflow, the mean of the parts.
fn average(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let total = sum(values);
    if total.is_infinite() && values.iter().all(|value| value.is_finite()) {
        return sum(&values.iter().map(|value| value / count).collect::<Vec<_>>());
    }
    total / count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_by_name() {
        assert!(AGGREGATIONS.is_sorted_by_key(|aggregation| aggregation.name));
    }
}
