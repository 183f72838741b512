//! Requests that no thread tells apart: with eight open at once, each request that a goroutine, a coroutine or a task of
//! tokio sends has the one that it was sent for as its parent, and nothing is left behind of a process that ends.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use seismo_tests::agent::Agent;
use seismo_tests::exposition::Page;
use seismo_tests::relay::Relay;
use seismo_tests::rig::Rig;
use seismo_tests::scripted::{Language, Server};
use seismo_tests::spans::{Kind, Span};
use seismo_tests::wrk::{Load, Wrk};

const CLIENT: &str = env!("CARGO_BIN_EXE_seismo-testclient");
const REQUESTS: usize = 400;
const AT_ONCE: usize = 8;
/// So many that it takes a while to look at all of them; an agent that is not optimised takes 0.2 s for each.
const SERVICES: usize = 4;

/// The number at the end of a path.
fn number(span: &Span) -> Result<usize> {
    let path = span.path();
    path.rsplit('/').next().and_then(|last| last.parse().ok()).with_context(|| format!("path {path}"))
}

/// Has the relay serve requests with these numbers; its spans so far, `count` of them.
fn load(
    (rig, relay, agent): (&Rig, &Relay, &Agent<'_>),
    connections: usize,
    numbers: std::ops::Range<usize>,
    count: usize,
) -> Result<Vec<Span>> {
    let paths: Vec<String> = numbers.map(|number| format!("/both/{number}")).collect();
    let wrk = Wrk::start(rig, relay.port, &Load { requests: paths.len(), connections, depth: 1, paths })?;
    let spans = agent.awaited_spans(count, |span| span.service() == "relay")?;
    wrk.interrupt()?;
    Ok(spans)
}

fn tracked(agent: &Agent<'_>, count: u64) -> Result<()> {
    let read = |page: &Page| page.sum("seismo_table_entries", &[("table", "task_processes")]) as u64;
    let found = agent.settled(&count, read)?;
    let events = agent.page()?;
    let events = events.by("seismo_pipeline_events_total", "reason", &[]);
    ensure!(found == count, "the tasks of {found} processes are read, not of {count}: {events:?}");
    Ok(())
}

/// A request that the relay made.
#[derive(Debug)]
struct Made {
    /// How its parent was found; empty: it was not.
    method: String,
    /// Numbers of the request that it was made for, and of the one that is its parent.
    made_for: usize,
    parent: Option<usize>,
}

/// Every one but for the first.
fn parents(spans: &[Span]) -> Result<Vec<Made>> {
    let id = |span: &Span, key: &str| span.json.get(key).and_then(|id| id.as_str()).unwrap_or("none").to_owned();
    let served: BTreeMap<String, usize> = spans
        .iter()
        .filter(|span| span.kind == Kind::Server)
        .map(|span| Ok((id(span, "spanId"), number(span)?)))
        .collect::<Result<_>>()?;
    let mut parents = Vec::new();
    for span in spans.iter().filter(|span| span.kind == Kind::Client) {
        let made_for = number(span)? / 10;
        if made_for != 0 {
            let method = span.attribute("seismo.link.method");
            parents.push(Made { method, made_for, parent: served.get(&id(span, "parentSpanId")).copied() });
        }
    }
    Ok(parents)
}

/// Each request that the relay made for one of the `count` from 1 on has that one as its parent, or none: how many were
/// found how, those without a parent under an empty name.
fn linked(spans: &[Span], count: usize) -> Result<BTreeMap<String, usize>> {
    let served = spans.iter().filter(|span| span.kind == Kind::Server);
    let served = served.map(number).collect::<Result<Vec<_>>>()?.into_iter().filter(|number| *number != 0).count();
    ensure!(served == count, "{served} requests were served");
    let mut methods: BTreeMap<String, usize> = BTreeMap::new();
    for Made { method, made_for, parent } in parents(spans)? {
        let is_right = if method.is_empty() { parent.is_none() } else { parent == Some(made_for) };
        ensure!(is_right, "made for {made_for}, linked to {parent:?} by '{method}'");
        *methods.entry(method).or_default() += 1;
    }
    println!("requests by how their parent was found: {methods:?}");
    ensure!(methods.values().sum::<usize>() == 2 * count, "{methods:?}");
    Ok(methods)
}

/// Asks the relay for a number on a connection that stays open; [`answered`] waits for the answer.
fn ask(connection: &mut TcpStream, number: usize) -> Result<()> {
    Ok(write!(connection, "GET /both/{number} HTTP/1.1\r\nHost: relay\r\n\r\n")?)
}

fn answered(connection: &mut TcpStream) -> Result<()> {
    let (mut answer, mut bytes) = (Vec::new(), [0; 1024]);
    while !answer.ends_with(b"\r\n\r\nok\n") {
        let length = connection.read(&mut bytes)?;
        ensure!(length > 0, "closed after {answer:?}");
        answer.extend_from_slice(bytes.get(..length).unwrap_or_default());
    }
    Ok(())
}

/// Every request of the relay's to the request that it was made for.
fn each_has_its_parent(start: impl FnOnce(&Rig, u16) -> Result<Relay>) -> Result<()> {
    Rig::run(|rig| {
        let upstream = Server::start_outside(rig, Language::Python)?;
        let relay = start(rig, upstream.port)?;
        let agent = Agent::start(rig)?;
        // Looked at with its first request.
        load((rig, &relay, &agent), 1, 0..1, 3)?;
        tracked(&agent, 1)?;
        let spans = load((rig, &relay, &agent), AT_ONCE, 1..1 + REQUESTS, 3 * (REQUESTS + 1))?;
        let methods = linked(&spans, REQUESTS)?;
        let by_task = methods.get("task").copied().unwrap_or(0);
        ensure!(by_task == 2 * REQUESTS, "{methods:?}");
        let page = agent.page()?;
        ensure!(page.sum("seismo_task_unread_total", &[]) == 0.0, "tasks that could not be read");
        println!("what happened: {:?}", page.by("seismo_pipeline_events_total", "reason", &[]));
        drop(relay);
        tracked(&agent, 0)?;
        let left = agent.page()?.sum("seismo_table_entries", &[("table", "tasks")]);
        ensure!(left == 0.0, "{left} tasks of a process that is gone");
        agent.nothing_lost()
    })
}

#[test]
fn off_no_task_is_read_and_on_again_it_is() -> Result<()> {
    Rig::run(|rig| {
        let upstream = Server::start_outside(rig, Language::Python)?;
        let relay = Relay::python(rig, upstream.port)?;
        let agent = Agent::start(rig)?;
        load((rig, &relay, &agent), 1, 0..1, 3)?;
        tracked(&agent, 1)?;
        let by_task = |page: &Page| {
            let events = page.by("seismo_pipeline_events_total", "reason", &[]);
            events.get("linked_task").copied().unwrap_or(0)
        };
        let linked = |rounds: usize| -> Result<u64> {
            let before = agent.still(by_task)?;
            load((rig, &relay, &agent), AT_ONCE, 1..51, 3 + rounds * 150)?;
            Ok(agent.still(by_task)? - before)
        };
        agent.ask(&["probes", "set", "task", "off"])?;
        let off = linked(1)?;
        agent.ask(&["probes", "set", "task", "on"])?;
        let on = linked(2)?;
        println!(
            "of 100 requests that the relay made, {off} were linked by their task while it was off, {on} while on"
        );
        ensure!((off, on) == (0, 100), "{off} and {on}");
        Ok(())
    })
}

#[test]
fn coroutines_of_one_event_loop_send_for_the_request_that_they_serve() -> Result<()> {
    each_has_its_parent(Relay::python)
}

#[test]
fn goroutines_send_for_the_request_that_they_serve() -> Result<()> {
    each_has_its_parent(|rig, upstream| Relay::go(rig, upstream, false))
}

#[test]
fn where_connections_are_older_than_the_agent_it_is_so_from_the_first_request_on() -> Result<()> {
    Rig::run(|rig| {
        let upstream = Server::start_outside(rig, Language::Python)?;
        let mut relays = vec![Relay::go(rig, upstream.port, false)?];
        for _ in 1..SERVICES {
            relays.push(Relay::another_go(rig, upstream.port)?);
        }
        let mut connections: Vec<TcpStream> = (0..SERVICES * AT_ONCE / 2)
            .zip(relays.iter().cycle())
            .map(|(_, relay)| Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, relay.port))?))
            .collect::<Result<_>>()?;
        connections.iter_mut().try_for_each(|connection| ask(connection, 0))?;
        connections.iter_mut().try_for_each(answered)?;
        let agent = Agent::start(rig)?;
        for (number, connection) in connections.iter_mut().enumerate() {
            ask(connection, 1 + number)?;
        }
        connections.iter_mut().try_for_each(answered)?;
        let count = connections.len();
        let spans = agent.awaited_spans(3 * count, |span| span.service() == "relay")?;
        let methods = linked(&spans, count)?;
        // What read a first request began before the agent: the way to its task is not known until it is answered.
        ensure!(methods.keys().all(|method| method == "task" || method == "thread"), "{methods:?}");
        agent.nothing_lost()
    })
}

