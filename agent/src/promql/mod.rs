//! PromQL: text to a checked expression, and its value over anything that answers `store::Query`.
//!
//! [`parse`] refuses, by name, whatever the evaluator does not have yet, so that nothing fails later on
//! that could have been said when the file was read. Semantics are those of Prometheus 3 (ranges and the
//! five-minute lookback are open at their start). To add a function: one row in `functions.rs`; an
//! aggregation: one row in `aggregate.rs`.

mod aggregate;
mod binary;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod cases;
mod eval;
mod expr;
mod functions;
mod guard;
mod parse;
mod quantile;
mod range;
mod steps;
mod value;

pub use eval::eval_instant;
pub use expr::Expr;
pub use parse::{ParseError, parse, parse_duration};
pub use steps::{MAX_STEPS, QueryError, Selected, Series, Steps};
pub use value::{EvalError, Point, Value, ValueType};
