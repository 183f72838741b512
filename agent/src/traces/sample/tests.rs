//! Decisions as spans come, with time made up here.

use std::sync::Arc;

use super::{Config, DropReason, KeepReason, Sampler};
use crate::model::process::Resource;
use crate::model::span::{Span, SpanId, StatusCode, TraceId};
use crate::section::Interval;

const SECOND: u64 = 1_000_000_000;

/// Nothing is kept for what it is, and nothing by its id.
fn strict() -> Config {
    Config { share: 0.0, rare_below: 0, slow_quantile: 1.0, ..Config::default() }
}

fn span(trace: u128, number: u8) -> Span {
    Span {
        trace_id: TraceId(trace.to_be_bytes()),
        span_id: SpanId([number; 8]),
        parent_span_id: (number > 1).then_some(SpanId([number - 1; 8])),
        end_ns: 1_000_000,
        resource: Arc::new(Resource { service_name: "shop".to_owned(), ..Resource::default() }),
        ..Span::example()
    }
}

/// A sampler with what it passed on, and the sum held after each step.
struct Bench {
    sampler: Sampler,
    kept: Vec<Arc<Span>>,
}

impl Bench {
    fn new(config: Config) -> Self {
        Self { sampler: Sampler::new(config), kept: Vec::new() }
    }

    fn offer(&mut self, span: Span, now_ns: u64) {
        self.sampler.offer(Arc::new(span), now_ns, &mut self.kept);
        self.adds_up();
    }

    fn tick(&mut self, now_ns: u64) {
        self.sampler.tick(now_ns);
        self.adds_up();
    }

    fn adds_up(&self) {
        let counts = self.sampler.counts();
        assert_eq!(counts.entered, counts.kept() + counts.dropped() + counts.pending, "{counts:?}");
        assert_eq!(counts.kept(), self.kept.len() as u64);
    }

    fn numbers(&self) -> Vec<u8> {
        self.kept.iter().map(|span| span.span_id.0[0]).collect()
    }

    fn kept_for(&self, reason: KeepReason) -> u64 {
        self.sampler.counts().kept_for(reason)
    }

    fn dropped_for(&self, reason: DropReason) -> u64 {
        self.sampler.counts().dropped_for(reason)
    }
}

#[test]
fn with_a_share_of_one_every_span_passes_at_once() {
    let mut bench = Bench::new(Config::default());
    (0..100).for_each(|trace| bench.offer(span(trace, 2), 0));
    assert_eq!((bench.kept.len(), bench.sampler.counts().pending), (100, 0));
}

#[test]
fn an_error_keeps_the_whole_trace_also_what_came_before_and_comes_later() {
    let mut bench = Bench::new(strict());
    bench.offer(span(7, 3), 0);
    bench.offer(span(8, 3), 0);
    bench.offer(Span { status: StatusCode::Error, ..span(7, 2) }, 1);
    bench.offer(span(7, 1), SECOND);
    bench.tick(40 * SECOND);
    bench.offer(span(7, 4), 50 * SECOND);
    assert_eq!(bench.numbers(), [3, 2, 1, 4]);
    assert_eq!((bench.kept_for(KeepReason::Error), bench.dropped_for(DropReason::NotChosen)), (4, 1));
}

#[test]
fn a_trace_is_dropped_a_moment_after_its_root_and_late_spans_with_it() {
    let mut bench = Bench::new(strict());
    bench.offer(span(7, 2), 0);
    bench.offer(span(7, 1), SECOND);
    bench.tick(4 * SECOND - 1);
    assert_eq!(bench.sampler.counts().pending, 2);
    bench.tick(4 * SECOND);
    assert_eq!(bench.dropped_for(DropReason::NotChosen), 2);
    bench.offer(Span { status: StatusCode::Error, ..span(7, 3) }, 5 * SECOND);
    assert_eq!((bench.dropped_for(DropReason::NotChosen), bench.kept.len()), (3, 0));
    // Forgotten, it is decided anew.
    bench.tick(400 * SECOND);
    bench.offer(Span { status: StatusCode::Error, ..span(7, 3) }, 400 * SECOND);
    assert_eq!(bench.numbers(), [3]);
}

#[test]
fn a_trace_without_a_root_is_waited_for_so_long_and_no_longer() {
    let mut bench = Bench::new(strict());
    bench.offer(span(7, 2), 0);
    bench.tick(30 * SECOND - 1);
    assert_eq!(bench.sampler.counts().pending, 1);
    bench.tick(30 * SECOND);
    assert_eq!(bench.dropped_for(DropReason::NotChosen), 1);
}

