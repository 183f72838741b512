//! Whatever happens to the bytes on their way, no exchange has wrong values and every byte is accounted for.
//!
//! The server's end of one connection. Windows of pipelined requests are not combined with losses: see the header of
//! `flows/session.rs` for what is assumed there.

use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::sample::Index;
use proptest::test_runner::TestCaseError;
use seismo::flows::Config;
use seismo::model::attributes::Value;
use seismo::model::connection::{Direction, Role};
use seismo::model::exchange::Exchange;
use seismo::section::Interval;
use seismo::semconv;

use crate::conversation::{Ask, Body, Conversation, Expected, Order, ask, order};
use crate::script::{MS, Script};

/// Enough for a change of the code to show; a fault that is rarer has shown at 20 000.
const CASES: u32 = 200;

fn int(exchange: &Exchange, key: &str) -> Option<u64> {
    match exchange.attributes.get(key) {
        Some(Value::Int(number)) => u64::try_from(*number).ok(),
        _ => None,
    }
}

fn seen(exchange: &Exchange) -> Expected {
    Expected {
        path: exchange.attributes.text(semconv::URL_PATH).unwrap_or_default().to_owned(),
        status: exchange.status.as_deref().unwrap_or_default().to_owned(),
        request_body: int(exchange, semconv::HTTP_REQUEST_BODY_SIZE).unwrap_or(u64::MAX),
        response_body: int(exchange, semconv::HTTP_RESPONSE_BODY_SIZE).unwrap_or(u64::MAX),
    }
}

