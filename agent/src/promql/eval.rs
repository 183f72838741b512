//! The value of an expression at one instant.
//!
//! Cost: one `select` per selector and a pass over what it returns; memory is the size of the vectors.

use super::aggregate;
use super::binary::{self, Binary};
use super::expr::{Expr, Node, Selector};
use super::value::{EvalError, Matrix, Point, Value, distinct};
use crate::store::Query;
use crate::store::query::is_stale;

/// An instant selector sees a sample that is less than this old.
pub(super) const LOOKBACK_MS: i64 = 5 * 60 * 1000;

/// Evaluates at `at_ms`, Unix time. An expression of range type gives the samples in its window.
pub fn eval_instant(expr: &Expr, query: &dyn Query, at_ms: i64) -> Result<Value, EvalError> {
    Evaluator { query, at_ms }.eval(&expr.root)
}

struct Evaluator<'a> {
    query: &'a dyn Query,
    at_ms: i64,
}

impl Evaluator<'_> {
    fn eval(&self, node: &Node) -> Result<Value, EvalError> {
        match node {
            Node::Number(number) => Ok(Value::Scalar(*number)),
            Node::Selector(selector) => Ok(Value::Vector(self.instant(selector))),
            Node::Range { selector, range_ms } => Ok(Value::Matrix(self.range(selector, *range_ms))),
            Node::Negate(of) => match self.eval(of)? {
                Value::Scalar(number) => Ok(Value::Scalar(-number)),
                Value::Vector(points) => {
                    let negated = points
                        .into_iter()
                        .map(|point| Point { labels: point.labels.without_name(), value: -point.value });
                    Ok(Value::Vector(distinct(negated.collect())?))
                }
                Value::Matrix(_) => Err(mistyped()),
            },
            Node::Aggregate { aggregation, grouping, of } => match self.eval(of)? {
                Value::Vector(points) => Ok(Value::Vector(aggregate::aggregate(aggregation, grouping, points))),
                Value::Scalar(_) | Value::Matrix(_) => Err(mistyped()),
            },
            Node::Call { function, arguments } => {
                let arguments = arguments.iter().map(|argument| self.eval(argument)).collect::<Result<Vec<_>, _>>()?;
                match (function.call)(&arguments).ok_or_else(mistyped)? {
                    Value::Vector(points) => Ok(Value::Vector(distinct(points)?)),
                    other => Ok(other),
                }
            }
            Node::Binary { op, return_bool, matching, left, right } => {
                let (left, right) = (self.eval(left)?, self.eval(right)?);
                self.binary(*op, *return_bool, matching, left, right)
            }
        }
    }

    fn binary(
        &self,
        op: Binary,
        return_bool: bool,
        matching: &binary::Matching,
        left: Value,
        right: Value,
    ) -> Result<Value, EvalError> {
        let points = match (left, right) {
            (Value::Scalar(left), Value::Scalar(right)) => return Ok(Value::Scalar(op.scalars(left, right))),
            (Value::Vector(left), Value::Scalar(right)) => {
                binary::with_scalar(op, return_bool, left, |value| op.apply(value, right))
            }
            (Value::Scalar(left), Value::Vector(right)) => {
                binary::with_scalar(op, return_bool, right, |value| op.apply(left, value))
            }
            (Value::Vector(left), Value::Vector(right)) if op.is_set() => {
                return Ok(Value::Vector(binary::set(op, matching, left, right)));
            }
            (Value::Vector(left), Value::Vector(right)) => binary::one_to_one(op, return_bool, matching, left, &right)?,
            _ => return Err(mistyped()),
        };
        Ok(Value::Vector(distinct(points)?))
    }

    fn instant(&self, selector: &Selector) -> Vec<Point> {
        let at_ms = self.at_ms.saturating_sub(selector.offset_ms);
        let mut points = Vec::new();
        self.query.select(&selector.matchers, at_ms.saturating_sub(LOOKBACK_MS), at_ms, &mut |labels, samples| {
            if let Some((_, value)) = samples.last()
                && !is_stale(*value)
            {
                points.push(Point { labels: labels.clone(), value: *value });
            }
        });
        points
    }

    fn range(&self, selector: &Selector, range_ms: i64) -> Matrix {
        let end_ms = self.at_ms.saturating_sub(selector.offset_ms);
        let start_ms = end_ms.saturating_sub(range_ms);
        let mut series = Vec::new();
        self.query.select(&selector.matchers, start_ms, end_ms, &mut |labels, samples| {
            let samples: Vec<(i64, f64)> = samples.iter().copied().filter(|(_, value)| !is_stale(*value)).collect();
            if !samples.is_empty() {
                series.push((labels.clone(), samples));
            }
        });
        Matrix { start_ms, end_ms, series }
    }
}

/// The parser checked all types; this says which promise was broken, should it ever happen.
fn mistyped() -> EvalError {
    EvalError("an operand has a type that its check should have refused".to_owned())
}
