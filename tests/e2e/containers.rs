//! nginx and curl in containers of podman, each in a network namespace of its own: their spans name the container, and a
//! scope by control group reaches through the namespaces.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seismo_tests::agent::{Agent, Launch};
use seismo_tests::container::Container;
use seismo_tests::link::{Link, Weather};
use seismo_tests::netns::Netns;
use seismo_tests::nginx;
use seismo_tests::rig::Rig;
use seismo_tests::spans::{Kind, Span};

const PORT: u16 = 8080;
const REQUESTS: usize = 10;
const LIMIT: Duration = Duration::from_secs(60);

/// Two containers that are joined by a link, and `REQUESTS` requests from the second to the first.
fn ask<'a>(
    rig: &'a Rig,
    name: &str,
    act: impl FnOnce(&Container<'a>, &dyn Fn() -> Result<String>) -> Result<()>,
) -> Result<()> {
    let (server, client) = (Netns::new()?, Netns::new()?);
    let _link = Link::join("seismo0", [(&server, "10.76.0.1/24"), (&client, "10.76.0.2/24")], Weather::FAIR)?;
    let place = ("10.76.0.1".parse()?, PORT);
    let arguments = nginx::prepare(rig, place, None)?;
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut nginx = Container::run(rig, &format!("{name}-nginx"), &server, "nginx", &arguments)?;
    nginx.process.await_ready(LIMIT, || server.listens(place.0, PORT))?;
    let curl = || {
        let url = format!("http://10.76.0.1:{PORT}/item/[1-{REQUESTS}]");
        let mut curl = Container::run(rig, &format!("{name}-curl"), &client, "curl", &["--silent", "--fail", &url])?;
        let out = curl.process.finish(LIMIT)?;
        ensure!(out == "ok\n".repeat(REQUESTS), "curl got {out:?}");
        Ok(curl.id.clone())
    };
    act(&nginx, &curl)
}

fn of<'a>(spans: &'a [Span], kind: Kind, path: &str) -> Result<&'a Span> {
    let mut of = spans.iter().filter(|span| span.kind == kind && span.path() == path);
    let span = of.next().with_context(|| format!("no {kind:?} span of {path}"))?;
    ensure!(of.next().is_none(), "two {kind:?} spans of {path}");
    Ok(span)
}

#[test]
fn spans_of_containers_name_them_and_are_linked_through_their_namespaces() -> Result<()> {
    Rig::run(|rig| {
        ask(rig, "both", |nginx, curl| {
            let agent = Agent::start(rig)?;
            let curl = curl()?;
            let spans = agent.awaited_spans(2 * REQUESTS, |_| true)?;
            for number in 1..=REQUESTS {
                let path = format!("/item/{number}");
                let (asked, answered) = (of(&spans, Kind::Client, &path)?, of(&spans, Kind::Server, &path)?);
                let containers = [asked, answered].map(|span| span.resource("container.id"));
                ensure!(containers == [curl.clone(), nginx.id.clone()], "{containers:?}");
                let id = |span: &Span, key: &str| span.json.get(key).cloned();
                ensure!(id(answered, "parentSpanId") == id(asked, "spanId"), "{path}: not linked");
                ensure!(id(answered, "traceId") == id(asked, "traceId"), "{path}: two traces");
            }
            println!("{}", of(&spans, Kind::Client, "/item/1")?.json);
            agent.nothing_lost()?;
            agent.stop()
        })
    })
}

#[test]
fn a_scope_of_one_container_shows_that_one_alone() -> Result<()> {
    Rig::run(|rig| {
        ask(rig, "one", |nginx, curl| {
            let scopes = vec![format!("cgroup={}", nginx.cgroup()?.display())];
            let agent = Agent::launch(rig, &Launch { scopes, ..Launch::default() })?;
            curl()?;
            agent.awaited_spans(REQUESTS, |span| span.kind == Kind::Server)?;
            agent.still(|page| page.sum("seismo_pipeline_events_total", &[]))?;
            let spans = agent.spans()?;
            ensure!(spans.len() == REQUESTS, "{} spans of {REQUESTS} requests", spans.len());
            ensure!(spans.iter().all(|span| span.resource("container.id") == nginx.id), "another container's span");
            agent.stop()
        })
    })
}
