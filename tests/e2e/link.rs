//! A client and nginx in network namespaces of their own, over a link that delays, drops and reorders, and over one whose
//! router translates addresses both ways: every request has its two spans, and they are linked; by one agent, and by two
//! that each see one end.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seismo_tests::agent::Agent;
use seismo_tests::link::{Link, Weather};
use seismo_tests::netns::Netns;
use seismo_tests::nginx::{FILE_BYTES, Nginx};
use seismo_tests::process::Process;
use seismo_tests::programs;
use seismo_tests::rig::Rig;
use seismo_tests::spans::{Kind, Span};

const CLIENTS: usize = 4;
/// Of each client, on one connection: as many small answers and a third as many files.
const SMALL: usize = 30;
const FILES: usize = 10;
const PORT: u16 = 8080;
const LIMIT: Duration = Duration::from_secs(120);

const BAD: Weather = Weather {
    delay: Duration::from_millis(20),
    lost_per_mille: 50,
    late_per_mille: 50,
    detour: Duration::from_millis(8),
    seed: 20_260_117,
};

/// curl in a namespace: all its requests one after the other on one connection; `TIME\tPATH` of each.
fn curl(rig: &Rig, namespace: &Netns, client: usize, authority: &str) -> Result<Process> {
    let mut curl = Command::new(programs::find("curl")?);
    curl.args(["--silent", "--show-error", "--fail", "--max-time", "100"]);
    curl.args(["--write-out", "%{num_connects} %{size_download} %{url}\\n", "--output", "/dev/null"]);
    curl.arg(format!("http://{authority}/small/{client}/[1-{SMALL}]"));
    curl.args(["--output", "/dev/null"]).arg(format!("http://{authority}/static/{client}-[1-{FILES}]"));
    namespace.enter(&mut curl)?;
    rig.inside(&format!("curl-{client}"), curl)
}

fn paths() -> BTreeMap<String, String> {
    let of = |client: usize| {
        let small = (1..=SMALL).map(move |turn| (format!("/small/{client}/{turn}"), "3".to_owned()));
        small.chain((1..=FILES).map(move |turn| (format!("/static/{client}-{turn}"), FILE_BYTES.to_string())))
    };
    (0..CLIENTS).flat_map(of).collect()
}

/// Lets the clients ask, and returns each path's client span and server span.
fn exchange(rig: &Rig, agent: &Agent<'_>, nginx: &Nginx, client: &Netns, authority: &str) -> Result<Vec<(Span, Span)>> {
    for number in 0..CLIENTS {
        for turn in 1..=FILES {
            let file = nginx.static_file(&format!("{number}-{turn}"));
            if !file.exists() {
                std::fs::hard_link(nginx.static_file("file"), file)?;
            }
        }
    }
    let clients: Vec<Process> =
        (0..CLIENTS).map(|number| curl(rig, client, number, authority)).collect::<Result<_>>()?;
    for mut client in clients {
        let out = client.finish(LIMIT)?;
        let connects: usize = out.lines().filter_map(|line| line.split(' ').next()?.parse::<usize>().ok()).sum();
        ensure!(connects == 1 && out.lines().count() == SMALL + FILES, "curl made {connects} connections: {out}");
    }
    let paths = paths();
    let spans = agent.awaited_spans(2 * paths.len(), |_| true)?;
    ensure!(spans.len() == 2 * paths.len(), "{} spans of {} requests", spans.len(), paths.len());
    let page = agent.page()?;
    println!("what happened: {:?}", page.by("seismo_pipeline_events_total", "reason", &[]));
    paths.iter().map(|(path, size)| pair(&spans, path, size)).collect()
}

/// The two spans of a request; fails unless they are whole, say what was moved, and are linked.
fn pair(spans: &[Span], path: &str, size: &str) -> Result<(Span, Span)> {
    let of = |kind: Kind, service: &str| {
        let mut of = spans.iter().filter(|span| span.kind == kind && span.path() == path);
        let span = of.next().with_context(|| format!("no {kind:?} span of {path}"))?;
        ensure!(of.next().is_none(), "two {kind:?} spans of {path}");
        ensure!(span.service() == service && span.status() == "200", "{path}: {}", span.json);
        ensure!(span.attribute("http.response.body.size") == size, "{path}: not {size} bytes: {}", span.json);
        ensure!(span.attribute("seismo.incomplete").is_empty(), "{path}: {}", span.json);
        Ok(span.clone())
    };
    let (asked, answered) = (of(Kind::Client, "curl")?, of(Kind::Server, "nginx")?);
    let id = |span: &Span, key: &str| span.json.get(key).and_then(|id| id.as_str()).unwrap_or("none").to_owned();
    ensure!(id(&asked, "traceId") == id(&answered, "traceId"), "{path}: two traces");
    ensure!(id(&answered, "parentSpanId") == id(&asked, "spanId"), "{path}: not linked: {}", answered.json);
    Ok((asked, answered))
}

