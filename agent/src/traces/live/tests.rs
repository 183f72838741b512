//! Tests of linking as spans come.

use super::{Config, Live, METHOD, Sight};
use crate::model::connection::{Connection, Cookie, Role, Transport};
use crate::model::exchange::{MessageFacts, Opened, WireId};
use crate::model::span::{Span, SpanKind, TraceId};
use crate::traces::assemble::Wire;
use crate::traces::linker::Facts;
use crate::traces::tasks::{Ancestor, Answered};

const SECOND: u64 = 1_000_000_000;

fn wire(connection: u64) -> Wire {
    Wire { connection: WireId { client: connection, server: connection + 1 }, position: 0 }
}

fn opened(cookie: u64, wire: Wire, tid: u32, start_ns: u64) -> Opened {
    let address = ([127, 0, 0, 1], 80).into();
    let connection = Connection {
        cookie: Cookie(cookie),
        transport: Transport::Tcp,
        local: address,
        peer: address,
        peer_cookie: None,
    };
    let request = MessageFacts { first_ns: start_ns, tid, ..MessageFacts::default() };
    Opened { connection, wire: Some(wire.connection), pid: 7, number: 1, request, context: None }
}

/// An exchange as `Sight` and span.
fn seen(role: Role, cookie: u64, wire: Wire, (start_ns, end_ns): (u64, u64), tid: u32) -> (Sight, Span) {
    let facts = Facts { tid, end_tid: tid, start_ns, end_ns, socket: cookie, ..Facts::default() };
    let pid = if cookie >= 100 { 8 } else { 7 };
    let sight = Sight { cookie: Cookie(cookie), number: 1, pid, wire, role, trace_id: None, facts };
    let (kind, span_id) = match role {
        Role::Server => (SpanKind::Server, wire.server_span_id()),
        Role::Client => (SpanKind::Client, wire.client_span_id()),
    };
    let span = Span { trace_id: wire.trace_id(), span_id, kind, start_ns, end_ns, ..Span::example() };
    (sight, span)
}

/// Somebody asks process 7 on `wire(10)`, which asks process 8 on `wire(20)`.
fn relay(live: &mut Live, out: &mut Vec<Span>, trace_id: Option<TraceId>) {
    live.opened(&opened(1, wire(10), 5, 1_000));
    live.client(Cookie(2), wire(20).connection);
    let (sight, span) = seen(Role::Server, 100, wire(20), (2_100, 2_900), 9);
    live.span(sight, span, 2_900, out);
    let (sight, span) = seen(Role::Client, 2, wire(20), (2_000, 3_000), 5);
    live.span(sight, span, 3_000, out);
    assert!(out.is_empty(), "nothing is known of the request that it belongs to");
    let (mut sight, span) = seen(Role::Server, 1, wire(10), (1_000, 4_000), 5);
    sight.trace_id = trace_id;
    live.span(sight, span, 4_000, out);
}

#[test]
fn a_request_and_what_it_made_others_do_are_one_trace() {
    for in_band in [None, Some(TraceId([7; 16]))] {
        let (mut live, mut out) = (Live::new(Config::default()), Vec::new());
        relay(&mut live, &mut out, in_band);
        live.tick(SECOND, &mut out);
        assert_eq!(out.len(), 3, "{out:?}");
        let root = out.iter().find(|span| span.parent_span_id.is_none()).unwrap();
        assert_eq!(root.trace_id, in_band.unwrap_or(wire(10).trace_id()));
        let sent = out.iter().find(|span| span.kind == SpanKind::Client).unwrap();
        assert_eq!(sent.parent_span_id, Some(wire(10).server_span_id()));
        assert_eq!(sent.attributes.text(METHOD), Some("thread"));
        let served = out.iter().find(|span| span.parent_span_id == Some(sent.span_id)).unwrap();
        assert_eq!(served.span_id, wire(20).server_span_id());
        assert!(out.iter().all(|span| span.trace_id == root.trace_id));
        live.tick(400 * SECOND, &mut out);
        live.tick(401 * SECOND, &mut out);
        // The connection is open.
        let mut left = live.sizes().filter(|(table, ..)| *table != "link_connections");
        assert_eq!(left.find(|(_, entries, _)| *entries > 0), None);
        assert_eq!(out.len(), 3);
    }
}

#[test]
fn a_span_of_a_process_that_serves_nothing_passes_at_once() {
    let (mut live, mut out) = (Live::new(Config::default()), Vec::new());
    let (sight, span) = seen(Role::Client, 2, wire(20), (2_000, 3_000), 5);
    live.span(sight, span, 3_000, &mut out);
    assert_eq!(out.len(), 1);
}

#[test]
fn what_waits_is_bounded_in_number_and_time_and_nothing_is_kept_back_at_the_end() {
    let (mut live, mut out) = (Live::new(Config { remembered: 10, ..Config::default() }), Vec::new());
    live.opened(&opened(1, wire(10), 5, 1_000));
    for number in 0..100 {
        let (sight, span) = seen(Role::Client, 2 + number, wire(1_000 + 2 * number), (2_000, 3_000), 5);
        live.span(sight, span, 3_000, &mut out);
    }
    // Those of another process passed too.
    assert!(out.len() >= 88, "{}", out.len());
    live.tick(SECOND, &mut out);
    let before = out.len();
    live.tick(11 * SECOND, &mut out);
    assert_eq!(out.len(), 100, "{before} before the end of their patience");
    let guessed = live.counts().1.find(|(reason, _)| *reason == "link_trace_guessed").map(|(_, count)| count);
    assert_eq!(guessed, Some(10), "the request is still open");
    relay(&mut live, &mut Vec::new(), None);
    live.flush(&mut out);
    assert!(live.held.is_empty());
}

