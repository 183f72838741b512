//! The functions: one row each. A row says what goes in and what comes out; the parser checks calls by it.

use super::quantile::histogram_quantile;
use super::range::{Window, delta, increase, irate, rate};
use super::value::{Matrix, Point, Value, ValueType};

/// A row of [`FUNCTIONS`].
#[derive(Debug)]
pub(super) struct Function {
    pub name: &'static str,
    pub takes: &'static [ValueType],
    pub returns: ValueType,
    /// `None` when an argument has another type than `takes` says.
    pub call: fn(&[Value]) -> Option<Value>,
}

/// All functions, by name.
pub(super) static FUNCTIONS: &[Function] = &[
    Function { name: "delta", takes: &[ValueType::Matrix], returns: ValueType::Vector, call: |args| over(args, delta) },
    Function {
        name: "histogram_quantile",
        takes: &[ValueType::Scalar, ValueType::Vector],
        returns: ValueType::Vector,
        call: |args| match args {
            [Value::Scalar(quantile), Value::Vector(buckets)] => {
                Some(Value::Vector(histogram_quantile(*quantile, buckets)))
            }
            _ => None,
        },
    },
    Function {
        name: "increase",
        takes: &[ValueType::Matrix],
        returns: ValueType::Vector,
        call: |args| over(args, increase),
    },
    Function { name: "irate", takes: &[ValueType::Matrix], returns: ValueType::Vector, call: |args| over(args, irate) },
    Function { name: "rate", takes: &[ValueType::Matrix], returns: ValueType::Vector, call: |args| over(args, rate) },
];

pub(super) fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|function| function.name == name)
}

/// A function of each series' window; series for which it has no value are left out, names are dropped.
fn over(arguments: &[Value], function: fn(&Window<'_>) -> Option<f64>) -> Option<Value> {
    let [Value::Matrix(Matrix { start_ms, end_ms, series })] = arguments else { return None };
    let points = series.iter().filter_map(|(labels, samples)| {
        let window = Window { start_ms: *start_ms, end_ms: *end_ms, samples };
        Some(Point { labels: labels.without_name(), value: function(&window)? })
    });
    Some(Value::Vector(points.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_by_name() {
        assert!(FUNCTIONS.is_sorted_by_key(|function| function.name));
    }
}