fn retransmits(spans: impl Iterator<Item = String>) -> (usize, u64) {
    let counts: Vec<u64> = spans.filter_map(|count| count.parse().ok()).collect();
    (counts.len(), counts.iter().sum())
}

#[test]
fn every_request_over_a_link_that_drops_and_reorders_has_two_linked_spans() -> Result<()> {
    Rig::run(|rig| {
        let (server, client) = (Netns::new()?, Netns::new()?);
        let link = Link::join("seismo0", [(&server, "10.77.0.1/24"), (&client, "10.77.0.2/24")], BAD)?;
        let address: IpAddr = "10.77.0.1".parse()?;
        let nginx = Nginx::start_in(rig, &server, (address, PORT))?;
        let agent = Agent::start(rig)?;
        let pairs = exchange(rig, &agent, &nginx, &client, &format!("{address}:{PORT}"))?;
        let [passed, lost, overtaken] = link.counts();
        println!("the link passed {passed} packets on, lost {lost} and let {overtaken} be overtaken");
        ensure!(passed > 1000 && lost > 20 && overtaken > 20, "the link was not bad");
        let there_and_back = 2 * BAD.delay.as_nanos() as u64;
        for (asked, answered) in &pairs {
            ensure!(asked.duration_ns() >= there_and_back, "{}: faster than the link: {}", asked.path(), asked.json);
            let network = asked.time_ns("network");
            ensure!(network >= there_and_back / 10 * 9, "{}: the link took {network} ns: {}", asked.path(), asked.json);
            ensure!(answered.duration_ns() < asked.duration_ns(), "{}: longer at the server", asked.path());
        }
        let key = "seismo.tcp.retransmits";
        let at_client = retransmits(pairs.iter().map(|(asked, _)| asked.attribute(key)));
        let at_server = retransmits(pairs.iter().map(|(_, answered)| answered.attribute(key)));
        println!("spans with segments sent again, and how many: client {at_client:?}, server {at_server:?}");
        // What the server sends again after it has written an answer is behind the end of its span.
        ensure!(at_client.1 > 0, "no client span tells of a retransmit");
        let mut times: Vec<u64> = pairs.iter().map(|(asked, _)| asked.duration_ns() / 1_000_000).collect();
        times.sort_unstable();
        println!(
            "client spans, ms: least {:?}, middle {:?}, most {:?}",
            times.first(),
            times.get(times.len() / 2),
            times.last()
        );
        agent.nothing_lost()?;
        agent.stop()
    })
}

/// The client knows one address, the server another, and the server takes the router for the client.
pub const TRANSLATION: &str = "table ip seismo {
  chain before { type nat hook prerouting priority -100; ip daddr 10.99.0.1 tcp dport 80 dnat to 10.78.0.1:8080; }
  chain behind { type nat hook postrouting priority 100; ip daddr 10.78.0.1 snat to 10.78.0.2; }
}
";

#[test]
fn spans_are_linked_through_a_router_that_translates_both_addresses() -> Result<()> {
    Rig::run(|rig| {
        let (server, router, client) = (Netns::new()?, Netns::new()?, Netns::new()?);
        let fair = Weather { delay: Duration::from_millis(1), ..Weather::FAIR };
        let _inner = Link::join("seismo0", [(&server, "10.78.0.1/24"), (&router, "10.78.0.2/24")], fair)?;
        let _outer = Link::join("seismo1", [(&router, "10.77.0.1/24"), (&client, "10.77.0.2/24")], fair)?;
        router.forward()?;
        router.run("nft", &["-f", &rig.file("translation.nft", TRANSLATION)?.display().to_string()])?;
        client.ip("route add default via 10.77.0.1")?;
        let nginx = Nginx::start_in(rig, &server, ("10.78.0.1".parse()?, PORT))?;
        let agent = Agent::start(rig)?;
        let pairs = exchange(rig, &agent, &nginx, &client, "10.99.0.1")?;
        for (asked, answered) in &pairs {
            let (at_client, at_server) =
                (asked.attribute("network.peer.address"), answered.attribute("network.peer.address"));
            ensure!(at_client == "10.99.0.1" && at_server == "10.78.0.2", "peers: {at_client} and {at_server}");
        }
        println!("{} requests, one of them: {}", pairs.len(), pairs[0].1.json);
        agent.nothing_lost()?;
        agent.stop()
    })
}
