//! Binary operators: arithmetic, comparison as filter or as 0/1, sets, and one-to-one matching of vectors.

use std::collections::{HashMap, HashSet};

use super::value::{EvalError, Point};
use crate::store::Labels;
use crate::store::query::METRIC_NAME;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Power,
    Atan2,
    Equal,
    NotEqual,
    Greater,
    Less,
    GreaterOrEqual,
    LessOrEqual,
    And,
    Or,
    Unless,
}

impl Binary {
    pub fn find(symbol: &str) -> Option<Self> {
        Some(match symbol {
            "+" => Self::Add,
            "-" => Self::Subtract,
            "*" => Self::Multiply,
            "/" => Self::Divide,
            "%" => Self::Modulo,
            "^" => Self::Power,
            "atan2" => Self::Atan2,
            "==" => Self::Equal,
            "!=" => Self::NotEqual,
            ">" => Self::Greater,
            "<" => Self::Less,
            ">=" => Self::GreaterOrEqual,
            "<=" => Self::LessOrEqual,
            "and" => Self::And,
            "or" => Self::Or,
            "unless" => Self::Unless,
            _ => return None,
        })
    }

    pub const fn is_set(self) -> bool {
        matches!(self, Self::And | Self::Or | Self::Unless)
    }

    pub const fn is_comparison(self) -> bool {
        matches!(
            self,
            Self::Equal | Self::NotEqual | Self::Greater | Self::Less | Self::GreaterOrEqual | Self::LessOrEqual
        )
    }

    /// The result of arithmetic, the truth of a comparison.
    pub fn apply(self, left: f64, right: f64) -> Outcome {
        match self {
            Self::Add => Outcome::Number(left + right),
            Self::Subtract => Outcome::Number(left - right),
            Self::Multiply => Outcome::Number(left * right),
            Self::Divide => Outcome::Number(left / right),
            Self::Modulo => Outcome::Number(left % right),
            Self::Power => Outcome::Number(left.powf(right)),
            Self::Atan2 => Outcome::Number(left.atan2(right)),
            Self::Equal => Outcome::Truth(left == right),
            Self::NotEqual => Outcome::Truth(left != right),
            Self::Greater => Outcome::Truth(left > right),
            Self::Less => Outcome::Truth(left < right),
            Self::GreaterOrEqual => Outcome::Truth(left >= right),
            Self::LessOrEqual => Outcome::Truth(left <= right),
            // Sets look at labels alone; the evaluator never asks.
            Self::And | Self::Or | Self::Unless => Outcome::Truth(true),
        }
    }

    pub fn scalars(self, left: f64, right: f64) -> f64 {
        match self.apply(left, right) {
            Outcome::Number(number) => number,
            Outcome::Truth(truth) => f64::from(u8::from(truth)),
        }
    }
}

pub(super) enum Outcome {
    Number(f64),
    Truth(bool),
}

impl Outcome {
    /// The element's value: `kept` where a comparison filters, `None` where it filters it out.
    fn value(self, return_bool: bool, kept: f64) -> Option<f64> {
        match self {
            Self::Number(number) => Some(number),
            Self::Truth(truth) if return_bool => Some(f64::from(u8::from(truth))),
            Self::Truth(truth) => truth.then_some(kept),
        }
    }
}

/// Labels by which elements are compared or grouped.
#[derive(Clone, Debug)]
pub(super) enum Matching {
    /// `on (…)`, `by (…)`
    On(Vec<String>),
    /// `ignoring (…)`, `without (…)`; the metric name is always ignored.
    Ignoring(Vec<String>),
}

impl Matching {
    pub fn group(&self, labels: &Labels) -> Labels {
        let listed = |names: &[String], name: &str| names.iter().any(|listed| listed == name);
        match self {
            Self::On(names) => labels.filter(|name| listed(names, name)),
            Self::Ignoring(names) => labels.filter(|name| name != METRIC_NAME && !listed(names, name)),
        }
    }

    /// Labels of a one-to-one result; only a filtering comparison keeps the metric name.
    fn result(&self, labels: &Labels, keeps_name: bool) -> Labels {
        let listed = |names: &[String], name: &str| names.iter().any(|listed| listed == name);
        labels.filter(|name| {
            (keeps_name || name != METRIC_NAME)
                && match self {
                    Self::On(names) => listed(names, name),
                    Self::Ignoring(names) => !listed(names, name),
                }
        })
    }
}

/// A vector with a scalar on either side; a filter keeps the vector's value.
pub(super) fn with_scalar(
    op: Binary,
    return_bool: bool,
    points: Vec<Point>,
    apply: impl Fn(f64) -> Outcome,
) -> Vec<Point> {
    let keeps_name = op.is_comparison() && !return_bool;
    let result = |point: Point| {
        let value = apply(point.value).value(return_bool, point.value)?;
        let labels = if keeps_name { point.labels } else { point.labels.without_name() };
        Some(Point { labels, value })
    };
    points.into_iter().filter_map(result).collect()
}

/// Pairs elements with equal match labels. More than one on a side is an error.
pub(super) fn one_to_one(
    op: Binary,
    return_bool: bool,
    matching: &Matching,
    left: Vec<Point>,
    right: &[Point],
) -> Result<Vec<Point>, EvalError> {
    if left.is_empty() || right.is_empty() {
        return Ok(vec![]);
    }
    let mut partners: HashMap<Labels, &Point> = HashMap::with_capacity(right.len());
    for point in right {
        let group = matching.group(&point.labels);
        if let Some(other) = partners.insert(group.clone(), point) {
            return Err(EvalError(format!(
                "found duplicate series for the match group {group} on the right hand-side of the operation: \
                 [{}, {}];many-to-many matching not allowed: matching labels must be unique on one side",
                point.labels, other.labels
            )));
        }
    }
    let keeps_name = op.is_comparison() && !return_bool;
    let mut matched = HashSet::new();
    let mut points = Vec::new();
    for point in left {
        let group = matching.group(&point.labels);
        let Some(partner) = partners.get(&group) else { continue };
        let Some(value) = op.apply(point.value, partner.value).value(return_bool, point.value) else { continue };
        if !matched.insert(group) {
            let message = "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)";
            return Err(EvalError(message.to_owned()));
        }
        points.push(Point { labels: matching.result(&point.labels, keeps_name), value });
    }
    Ok(points)
}

/// `and`, `or`, `unless`: by match labels, any number on each side, elements unchanged.
pub(super) fn set(op: Binary, matching: &Matching, left: Vec<Point>, right: Vec<Point>) -> Vec<Point> {
    let groups = |points: &[Point]| points.iter().map(|point| matching.group(&point.labels)).collect::<HashSet<_>>();
    let within = |groups: &HashSet<Labels>, point: &Point| groups.contains(&matching.group(&point.labels));
    match op {
        Binary::And => {
            let others = groups(&right);
            left.into_iter().filter(|point| within(&others, point)).collect()
        }
        Binary::Unless => {
            let others = groups(&right);
            left.into_iter().filter(|point| !within(&others, point)).collect()
        }
        _ => {
            let own = groups(&left);
            left.into_iter().chain(right.into_iter().filter(|point| !within(&own, point))).collect()
        }
    }
}
