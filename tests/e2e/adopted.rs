//! A connection that was open before the agent, with a megabyte behind it and a request in flight, gives right spans from
//! its next request on.

use anyhow::{Context, Result, ensure};
use seismo_tests::agent::{Agent, Launch};
use seismo_tests::conversation::{client, server};
use seismo_tests::player::Player;
use seismo_tests::rig::Rig;
use seismo_tests::spans::{Kind, Span};

const CLIENT: &str = env!("CARGO_BIN_EXE_seismo-testclient");
const BEFORE: usize = 1 << 20;
const NEXT: [&str; 4] = ["/next/1", "/next/2", "/next/3", "/next/4"];

fn id<'a>(span: &'a Span, key: &str) -> Option<&'a str> {
    span.json.get(key).and_then(|id| id.as_str()).filter(|id| !id.is_empty())
}

/// `config`: of the agent; `adopted`: connections that it takes up when it starts.
fn old_connection(config: &str, adopted: f64) -> Result<()> {
    Rig::run(|rig| {
        let mut player = Player::start(rig, CLIENT, "old", &["play"], |command| rig.inside("old", command))?;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BEFORE}\r\n\r\n");
        player.play(&[
            client("GET /before HTTP/1.1\r\nHost: x\r\n\r\n"),
            server([head.into_bytes(), vec![b'x'; BEFORE]].concat()),
            client("GET /in-flight HTTP/1.1\r\nHo"),
        ])?;
        let agent = Agent::launch(rig, &Launch { config: Some(config.to_owned()), ..Launch::default() })?;
        let taken_up = agent.page()?.sum("seismo_adopted_total", &[]);
        ensure!(taken_up == adopted, "{taken_up} ends were taken up");
        player.play(&[client("st: x\r\n\r\n"), server("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nlate!")])?;
        for path in NEXT {
            player.request(path)?;
        }
        let spans = agent.awaited_spans(2 * NEXT.len(), |span| span.path().starts_with("/next"))?;
        for path in NEXT {
            let of = |kind: Kind| {
                let mut of = spans.iter().filter(|span| span.kind == kind && span.path() == path);
                let first = of.next().with_context(|| format!("no {kind:?} span for {path}"))?;
                ensure!(of.next().is_none(), "two {kind:?} spans for {path}");
                ensure!(first.status() == "200", "{path}: {}", first.json);
                anyhow::Ok(first)
            };
            let (asked, answered) = (of(Kind::Client)?, of(Kind::Server)?);
            println!("{path}: {:?} → {:?}", id(asked, "spanId"), id(answered, "parentSpanId"));
            ensure!(id(asked, "traceId") == id(answered, "traceId"), "{path}: two traces");
            ensure!(id(answered, "parentSpanId") == id(asked, "spanId"), "{path}: not linked");
        }
        // Of what began before nothing is claimed.
        let earlier = agent.spans()?.into_iter().filter(|span| !span.path().starts_with("/next"));
        for span in earlier {
            println!("before: {}", span.json);
            ensure!(span.json.get("incomplete").is_some_and(|why| !why.is_null()), "complete: {}", span.json);
        }
        player.finish()?;
        agent.nothing_lost()
    })
}

#[test]
fn a_connection_older_than_the_agent_gives_right_spans_at_both_ends_from_its_next_request_on() -> Result<()> {
    old_connection("", 2.0)
}

#[test]
fn where_open_sockets_cannot_be_listed_the_same_follows_from_the_next_operations() -> Result<()> {
    old_connection("probes:\n  adopt: false\n", 0.0)
}

#[test]
fn nor_does_the_walk_through_file_tables_need_the_list() -> Result<()> {
    old_connection("probes:\n  adopt: false\npayload:\n  tier: l2\n", 0.0)
}
