//! Spans of one trace → the order and depth in which they are shown: parents before children, siblings by start.
//!
//! A span whose parent is not there is shown at the top and marked; so is one of a circle of parents, which no right
//! trace has. Every span is shown exactly once, whatever the ids say. Cost: sorting.

use std::collections::HashMap;

use serde_json::Value;

use crate::model::exported::{INCOMPLETE, TIME};
use crate::model::thread::STATES;
use crate::semconv;

/// What is shown of a span.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Part {
    id: String,
    parent: String,
    pub service: String,
    pub kind: &'static str,
    pub name: String,
    /// Unix time, ns.
    pub start_ns: u64,
    pub end_ns: u64,
    /// What failed; empty text where it is not said.
    pub error: Option<String>,
    pub incomplete: Option<String>,
    /// Method and confidence of the link to the parent.
    pub link: Option<(String, Option<f64>)>,
    /// ns by state; all zero where nothing is known.
    pub time: [u64; STATES.len()],
}

/// A span with its place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Placed {
    pub part: Part,
    pub depth: usize,
    /// It names a parent that is not among the spans.
    pub orphan: bool,
}

impl Part {
    /// Reads a span as `/api/seismo/spans` writes it; what is missing is empty.
    pub(super) fn read(span: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let ns = |key: &str| span[key].as_str().and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
        let attributes = &span["attributes"];
        let start_ns = ns("startTimeUnixNano");
        let failed = span["status"]["code"] == 2;
        Self {
            id: text(&span["spanId"]),
            parent: text(&span["parentSpanId"]),
            service: text(&span["resource"][semconv::SERVICE_NAME]),
            kind: match span["kind"].as_u64() {
                Some(2) => "server",
                Some(3) => "client",
                _ => "span",
            },
            name: text(&span["name"]),
            start_ns,
            end_ns: ns("endTimeUnixNano").max(start_ns),
            error: failed.then(|| text(&attributes[semconv::ERROR_TYPE])),
            incomplete: attributes[INCOMPLETE].as_str().map(str::to_owned),
            link: attributes["seismo.link.method"]
                .as_str()
                .map(|method| (method.to_owned(), attributes["seismo.link.confidence"].as_f64())),
            time: TIME.map(|key| attributes[key].as_u64().unwrap_or(0)),
        }
    }
}

/// The spans from the top down.
pub(super) fn order(mut parts: Vec<Part>) -> Vec<Placed> {
    parts.sort_by(|one, other| (one.start_ns, other.end_ns, &one.id).cmp(&(other.start_ns, one.end_ns, &other.id)));
    let mut by_id: HashMap<&str, usize> = HashMap::new();
    for (index, part) in parts.iter().enumerate() {
        by_id.entry(&part.id).or_insert(index);
    }
    let parents: Vec<Option<usize>> = parts.iter().map(|part| by_id.get(part.parent.as_str()).copied()).collect();
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); parts.len()];
    let mut tops = Vec::new();
    for (index, parent) in parents.iter().enumerate() {
        match parent.and_then(|parent| children.get_mut(parent)) {
            Some(siblings) => siblings.push(index),
            None => tops.push(index),
        }
    }
    // Circles have no top: their earliest span stands for one.
    tops.extend(0..parts.len());
    let mut left: Vec<Option<Part>> = parts.into_iter().map(Some).collect();
    let mut placed = Vec::with_capacity(left.len());
    for top in tops {
        let mut stack = vec![(top, 0)];
        while let Some((index, depth)) = stack.pop() {
            let Some(part) = left.get_mut(index).and_then(Option::take) else { continue };
            let orphan = depth == 0 && !part.parent.is_empty();
            placed.push(Placed { part, depth, orphan });
            stack.extend(children.get(index).into_iter().flatten().rev().map(|child| (*child, depth + 1)));
        }
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::{Part, order};

    fn part(id: &str, parent: &str, start_ns: u64) -> Part {
        Part { id: id.to_owned(), parent: parent.to_owned(), start_ns, end_ns: start_ns + 1, ..Part::default() }
    }

    fn shown(parts: &[(&str, &str, u64)]) -> Vec<(String, usize, bool)> {
        let parts = parts.iter().map(|(id, parent, start)| part(id, parent, *start)).collect();
        order(parts).into_iter().map(|placed| (placed.part.id, placed.depth, placed.orphan)).collect()
    }

    #[test]
    fn children_follow_their_parent_by_start_whatever_order_they_came_in() {
        let found = shown(&[("d", "b", 4), ("c", "a", 6), ("b", "a", 2), ("a", "", 1)]);
        let expected = [("a", 0, false), ("b", 1, false), ("d", 2, false), ("c", 1, false)];
        assert_eq!(found, expected.map(|(id, depth, orphan)| (id.to_owned(), depth, orphan)));
    }

    #[test]
    fn a_span_whose_parent_is_not_there_is_at_the_top_and_marked() {
        assert_eq!(shown(&[("a", "gone", 1), ("b", "a", 2)]), [("a".to_owned(), 0, true), ("b".to_owned(), 1, false)]);
    }

    #[test]
    fn circles_and_twins_are_shown_once_each() {
        let found = shown(&[("a", "b", 1), ("b", "a", 2), ("c", "c", 3), ("d", "", 4), ("d", "", 5)]);
        let mut ids: Vec<_> = found.iter().map(|(id, _, _)| id.as_str()).collect();
        ids.sort_unstable();
        assert_eq!(ids, ["a", "b", "c", "d", "d"]);
    }

    #[test]
    fn a_chain_of_a_hundred_thousand_spans_is_no_danger() {
        let parts = (0..100_000_u64).map(|number| part(&(number + 1).to_string(), &number.to_string(), number));
        assert_eq!(order(parts.collect()).last().map(|placed| placed.depth), Some(99_999));
    }
}
