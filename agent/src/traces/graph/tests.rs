//! Edges of spans in every order, what is known of a peer, and the account of what came in.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Config, Edge, Graph};
use crate::model::attributes::Attributes;
use crate::model::exchange::Incomplete;
use crate::model::process::Resource;
use crate::model::span::{Counted, Span, SpanId, SpanKind, StatusCode, TraceId};
use crate::section::Interval;
use crate::semconv;

const SECOND: u64 = 1_000_000_000;

fn span(kind: SpanKind, id: u64, parent: u64, service: &str) -> Span {
    Span {
        trace_id: TraceId([1; 16]),
        span_id: SpanId(id.to_be_bytes()),
        parent_span_id: (parent > 0).then_some(SpanId(parent.to_be_bytes())),
        name: "GET /".into(),
        kind,
        start_ns: 1_000,
        end_ns: 1_000 + id,
        status: StatusCode::Unset,
        attributes: Attributes::default(),
        resource: Arc::new(Resource { service_name: service.to_owned(), ..Resource::default() }),
        incomplete: None,
        time: None,
        counted: Some(Box::new(Counted { protocol: "http", series: None, place: 0 })),
    }
}

fn client(id: u64, service: &str) -> Span {
    span(SpanKind::Client, id, 0, service)
}

fn server(id: u64, parent: u64, service: &str) -> Span {
    span(SpanKind::Server, id, parent, service)
}

/// A graph with the edges it handed on: client, server, ns, and `!` where it failed. The account is held after each step.
struct Bench {
    graph: Graph,
    edges: Vec<String>,
    counts: BTreeMap<&'static str, u64>,
}

impl Bench {
    fn new(waiting: usize) -> Self {
        let config = Config { waiting, wait: Interval::secs(3), ..Config::default() };
        Self { graph: Graph::new(config), edges: Vec::new(), counts: BTreeMap::new() }
    }

    fn take(&mut self, span: &Span, now_ns: u64) {
        let edges = &mut self.edges;
        self.graph.take(span, now_ns, &mut |edge| edges.push(text(&edge)));
        self.account();
    }

    fn tick(&mut self, now_ns: u64) {
        let edges = &mut self.edges;
        self.graph.tick(now_ns, &mut |edge| edges.push(text(&edge)));
        self.account();
    }

    fn account(&mut self) {
        for (outcome, spans) in self.graph.drain_counts() {
            *self.counts.entry(outcome).or_default() += spans;
        }
        let waiting = self.graph.size().0 as u64;
        assert_eq!(self.counts.values().sum::<u64>() + waiting, self.graph.entered());
        assert!(self.graph.size().0 <= self.graph.size().1);
    }

    fn counted(&self) -> Vec<(&'static str, u64)> {
        self.counts.iter().map(|(outcome, spans)| (*outcome, *spans)).collect()
    }
}

fn text(edge: &Edge<'_>) -> String {
    let Edge { client, server, protocol, duration_ns, failed } = edge;
    format!("{client} > {server} {protocol} {duration_ns}{}", if *failed { " !" } else { "" })
}

#[test]
fn both_ends_of_a_request_are_one_edge_with_the_clients_time_in_either_order() {
    let mut bench = Bench::new(10);
    bench.take(&client(7, "shop"), 0);
    bench.take(&server(5, 7, "stock"), SECOND);
    bench.take(&server(6, 8, "stock"), SECOND);
    bench.take(&client(8, "shop"), 2 * SECOND);
    bench.tick(u64::MAX);
    assert_eq!(bench.edges, ["shop > stock http 7", "shop > stock http 8"]);
    assert_eq!(bench.counted(), [("paired", 4)]);
}

#[test]
fn a_request_fails_for_its_client_or_its_server() {
    let mut bench = Bench::new(10);
    for (asked, answered) in [(StatusCode::Error, StatusCode::Unset), (StatusCode::Unset, StatusCode::Error)] {
        bench.take(&Span { status: asked, ..client(7, "shop") }, 0);
        bench.take(&Span { status: answered, ..server(5, 7, "stock") }, 0);
    }
    bench.take(&Span { status: StatusCode::Error, ..server(5, 0, "shop") }, 0);
    assert_eq!(bench.edges, ["shop > stock http 7 !", "shop > stock http 7 !", "user > shop http 5 !"]);
}