#[test]
fn agents_with_the_same_share_choose_the_same_traces_and_a_smaller_share_is_part_of_a_larger() {
    let chosen = |share: f64| {
        let mut bench = Bench::new(Config { share, ..strict() });
        (0..20_000_u128).for_each(|trace| {
            bench.offer(span((trace + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835), 1), 0);
        });
        bench.kept.iter().map(|span| span.trace_id).collect::<Vec<_>>()
    };
    let (tenth, half) = (chosen(0.1), chosen(0.5));
    assert!((1800..2200).contains(&tenth.len()), "{}", tenth.len());
    assert!((9600..10_400).contains(&half.len()), "{}", half.len());
    assert!(tenth.iter().all(|trace| half.contains(trace)));
    assert_eq!(chosen(0.1), tenth);
}

#[test]
fn the_choice_by_id_looks_at_the_lower_56_bits_alone() {
    let mut bench = Bench::new(Config { share: 0.25, ..strict() });
    let quarter = 1_u128 << 54;
    let ids = [0, quarter, 2 * quarter, 3 * quarter - 1, 3 * quarter, 4 * quarter - 1, u128::MAX << 56 | 7];
    for (number, id) in ids.into_iter().enumerate() {
        bench.offer(span(id, number as u8 + 1), 0);
    }
    assert_eq!(bench.numbers(), [5, 6]);
}

#[test]
fn slow_is_what_is_slower_than_the_quantile_of_its_own_route() {
    let mut bench = Bench::new(Config { slow_quantile: 0.99, ..strict() });
    let request = |trace: u128, name: &str, end_ns: u64| Span { name: name.into(), end_ns, ..span(trace, 1) };
    for trace in 0..1000 {
        bench.offer(request(2 * trace, "GET /fast", 1_000_000 + trace as u64), 0);
        bench.offer(request(2 * trace + 1, "GET /slow", 900_000_000), 0);
    }
    assert_eq!(bench.kept.len(), 0);
    bench.offer(request(5000, "GET /fast", 2_000_000), 0);
    bench.offer(request(5001, "GET /slow", 900_000_000), 0);
    bench.offer(request(5002, "GET /new", 900_000_000), 0);
    assert_eq!((bench.kept_for(KeepReason::Slow), bench.kept.len()), (1, 1));
    // What is slow for long is slow no more: at most a share of the requests is kept for it.
    (6000..8000).for_each(|trace| bench.offer(request(trace, "GET /fast", 2_000_000), 0));
    assert!(bench.kept_for(KeepReason::Slow) <= 30, "{}", bench.kept_for(KeepReason::Slow));
}

#[test]
fn rare_is_a_route_seen_less_than_so_often_lately() {
    let mut bench = Bench::new(Config { rare_below: 3, rare_window: Interval::secs(10), ..strict() });
    (0..10).for_each(|trace| bench.offer(span(trace, 1), 0));
    assert_eq!(bench.kept_for(KeepReason::Rare), 3);
    bench.offer(span(20, 1), 5 * SECOND);
    assert_eq!(bench.kept_for(KeepReason::Rare), 3);
    bench.tick(20 * SECOND);
    bench.offer(span(21, 1), 20 * SECOND);
    assert_eq!(bench.kept_for(KeepReason::Rare), 4);
}

#[test]
fn what_a_firing_alert_names_is_kept_while_it_fires() {
    let mut bench = Bench::new(strict());
    let labels = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<super::AlertLabels>()
    };
    let failed = |trace, code: i64| {
        let mut span = span(trace, 1);
        span.attributes.set("http.response.status_code", code);
        span
    };
    bench.sampler.set_alerts(vec![labels(&[("alertname", "Slow"), ("severity", "page")])]);
    bench.offer(span(1, 1), 0);
    let of_shop = [("alertname", "Slow"), ("service_name", "shop"), ("http_response_status_code", "404")];
    bench.sampler.set_alerts(vec![labels(&of_shop)]);
    bench.offer(failed(2, 404), 0);
    bench.offer(failed(3, 200), 0);
    bench.sampler.set_alerts(vec![labels(&[("service_name", "other")])]);
    bench.offer(failed(4, 404), 0);
    assert_eq!((bench.kept_for(KeepReason::Alert), bench.kept.len()), (1, 1));
}

#[test]
fn what_waits_what_is_remembered_and_the_routes_are_bounded_and_counted() {
    let config = Config { pending_spans: 100, decisions: 50, routes: 10, rare_below: 1, ..strict() };
    let mut bench = Bench::new(config);
    for number in 0..10_000_u128 {
        let name = format!("GET /{}", number % 20);
        bench.offer(Span { name: name.into(), ..span(number, 1) }, 0);
    }
    let counts = bench.sampler.counts();
    assert_eq!((counts.pending, bench.kept_for(KeepReason::Rare)), (100, 10));
    assert_eq!(bench.dropped_for(DropReason::NoRoom), 10_000 - 100 - 10);
    assert!(counts.forgotten > 9000, "{counts:?}");
    bench.tick(0);
    assert_eq!(bench.sampler.counts().routes_refused, 5000);
    assert!(bench.sampler.by_wait.len() <= 200 && bench.sampler.by_settle.len() <= 200);
    bench.sampler.finish();
    bench.adds_up();
    assert_eq!(bench.dropped_for(DropReason::Stopped), 100);
}
