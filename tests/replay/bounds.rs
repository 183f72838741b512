//! What is tracked, kept and waited for is bounded, and what the bounds cost is said.

use seismo::flows::Config;
use seismo::model::connection::{Cookie, Direction, Role};
use seismo::model::exchange::Incomplete;

use crate::script::{MS, Script};

const REQUEST: &[u8] = b"GET /a HTTP/1.1\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

#[test]
fn a_connection_that_makes_room_gives_up_its_request() {
    let mut script = Script::new(Config { connections: 4, ..Config::default() });
    for cookie in 0..10 {
        script.connection.cookie = Cookie(cookie);
        script.open(Role::Server);
        script.play(Direction::Receive, REQUEST);
        assert!(script.flows.len() <= 4);
    }
    assert_eq!(script.out.len(), 6);
    assert!(script.out.iter().all(|exchange| exchange.incomplete == Some(Incomplete::Evicted)));
    assert_eq!(script.flows.counts().get("connection_evicted"), 6);
}

#[test]
fn requests_in_flight_are_bounded() {
    let mut script = Script::new(Config { pending_per_connection: 5, ..Config::default() });
    script.open(Role::Server);
    script.play(Direction::Receive, &REQUEST.repeat(20));
    assert_eq!(script.out.len(), 6);
    assert_eq!(script.flows.counts().get("pending_limit"), 1);
    assert_eq!(script.flows.snapshot(10)[0].in_flight, 0);
    // Nothing is paired with what was given up; afterwards all is well again.
    script.play(Direction::Send, &RESPONSE.repeat(20));
    script.play(Direction::Receive, REQUEST);
    script.play(Direction::Send, RESPONSE);
    assert_eq!(script.out.len(), 7);
    assert_eq!(script.out[6].incomplete, None);
}

/// A client that goes on quickly fills what may be in flight before the wait for a lost answer is over.
#[test]
fn a_lost_answer_costs_only_its_own_exchanges_however_many_requests_follow() {
    let mut script = Script::new(Config { pending_per_connection: 100, ..Config::default() });
    script.open(Role::Server);
    for round in 0..50 {
        script.play(Direction::Receive, &REQUEST.repeat(20));
        let answers = script.operation(Direction::Send, &RESPONSE.repeat(20), 20 * RESPONSE.len());
        if round != 10 {
            script.deliver(answers);
        }
    }
    script.close(0);
    script.check_accounts();
    let incomplete: Vec<_> = script.out.iter().filter_map(|exchange| exchange.incomplete).collect();
    assert_eq!((script.out.len(), incomplete), (1000, vec![Incomplete::Gap; 20]));
    assert_eq!(script.flows.counts().get("pending_limit"), 0);
}

#[test]
fn a_hole_is_waited_for_by_count_and_by_time() {
    for (segments, wait_ns) in [(20, 0), (3, 150 * MS)] {
        let mut script = Script::new(Config { segments_per_stream: 10, ..Config::default() });
        script.open(Role::Server);
        script.play(Direction::Receive, REQUEST);
        script.operation(Direction::Receive, b"lost", 4);
        for _ in 0..segments {
            script.play(Direction::Receive, REQUEST);
        }
        script.tick(wait_ns);
        assert_eq!(script.flows.counts().get("gap_bytes"), 4, "{segments} segments, {wait_ns} ns");
    }
}

#[test]
fn heads_that_never_end_share_the_memory_there_is() {
    let mut script = Script::new(Config { held_bytes: 100_000, connections: 100, ..Config::default() });
    for cookie in 0..100 {
        script.connection.cookie = Cookie(cookie);
        script.open(Role::Server);
        script.play(Direction::Receive, b"GET / HTTP/1.1\r\nX: ");
        for _ in 0..10 {
            script.play(Direction::Receive, &[b'x'; 4096]);
        }
    }
    let kept: usize = script.flows.snapshot(100).iter().map(|flow| flow.buffered_bytes).sum();
    assert!(kept <= 200_000, "{kept}");
    assert!(script.flows.counts().get("memory_limit") > 0);
}

#[test]
fn a_client_may_read_the_answer_after_its_socket_closed() {
    let mut script = Script::new(Config::default()).at_client();
    script.open(Role::Client);
    script.play(Direction::Send, REQUEST);
    script.event(seismo::model::connection::ConnEventKind::Closed { retransmits: 0, error: 104 });
    assert!(script.out.is_empty());
    script.play(Direction::Receive, RESPONSE);
    assert_eq!(script.out.len(), 1);
    script.close(0);
    assert_eq!(script.out[0].status.as_deref(), Some("200"));
    assert_eq!(script.flows.len(), 0);
    script.check_accounts();
}

#[test]
fn what_is_lost_costs_the_same_however_quick_the_client_is() {
    const ROUNDS: usize = 1500;
    let told = [1000, 300, 100, 30].map(|step_us| {
        let mut state = 7u64;
        let mut is_lost = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33).is_multiple_of(10)
        };
        let mut script = Script::new(Config::default());
        script.open(Role::Server);
        let (mut requests, mut both) = (0, 0);
        for round in 0..ROUNDS {
            let mut seen = true;
            for (direction, bytes) in [(Direction::Receive, REQUEST), (Direction::Send, RESPONSE)] {
                let chunk = script.operation(direction, bytes, bytes.len());
                script.now_ns -= MS - step_us * 500;
                if round > 0 && is_lost() {
                    seen = false;
                    continue;
                }
                requests += usize::from(direction == Direction::Receive);
                script.deliver(chunk);
            }
            both += usize::from(seen);
        }
        script.close(0);
        let whole = script.out.iter().filter(|exchange| exchange.incomplete.is_none()).count();
        assert!(script.out.iter().all(|exchange| exchange.error.is_none()));
        // Of losses that follow each other, how far they reach is not always known.
        assert!(whole <= both && whole * 100 >= both * 98, "{whole} of {both} whole at {step_us} µs");
        assert!(script.out.len() * 100 >= requests * 98, "{} of {requests} told at {step_us} µs", script.out.len());
        script.check_accounts();
        (whole, script.out.len())
    });
    assert!(told.iter().all(|of| *of == told[0]), "{told:?}");
}
