//! The judge on made-up spans: right ones, and each way in which they can be wrong.

use super::*;
use crate::accuracy::truth::tests::PORTS;

/// The spans of requests as a perfect agent would tell them, in the order of the trees.
fn perfect(ids: &[u32]) -> Vec<Span> {
    let name = |key: &Key| format!("{:?} {} {}", key.kind, key.place, key.port);
    let mut spans = Vec::new();
    for id in ids {
        let nodes = request(*id, &PORTS);
        for node in &nodes {
            spans.push(Span {
                id: name(&node.key),
                parent: node.parent.map(|parent| name(&nodes[parent].key)),
                trace: format!("trace {id}"),
                kind: node.key.kind,
                port: node.key.port,
                key: Some(node.key.clone()),
                service: "s".to_owned(),
                start_ns: 1000,
                end_ns: 1500,
                incomplete: false,
                method: node.parent.map(|_| "thread".to_owned()),
                accounted_ns: Some(500),
            });
        }
    }
    spans
}

fn sent(id: u32) -> Sent {
    Sent { id, status: 200, start_ns: 990, duration_ns: 520 }
}

fn judged(spans: &[Span]) -> Judgement {
    judge(&[sent(1), sent(2)], &PORTS, spans)
}

fn position(spans: &[Span], kind: Kind, place: &str) -> usize {
    spans.iter().position(|span| span.kind == kind && span.key.as_ref().unwrap().place == place).unwrap()
}

#[test]
fn a_perfect_agent_is_found_perfect_in_any_order() {
    let mut spans = perfect(&[1, 2]);
    let first = judged(&spans);
    assert_eq!((first.spans.expected, first.spans.found, first.whole), (28, 28, 2));
    assert_eq!(first.links(), Links { right: 26, ..Links::default() });
    assert_eq!(first.roots, Links { right: 2, ..Links::default() });
    assert_eq!(first.methods["thread"].right, 26);
    assert_eq!((first.wrong_share(), first.mixed_traces, first.spans.precision()), (0.0, 0, 1.0));
    assert_eq!(
        (first.latency.durations.as_slice(), first.latency.starts.as_slice()),
        ([-20, -20].as_slice(), [10, 10].as_slice())
    );
    assert_eq!((first.breakdown.server_spans_with, first.breakdown.sums_off), (14, 0));
    spans.reverse();
    assert_eq!(judged(&spans), first);
}

#[test]
fn a_parent_of_another_request_is_wrong() {
    let mut spans = perfect(&[1, 2]);
    let (child, stranger) = (position(&spans, Kind::Client, "1/0"), position(&spans, Kind::Server, "2"));
    spans[child].parent = Some(spans[stranger].id.clone());
    let judgement = judged(&spans);
    assert_eq!(judgement.inside, Links { right: 11, wrong: 1, ..Links::default() });
    assert_eq!((judgement.whole, judgement.methods["thread"].wrong), (1, 1));
}

#[test]
fn a_sibling_as_parent_is_wrong_too() {
    let mut spans = perfect(&[1, 2]);
    let (child, sibling) = (position(&spans, Kind::Client, "1/1"), position(&spans, Kind::Server, "1/0"));
    spans[child].parent = Some(spans[sibling].id.clone());
    assert_eq!(judged(&spans).inside.wrong, 1);
}

#[test]
fn a_span_without_its_parent_is_an_orphan_and_not_wrong() {
    let mut spans = perfect(&[1, 2]);
    let child = position(&spans, Kind::Client, "1/0/0");
    spans[child].parent = None;
    let judgement = judged(&spans);
    assert_eq!(judgement.inside, Links { right: 11, orphans: 1, ..Links::default() });
    assert_eq!((judgement.wrong_share(), judgement.inside.precision(), judgement.whole), (0.0, 1.0, 1));
}

#[test]
fn a_root_with_a_parent_is_wrong() {
    let mut spans = perfect(&[1, 2]);
    spans[0].parent = Some(spans[3].id.clone());
    let judgement = judged(&spans);
    assert_eq!((judgement.roots, judgement.whole), (Links { right: 1, wrong: 1, ..Links::default() }, 1));
    assert!(judgement.wrong_share() > 0.0);
}

