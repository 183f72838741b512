//! Every command that redis-cli and redis-py sent is an exchange with its operation, masked statement and error, on both
//! ends; also on a connection that is older than the agent; and with losses none is wrong.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::{Result, ensure};
use seismo_tests::agent::{Agent, Launch};
use seismo_tests::redis::{Redis, Told, counted, of_port, told};
use seismo_tests::rig::Rig;
use seismo_tests::spans::{Kind, Span};

const KINDS: [Kind; 2] = [Kind::Client, Kind::Server];
/// One payload record in so many is lost.
const DROP_ONE_IN: u64 = 10;

fn incomplete(span: &Span) -> String {
    span.attribute("seismo.incomplete")
}

/// Both ends tell exactly these commands.
fn compare(agent: &Agent<'_>, port: u16, what: &str, sent: &BTreeMap<Told, usize>) -> Result<()> {
    let total: usize = sent.values().sum();
    let port_text = port.to_string();
    let all =
        agent.awaited_spans(2 * total, |span| span.attribute("server.port") == port_text).or_else(|_| agent.spans())?;
    for kind in KINDS {
        let spans = of_port(all.clone(), port, kind);
        // The answer to redis-cli's own first question is longer than what is captured of a read.
        let spans_of_test = spans.iter().filter(|span| told(span).0 != "COMMAND DOCS");
        let broken: Vec<_> = spans_of_test.map(incomplete).filter(|reason| !reason.is_empty()).collect();
        let seen = counted(spans.iter().map(told));
        println!("{what}: {total} sent, {kind:?}: {} seen, {} incomplete", spans.len(), broken.len());
        let missing: Vec<_> = sent.iter().filter(|(each, count)| seen.get(each) != Some(count)).take(5).collect();
        let wrong: Vec<_> = seen.iter().filter(|(each, count)| sent.get(each) != Some(count)).take(5).collect();
        ensure!(missing.is_empty() && wrong.is_empty(), "{what} {kind:?}: sent {missing:?}, seen {wrong:?}");
        ensure!(broken.is_empty(), "{what} {kind:?}: incomplete {broken:?}");
    }
    Ok(())
}

fn by_redis_py(what: &str, rounds: usize) -> Result<()> {
    Rig::run(|rig| {
        let redis = Redis::start(rig)?;
        let agent = Agent::start(rig)?;
        let sent = counted(redis.client(rig, what, rounds)?.finish()?);
        compare(&agent, redis.port, what, &sent)?;
        let metric = "db_server_operation_duration_seconds_count";
        let total = sent.values().sum::<usize>() as f64;
        agent.reaches("operations of the server", total, |page| page.sum(metric, &[("db_system_name", "redis")]))?;
        agent.nothing_lost()
    })
}

#[test]
fn commands_of_redis_py_are_seen_one_by_one_on_both_ends() -> Result<()> {
    by_redis_py("plain", 300)
}

#[test]
fn pipelines_of_redis_py_are_seen_command_by_command_on_both_ends() -> Result<()> {
    by_redis_py("pipeline", 20)
}

#[test]
fn transactions_of_redis_py_are_seen_command_by_command_on_both_ends() -> Result<()> {
    by_redis_py("transaction", 20)
}

#[test]
fn messages_of_subscriptions_are_no_answers_on_either_end() -> Result<()> {
    by_redis_py("subscription", 4)
}

