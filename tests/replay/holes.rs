//! Every prefix, cut and hole of a protocol's fixtures: what is told of an exchange is what the whole conversation tells.
//!
//! A conversation is a fixture's operations. An exchange that claims to be whole must be one of the whole conversation's, at the same
//! place of the stream; one that does not may say less, never something else. Every byte is accounted for.

use std::collections::HashMap;
use std::path::PathBuf;

use seismo::flows::Config;
use seismo::model::connection::{Direction, Role};
use seismo::model::exchange::Exchange;
use seismo::semconv;

use crate::fixtures::{files, written};
use crate::script::{MS, Script};

/// Operations of one end, each in one direction.
struct Conversation {
    name: PathBuf,
    role: Role,
    moves: Vec<(Direction, Vec<u8>)>,
}

/// What must not differ: operation, resource, status and every attribute but those that loss may take away.
type Told = (String, String, Option<String>, Vec<(&'static str, String)>);

fn told(exchange: &Exchange) -> Told {
    let attributes = exchange
        .attributes
        .iter()
        .filter(|(key, _)| key.starts_with("db.") && *key != "db.namespace")
        .map(|(key, value)| (key, format!("{value:?}")))
        .collect();
    let [operation, resource] = [&exchange.operation, &exchange.resource].map(ToString::to_string);
    (operation, resource, exchange.status.as_ref().map(ToString::to_string), attributes)
}

/// Sequence number of a request's first byte, whatever was seen of the connection before.
fn place(exchange: &Exchange) -> u32 {
    exchange.wire.map_or(0, |wire| wire.client).wrapping_add(exchange.request.position) as u32
}

/// The fixtures of a protocol that are nothing but operations captured whole, and right.
fn conversations(protocol: &str) -> Vec<Conversation> {
    let of_protocol = |file: &PathBuf| file.parent().is_some_and(|folder| folder.ends_with(protocol));
    let files = files().into_iter().filter(of_protocol);
    let is_told_whole =
        |conversation: &Conversation| whole(conversation).iter().all(|exchange| exchange.incomplete.is_none());
    let found: Vec<_> = files.filter_map(conversation).filter(is_told_whole).collect();
    assert!(!found.is_empty(), "{protocol}");
    found
}

fn conversation(name: PathBuf) -> Option<Conversation> {
    let text = std::fs::read_to_string(&name).unwrap();
    let (mut role, mut moves) = (None, Vec::new());
    for line in text.lines().take_while(|line| *line != "----") {
        match line.split_once(' ') {
            Some(("open", "client")) => role = Some(Role::Client),
            Some(("open", "server")) => role = Some(Role::Server),
            Some((word @ (">" | "<"), rest)) => {
                let direction = if word == ">" { Direction::Send } else { Direction::Receive };
                match written(rest)? {
                    ("", bytes) => moves.push((direction, bytes)),
                    // Lost, late or captured short.
                    _ => return None,
                }
            }
            None | Some(("#", _)) => {}
            // Timed or lossy already.
            Some(_) => return None,
        }
    }
    Some(Conversation { name, role: role?, moves })
}

/// Plays some operations: bytes captured, bytes moved, and whether its record comes.
fn play(conversation: &Conversation, open: bool, operations: &[(Direction, &[u8], usize, bool)]) -> Vec<Exchange> {
    let mut script = Script::new(Config::default());
    if conversation.role == Role::Client {
        script = script.at_client();
    }
    if open {
        script.open(conversation.role);
    }
    for (direction, bytes, length, delivered) in operations {
        let chunk = script.operation(*direction, bytes, *length);
        if *delivered {
            script.deliver(chunk);
        }
    }
    script.tick(10_000 * MS);
    script.close(0);
    script.check_accounts();
    script.out
}

fn whole(conversation: &Conversation) -> Vec<Exchange> {
    let operations: Vec<_> =
        conversation.moves.iter().map(|(direction, bytes)| (*direction, bytes.as_slice(), bytes.len(), true)).collect();
    play(conversation, true, &operations)
}

/// `may_forget`: what an exchange does may be unknown, because what came before is.
fn check(conversation: &Conversation, truth: &[Exchange], out: &[Exchange], may_forget: bool, what: &str) -> usize {
    let places: HashMap<_, _> = truth.iter().map(|exchange| (place(exchange), exchange)).collect();
    let mut complete = 0;
    for exchange in out {
        let name = conversation.name.display();
        let Some(expected) = places.get(&place(exchange)) else {
            panic!("{name}, {what}: nobody asked for {exchange:?}");
        };
        let is_unknown = |exchange: &Exchange| exchange.attributes.get("seismo.db.statement.unknown").is_some();
        let unknown = is_unknown(exchange);
        assert!(!unknown || may_forget || is_unknown(expected), "{name}, {what}: forgotten {exchange:?}");
        let (seen, expected) = (told(exchange), told(expected));
        if exchange.incomplete.is_none() && exchange.error.as_deref() != Some("connection_closed") {
            complete += 1;
            assert_eq!(seen.2, expected.2, "{name}, {what}: {exchange:?}");
            assert!(unknown || seen == expected, "{name}, {what}: {seen:?} is not {expected:?}");
        } else {
            assert!(seen.2.is_none() || seen.2 == expected.2, "{name}, {what}: {exchange:?}");
            // A statement of which only the beginning came has fewer words, perhaps none, and none of its own.
            let nothing = exchange.attributes.get(semconv::DB_QUERY_SUMMARY).is_none();
            let begins = expected.1.starts_with(&seen.1) && seen.0 == expected.0;
            assert!(unknown || nothing || begins, "{name}, {what}: {seen:?} does not begin {expected:?}");
        }
    }
    complete
}

#[test]
fn every_prefix_tells_a_prefix_of_the_exchanges() {
    for conversation in conversations("postgresql") {
        let truth = whole(&conversation);
        let total: usize = conversation.moves.iter().map(|(_, bytes)| bytes.len()).sum();
        let mut last = 0;
        for end in 0..=total {
            let mut left = end;
            let mut operations = Vec::new();
            for (direction, bytes) in &conversation.moves {
                let moved = &bytes[..left.min(bytes.len())];
                left -= moved.len();
                if !moved.is_empty() {
                    operations.push((*direction, moved, moved.len(), true));
                }
            }
            let out = play(&conversation, true, &operations);
            let complete = check(&conversation, &truth, &out, false, &format!("prefix of {end}"));
            assert!(complete >= last, "{}: an exchange was taken back at {end}", conversation.name.display());
            last = complete;
        }
    }
}

#[test]
fn every_cut_of_an_operation_changes_nothing() {
    for conversation in conversations("postgresql") {
        let truth = whole(&conversation);
        for (number, (_, bytes)) in conversation.moves.iter().enumerate() {
            for cut in 1..bytes.len() {
                let mut operations = Vec::new();
                for (other, (direction, bytes)) in conversation.moves.iter().enumerate() {
                    let parts = if other == number { bytes.split_at(cut) } else { (bytes.as_slice(), &[][..]) };
                    for part in [parts.0, parts.1].into_iter().filter(|part| !part.is_empty()) {
                        operations.push((*direction, part, part.len(), true));
                    }
                }
                let out = play(&conversation, true, &operations);
                let what = format!("operation {number} cut at {cut}");
                check(&conversation, &truth, &out, false, &what);
                let same = out.iter().map(told).eq(truth.iter().map(told));
                assert!(same, "{}, {what}: {out:?}", conversation.name.display());
            }
        }
    }
}

#[test]
fn every_hole_is_told_and_nothing_wrong_is() {
    let mut complete = 0;
    for conversation in conversations("postgresql") {
        let truth = whole(&conversation);
        for lost in 0..conversation.moves.len() {
            for kept in [None, Some(0), Some(1), Some(5), Some(20), Some(60)] {
                let operations: Vec<_> = conversation
                    .moves
                    .iter()
                    .enumerate()
                    .map(|(number, (direction, bytes))| {
                        let captured = if number == lost { kept.unwrap_or(0) } else { bytes.len() };
                        let captured = bytes.get(..captured).unwrap_or(bytes);
                        (*direction, captured, bytes.len(), number != lost || kept.is_some())
                    })
                    .collect();
                let out = play(&conversation, true, &operations);
                complete += check(&conversation, &truth, &out, true, &format!("operation {lost}, {kept:?} kept"));
            }
        }
    }
    assert!(complete > 0, "a hole takes everything");
}

#[test]
fn joined_at_any_turn_only_what_is_so_is_told() {
    let mut complete = 0;
    for conversation in conversations("postgresql") {
        let truth = whole(&conversation);
        for from in 1..conversation.moves.len() {
            // In the middle of a pipeline nothing tells that requests before are still to be answered.
            if conversation.moves[from - 1].0 == conversation.moves[from].0 {
                continue;
            }
            let operations: Vec<_> = conversation
                .moves
                .iter()
                .enumerate()
                .map(|(number, (direction, bytes))| (*direction, bytes.as_slice(), bytes.len(), number >= from))
                .collect();
            let out = play(&conversation, false, &operations);
            complete += check(&conversation, &truth, &out, true, &format!("joined at {from}"));
        }
    }
    assert!(complete > 0, "a connection that was joined tells nothing");
}