fn known(method: &'static str) -> &'static str {
    if method == "PROPFIND" { "GET" } else { method }
}

/// Every exchange that claims to be whole is one of the conversation; the others claim nothing that is not so.
fn check_truth(conversation: &Conversation, out: &[Exchange]) -> Result<usize, TestCaseError> {
    let mut paths = std::collections::HashSet::new();
    let mut whole = 0;
    for exchange in out {
        let mut seen = seen(exchange);
        let expected = conversation.expected.iter().find(|expected| expected.path == seen.path);
        let Some(expected) = expected else {
            return Err(TestCaseError::fail(format!("nobody asked for {exchange:?}")));
        };
        prop_assert!(paths.insert(seen.path.clone()), "{} came twice", seen.path);
        if exchange.incomplete.is_none() && exchange.error.is_none() {
            if seen.request_body == u64::MAX {
                // Answered, and the end of the request lost: its size is left out, not guessed.
                seen.request_body = expected.request_body;
            }
            prop_assert_eq!(&seen, expected);
            whole += 1;
        } else {
            prop_assert!(exchange.status.as_ref().is_none_or(|status| *status == expected.status), "{exchange:?}");
        }
    }
    Ok(whole)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn segmentation_swaps_and_repetitions_change_nothing(
        asks in vec(ask(), 1..8),
        order in order(),
        cuts in vec(any::<Index>(), 0..40),
        swaps in vec(any::<Index>(), 0..6),
        repeats in vec(any::<Index>(), 0..3),
    ) {
        let conversation = Conversation::new(&asks, order, true);
        let mut script = Script::new(Config::default());
        script.open(Role::Server);
        let mut operations = script.operations(&conversation.moves, &cuts);
        for swap in swaps {
            let at = swap.index(operations.len());
            if at + 1 < operations.len() {
                operations.swap(at, at + 1);
            }
        }
        for repeat in repeats {
            let at = repeat.index(operations.len());
            let again = operations[at].clone();
            operations.insert(at + 1, again);
        }
        for operation in operations {
            script.deliver(operation);
        }
        let out = script.finish();
        let seen: Vec<_> = out.iter().map(seen).collect();
        prop_assert_eq!(seen, conversation.expected);
        prop_assert!(out.iter().all(|exchange| exchange.incomplete.is_none() && exchange.error.is_none()));
    }

    #[test]
    fn durations_are_those_of_the_operations(asks in vec(ask(), 1..6), cuts in vec(any::<Index>(), 0..30)) {
        let conversation = Conversation::new(&asks, Order::Serial, true);
        let mut script = Script::new(Config::default());
        script.open(Role::Server);
        let operations = script.operations(&conversation.moves, &cuts);
        // First and last operation of each run in one direction.
        let mut runs: Vec<(u64, u64)> = Vec::new();
        let mut last = None;
        for operation in operations {
            if last == Some(operation.direction) {
                if let Some(run) = runs.last_mut() {
                    run.1 = operation.moment.ktime_ns;
                }
            } else {
                runs.push((operation.moment.ktime_ns, operation.moment.ktime_ns));
            }
            last = Some(operation.direction);
            script.deliver(operation);
        }
        let out = script.finish();
        prop_assert_eq!(out.len(), asks.len());
        for (exchange, pair) in out.iter().zip(runs.chunks(2)) {
            prop_assert_eq!((exchange.request.first_ns, exchange.request.last_ns), pair[0]);
            prop_assert_eq!(exchange.end_ns, pair[1].1);
        }
    }

    #[test]
    fn losses_make_exchanges_incomplete_and_never_wrong(
        asks in vec(ask(), 1..10),
        batch in 1usize..5,
        cuts in vec(any::<Index>(), 0..30),
        losses in vec(any::<Index>(), 1..5),
        truncations in vec((any::<Index>(), any::<Index>()), 0..4),
        opened in any::<bool>(),
    ) {
        let conversation = Conversation::new(&asks, Order::Batches(batch), true);
        let mut script = Script::server(opened);
        let operations = script.operations(&conversation.moves, &cuts);
        script.deliver_lossy(operations, &truncations, &losses);
        let out = script.finish();
        check_truth(&conversation, &out)?;
    }

    #[test]
    fn a_lost_record_costs_one_exchange_and_no_more(
        asks in vec(ask(), 1..20),
        losses in vec(any::<Index>(), 0..6),
    ) {
        // A method that is not known is no beginning.
        let asks: Vec<Ask> = asks.into_iter().map(|ask| Ask { method: known(ask.method), ..ask }).collect();
        let conversation = Conversation::new(&asks, Order::Serial, true);
        let mut script = Script::new(Config::default());
        script.open(Role::Server);
        let operations = script.operations(&conversation.moves, &[]);
        let lost: std::collections::HashSet<_> = losses.iter().map(|loss| loss.index(operations.len())).collect();
        for (number, operation) in operations.into_iter().enumerate() {
            if !lost.contains(&number) {
                script.deliver(operation);
            }
        }
        let out = script.finish();
        let whole = check_truth(&conversation, &out)?;
        // A request whose answer was seen whole is told all the same; where a whole answer is lost with the request after it,
        // that request's place in the stream is not known, and so on until both are there.
        let untouched = (0..asks.len()).filter(|exchange| {
            let touched = |number: usize| lost.contains(&(2 * number)) || lost.contains(&(2 * number + 1));
            let in_doubt = (0..*exchange).rev().take_while(|before| touched(*before)).any(|before| {
                lost.contains(&(2 * before + 1)) && (before..*exchange).any(|between| lost.contains(&(2 * between)))
            });
            !touched(*exchange) && !in_doubt
        });
        prop_assert!(whole >= untouched.count(), "{whole} whole, lost: {lost:?}, {out:?}");
    }

    #[test]
    fn after_a_loss_nothing_waits_for_ever(
        asks in vec(ask(), 1..30),
        losses in vec(any::<Index>(), 0..30),
        pauses in vec(any::<Index>(), 0..8),
    ) {
        let conversation = Conversation::new(&asks, Order::Serial, true);
        let mut script = Script::new(Config::default());
        script.open(Role::Server);
        let operations = script.operations(&conversation.moves, &[]);
        let places = |indices: Vec<Index>| -> std::collections::HashSet<usize> {
            indices.iter().map(|index| index.index(operations.len())).collect()
        };
        let (lost, pauses) = (places(losses), places(pauses));
        for (number, mut operation) in operations.into_iter().enumerate() {
            if pauses.contains(&number) {
                script.tick(130 * MS);
            }
            operation.moment.ktime_ns = operation.moment.ktime_ns.max(script.now_ns);
            operation.moment.began_ns = operation.moment.ktime_ns;
            if !lost.contains(&number) {
                script.deliver(operation);
            }
        }
        // Each hole is waited for in its turn.
        for _ in 0..80 {
            script.tick(100 * MS);
        }
        let held: Vec<_> = script.flows.snapshot(1).iter().map(|flow| flow.buffered_bytes).collect();
        let in_flight: usize = script.flows.snapshot(1).iter().map(|flow| flow.in_flight).sum();
        prop_assert!(held.iter().all(|held| *held <= 1024 * in_flight), "{held:?} bytes wait, {in_flight} requests");
        prop_assert!(in_flight <= usize::from(lost.contains(&(2 * asks.len() - 1))), "{in_flight} in flight");
    }

    #[test]
    fn joined_anywhere_a_connection_tells_only_what_is_so(
        asks in vec(ask(), 1..10),
        cuts in vec(any::<Index>(), 0..30),
        from in any::<Index>(),
    ) {
        let conversation = Conversation::new(&asks, Order::Serial, false);
        let mut script = Script::new(Config::default());
        let operations = script.operations(&conversation.moves, &cuts);
        let from = from.index(operations.len());
        for operation in operations.into_iter().skip(from) {
            script.deliver(operation);
        }
        let out = script.finish();
        let whole = check_truth(&conversation, &out)?;
        prop_assert_eq!(whole, out.len(), "nothing was lost: {:?}", out);
    }

    #[test]
    fn bodies_that_were_not_captured_change_nothing(
        asks in vec(ask(), 1..8),
        limit in 200usize..400,
    ) {
        // Each message in an operation of its own, of which the head was captured.
        let framed = |body: &Body| matches!(body, Body::Chunks(..));
        let plain = !asks.iter().any(|ask| framed(&ask.request) || framed(&ask.response));
        let conversation = Conversation::new(&asks, Order::Serial, true);
        let mut script = Script::new(Config::default());
        script.open(Role::Server);
        for (direction, bytes) in &conversation.moves {
            let captured = bytes.get(..limit).unwrap_or(bytes);
            let chunk = script.operation(*direction, captured, bytes.len());
            script.deliver(chunk);
        }
        let out = script.finish();
        let whole = check_truth(&conversation, &out)?;
        prop_assert!(!plain || whole == asks.len(), "{out:?}");
    }

    #[test]
    fn arbitrary_bytes_give_no_exchange_and_no_panic(
        chunks in vec((any::<bool>(), vec(any::<u8>(), 0..200), -250i32..250), 0..30),
        opened in any::<bool>(),
    ) {
        let mut script = Script::new(Config::default());
        if opened {
            script.open(Role::Client);
        }
        for (send, bytes, jump) in chunks {
            let direction = if send { Direction::Send } else { Direction::Receive };
            // Holes, overlaps and bytes from before the beginning.
            let sequence = &mut script.sequences[direction as usize];
            *sequence = sequence.wrapping_add_signed(jump);
            script.play(direction, &bytes);
        }
        prop_assert!(script.finish().is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    /// The client goes on while lost records are waited for, until no more may be in flight. Where the wait is over at the end
    /// only, all that is here is read at once.
    #[test]
    fn losses_amid_a_quick_client_cost_only_their_rounds(
        (batch, rounds, pending) in (1usize..8, 15usize..25, 8usize..60),
        losses in vec(any::<Index>(), 1..4),
        wait_ms in prop_oneof![Just(100), Just(100_000)],
        role in prop_oneof![Just(Role::Client), Just(Role::Server)],
    ) {
        let ask = Ask { method: "GET", request: Body::None, response: Body::Length(20), interim: false };
        let conversation = Conversation::new(&vec![ask; batch * rounds], Order::Batches(batch), true);
        let reorder_wait = Interval::millis(wait_ms);
        let mut script = Script::new(Config { pending_per_connection: pending, reorder_wait, ..Config::default() });
        if role == Role::Client {
            script = script.at_client();
        }
        script.open(role);
        let mut lost: Vec<_> = losses.iter().map(|loss| loss.index(2 * rounds)).collect();
        // Of losses that follow each other, how far they reach is not always known.
        lost.sort_unstable();
        lost.dedup_by_key(|at| *at / 8);
        for (number, (direction, bytes)) in conversation.moves.iter().enumerate() {
            let direction = if role == Role::Client { direction.other() } else { *direction };
            let chunk = script.operation(direction, bytes, bytes.len());
            if !lost.contains(&number) {
                script.deliver(chunk);
            }
        }
        let out = script.finish();
        let whole = check_truth(&conversation, &out)?;
        let is_cut = |exchange: &&Exchange| exchange.error.as_ref().is_some_and(|error| error.starts_with("connection"));
        let failed: Vec<_> = out.iter().filter(is_cut).collect();
        prop_assert!(failed.is_empty(), "{failed:?}");
        prop_assert!(whole + batch * lost.len() >= batch * rounds, "{whole} whole, lost: {lost:?}");
    }
}

fn fixed() -> Conversation {
    let asks = [
        Ask { method: "GET", request: Body::None, response: Body::Length(20), interim: false },
        Ask { method: "POST", request: Body::Chunks(vec![5, 17], true), response: Body::None, interim: true },
        Ask { method: "HEAD", request: Body::None, response: Body::Length(9), interim: false },
        Ask { method: "POST", request: Body::Length(30), response: Body::Chunks(vec![40], true), interim: false },
    ];
    Conversation::new(&asks, Order::Serial, true)
}

#[test]
fn every_prefix_of_a_conversation_tells_a_prefix_of_its_exchanges() {
    let conversation = fixed();
    let total: usize = conversation.moves.iter().map(|(_, bytes)| bytes.len()).sum();
    for end in 0..=total {
        let mut script = Script::new(Config::default());
        script.open(Role::Server);
        let mut left = end;
        for (direction, bytes) in &conversation.moves {
            let moved = left.min(bytes.len());
            if moved > 0 {
                script.play(*direction, &bytes[..moved]);
            }
            left -= moved;
        }
        let out = script.finish();
        let whole = check_truth(&conversation, &out).unwrap();
        assert!(out.len() - whole <= 1, "at {end}: {out:?}");
        let seen: Vec<_> = out.iter().take(whole).map(seen).collect();
        assert_eq!(seen, conversation.expected[..whole], "at {end}");
        assert!(out.iter().skip(whole).all(|exchange| exchange.error.as_deref() == Some("connection_closed")));
    }
}

#[test]
fn every_change_of_one_byte_leaves_values_that_are_in_the_bytes() {
    let conversation = fixed();
    let mut differ = 0u32;
    for (number, (_, bytes)) in conversation.moves.iter().enumerate() {
        for at in 0..bytes.len() {
            for change in
                [b'\0', b'\r', b'\n', b' ', b'9', b',', b':', bytes[at] ^ 0x20, bytes[at].wrapping_add(1), 0xff]
            {
                let mut script = Script::new(Config::default());
                script.open(Role::Server);
                let mut streams = [Vec::new(), Vec::new()];
                for (other, (direction, bytes)) in conversation.moves.iter().enumerate() {
                    let mut bytes = bytes.clone();
                    if other == number {
                        bytes[at] = change;
                    }
                    streams[*direction as usize].extend_from_slice(&bytes);
                    script.play(*direction, &bytes);
                }
                let out = script.finish();
                for exchange in &out {
                    let seen = seen(exchange);
                    let asked = String::from_utf8_lossy(&streams[Direction::Receive as usize]).into_owned();
                    let answered = String::from_utf8_lossy(&streams[Direction::Send as usize]).into_owned();
                    assert!(asked.contains(&seen.path), "{seen:?}");
                    assert!(answered.contains(&format!(" {}", seen.status)), "{seen:?}");
                }
                let whole = out.iter().filter(|exchange| exchange.incomplete.is_none()).map(seen);
                differ += u32::from(!whole.eq(conversation.expected.iter().cloned()));
            }
        }
    }
    assert!(differ > 0, "the changes changed nothing");
}

#[test]
fn both_ends_of_a_connection_find_the_same_positions() {
    let conversation = fixed();
    let mut server = Script::new(Config::default());
    let mut client = Script::new(Config::default()).at_client();
    client.sequences.reverse();
    server.open(Role::Server);
    client.open(Role::Client);
    for (direction, bytes) in &conversation.moves {
        let opposite = if *direction == Direction::Send { Direction::Receive } else { Direction::Send };
        client.play(opposite, bytes);
        // The server's end moves the same bytes in other pieces.
        for piece in bytes.chunks(50) {
            server.play(*direction, piece);
        }
    }
    let wires = |out: Vec<Exchange>| -> Vec<_> { out.iter().map(seismo::traces::assemble::Wire::of).collect() };
    let (server, client) = (wires(server.finish()), wires(client.finish()));
    assert_eq!(server.len(), 4);
    assert_eq!(server, client);
}

/// Whether or not its first records, too, are lost.
#[test]
fn both_ends_of_a_connection_that_was_not_seen_to_open_find_the_same_wire() {
    let conversation = fixed();
    for (before, losing) in [0, 70_000].into_iter().flat_map(|before| [(before, 0), (before, 1)]) {
        for lost in 0..4 {
            check_wires(&conversation, before, |end, number| end == losing && number < lost);
        }
    }
}

fn check_wires(conversation: &Conversation, before: u64, is_lost: impl Fn(usize, usize) -> bool) {
    let mut ends = [Script::server(false), Script::server(false).at_client()];
    ends[1].sequences.reverse();
    let mut moved = [before; 2];
    let mut lost = 0;
    for (number, (direction, bytes)) in conversation.moves.iter().enumerate() {
        for (end, script) in ends.iter_mut().enumerate() {
            let direction = if end == 0 { *direction } else { direction.other() };
            let mut chunk = script.operation(direction, bytes, bytes.len());
            // The client counts its SYN as a byte sent, and the kernel does not say who was the client.
            let syn = u64::from(end == 1 && direction == Direction::Send);
            chunk.position = moved[(direction as usize + end) % 2] + syn;
            if is_lost(end, number) {
                lost += 1;
            } else {
                script.deliver(chunk);
            }
        }
        moved[*direction as usize] += bytes.len() as u64;
    }
    for (end, script) in ends.iter_mut().enumerate() {
        script.tick(10_000 * MS);
        let flow = script.flows.snapshot(1).remove(0);
        for way in [0, 1] {
            let told = flow.earlier_bytes[way].unwrap() + flow.seen_bytes[way] + flow.gap_bytes[way];
            assert_eq!(told, moved[(way + end) % 2], "end {end}, way {way}: {flow:?}");
        }
    }
    let [server, client] = ends.map(|script| {
        let out = script.finish();
        let whole = out.iter().filter(|exchange| exchange.incomplete.is_none());
        let wires = whole.map(seismo::traces::assemble::Wire::of);
        wires.inspect(|wire| assert!(wire.is_shared(), "{lost} lost, {before} before: {out:?}")).collect()
    });
    let (server, client): (Vec<_>, Vec<_>) = (server, client);
    let (few, many) = if server.len() < client.len() { (&server, &client) } else { (&client, &server) };
    assert!(few.len() + lost >= 4 && many.len() == 4, "{lost} lost: {server:?} {client:?}");
    assert_eq!(many[many.len() - few.len()..], few[..]);
}
