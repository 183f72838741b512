//! The ring, its filters and its followers.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use super::{FOLLOW_CAPACITY, Followed, SpanFilter, Spans};
use crate::model::attributes::Attributes;
use crate::model::process::Resource;
use crate::model::span::{Span, SpanId, SpanKind, StatusCode, TraceId};

fn span(number: u64, service: &str) -> Span {
    Span {
        trace_id: TraceId([1; 16]),
        span_id: SpanId(number.to_be_bytes()),
        parent_span_id: None,
        name: "GET /".into(),
        kind: SpanKind::Server,
        start_ns: 1000,
        end_ns: 1000 + number,
        status: if number.is_multiple_of(2) { StatusCode::Unset } else { StatusCode::Error },
        attributes: Attributes::default(),
        resource: Arc::new(Resource { service_name: service.to_owned(), ..Resource::default() }),
        incomplete: None,
        time: None,
        counted: None,
    }
}

fn numbers(spans: &[Arc<Span>]) -> Vec<u64> {
    spans.iter().map(|span| u64::from_be_bytes(span.span_id.0)).collect()
}

#[test]
fn the_newest_come_first_and_the_oldest_make_room() {
    let spans = Spans::new(1000);
    for number in 0..2500 {
        spans.push(span(number, "a"));
    }
    assert_eq!((spans.len(), spans.stored(), spans.evicted()), (1000, 2500, 1500));
    assert_eq!(numbers(&spans.recent(&SpanFilter::default(), 3)), [2499, 2498, 2497]);
    let all = numbers(&spans.recent(&SpanFilter::default(), usize::MAX));
    assert_eq!(all, (1500..2500).rev().collect::<Vec<_>>());
    assert!(spans.recent(&SpanFilter::default(), 0).is_empty());
}

#[test]
fn every_condition_of_a_filter_must_hold() {
    let spans = Spans::new(10);
    for number in 0..8 {
        spans.push(span(number, if number < 4 { "a" } else { "b" }));
    }
    let find = |filter: SpanFilter| numbers(&spans.recent(&filter, 10));
    let any = SpanFilter::default;
    assert_eq!(find(SpanFilter { service: Some("a".into()), ..any() }), [3, 2, 1, 0]);
    assert_eq!(find(SpanFilter { status: Some(StatusCode::Error), ..any() }), [7, 5, 3, 1]);
    assert_eq!(find(SpanFilter { min_duration_ns: 6, ..any() }), [7, 6]);
    assert!(find(SpanFilter { name: Some("GET /x".into()), ..any() }).is_empty());
    assert!(find(SpanFilter { trace: Some(TraceId([2; 16])), ..any() }).is_empty());
    assert_eq!(find(SpanFilter { trace: Some(TraceId([1; 16])), min_duration_ns: 7, ..any() }), [7]);
    let both = SpanFilter { service: Some("b".into()), status: Some(StatusCode::Unset), ..any() };
    assert_eq!(find(both), [6, 4]);
}

#[tokio::test]
async fn a_follower_sees_each_matching_span_once_from_the_recent_ones_on() {
    let spans = Arc::new(Spans::new(10));
    for number in 0..5 {
        spans.push(span(number, "a"));
    }
    let (recent, mut follower) = spans.follow(SpanFilter { service: Some("a".into()), ..SpanFilter::default() }, 2);
    assert_eq!(numbers(&recent), [3, 4]);
    spans.push(span(5, "b"));
    spans.push(span(6, "a"));
    match follower.next().await {
        Followed::Span(span) => assert_eq!(numbers(&[span]), [6]),
        Followed::Lost(count) => unreachable!("lost {count}"),
    }
}

#[tokio::test]
async fn a_slow_follower_is_told_how_much_it_lost_and_the_writer_does_not_wait() {
    let spans = Arc::new(Spans::new(10));
    let (_, mut follower) = spans.follow(SpanFilter::default(), 0);
    let pushed = FOLLOW_CAPACITY as u64 + 100;
    for number in 0..pushed {
        spans.push(span(number, "a"));
    }
    assert_eq!(follower.next().await, Followed::Lost(100));
    for number in 100..pushed {
        match follower.next().await {
            Followed::Span(span) => assert_eq!(numbers(&[span]), [number]),
            Followed::Lost(count) => unreachable!("lost {count}"),
        }
    }
    assert_eq!(spans.lost_by_followers(), 100);
}

#[test]
fn a_tap_gets_every_span_once_and_what_it_has_no_room_for_is_counted() {
    let mut spans = Spans::new(2);
    let (mut tap, refused) = spans.tap(3);
    (0..5).for_each(|number| spans.push(span(number, "a")));
    drop(spans);
    let mut taken = Vec::new();
    while let Some(span) = tap.blocking_recv() {
        taken.push(span);
    }
    assert_eq!(numbers(&taken), [0, 1, 2]);
    assert_eq!(refused.load(std::sync::atomic::Ordering::Relaxed), 2);
}
