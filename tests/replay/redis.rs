//! Redis conversations made up by proptest, and what becomes of every prefix, cut and hole of the Redis fixtures.
//!
//! Each command has a key of its own, and each answer an error code or a size of its own, so a wrong pairing shows.
//! Values look like commands and answers, for whoever looks for one in them.

use std::collections::HashSet;

use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::sample::Index;
use proptest::test_runner::TestCaseError;
use seismo::flows::Config;
use seismo::model::connection::{Direction, Role};
use seismo::model::exchange::Exchange;
use seismo::model::payload::PayloadChunk;
use seismo::protocols::{Event, Limits, REGISTRY, Side};
use seismo::semconv;

use crate::conversation::{Order, interleave, order};
use crate::script::{MS, Script};

type Moves = Vec<(Direction, Vec<u8>)>;

/// What the protocol is made of, right and wrong; a space separates.
const PIECES: &str = "*2~ *1~ *?~ *-1~ *0~ *99999999999999999999~ $3~GET~ $4~MSET~ $6~CLIENT~$5~REPLY~ $3~OFF~ $2~ON~ \
                      $4~SKIP~ $9~subscribe~ $7~message~ $100~ $1099511627776~ $?~ ;3~abc~ ;0~ .~ >3~ >1~ |1~ %1~ ~2~ \
                      +OK~ +QUEUED~ -ERR_no~ :1~ _~ #t~ ,1.5~ (12~ =5~txt:a~ !5~ERR_a~ ~ PING~ $0~~ $-1~ \0";

/// Enough for a change of the code to show; 20 000 were tried.
const CASES: u32 = 200;

#[derive(Clone, Debug)]
struct Ask {
    /// Bytes of the values that are sent, each with a key; none: the command only reads.
    values: Vec<usize>,
    answer: Answer,
    /// The server says something by itself before it answers.
    push: bool,
}

