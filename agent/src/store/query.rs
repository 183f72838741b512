//! How series are named, chosen and read: Prometheus' data model, without any storage.
//!
//! `Labels` are sorted, shared and cheap to clone; a label with an empty value is no label. A series'
//! metric name is its label `__name__`. The evaluator of `promql` sees stored samples only through
//! [`Query`].

use std::fmt;
use std::sync::Arc;

use regex::Regex;

/// Label that holds a series' metric name.
pub const METRIC_NAME: &str = "__name__";
/// Label that holds a histogram bucket's upper bound.
pub const BUCKET_LABEL: &str = "le";

/// Value that ends a series until its next sample: a NaN that no arithmetic makes (Prometheus' own bits).
pub const STALE_MARKER: f64 = f64::from_bits(0x7ff0_0000_0000_0002);

pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_MARKER.to_bits()
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label {
    pub name: Arc<str>,
    pub value: Arc<str>,
}

/// The identity of a series.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Labels(Arc<[Label]>);

impl Labels {
    /// Sorts; empty values are left out, of equal names the last stays.
    pub fn new<N: Into<Arc<str>>, V: Into<Arc<str>>>(labels: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut all: Vec<Label> =
            labels.into_iter().map(|(name, value)| Label { name: name.into(), value: value.into() }).collect();
        all.reverse();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all.dedup_by(|one, other| one.name == other.name);
        all.retain(|label| !label.value.is_empty());
        Self(all.into())
    }

    /// The value of a label, empty when there is none.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|label| *label.name == *name).map_or("", |label| &label.value)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Label> {
        self.0.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Only those whose name passes.
    pub fn filter(&self, mut keep: impl FnMut(&str) -> bool) -> Self {
        if self.0.iter().all(|label| keep(&label.name)) {
            return self.clone();
        }
        Self(self.0.iter().filter(|label| keep(&label.name)).cloned().collect())
    }

    pub fn without_name(&self) -> Self {
        self.filter(|name| name != METRIC_NAME)
    }
}

impl fmt::Display for Labels {
    /// As a selector is written: `name{a="b"}`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.get(METRIC_NAME))?;
        out.write_str("{")?;
        let others = self.0.iter().filter(|label| *label.name != *METRIC_NAME);
        for (index, label) in others.enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(out, "{comma}{}={:?}", label.name, label.value)?;
        }
        out.write_str("}")
    }
}

#[derive(Clone, Debug)]
pub enum MatchOp {
    Equal,
    NotEqual,
    /// Anchored at both ends.
    Regex(Regex),
    NotRegex(Regex),
}

/// A condition on one label.
#[derive(Clone, Debug)]
pub struct Matcher {
    pub name: String,
    pub op: MatchOp,
    pub value: String,
}

impl Matcher {
    pub fn equal(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), op: MatchOp::Equal, value: value.into() }
    }

    pub fn matches(&self, value: &str) -> bool {
        match &self.op {
            MatchOp::Equal => value == self.value,
            MatchOp::NotEqual => value != self.value,
            MatchOp::Regex(regex) => regex.is_match(value),
            MatchOp::NotRegex(regex) => !regex.is_match(value),
        }
    }
}

/// Whether a series passes all conditions.
pub fn selects(matchers: &[Matcher], labels: &Labels) -> bool {
    matchers.iter().all(|matcher| matcher.matches(labels.get(&matcher.name)))
}

/// Takes one series with its samples, `(Unix ms, value)`.
pub type Visit<'a> = dyn FnMut(&Labels, &[(i64, f64)]) + 'a;

/// Anything that samples can be read from.
pub trait Query {
    /// Shows each series that passes all `matchers` and has samples with `after_ms < t <= until_ms`, with
    /// these samples in order of time, [`STALE_MARKER`]s included.
    fn select(&self, matchers: &[Matcher], after_ms: i64, until_ms: i64, visit: &mut Visit<'_>);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_sorted_and_empty_ones_are_none() {
        let labels = Labels::new([("z", "1"), ("a", "x"), ("m", ""), ("a", "y"), (METRIC_NAME, "up")]);
        assert_eq!(labels.to_string(), r#"up{a="y", z="1"}"#);
        assert_eq!(labels, Labels::new([("a", "y"), (METRIC_NAME, "up"), ("z", "1")]));
        assert_eq!((labels.get("z"), labels.get("m")), ("1", ""));
        assert_eq!(labels.without_name().to_string(), r#"{a="y", z="1"}"#);
    }

    #[test]
    fn a_matcher_on_an_absent_label_sees_the_empty_value() {
        let labels = Labels::new([("a", "x")]);
        let matcher = |op, value: &str| [Matcher { name: "b".to_owned(), op, value: value.to_owned() }];
        assert!(selects(&matcher(MatchOp::Equal, ""), &labels));
        assert!(selects(&matcher(MatchOp::NotEqual, "x"), &labels));
        assert!(!selects(&matcher(MatchOp::Equal, "x"), &labels));
    }
}
