//! A checked expression: every node can be evaluated, every argument has the right type.

use super::aggregate::Aggregation;
use super::binary::{Binary, Matching};
use super::functions::Function;
use super::value::ValueType;
use crate::store::Matcher;

/// See [`super::parse`].
#[derive(Clone, Debug)]
pub struct Expr {
    pub(super) root: Node,
    pub(super) text: String,
}

#[derive(Clone, Debug)]
pub(super) struct Selector {
    pub matchers: Vec<Matcher>,
    /// Positive looks back.
    pub offset_ms: i64,
}

#[derive(Clone, Debug)]
pub(super) enum Node {
    Number(f64),
    Selector(Selector),
    Range { selector: Selector, range_ms: i64 },
    Negate(Box<Node>),
    Binary { op: Binary, return_bool: bool, matching: Matching, left: Box<Node>, right: Box<Node> },
    Aggregate { aggregation: &'static Aggregation, grouping: Matching, of: Box<Node> },
    Call { function: &'static Function, arguments: Vec<Node> },
}

impl Node {
    pub fn value_type(&self) -> ValueType {
        match self {
            Self::Number(_) => ValueType::Scalar,
            Self::Selector(_) | Self::Aggregate { .. } => ValueType::Vector,
            Self::Range { .. } => ValueType::Matrix,
            Self::Negate(of) => of.value_type(),
            Self::Binary { left, right, .. } => match (left.value_type(), right.value_type()) {
                (ValueType::Scalar, ValueType::Scalar) => ValueType::Scalar,
                _ => ValueType::Vector,
            },
            Self::Call { function, .. } => function.returns,
        }
    }

    pub fn visit<'a>(&'a self, visit: &mut dyn FnMut(&'a Selector, i64)) {
        match self {
            Self::Number(_) => {}
            Self::Selector(selector) => visit(selector, 0),
            Self::Range { selector, range_ms } => visit(selector, *range_ms),
            Self::Negate(of) | Self::Aggregate { of, .. } => of.visit(visit),
            Self::Binary { left, right, .. } => {
                left.visit(visit);
                right.visit(visit);
            }
            Self::Call { arguments, .. } => arguments.iter().for_each(|argument| argument.visit(visit)),
        }
    }
}

impl Expr {
    /// As it was written, without blanks around it.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn value_type(&self) -> ValueType {
        self.root.value_type()
    }

    /// The series that it reads.
    pub fn selectors(&self) -> Vec<Vec<Matcher>> {
        let mut all = Vec::new();
        self.root.visit(&mut |selector, _| all.push(selector.matchers.clone()));
        all
    }

    /// The conditions of an expression that is nothing but the choice of series.
    pub fn as_selector(&self) -> Option<&[Matcher]> {
        match &self.root {
            Node::Selector(selector) if selector.offset_ms == 0 => Some(&selector.matchers),
            _ => None,
        }
    }

    /// How far back it looks, ms: its longest range and offset.
    pub fn reach_ms(&self) -> i64 {
        let mut reach = 0;
        self.root.visit(&mut |selector, range_ms| reach = reach.max(selector.offset_ms.saturating_add(range_ms)));
        reach
    }
}
