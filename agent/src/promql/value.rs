//! What an expression evaluates to.

use std::collections::HashSet;
use std::fmt;

use crate::store::Labels;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    Scalar,
    Vector,
    Matrix,
}

impl ValueType {
    /// As Prometheus' error messages call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Vector => "instant vector",
            Self::Matrix => "range vector",
        }
    }
}

/// One element of an instant vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    pub labels: Labels,
    pub value: f64,
}

/// Series over a window: `start_ms < t <= end_ms`. No staleness markers, no empty series.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    pub start_ms: i64,
    pub end_ms: i64,
    pub series: Vec<(Labels, Vec<(i64, f64)>)>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Scalar(f64),
    Vector(Vec<Point>),
    Matrix(Matrix),
}

/// Why an expression that is sound has no value over the present series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalError(pub String);

impl fmt::Display for EvalError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for EvalError {}

/// Dropping names or labels may have made two elements the same.
pub(super) fn distinct(points: Vec<Point>) -> Result<Vec<Point>, EvalError> {
    let mut seen = HashSet::with_capacity(points.len());
    match points.iter().find(|point| !seen.insert(&point.labels)) {
        Some(twice) => {
            Err(EvalError(format!("vector cannot contain metrics with the same labelset: {}", twice.labels)))
        }
        None => Ok(points),
    }
}