#[test]
fn a_stripped_executable_is_no_different() -> Result<()> {
    each_has_its_parent(|rig, upstream| Relay::go(rig, upstream, true))
}

/// By way of connections with tasks of their own, tasks that ask, and workers on another thread.
#[test]
fn tasks_of_tokio_send_for_the_request_that_they_serve_or_were_handed() -> Result<()> {
    // Queued: a worker may find a request in its queue that it was not woken for; its answer tells whose that was.
    for kind in ["own", "driven", "begun", "queued"] {
        println!("{kind}:");
        each_has_its_parent(|rig, upstream| Relay::tokio(rig, Path::new(CLIENT), upstream, kind))
            .with_context(|| kind.to_owned())?;
    }
    Ok(())
}

/// Requests of several tasks in one piece, and nobody is woken for what is added to a queue that has something: what is not
/// known is not said.
#[test]
fn a_connection_that_tasks_share_is_nobodys() -> Result<()> {
    none_has_a_wrong_parent("shared").map(drop)
}

/// Another connection's task lets one go on, and what it does then is not for that one's request.
#[test]
fn a_connection_that_waits_for_a_permit_does_not_send_for_who_gives_it() -> Result<()> {
    // Lined: nobody is woken for a request that finds others in its queue; its answer alone may tell.
    for (kind, least) in [
        ("limited", REQUESTS * 19 / 10),
        ("late", REQUESTS * 19 / 10),
        ("lined", REQUESTS * 18 / 10),
        ("staffed", REQUESTS * 19 / 10),
    ] {
        let right = none_has_a_wrong_parent(kind).with_context(|| kind.to_owned())?;
        ensure!(right >= least, "{kind}: {right} requests have their parent, not {least}");
    }
    Ok(())
}

/// None of the requests that the relay made has another one's parent; how many have their own.
fn none_has_a_wrong_parent(kind: &str) -> Result<usize> {
    let mut right = 0;
    Rig::run(|rig| {
        let upstream = Server::start_outside(rig, Language::Python)?;
        let relay = Relay::tokio(rig, Path::new(CLIENT), upstream.port, kind)?;
        let agent = Agent::start(rig)?;
        load((rig, &relay, &agent), 1, 0..1, 3)?;
        tracked(&agent, 1)?;
        let spans = load((rig, &relay, &agent), AT_ONCE, 1..1 + REQUESTS, 3 * (REQUESTS + 1))?;
        let found = parents(&spans)?;
        right = found.iter().filter(|made| made.parent == Some(made.made_for)).count();
        let wrong = found.iter().filter(|made| made.parent.is_some_and(|parent| parent != made.made_for));
        let wrong: Vec<_> = wrong.collect();
        println!("{kind}: {right} of {} have their parent, {} a wrong one", found.len(), wrong.len());
        ensure!(wrong.is_empty(), "{wrong:?}");
        agent.nothing_lost()
    })?;
    Ok(right)
}