#[test]
fn a_missing_span_counts_once_and_leaves_its_child_dangling() {
    let mut spans = perfect(&[1, 2]);
    spans.remove(position(&spans, Kind::Client, "1/0"));
    let judgement = judged(&spans);
    assert_eq!((judgement.spans.found, judgement.spans.missing["client to s2"], judgement.whole), (27, 1, 1));
    assert_eq!(judgement.between, Links { right: 13, dangling: 1, ..Links::default() });
    assert_eq!(judgement.inside.judged(), 11);
}

#[test]
fn an_unknown_parent_is_wrong_where_the_true_one_was_found() {
    let mut spans = perfect(&[1, 2]);
    let child = position(&spans, Kind::Server, "1/0");
    spans[child].parent = Some("nobody".to_owned());
    assert_eq!(judged(&spans).between, Links { right: 13, wrong: 1, ..Links::default() });
}

#[test]
fn a_call_told_twice_is_doubled_and_its_trace_not_whole() {
    let mut spans = perfect(&[1, 2]);
    let mut again = spans[position(&spans, Kind::Server, "2/1")].clone();
    again.id = "again".to_owned();
    spans.push(again);
    let judgement = judged(&spans);
    assert_eq!((judgement.spans.doubled, judgement.spans.found, judgement.whole), (1, 28, 1));
    assert!(judgement.spans.precision() < 1.0);
}

#[test]
fn a_span_of_no_call_is_unexpected_where_only_the_lab_calls() {
    let mut spans = perfect(&[1, 2]);
    let of_nobody = |port: u16, place: Option<&str>| Span {
        id: format!("{port} {place:?}"),
        port,
        key: place.map(|place| Key { place: place.to_owned(), kind: Kind::Client, port }),
        ..perfect(&[1]).remove(0)
    };
    // A health check of S1, a pool's own question to PostgreSQL, a place that nobody was at.
    spans.extend([
        of_nobody(PORTS.front, None),
        of_nobody(PORTS.postgresql, None),
        of_nobody(PORTS.cache, Some("1/7")),
    ]);
    assert_eq!(judged(&spans).spans.unexpected, 2);
}

#[test]
fn two_trace_ids_within_a_request_are_no_whole_trace_and_one_over_two_requests_is_mixed() {
    let mut spans = perfect(&[1, 2]);
    spans[5].trace = "another".to_owned();
    assert_eq!((judged(&spans).whole, judged(&spans).mixed_traces), (1, 0));
    spans[5].trace = "trace 2".to_owned();
    assert_eq!((judged(&spans).whole, judged(&spans).mixed_traces), (1, 1));
}

#[test]
fn an_incomplete_span_is_not_counted_as_found() {
    let mut spans = perfect(&[1, 2]);
    spans[0].incomplete = true;
    let judgement = judged(&spans);
    assert_eq!((judgement.spans.found, judgement.spans.incomplete, judgement.whole), (27, 1, 1));
    assert_eq!(judgement.latency.durations.len(), 1);
}

#[test]
fn nothing_of_a_failed_request_is_judged() {
    let failed = Sent { status: 500, ..sent(2) };
    let judgement = judge(&[sent(1), failed], &PORTS, &perfect(&[1, 2]));
    assert_eq!(
        (judgement.failed, judgement.spans.expected, judgement.spans.unexpected, judgement.whole),
        (1, 14, 0, 1)
    );
    assert_eq!(judgement.whole_share(), 1.0);
}

#[test]
fn spans_of_other_runs_count_for_nothing() {
    assert_eq!(judged(&perfect(&[1, 2, 3])), judged(&perfect(&[1, 2])));
}

#[test]
fn a_breakdown_that_does_not_add_up_is_counted() {
    let mut spans = perfect(&[1, 2]);
    spans[1].accounted_ns = Some(499);
    spans[3].accounted_ns = None;
    let judgement = judged(&spans);
    let Breakdown { server_spans, server_spans_with, sums_off, .. } = judgement.breakdown;
    assert_eq!((server_spans, server_spans_with, sums_off), (14, 13, 1));
}

#[test]
fn no_spans_at_all_are_no_recall_and_no_wrong_links() {
    let judgement = judged(&[]);
    assert_eq!((judgement.spans.recall(), judgement.wrong_share(), judgement.whole_share()), (0.0, 0.0, 0.0));
}