#[derive(Clone, Debug)]
enum Answer {
    Error,
    Text(usize),
    /// Sizes of its elements, in an array, a map in an array, or behind an attribute.
    Array(Vec<usize>, u8),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Expected {
    statement: String,
    status: String,
    sizes: (u64, u64),
}

struct Conversation {
    moves: Moves,
    expected: Vec<Expected>,
}

fn ask() -> impl Strategy<Value = Ask> {
    let size = || prop_oneof![2 => 0usize..30, 1 => 60usize..70, 1 => 200usize..2000];
    let answer = prop_oneof![
        Just(Answer::Error),
        size().prop_map(Answer::Text),
        (vec(size(), 1..5), 0u8..3).prop_map(|(sizes, shape)| Answer::Array(sizes, shape)),
    ];
    (vec(size(), 0..4), answer, any::<bool>()).prop_map(|(values, answer, push)| Ask { values, answer, push })
}

fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(format!("${}\r\n", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// `tempting`: what looks like commands and answers.
fn filling(size: usize, tempting: bool) -> Vec<u8> {
    let plain: &[u8] = b"word\r\n\r\n";
    let traps: &[u8] = b"*2\r\n$3\r\nGET\r\n$5\r\nwrong\r\n-WRONG x\r\n$2\r\nno\r\n";
    if tempting { traps } else { plain }.iter().copied().cycle().take(size).collect()
}

impl Conversation {
    fn new(asks: &[Ask], order: Order, tempting: bool) -> Self {
        let (mut messages, mut expected) = (Vec::new(), Vec::new());
        for (number, ask) in asks.iter().enumerate() {
            let (mut request, mut response) = (Vec::new(), Vec::new());
            let mut statement;
            if ask.values.is_empty() {
                request.extend_from_slice(b"*2\r\n$3\r\nget\r\n");
                string(&mut request, format!("k{number}").as_bytes());
                statement = format!("GET k{number}");
            } else {
                request.extend_from_slice(format!("*{}\r\n$4\r\nMSET\r\n", 1 + 2 * ask.values.len()).as_bytes());
                statement = "MSET".to_owned();
                let mut told = true;
                for (part, size) in ask.values.iter().enumerate() {
                    let key = format!("k{number}.{part}");
                    string(&mut request, key.as_bytes());
                    string(&mut request, &filling(*size, tempting));
                    statement += &if told { format!(" {key} ?") } else { " ? ?".to_owned() };
                    // Behind a long value nothing is shown.
                    told &= *size <= 64;
                }
            }
            if ask.push {
                response.extend_from_slice(b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n");
                string(&mut response, &filling(100 * (number % 3), tempting));
            }
            let before = response.len();
            // An answer's size is its number's own, whatever its kind.
            let own = |size: usize| size - size % 16 + number % 16;
            let mut status = "OK".to_owned();
            match &ask.answer {
                Answer::Error => {
                    status = format!("E{number}");
                    response.extend_from_slice(format!("-{status} went wrong\r\n").as_bytes());
                }
                Answer::Text(size) => string(&mut response, &filling(own(*size), tempting)),
                Answer::Array(sizes, shape) => {
                    if *shape == 2 {
                        response.extend_from_slice(b"|1\r\n+ttl\r\n:3\r\n");
                    }
                    response.extend_from_slice(format!("*{}\r\n", sizes.len() + 1).as_bytes());
                    response.extend_from_slice(if *shape == 1 { b"%1\r\n+k\r\n*1\r\n-ERR in\r\n" } else { b":1\r\n" });
                    sizes.iter().for_each(|size| string(&mut response, &filling(*size, tempting)));
                }
            }
            let sizes = (request.len() as u64, (response.len() - before) as u64);
            expected.push(Expected { statement, status, sizes });
            messages.push((request, response));
        }
        // The connection is known by its first exchange.
        messages.insert(
            0,
            (b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n".to_vec(), b"%1\r\n$6\r\nserver\r\n$5\r\nredis\r\n".to_vec()),
        );
        expected.insert(0, Expected { statement: "HELLO ?".to_owned(), status: "OK".to_owned(), sizes: (22, 27) });
        Self { moves: interleave(messages, order), expected }
    }
}

fn seen(exchange: &Exchange) -> Expected {
    Expected {
        statement: exchange.attributes.text(semconv::DB_QUERY_TEXT).unwrap_or_default().to_owned(),
        status: exchange.status.as_deref().unwrap_or_default().to_owned(),
        sizes: (exchange.request.size_bytes, exchange.response.map_or(0, |response| response.size_bytes)),
    }
}

/// Every exchange that claims to be whole is one of the conversation; the others claim nothing that is not so.
fn check_truth(expected: &[Expected], out: &[Exchange]) -> Result<usize, TestCaseError> {
    let mut statements = HashSet::new();
    let mut whole = 0;
    for exchange in out {
        let seen = seen(exchange);
        if exchange.incomplete.is_none() && exchange.error.as_deref() != Some("connection_closed") {
            // Answered before the end of the command was seen: its size is what was seen of it.
            let is_it = |each: &Expected| {
                (&each.statement, &each.status, each.sizes.1) == (&seen.statement, &seen.status, seen.sizes.1)
                    && seen.sizes.0 <= each.sizes.0
            };
            prop_assert!(expected.iter().any(is_it), "{exchange:?}");
            prop_assert!(statements.insert(seen.statement.clone()), "{} came twice", seen.statement);
            whole += 1;
        } else if let Some(status) = &exchange.status {
            // What is shown of a statement that was cut begins like the whole one.
            let shown = seen.statement.trim_end_matches([' ', '?', '.']);
            let right = expected.iter().any(|each| each.statement.starts_with(shown) && each.status == *status);
            prop_assert!(right, "{exchange:?}");
        }
    }
    Ok(whole)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn in_whatever_pieces_a_conversation_comes_it_is_the_same(
        asks in vec(ask(), 1..8),
        order in order(),
        cuts in vec(any::<Index>(), 0..60),
    ) {
        let conversation = Conversation::new(&asks, order, true);
        let mut script = Script::server(true);
        for operation in script.operations(&conversation.moves, &cuts) {
            script.deliver(operation);
        }
        let out = script.finish();
        prop_assert!(out.iter().all(|exchange| exchange.incomplete.is_none()), "{out:?}");
        let seen: Vec<_> = out.iter().map(seen).collect();
        prop_assert_eq!(seen, conversation.expected);
    }

    #[test]
    fn long_values_that_were_not_captured_change_nothing(asks in vec(ask(), 1..8)) {
        // Each message in an operation of its own, captured up to its first long value.
        let asks: Vec<_> = asks.into_iter().map(|ask| Ask {
            values: ask.values.into_iter().take(1).collect(),
            answer: match ask.answer { Answer::Array(..) => Answer::Text(500), other => other },
            push: false,
        }).collect();
        let conversation = Conversation::new(&asks, Order::Serial, true);
        let mut script = Script::server(true);
        for (direction, bytes) in &conversation.moves {
            let captured = bytes.get(..48).unwrap_or(bytes);
            let chunk = script.operation(*direction, captured, bytes.len());
            script.deliver(chunk);
        }
        let out = script.finish();
        let short = |ask: &Ask| ask.values.iter().all(|size| *size > 64 || *size < 16);
        let whole = check_truth(&conversation.expected, &out)?;
        prop_assert!(!asks.iter().all(short) || whole == conversation.expected.len(), "{out:?}");
    }

    #[test]
    fn losses_make_commands_incomplete_and_never_wrong(
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
        check_truth(&conversation.expected, &script.finish())?;
    }

    #[test]
    fn pieces_of_the_protocol_in_any_order_are_bounded_and_accounted_for(
        picks in vec((any::<bool>(), any::<Index>(), 0usize..12), 0..200),
    ) {
        let mut script = Script::server(true);
        script.play(Direction::Receive, b"*1\r\n$4\r\nPING\r\n");
        let limits = Limits { head_bytes: 1024, fresh: true };
        let open = REGISTRY.iter().find(|row| row.name == "redis").and_then(|row| row.dialect).unwrap();
        let mut parser = open(&seismo::protocols::Config::default()).parser(limits);
        for (send, pick, cut) in picks {
            let pieces: Vec<&str> = PIECES.split(' ').collect();
            let text = pieces[pick.index(pieces.len())].replace('~', "\r\n");
            let piece = text.as_bytes().get(cut..).filter(|rest| !rest.is_empty()).unwrap_or(text.as_bytes());
            let (direction, side) =
                if send { (Direction::Send, Side::Response) } else { (Direction::Receive, Side::Request) };
            script.play(direction, piece);
            let mut rest = piece;
            while !rest.is_empty() {
                let step = parser.feed(side, rest, None);
                prop_assert!(step.taken <= rest.len() && parser.buffered_bytes() <= 2048);
                rest = &rest[step.taken..];
                match step.event {
                    Event::NeedMore => prop_assert!(step.taken > 0),
                    Event::Broken(_) => {
                        parser.cut(side);
                        parser.reset(side);
                        break;
                    }
                    _ => {}
                }
            }
        }
        script.finish();
    }

    #[test]
    fn joined_anywhere_a_connection_tells_only_what_is_so(
        asks in vec(ask(), 1..10),
        cuts in vec(any::<Index>(), 0..30),
        from in any::<Index>(),
    ) {
        let conversation = Conversation::new(&asks, Order::Serial, false);
        let mut script = Script::server(false);
        let operations = script.operations(&conversation.moves, &cuts);
        let from = from.index(operations.len());
        for operation in operations.into_iter().skip(from) {
            script.deliver(operation);
        }
        check_truth(&conversation.expected, &script.finish())?;
    }
}

/// The bytes that each fixture moves, with its name.
fn fixtures() -> Vec<(String, Moves)> {
    let redis = |file: &std::path::PathBuf| file.parent().is_some_and(|folder| folder.ends_with("redis"));
    crate::fixtures::files()
        .iter()
        .filter(|file| redis(file))
        .map(|file| {
            let text = std::fs::read_to_string(file).unwrap();
            (file.display().to_string(), crate::fixtures::moves(&text))
        })
        .collect()
}

/// Plays a fixture's bytes; `each` says what becomes of an operation.
fn play(moves: &[(Direction, Vec<u8>)], mut each: impl FnMut(usize, PayloadChunk, &mut Script)) -> Vec<Exchange> {
    let mut script = Script::server(true);
    for (number, (direction, bytes)) in moves.iter().enumerate() {
        let chunk = script.operation(*direction, bytes, bytes.len());
        each(number, chunk, &mut script);
    }
    script.finish()
}

/// The operation and the status of exchanges that claim to be whole.
fn whole(out: &[Exchange]) -> Vec<(String, String, u64)> {
    let whole = out.iter().filter(|exchange| exchange.incomplete.is_none() && exchange.status.is_some());
    whole
        .map(|exchange| {
            let statement = exchange.attributes.text(semconv::DB_QUERY_TEXT).unwrap_or_default();
            (statement.to_owned(), exchange.status.as_deref().unwrap_or_default().to_owned(), exchange.request.position)
        })
        .collect()
}

#[test]
fn every_cut_of_a_fixture_changes_nothing_and_every_prefix_tells_a_part() {
    for (name, moves) in fixtures() {
        let all = whole(&play(&moves, |_, chunk, script| script.deliver(chunk)));
        for at in 0..moves.len() {
            for cut in 1..moves[at].1.len() {
                let mut halves = moves.clone();
                let rest = halves[at].1.split_off(cut);
                halves.insert(at + 1, (moves[at].0, rest));
                let seen = whole(&play(&halves, |_, chunk, script| script.deliver(chunk)));
                assert_eq!(seen, all, "{name}: operation {at} cut at {cut}");
                halves.truncate(at + 1);
                let seen = whole(&play(&halves, |_, chunk, script| script.deliver(chunk)));
                assert!(seen.iter().all(|each| all.contains(each)), "{name}: ends at {at} {cut}: {seen:?}");
            }
        }
    }
}

#[test]
fn every_hole_in_a_fixture_leaves_only_what_is_so() {
    for (name, moves) in fixtures() {
        let all = whole(&play(&moves, |_, chunk, script| script.deliver(chunk)));
        // A stream whose beginning is lost cannot be told from one that begins later.
        let first = moves.iter().position(|(direction, _)| *direction != moves[0].0).unwrap_or(0);
        for hole in (1..moves.len()).filter(|hole| *hole != first) {
            let seen = whole(&play(&moves, |number, chunk, script| {
                if number != hole {
                    script.deliver(chunk);
                }
            }));
            let wrong: Vec<_> = seen.iter().filter(|each| !all.contains(each)).collect();
            assert!(wrong.is_empty(), "{name} without operation {hole}: {wrong:?}");
            for kept in 0..moves[hole].1.len() {
                let seen = whole(&play(&moves, |number, mut chunk, script| {
                    if number == hole {
                        chunk.data.truncate(kept);
                    }
                    script.deliver(chunk);
                }));
                let known = |position: u64| all.iter().any(|(_, _, other)| *other == position);
                let wrong: Vec<_> = seen.iter().filter(|(_, _, position)| !known(*position)).collect();
                assert!(wrong.is_empty(), "{name}, operation {hole} captured to {kept}: {wrong:?}");
            }
        }
    }
}

#[test]
fn whatever_a_server_says_by_itself_takes_no_memory() {
    let mut script = Script::new(Config::default()).at_client();
    script.open(Role::Client);
    script.play(Direction::Send, b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n");
    script.play(Direction::Receive, b"%1\r\n$6\r\nserver\r\n$5\r\nredis\r\n");
    for _ in 0..1000 {
        script.play(Direction::Receive, b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n");
        script.tick(MS);
    }
    let kept = script.flows.snapshot(1)[0].buffered_bytes;
    assert!(kept < 1000, "{kept}");
    assert_eq!(script.finish().len(), 1);
}

/// A quick client: an answer that tells no protocol comes a hundred times before a lost request is given up.
#[test]
fn whatever_is_lost_of_a_connections_beginning_its_next_requests_are_seen() {
    const ROUNDS: usize = 200;
    let words = |texts: &[&str]| {
        let mut command = format!("*{}\r\n", texts.len()).into_bytes();
        texts.iter().for_each(|text| string(&mut command, text.as_bytes()));
        command
    };
    let mut moves = Vec::new();
    for round in 0..ROUNDS {
        let key = format!("k{round}");
        let (command, answer): (Vec<u8>, &[u8]) = match round % 3 {
            0 => (words(&["SET", &key, "value"]), b"+OK\r\n"),
            1 => (words(&["GET", &key]), b"$5\r\nvalue\r\n"),
            _ => (words(&["LPUSH", &key, "x"]), b"-WRONGTYPE Operation\r\n"),
        };
        moves.extend([(Direction::Receive, command), (Direction::Send, answer.to_vec())]);
    }
    let losses = (0..6).flat_map(|first| (first..6).map(move |second| [first, second]));
    for (lost, role) in losses.flat_map(|lost| [(lost, Role::Server), (lost, Role::Client)]) {
        let mut script = Script::new(Config::default());
        if role == Role::Client {
            script = script.at_client();
        }
        script.open(role);
        for (number, (direction, bytes)) in moves.iter().enumerate() {
            let direction = if role == Role::Client { direction.other() } else { *direction };
            let chunk = script.operation(direction, bytes, bytes.len());
            script.now_ns -= MS / 2;
            if !lost.contains(&number) {
                script.deliver(chunk);
            }
        }
        let out = script.finish();
        let whole = out.iter().filter(|exchange| exchange.incomplete.is_none() && exchange.status.is_some()).count();
        assert!(whole >= ROUNDS - 4, "{role:?} without {lost:?}: {whole} of {ROUNDS}");
    }
}

/// The same where requests come many at a time and all is over before a lost one is given up, or not.
#[test]
fn whatever_is_lost_of_a_pipelines_beginning_the_rest_is_seen() {
    const ROUNDS: usize = 50;
    const AT_ONCE: usize = 30;
    /// Records of which some are lost: two rounds.
    const FIRST: usize = 4;
    for (losses, fraction) in (0u32..1 << FIRST).flat_map(|losses| [1, 5, 20].map(|fraction| (losses, fraction))) {
        for role in [Role::Server, Role::Client] {
            let mut script = Script::new(Config::default());
            if role == Role::Client {
                script = script.at_client();
            }
            script.open(role);
            for round in 0..ROUNDS {
                let mut asked = Vec::new();
                for place in 0..AT_ONCE {
                    let key = format!("k{round}:{place}");
                    asked.extend(b"*3\r\n");
                    ["SET", &key, "value"].iter().for_each(|text| string(&mut asked, text.as_bytes()));
                }
                let moves = [(Direction::Receive, asked), (Direction::Send, b"+OK\r\n".repeat(AT_ONCE))];
                for (number, (direction, bytes)) in moves.iter().enumerate() {
                    let direction = if role == Role::Client { direction.other() } else { *direction };
                    let chunk = script.operation(direction, bytes, bytes.len());
                    script.now_ns -= MS - MS / fraction;
                    if 2 * round + number >= FIRST || losses >> (2 * round + number) & 1 == 0 {
                        script.deliver(chunk);
                    }
                }
            }
            let out = script.finish();
            let whole =
                out.iter().filter(|exchange| exchange.incomplete.is_none() && exchange.status.is_some()).count();
            let least = (ROUNDS - FIRST) * AT_ONCE;
            assert!(whole >= least, "{role:?} without {losses:04b}, 1/{fraction} ms: {whole}, not {least}");
        }
    }
}
