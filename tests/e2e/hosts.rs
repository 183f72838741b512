//! Two agents that each see one network, as if it were a host of its own, and agree over a Redis server: a client, a proxy
//! and a server behind it, with a router between that translates addresses both ways, drops and reorders.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seismo_tests::agent::{Agent, Launch};
use seismo_tests::link::{Link, Weather};
use seismo_tests::netns::Netns;
use seismo_tests::nginx::Nginx;
use seismo_tests::process::Process;
use seismo_tests::programs;
use seismo_tests::redis::Redis;
use seismo_tests::rig::Rig;
use seismo_tests::spans::{Kind, Span};

use crate::link::TRANSLATION;

const CLIENTS: usize = 4;
/// Of each client, on one connection.
const REQUESTS: usize = 250;
const LIMIT: Duration = Duration::from_secs(120);

/// One packet in a hundred is lost, and two in a hundred are overtaken.
const BAD: Weather = Weather {
    delay: Duration::from_millis(1),
    lost_per_mille: 10,
    late_per_mille: 20,
    detour: Duration::from_millis(3),
    seed: 20_261_122,
};

fn curl(rig: &Rig, namespace: &Netns, client: usize) -> Result<Process> {
    let mut curl = Command::new(programs::find("curl")?);
    curl.args(["--silent", "--show-error", "--fail", "--max-time", "100", "--output", "/dev/null"]);
    curl.arg(format!("http://10.99.0.1/small/{client}/[1-{REQUESTS}]"));
    namespace.enter(&mut curl)?;
    rig.inside(&format!("curl-{client}"), curl)
}

/// An agent that reads one network alone.
fn launch<'a>(rig: &'a Rig, network: &Netns, redis: &str) -> Result<Agent<'a>> {
    let config = format!("remote:\n  redis: {redis}\n");
    let scopes = vec![format!("netns={}", network.path().display())];
    Agent::launch(rig, &Launch { scopes, config: Some(config), ..Launch::default() })
}

fn id<'a>(span: &'a Span, key: &str) -> &'a str {
    span.json.get(key).and_then(|id| id.as_str()).filter(|id| !id.is_empty()).unwrap_or("none")
}

fn by_path(spans: Vec<Span>, kind: Kind) -> BTreeMap<String, Vec<Span>> {
    let mut by_path: BTreeMap<String, Vec<Span>> = BTreeMap::new();
    for span in spans.into_iter().filter(|span| span.kind == kind) {
        by_path.entry(span.path()).or_default().push(span);
    }
    by_path
}