#[test]
fn a_request_without_a_parent_is_a_users_and_one_whose_parent_is_elsewhere_is_of_nobody_known() {
    let mut bench = Bench::new(10);
    bench.take(&server(5, 0, "shop"), 0);
    bench.take(&server(6, 9, "shop"), 0);
    bench.tick(3 * SECOND - 1);
    assert_eq!(bench.edges, ["user > shop http 5"]);
    bench.tick(3 * SECOND);
    assert_eq!(bench.edges, ["user > shop http 5", "unknown > shop http 6"]);
    let mut told = server(7, 11, "shop");
    told.attributes.set(semconv::PEER_SERVICE, "cart");
    bench.take(&told, 3 * SECOND);
    bench.tick(6 * SECOND);
    assert_eq!(bench.edges[2..], ["cart > shop http 7"], "its agent told who asks");
    assert_eq!(bench.counted(), [("alone", 3)]);
}

#[test]
fn a_server_that_is_not_seen_has_the_name_that_its_client_knows_it_by() {
    let known = [("network.peer.address", "10.0.0.1"), ("server.address", "api.example"), ("db.system.name", "redis")];
    let mut bench = Bench::new(10);
    for count in 0..=known.len() {
        let mut asked = client(count as u64 + 1, "shop");
        known.iter().take(count).for_each(|(key, value)| asked.attributes.set(key, *value));
        bench.take(&asked, 0);
    }
    bench.tick(3 * SECOND);
    let expected =
        ["shop > unknown http 1", "shop > 10.0.0.1 http 2", "shop > api.example http 3", "shop > redis http 4"];
    assert_eq!(bench.edges, expected);
}

#[test]
fn a_span_that_is_not_whole_has_the_time_of_the_other_end_or_is_in_no_edge() {
    let mut bench = Bench::new(10);
    let broken = |span: Span| Span { incomplete: Some(Incomplete::Gap), ..span };
    bench.take(&broken(client(7, "shop")), 0);
    bench.take(&server(5, 7, "stock"), 0);
    bench.take(&broken(client(8, "shop")), 0);
    bench.take(&broken(server(6, 8, "stock")), 0);
    bench.take(&broken(client(9, "shop")), 0);
    bench.take(&broken(server(10, 0, "shop")), 0);
    bench.tick(u64::MAX);
    assert_eq!(bench.edges, ["shop > stock http 5"]);
    assert_eq!(bench.counted(), [("incomplete", 4), ("paired", 2)]);
}

#[test]
fn the_one_that_has_waited_longest_makes_room_and_is_counted() {
    let mut bench = Bench::new(2);
    for id in 1..=4 {
        bench.take(&client(id, "shop"), id * SECOND);
    }
    bench.take(&server(9, 3, "stock"), 4 * SECOND);
    bench.take(&client(4, "shop"), 4 * SECOND);
    bench.tick(7 * SECOND);
    assert_eq!(bench.edges, ["shop > stock http 3", "shop > unknown http 4"]);
    assert_eq!(bench.counted(), [("alone", 1), ("no_room", 2), ("paired", 2), ("twin", 1)]);
}

#[test]
fn times_of_requests_that_met_do_not_pile_up() {
    let mut bench = Bench::new(8);
    for id in 1..1000 {
        bench.take(&client(id, "shop"), 0);
        bench.take(&server(id, id, "stock"), 0);
        assert!(bench.graph.due.len() <= 17, "{}", bench.graph.due.len());
    }
    assert_eq!(bench.edges.len(), 999);
}

#[test]
fn nothing_is_kept_where_it_is_off() {
    let mut graph = Graph::new(Config { enabled: false, ..Config::default() });
    graph.take(&client(1, "shop"), 0, &mut |edge| panic!("{edge:?}"));
    assert_eq!((graph.entered(), graph.size().0), (0, 0));
}

#[test]
fn whatever_comes_in_whatever_order_every_span_is_accounted_for() {
    let mut bench = Bench::new(8);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for turn in 0..20_000 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let id = 1 + random % 24;
        let mut taken = match random >> 8 & 7 {
            0..3 => client(id, "shop"),
            3..6 => server(id + 100, id, "stock"),
            _ => server(id + 100, 0, "stock"),
        };
        if random >> 16 & 7 == 0 {
            taken.incomplete = Some(Incomplete::Timeout);
        }
        let now_ns = turn * SECOND / 4;
        bench.take(&taken, now_ns);
        if random >> 24 & 3 == 0 {
            bench.tick(now_ns);
        }
    }
    bench.tick(u64::MAX);
    assert_eq!((bench.graph.size().0, bench.graph.due.len()), (0, 0));
    assert_eq!(bench.counts.len(), 5, "{:?}", bench.counts);
    let in_edges = bench.counts["paired"] / 2 + bench.counts["alone"];
    assert_eq!(bench.edges.len() as u64, in_edges);
}
