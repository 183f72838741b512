//! Expressions over stored samples for queries: first what an expression reads is copied out of the store, then it is
//! evaluated, at one instant or at the steps of a range, without the store.
//!
//! The store is held for one pass per selector, however many steps follow. Bounds: [`MAX_SAMPLES`] samples copied and
//! as many points made, [`MAX_STEPS`] steps; the caller may end it between two steps. Cost of a step: two binary
//! searches a series, then that of the expression's functions over their windows.

use std::collections::HashMap;
use std::fmt;

use super::eval::{LOOKBACK_MS, eval_instant};
use super::expr::Expr;
use super::value::{EvalError, Value};
use crate::store::{Labels, Matcher, Query, Visit};

/// Samples read at most by one query, and points in its result.
pub const MAX_SAMPLES: usize = 2_000_000;
/// Steps of a range at most.
pub const MAX_STEPS: i64 = 11_000;

/// A series with its points, `(Unix ms, value)`.
pub type Series = (Labels, Vec<(i64, f64)>);

/// The instants at which an expression is evaluated, Unix ms: `start_ms`, then each `step_ms` up to `end_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps {
    pub start_ms: i64,
    pub end_ms: i64,
    /// At least 1.
    pub step_ms: i64,
}

/// Why a query has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryError {
    Evaluation(EvalError),
    /// More samples than [`MAX_SAMPLES`].
    TooMany,
    /// The caller ended it.
    Stopped,
}

impl fmt::Display for QueryError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Evaluation(error) => error.fmt(out),
            Self::TooMany => write!(out, "the query would take more than {MAX_SAMPLES} samples"),
            Self::Stopped => out.write_str("query timed out in expression evaluation"),
        }
    }
}

impl std::error::Error for QueryError {}

/// The samples that one expression reads, by selector.
pub struct Selected<'e> {
    expr: &'e Expr,
    selections: Vec<(&'e [Matcher], Vec<Series>)>,
}

impl<'e> Selected<'e> {
    /// Copies what `expr` can read when it is evaluated from `start_ms` to `end_ms`.
    pub fn read(expr: &'e Expr, query: &dyn Query, start_ms: i64, end_ms: i64) -> Result<Self, QueryError> {
        let mut selections = Vec::new();
        let mut room = MAX_SAMPLES;
        let mut too_many = false;
        expr.root.visit(&mut |selector, range_ms| {
            let after_ms = start_ms.saturating_sub(selector.offset_ms).saturating_sub(range_ms.max(LOOKBACK_MS));
            let until_ms = end_ms.saturating_sub(selector.offset_ms);
            let mut found = Vec::new();
            query.select(&selector.matchers, after_ms, until_ms, &mut |labels, samples| match room
                .checked_sub(samples.len())
            {
                Some(left) if !too_many => {
                    room = left;
                    found.push((labels.clone(), samples.to_vec()));
                }
                _ => too_many = true,
            });
            selections.push((selector.matchers.as_slice(), found));
        });
        if too_many { Err(QueryError::TooMany) } else { Ok(Self { expr, selections }) }
    }

    /// The value at one instant between those of [`Selected::read`]; series over time in the order of their labels.
    pub fn at(&self, at_ms: i64) -> Result<Value, QueryError> {
        let mut value = eval_instant(self.expr, self, at_ms).map_err(QueryError::Evaluation)?;
        if let Value::Matrix(found) = &mut value {
            found.series.sort_by(|(one, _), (other, _)| one.cmp(other));
        }
        Ok(value)
    }

    /// The values at each step, as series in the order of their labels. `enough` is asked before each step.
    pub fn over(&self, steps: Steps, enough: &dyn Fn() -> bool) -> Result<Vec<Series>, QueryError> {
        let mut places: HashMap<Labels, usize> = HashMap::new();
        let mut series: Vec<Series> = Vec::new();
        let mut room = MAX_SAMPLES;
        let mut add = |labels: Labels, at_ms: i64, value: f64| {
            room = room.checked_sub(1).ok_or(QueryError::TooMany)?;
            let place = *places.entry(labels.clone()).or_insert_with(|| {
                series.push((labels, Vec::new()));
                series.len() - 1
            });
            if let Some((_, points)) = series.get_mut(place) {
                points.push((at_ms, value));
            }
            Ok(())
        };
        let mut at_ms = steps.start_ms;
        while at_ms <= steps.end_ms {
            if enough() {
                return Err(QueryError::Stopped);
            }
            match self.at(at_ms)? {
                Value::Scalar(value) => add(Labels::default(), at_ms, value)?,
                Value::Vector(points) => {
                    points.into_iter().try_for_each(|point| add(point.labels, at_ms, point.value))?;
                }
                Value::Matrix(_) => {
                    return Err(QueryError::Evaluation(EvalError("a range vector has no value at a step".to_owned())));
                }
            }
            at_ms = at_ms.saturating_add(steps.step_ms.max(1));
        }
        series.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(series)
    }
}