#[test]
fn spans_of_a_crowd_that_is_not_weighed_are_counted_as_such() {
    const SPANS: u64 = 200;
    for (requests, reason) in [(20, "unlinked_ambiguous"), (600, "unlinked_unweighed")] {
        let (mut live, mut out) = (Live::new(Config::default()), Vec::new());
        for request in 0..requests {
            live.opened(&opened(1_000 + request, wire(10_000 + 2 * request), 5, 1_000));
        }
        for number in 0..SPANS {
            let (sight, span) = seen(Role::Client, 2, wire(1_000_000 + 2 * number), (2_000 + number, 3_000_000), 5);
            live.span(sight, span, 3_000_000, &mut out);
        }
        live.tick(SECOND, &mut out);
        assert!(out.is_empty(), "they have some patience");
        live.tick(11 * SECOND, &mut out);
        assert_eq!(out.len() as u64, SPANS);
        let counted = live.counts().1.find(|(counted, _)| *counted == reason).map(|(_, count)| count);
        assert_eq!(counted, Some(SPANS), "{requests} requests open: {:?}", live.counts().1.collect::<Vec<_>>());
    }
}

#[test]
fn a_crowd_in_one_process_takes_no_pairs_from_a_quieter_one() {
    const SPANS: u64 = 200;
    let (mut live, mut out) = (Live::new(Config::default()), Vec::new());
    for request in 0..600 {
        live.opened(&opened(1_000 + request, wire(10_000 + 2 * request), 5, 1_000));
    }
    for request in 0..20 {
        let quiet = opened(5_000 + request, wire(20_000 + 2 * request), 5, 1_000);
        live.opened(&Opened { pid: 8, ..quiet });
    }
    // 120 000 pairs in process 7, which began first, and 4000 in process 8.
    for (cookie, wires) in [(2, 1_000_000), (102, 2_000_000)] {
        for number in 0..SPANS {
            let (sight, span) = seen(Role::Client, cookie, wire(wires + 2 * number), (2_000 + number, 3_000_000), 5);
            live.span(sight, span, 3_000_000, &mut out);
        }
    }
    live.tick(SECOND, &mut out);
    live.tick(11 * SECOND, &mut out);
    assert_eq!(out.len() as u64, 2 * SPANS);
    let counts: Vec<_> = live.counts().1.collect();
    let counted = |reason| counts.iter().find(|(counted, _)| *counted == reason).map(|(_, count)| *count);
    assert_eq!(counted("unlinked_ambiguous"), Some(SPANS), "{counts:?}");
    assert_eq!(counted("unlinked_unweighed"), Some(SPANS), "{counts:?}");
}

/// Requests that process 7 sent on one connection, told when they were over, and when an answer was read that a task was
/// woken with; whose asker is known by then.
fn askers(sent: &[(u64, u64)], read_ns: u64) -> Vec<bool> {
    let mut live = Live::new(Config::default());
    live.opened(&opened(1, wire(10), 5, 1_000));
    for (number, times) in sent.iter().enumerate() {
        tell(&mut live, 20 + 2 * number as u64, 2, *times);
        answer(&mut live, 2, times.1.min(read_ns));
    }
    answer(&mut live, 2, read_ns);
    live.processes.get_mut(&7).unwrap().process.undecided().map(|facts| !facts.asker.is_empty()).collect()
}

fn tell(live: &mut Live, connection: u64, cookie: u64, times: (u64, u64)) {
    let (mut sight, span) = seen(Role::Client, cookie, wire(connection), times, 5);
    sight.facts.wakers = Some(Vec::new());
    live.span(sight, span, times.1, &mut Vec::new());
}

fn answer(live: &mut Live, cookie: u64, end_ns: u64) {
    let steps = vec![Ancestor { task: 3, born_ns: end_ns + 1 }];
    live.asker(Answered { pid: 7, socket: Cookie(cookie), end_ns, steps, drives: true });
}

#[test]
fn an_answer_tells_whom_a_request_was_for_that_was_alone_on_its_connection() {
    assert_eq!(askers(&[(2_000, 3_000)], 3_000), [true]);
    assert_eq!(askers(&[(2_000, 3_000)], 2_900), [false], "another one's");
    assert_eq!(askers(&[(2_000, 3_000), (3_000, 4_000)], 4_000), [true, true]);
    // A batch: sent in one piece, answered together; or one behind the other.
    assert_eq!(askers(&[(2_000, 3_000), (2_000, 3_000)], 3_000), [false, false]);
    assert_eq!(askers(&[(2_000, 3_000), (2_000, 3_100)], 3_100), [false, false]);
    // Streams: one was begun before others that are over first, and may be what the task was woken for.
    assert_eq!(askers(&[(2_000, 2_500), (2_600, 2_800), (2_100, 3_000)], 3_000), [false, false, false]);
    assert_eq!(askers(&[(2_000, 2_500), (2_600, 2_800), (2_700, 3_000)], 3_000), [true, false, false]);
}

#[test]
fn connections_whose_askers_may_be_told_are_bounded_and_forgotten() {
    let mut live = Live::new(Config { remembered: 10, ..Config::default() });
    live.opened(&opened(1, wire(10), 5, 1_000));
    (0..20).for_each(|number| tell(&mut live, 20 + 2 * number, 2 + number, (2_000, 3_000)));
    let counted = |live: &Live| {
        let refused = live.counts().1.find(|(reason, _)| *reason == "link_no_room_for_asker").map(|(_, count)| count);
        (live.askers.size(), refused)
    };
    assert_eq!(counted(&live), (("link_askers", 10, 10), Some(10)));
    live.forget(Cookie(2));
    assert_eq!(live.askers.size().1, 9);
    live.tick(20 * SECOND, &mut Vec::new());
    assert_eq!(live.askers.size().1, 0);
}