#[test]
fn commands_of_redis_cli_are_seen_in_both_versions_of_the_protocol() -> Result<()> {
    for (name, arguments) in [("RESP2", &[][..]), ("RESP3", &["-3"][..])] {
        Rig::run(|rig| {
            let redis = Redis::start(rig)?;
            let agent = Agent::start(rig)?;
            let mut lines = String::new();
            let mut sent = Vec::new();
            let mut send = |line: &str, operation: &str, statement: &str, code: &str| {
                writeln!(lines, "{line}").map(|()| sent.push((operation.into(), statement.into(), code.into())))
            };
            for turn in 0..100 {
                let key = format!("cli:{turn}");
                send(&format!("hset {key} f secret"), "HSET", &format!("HSET {key} ? ?"), "")?;
                send(&format!("hgetall {key}"), "HGETALL", &format!("HGETALL {key}"), "")?;
                send(&format!("incr {key}"), "INCR", &format!("INCR {key}"), "WRONGTYPE")?;
                send("config get maxmemory", "CONFIG GET", "CONFIG GET ?", "")?;
                send("eval \"return redis.call('get', KEYS[1])\" 1 no", "EVAL", "EVAL ? ? no", "")?;
                send("zadd z 1.5 a", "ZADD", "ZADD z ? ?", "")?;
                send("zrange z 0 -1 withscores", "ZRANGE", "ZRANGE z ? ? ?", "")?;
                send("nonsense secret", "_OTHER", "_OTHER", "ERR")?;
            }
            sent.push(("COMMAND DOCS".to_owned(), "COMMAND DOCS".to_owned(), String::new()));
            if !arguments.is_empty() {
                sent.push(("HELLO".to_owned(), "HELLO ?".to_owned(), String::new()));
            }
            redis.cli(rig, arguments, &lines)?;
            compare(&agent, redis.port, name, &counted(sent))?;
            agent.nothing_lost()
        })?;
    }
    Ok(())
}

#[test]
fn a_connection_older_than_the_agent_is_seen_from_its_next_command_on() -> Result<()> {
    Rig::run(|rig| {
        let redis = Redis::start(rig)?;
        let mut client = redis.client(rig, "waits", 3)?;
        let mut input = client.process.input()?;
        let before = client.sent(300)?.len();
        let agent = Agent::start(rig)?;
        input.write_all(b"\n\n")?;
        let sent = client.finish()?;
        compare(&agent, redis.port, "joined", &counted(sent.into_iter().skip(before)))?;
        agent.nothing_lost()
    })
}

#[test]
fn with_one_record_in_ten_lost_nothing_wrong_is_seen() -> Result<()> {
    for what in ["plain", "pipeline", "transaction"] {
        Rig::run(|rig| {
            let redis = Redis::start(rig)?;
            let config = Some(format!("capture:\n  drop_one_in: {DROP_ONE_IN}\n"));
            let agent = Agent::launch(rig, &Launch { config, ..Launch::default() })?;
            let rounds = if what == "plain" { 500 } else { 50 };
            let sent = counted(redis.client(rig, what, rounds)?.finish()?);
            let total: usize = sent.values().sum();
            agent.still(|page| page.sum("db_server_operation_duration_seconds_count", &[]))?;
            let all = agent.still_spans()?;
            for kind in KINDS {
                let spans = of_port(all.clone(), redis.port, kind);
                let (whole, partial): (Vec<_>, Vec<_>) = spans.iter().partition(|span| incomplete(span).is_empty());
                println!("{what}, {kind:?}: {} whole, {} incomplete", whole.len(), partial.len());
                for (each, count) in counted(whole.iter().map(|span| told(span))) {
                    ensure!(
                        sent.get(&each).is_some_and(|most| count <= *most),
                        "{what} {kind:?}: {count} times {each:?}, sent {:?}",
                        sent.iter().filter(|(other, _)| other.1 == each.1).collect::<Vec<_>>()
                    );
                }
                // What is not whole claims a code only if it is the right one.
                for span in &partial {
                    let (_, statement, code) = told(span);
                    let right = sent.keys().any(|(_, other, right)| *other == statement && *right == code);
                    ensure!(code.is_empty() || right, "{what} {kind:?}: {statement} {code}, {}", incomplete(span));
                }
                let failed = |span: &&Span| span.attribute("error.type").starts_with("connection_");
                ensure!(!spans.iter().any(|span| failed(&span)), "{what} {kind:?}: all were answered");
                // A record holds a round at most, and what is lost with it is that round and perhaps the one beside it.
                ensure!(2 * whole.len() > total, "{what} {kind:?}: of {total} {} are whole", whole.len());
            }
            Ok(())
        })?;
    }
    Ok(())
}