impl Query for Selected<'_> {
    fn select(&self, matchers: &[Matcher], after_ms: i64, until_ms: i64, visit: &mut Visit<'_>) {
        // A selector of the expression is known by its place in memory: each has been read on its own.
        let found = self.selections.iter().find(|(of, _)| std::ptr::eq(*of, matchers));
        for (labels, samples) in found.into_iter().flat_map(|(_, series)| series) {
            let from = samples.partition_point(|(time, _)| *time <= after_ms);
            let until = samples.partition_point(|(time, _)| *time <= until_ms);
            if let Some(window) = samples.get(from..until).filter(|window| !window.is_empty()) {
                visit(labels, window);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::promql::parse;
    use crate::store::query::{METRIC_NAME, selects};

    /// One sample of `up{n="…"}` every 10 s from 0, value its number.
    struct Made(usize, i64);

    impl Query for Made {
        fn select(&self, matchers: &[Matcher], after_ms: i64, until_ms: i64, visit: &mut Visit<'_>) {
            for number in 0..self.0 {
                let labels = Labels::new([(METRIC_NAME, "up".to_owned()), ("n", number.to_string())]);
                let samples = (0..self.1).map(|index| (index * 10_000, index as f64));
                let window: Vec<_> = samples.filter(|(time, _)| after_ms < *time && *time <= until_ms).collect();
                if selects(matchers, &labels) && !window.is_empty() {
                    visit(&labels, &window);
                }
            }
        }
    }

    type Shown = Vec<(String, Vec<(i64, f64)>)>;

    fn over(text: &str, store: &dyn Query, steps: Steps) -> Result<Shown, QueryError> {
        let expr = parse(text).unwrap();
        let series = Selected::read(&expr, store, steps.start_ms, steps.end_ms)?.over(steps, &|| false)?;
        Ok(series.into_iter().map(|(labels, points)| (labels.to_string(), points)).collect())
    }

    const STEPS: Steps = Steps { start_ms: 60_000, end_ms: 100_000, step_ms: 20_000 };

    #[test]
    fn each_step_has_the_value_that_the_same_instant_has() {
        let store = Made(2, 100);
        for text in ["up", "sum(up) * 2", "rate(up[30s])", "up{n=\"0\"} - on() up{n=\"1\"} offset 20s", "3", "-up"] {
            let expr = parse(text).unwrap();
            let mut points = 0;
            for (labels, series) in over(text, &store, STEPS).unwrap() {
                for (at_ms, value) in series {
                    let alone = match eval_instant(&expr, &store, at_ms).unwrap() {
                        Value::Scalar(value) => value,
                        Value::Vector(found) => {
                            found.iter().find(|point| point.labels.to_string() == labels).unwrap().value
                        }
                        Value::Matrix(_) => f64::NAN,
                    };
                    assert_eq!(value, alone, "{text} at {at_ms}");
                    points += 1;
                }
            }
            assert!(points >= 3, "{text}");
        }
    }

    #[test]
    fn series_stand_in_the_order_of_their_labels_with_only_the_steps_that_have_a_value() {
        let found = over("up > 7", &Made(2, 100), STEPS).unwrap();
        let points = vec![(80_000, 8.0), (100_000, 10.0)];
        assert_eq!(found, [("up{n=\"0\"}".to_owned(), points.clone()), ("up{n=\"1\"}".to_owned(), points)]);
        let none = over("up", &Made(0, 0), STEPS).unwrap();
        assert_eq!(none, []);
    }

    #[test]
    fn what_would_take_too_much_memory_is_refused_before_it_does() {
        let long = Steps { start_ms: 0, end_ms: 40_000_000, step_ms: 20_000_000 };
        assert_eq!(over("up", &Made(600, 4000), long), Err(QueryError::TooMany));
        let many = Steps { start_ms: 0, end_ms: 290_000, step_ms: 29 };
        assert_eq!(over("up", &Made(300, 30), many), Err(QueryError::TooMany));
    }

    #[test]
    fn a_query_ends_between_two_steps_when_it_is_told_to() {
        let expr = parse("up").unwrap();
        let selected = Selected::read(&expr, &Made(1, 9), 0, 60_000).unwrap();
        let asked = std::cell::Cell::new(0);
        let enough = || asked.replace(asked.get() + 1) == 2;
        let steps = Steps { start_ms: 0, end_ms: 60_000, step_ms: 10_000 };
        assert_eq!(selected.over(steps, &enough), Err(QueryError::Stopped));
    }
}
