//! `tests/fixtures/*/*.txt`: operations, a line of dashes, then what must come of them.
//!
//! Lines: `open client|server`, `> "…"` (send), `< "…"` (receive), `close [errno]`, `tick 5s`, `attributes` (show them),
//! `# …`. Before the text may stand `lost` (moved, no record), `late` (delivered after the next operation),
//! `length=N` (moved, of which the text was captured) and `again` (at the sequence number of the one before).
//! Behind it `*N` repeats the text. Escapes in the text: \r \n \t \0 \xNN \" \\.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use seismo::flows::{Config, Visibility};
use seismo::model::attributes::Value;
use seismo::model::connection::{Direction, Role};
use seismo::model::exchange::Exchange;
use seismo::model::payload::PayloadChunk;
use seismo::section::Interval;

use crate::script::Script;

const SEPARATOR: &str = "----\n";

#[test]
fn every_fixture_gives_its_expected_text() {
    let files = files();
    assert!(!files.is_empty());
    let wrong: Vec<_> = files.iter().filter_map(|file| check(file)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The fixtures of every protocol.
pub fn files() -> Vec<PathBuf> {
    let entries = |folder: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let folders = entries(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures"));
    let mut files: Vec<_> = folders.iter().flat_map(|folder| entries(folder)).collect();
    files.sort();
    files
}

/// What is wrong with a fixture.
fn check(file: &Path) -> Option<String> {
    let text = std::fs::read_to_string(file).unwrap();
    let (input, expected) = text.split_once(SEPARATOR).unwrap_or((&text, ""));
    let seen = run(input);
    if seen == expected {
        return None;
    }
    if std::env::var_os("SEISMO_UPDATE").is_some() {
        std::fs::write(file, format!("{input}{SEPARATOR}{seen}")).unwrap();
        return None;
    }
    Some(format!("{}\nexpected:\n{expected}\nseen:\n{seen}", file.display()))
}

fn run(input: &str) -> String {
    let mut script = Script::new(Config::default());
    let mut attributes = false;
    let mut late: Vec<PayloadChunk> = Vec::new();
    for (number, line) in input.lines().enumerate() {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "" | "#" => {}
            "attributes" => attributes = true,
            "open" if rest == "client" => {
                script = script.at_client();
                script.open(Role::Client);
            }
            "open" if rest == "server" => script.open(Role::Server),
            "close" => script.close(rest.parse().unwrap_or(0)),
            "tick" => script.tick(rest.parse::<Interval>().unwrap().as_ns()),
            ">" => operation(&mut script, Direction::Send, rest, &mut late),
            "<" => operation(&mut script, Direction::Receive, rest, &mut late),
            _ => panic!("line {}: {line}", number + 1),
        }
    }
    if !script.flows.is_empty() {
        script.close(0);
    }
    render(&mut script, attributes)
}

fn operation(script: &mut Script, direction: Direction, line: &str, late: &mut Vec<PayloadChunk>) {
    let (options, bytes) = written(line).unwrap();
    let mut length = bytes.len();
    let (mut lost, mut is_late) = (false, false);
    for option in options.split_whitespace() {
        match option.split_once('=') {
            Some(("length", number)) => length = number.parse().unwrap(),
            None if option == "lost" => lost = true,
            None if option == "late" => is_late = true,
            None if option == "again" => {
                let sequence = &mut script.sequences[direction as usize];
                *sequence = sequence.wrapping_sub(u32::try_from(length).unwrap());
            }
            _ => panic!("option {option}"),
        }
    }
    let chunk = script.operation(direction, &bytes, length);
    if is_late {
        late.push(chunk);
        return;
    }
    if !lost {
        script.deliver(chunk);
    }
    for chunk in late.drain(..) {
        script.deliver(chunk);
    }
}

/// Which bytes a fixture moves, without anything that happens to them; dots for those that it does not say.
pub fn moves(text: &str) -> Vec<(Direction, Vec<u8>)> {
    let input = text.split(SEPARATOR).next().unwrap_or_default();
    input
        .lines()
        .filter_map(|line| {
            let direction = match line.split_once(' ')?.0 {
                ">" => Direction::Send,
                "<" => Direction::Receive,
                _ => return None,
            };
            let (options, mut bytes) = written(line)?;
            let length = options.split_whitespace().find_map(|option| option.strip_prefix("length="));
            bytes.resize(length.map_or(bytes.len(), |length| length.parse().unwrap()), b'.');
            Some((direction, bytes))
        })
        .collect()
}

/// What stands before the text of a line, and its bytes.
pub fn written(line: &str) -> Option<(&str, Vec<u8>)> {
    let (options, text) = line.split_once('"')?;
    let (text, repeat) = text.rsplit_once('"')?;
    let repeat = repeat.trim().strip_prefix('*').map_or(1, |count| count.parse().unwrap());
    Some((options, unescape(text).repeat(repeat)))
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match (byte, byte == b'\\') {
            (byte, false) => byte,
            (_, true) => match rest.next().unwrap() {
                b'r' => b'\r',
                b'n' => b'\n',
                b't' => b'\t',
                b'0' => 0,
                b'x' => {
                    let digits = [rest.next().unwrap(), rest.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                other => other,
            },
        });
    }
    bytes
}

fn render(script: &mut Script, attributes: bool) -> String {
    let mut text = String::new();
    for exchange in &script.out {
        render_exchange(exchange, attributes, &mut text);
    }
    let mut counts: Vec<_> = script.flows.counts().iter().collect();
    counts.sort_unstable();
    let counts: Vec<_> = counts.iter().map(|(reason, count)| format!("{reason}={count}")).collect();
    writeln!(text, "counts: {}", counts.join(" ")).unwrap();
    let mut bytes: Vec<(Visibility, u64)> = Vec::new();
    let mut visible = 0;
    script.flows.drain_visibility(|_, visibility, count| {
        bytes.push((visibility, count));
        visible += count;
    });
    bytes.sort_unstable();
    let bytes: Vec<_> = bytes.iter().map(|(visibility, count)| format!("{}={count}", visibility.name())).collect();
    writeln!(text, "bytes: {}", bytes.join(" ")).unwrap();
    text
}

fn render_exchange(exchange: &Exchange, attributes: bool, text: &mut String) {
    let role = if exchange.role == Role::Client { "client" } else { "server" };
    write!(text, "{role} {} {}", exchange.operation, exchange.resource).unwrap();
    write!(text, " -> {}", exchange.status.as_deref().unwrap_or("-")).unwrap();
    write!(text, " request {}+{}", exchange.request.size_bytes, exchange.request.body_bytes).unwrap();
    if let Some(response) = exchange.response {
        write!(text, " response {}+{}", response.size_bytes, response.body_bytes).unwrap();
    }
    write!(text, " in {}ms", (exchange.end_ns - exchange.request.first_ns) / 1_000_000).unwrap();
    if let Some(error) = &exchange.error {
        write!(text, " error {error}").unwrap();
    }
    if let Some(incomplete) = exchange.incomplete {
        write!(text, " incomplete {}", incomplete.name()).unwrap();
    }
    text.push('\n');
    if attributes {
        for (key, value) in exchange.attributes.iter() {
            match value {
                Value::Text(value) => writeln!(text, "  {key} = {value:?}").unwrap(),
                Value::Int(value) => writeln!(text, "  {key} = {value}").unwrap(),
                other => writeln!(text, "  {key} = {other:?}").unwrap(),
            }
        }
        writeln!(text, "  {} {:?}", exchange.measure.metric.name, exchange.measure.labels).unwrap();
    }
}