#[test]
fn agents_on_two_hosts_agree_about_the_traces_that_go_through_both() -> Result<()> {
    Rig::run(|rig| {
        let (server, router, client) = (Netns::new()?, Netns::new()?, Netns::new()?);
        let fair = Weather { delay: Duration::from_millis(1), ..Weather::FAIR };
        let inner = Link::join("seismo0", [(&server, "10.78.0.1/24"), (&router, "10.78.0.2/24")], BAD)?;
        let _outer = Link::join("seismo1", [(&router, "10.77.0.1/24"), (&client, "10.77.0.2/24")], fair)?;
        router.forward()?;
        router.run("nft", &["-f", &rig.file("translation.nft", TRANSLATION)?.display().to_string()])?;
        client.ip("route add default via 10.77.0.1")?;
        let address: IpAddr = "10.78.0.1".parse()?;
        let _nginx = Nginx::start_in(rig, &server, (address, 8080))?;
        let redis = Redis::start(rig)?;
        let engine = format!("redis://127.0.0.1:{}", redis.port);
        let (asking, answering) = (launch(rig, &client, &engine)?, launch(rig, &server, &engine)?);
        let clients: Vec<Process> = (0..CLIENTS).map(|number| curl(rig, &client, number)).collect::<Result<_>>()?;
        for mut client in clients {
            client.finish(LIMIT)?;
        }
        let count = CLIENTS * REQUESTS;
        let asked = by_path(asking.awaited_spans(count, |_| true)?, Kind::Client);
        let answered = by_path(answering.awaited_spans(count, |_| true)?, Kind::Server);
        let (mut linked, mut wrong, mut roots) = (0, 0, 0);
        for (path, spans) in &answered {
            let [answered] = &spans[..] else { anyhow::bail!("{} server spans of {path}", spans.len()) };
            let asked =
                asked.get(path).and_then(|spans| spans.first()).with_context(|| format!("no client of {path}"))?;
            let hops = [asked, answered].map(|span| span.attribute("seismo.hop.id"));
            ensure!(hops[0] == id(asked, "spanId") && hops[0] == hops[1], "{path}: hops {hops:?}");
            match id(answered, "parentSpanId") {
                "none" => roots += 1,
                parent if parent == id(asked, "spanId") && id(answered, "traceId") == id(asked, "traceId") => {
                    linked += 1
                }
                _ => wrong += 1,
            }
        }
        let [passed, lost, overtaken] = inner.counts();
        println!("{count} requests over a link that passed {passed}, lost {lost}, let {overtaken} be overtaken");
        println!("{linked} server spans have their client's span and trace, {wrong} others, {roots} none");
        let page = asking.page()?;
        let sums = ["told", "sent", "lost"].map(|what| page.sum(&format!("seismo_hops_{what}_total"), &[]));
        println!(
            "hops told, sent, lost: {sums:?}; heard by the other: {}",
            answering.page()?.sum("seismo_hops_heard_total", &[])
        );
        ensure!(lost > 5 && overtaken > 5, "the link was not bad");
        ensure!(sums[0] == sums[1] + sums[2] && sums[0] == count as f64, "hops are missing");
        ensure!(wrong == 0 && linked * 1000 >= count * 999, "fewer than 99.9 % are linked");
        // The name of a client that this agent cannot see came with its hops.
        let edges = "seismo_service_graph_request_duration_seconds_count";
        let answering_page = answering.page_where("every request to be an edge", |page| {
            page.sum(edges, &[("server", "nginx")]) == count as f64
        })?;
        let clients = answering_page.by(edges, "client", &[("server", "nginx")]);
        println!("clients on the server's graph: {clients:?}");
        ensure!(clients.get("curl").copied().unwrap_or(0) == linked as u64, "{clients:?} where {linked} are linked");
        asking.nothing_lost()?;
        answering.nothing_lost()?;
        asking.stop()?;
        answering.stop()
    })
}

#[test]
fn without_its_engine_an_agent_goes_on_and_says_what_it_could_not_tell() -> Result<()> {
    Rig::run(|rig| {
        let (server, client) = (Netns::new()?, Netns::new()?);
        let _link = Link::join("seismo0", [(&server, "10.99.0.1/24"), (&client, "10.99.0.2/24")], Weather::FAIR)?;
        let _nginx = Nginx::start_in(rig, &server, ("10.99.0.1".parse()?, 80))?;
        let nowhere = format!("redis://127.0.0.1:{}", seismo_tests::rig::free_port()?);
        let (asking, answering) = (launch(rig, &client, &nowhere)?, launch(rig, &server, &nowhere)?);
        curl(rig, &client, 0)?.finish(LIMIT)?;
        let lost = [("reason", "unreachable")];
        asking.reaches("hops lost", REQUESTS as f64, |page| page.sum("seismo_hops_lost_total", &lost))?;
        let answered = answering.awaited_spans(REQUESTS, |_| true)?;
        ensure!(answered.iter().all(|span| id(span, "parentSpanId") == "none"), "a parent that nobody told");
        let page = answering.page()?;
        let unheard = page.sum("seismo_pipeline_events_total", &[("reason", "server_span_not_heard_of")]);
        ensure!(unheard == REQUESTS as f64, "{unheard} spans were not heard of");
        asking.stop()?;
        answering.stop()
    })
}
