//! Threads of a Java process that hand requests to each other: with eight open at once, what a pool's thread sends has the
//! request that it was sent for as its parent, found by who wakes whom; while that is not watched, it has none.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use seismo_tests::agent::Agent;
use seismo_tests::exposition::Page;
use seismo_tests::relay::Relay;
use seismo_tests::rig::Rig;
use seismo_tests::scripted::{Language, Server};
use seismo_tests::spans::{Kind, Span};
use seismo_tests::wrk::{Load, Wrk};
use serde_json::Value;

const REQUESTS: usize = 400;
const AT_ONCE: usize = 8;

/// The number at the end of a path.
fn number(span: &Span) -> Result<usize> {
    let path = span.path();
    path.rsplit('/').next().and_then(|last| last.parse().ok()).with_context(|| format!("path {path}"))
}

/// State of the program that watches.
fn state(agent: &Agent<'_>) -> Result<String> {
    let programs = agent.json("/api/seismo/probes")?;
    let watching = programs.as_array().into_iter().flatten().find(|program| program["probe"] == "wakeup");
    let state = watching.and_then(|program| program["state"].as_str());
    Ok(state.context("no program watches")?.to_owned())
}

/// Has the relay serve requests with these numbers; its spans of them.
fn load((rig, relay, agent): (&Rig, &Relay, &Agent<'_>), numbers: std::ops::Range<usize>) -> Result<Vec<Span>> {
    let paths: Vec<String> = numbers.clone().map(|number| format!("/both/{number}")).collect();
    let (requests, connections) = (paths.len(), AT_ONCE.min(paths.len()));
    let wrk = Wrk::start(rig, relay.port, &Load { requests, connections, depth: 1, paths })?;
    let of_these = |span: &Span| {
        let (path, is_client) = (span.path(), span.kind == Kind::Client);
        let asked = number(span).map(|number| if is_client { number / 10 } else { number });
        path.starts_with(if is_client { "/wait/" } else { "/both/" })
            && asked.is_ok_and(|number| numbers.contains(&number))
    };
    let spans = agent.awaited_spans(3 * requests, of_these)?;
    wrk.interrupt()?;
    Ok(spans)
}

/// By method, how many of the relay's requests were linked right, and how many wrong.
fn judged(spans: &[Span]) -> Result<BTreeMap<String, (usize, usize)>> {
    let id = |span: &Span, key: &str| span.json.get(key).and_then(Value::as_str).unwrap_or("none").to_owned();
    let served: BTreeMap<String, usize> = spans
        .iter()
        .filter(|span| span.kind == Kind::Server)
        .map(|span| Ok((id(span, "spanId"), number(span)?)))
        .collect::<Result<_>>()?;
    let mut methods: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for span in spans.iter().filter(|span| span.kind == Kind::Client) {
        let Some(parent) = served.get(&id(span, "parentSpanId")) else { continue };
        let (right, wrong) = methods.entry(span.attribute("seismo.link.method")).or_default();
        *(if *parent == number(span)? / 10 { right } else { wrong }) += 1;
    }
    Ok(methods)
}

fn by_wakeup(page: &Page) -> u64 {
    page.by("seismo_pipeline_events_total", "reason", &[]).get("linked_wakeup").copied().unwrap_or(0)
}

#[test]
fn threads_of_a_pool_send_for_the_request_of_the_thread_that_waits_for_them() -> Result<()> {
    Rig::run(|rig| {
        let upstream = Server::start_outside(rig, Language::Python)?;
        let relay = Relay::java(rig, upstream.port)?;
        let agent = Agent::start(rig)?;
        ensure!(state(&agent)? == "disabled", "watched without need");
        // Looked at with its first request.
        load((rig, &relay, &agent), 1..2)?;
        agent.settled(&"active".to_owned(), |_| state(&agent).unwrap_or_default())?;
        let spans = load((rig, &relay, &agent), 2..2 + REQUESTS)?;
        let methods = judged(&spans)?;
        println!("of {} requests, by how their parent was found, right and wrong: {methods:?}", 2 * REQUESTS);
        println!("what happened: {:?}", agent.page()?.by("seismo_pipeline_events_total", "reason", &[]));
        let (right, wrong) = methods.get("wakeup").copied().unwrap_or_default();
        ensure!(right >= REQUESTS && wrong * 100 <= right, "{right} right by wake-ups, {wrong} wrong");
        ensure!(by_wakeup(&agent.page()?) >= (right + wrong) as u64, "fewer links are counted than made");

        agent.ask(&["probes", "set", "wakeup", "off"])?;
        let before = agent.still(by_wakeup)?;
        let spans = load((rig, &relay, &agent), 1000..1000 + REQUESTS / 4)?;
        let methods = judged(&spans)?;
        println!("while off: {methods:?}");
        ensure!(!methods.contains_key("wakeup") && agent.still(by_wakeup)? == before, "links by what is off");
        ensure!(state(&agent)? == "disabled", "off and attached");
        agent.nothing_lost()
    })
}

#[test]
fn nobody_is_watched_once_no_process_runs_java() -> Result<()> {
    Rig::run(|rig| {
        let upstream = Server::start_outside(rig, Language::Python)?;
        let relay = Relay::java(rig, upstream.port)?;
        let agent = Agent::start(rig)?;
        load((rig, &relay, &agent), 1..2)?;
        agent.settled(&"active".to_owned(), |_| state(&agent).unwrap_or_default())?;
        drop(relay);
        agent.settled(&"disabled".to_owned(), |_| state(&agent).unwrap_or_default())?;
        Ok(())
    })
}
