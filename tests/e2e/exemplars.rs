//! Exemplars name traces that can be looked up: on the agent's page, in a real Prometheus, after older spans have made room,
//! and where traces are chosen from for export.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seismo_tests::agent::{Agent, Launch};
use seismo_tests::exemplars::{self, Exemplar};
use seismo_tests::prometheus::Prometheus;
use seismo_tests::rig::Rig;
use seismo_tests::scripted::{Language, Server, client};
use seismo_tests::shop::Shop;
use seismo_tests::spans::{Kind, Span};
use seismo_tests::{http, wait};
use serde_json::Value;

const REQUESTS: usize = 40;
const LIMIT: Duration = Duration::from_secs(20);
const FAMILIES: [&str; 4] = [
    "http_server_request_duration_seconds",
    "http_client_request_duration_seconds",
    "db_server_operation_duration_seconds",
    "db_client_operation_duration_seconds",
];

fn id(span: &Span, key: &str) -> String {
    span.json.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Fails unless the trace of an exemplar is there, with a span that the series is about and that took as long.
fn look_up(agent: &Agent<'_>, exemplar: &Exemplar) -> Result<()> {
    let found = agent.json(&format!("/api/traces/{}", exemplar.trace_id))?;
    let spans = found.pointer("/data/0/spans").and_then(Value::as_array).context("no spans")?;
    let of = |span: &&Value| span.get("spanID").and_then(Value::as_str) == Some(&exemplar.span_id);
    let span = spans.iter().find(of).context("its span is not in the trace")?;
    let micros = span.get("duration").and_then(Value::as_f64).context("no duration")?;
    ensure!((micros / 1e6 - exemplar.seconds).abs() < 2e-6, "{micros} µs where {} s were observed", exemplar.seconds);
    let waterfall = agent.ask(&["trace", &exemplar.trace_id])?;
    let service = exemplar.labels.get("service_name").context("no service")?;
    ensure!(waterfall.contains(service.as_str()), "no {service} in {waterfall}");
    Ok(())
}

#[test]
fn every_exemplar_of_the_page_leads_to_its_span_in_a_linked_trace() -> Result<()> {
    Rig::run(|rig| {
        let shop = Shop::open(rig)?;
        let agent = Agent::launch(rig, &shop.launch("")?)?;
        shop.visit(rig, REQUESTS)?;
        let spans = agent.awaited_spans(6 * REQUESTS + REQUESTS / 2, |_| true)?;
        let by_id: BTreeMap<_, _> = spans.iter().map(|span| (id(span, "spanId"), span)).collect();
        let shown = exemplars::read(agent.port)?;
        println!("{} exemplars, one of them: {:?}", shown.len(), shown.first());
        for family in FAMILIES {
            ensure!(shown.iter().any(|exemplar| exemplar.name == format!("{family}_bucket")), "none of {family}");
        }
        let page = agent.page()?;
        for exemplar in &shown {
            let span = by_id.get(&exemplar.span_id).with_context(|| format!("no span of {exemplar:?}"))?;
            let right = id(span, "traceId") == exemplar.trace_id
                && span.service() == *exemplar.labels.get("service_name").context("no service")?
                && span.duration_ns() as f64 / 1e9 == exemplar.seconds
                && (span.end_ns as f64 / 1e9 - exemplar.unix_seconds).abs() < 0.002;
            ensure!(right, "{exemplar:?} and {}", span.json);
            // Its value is in this bucket and in none below.
            let bounds = page.select(&exemplar.name, &[]).filter(|bucket| {
                let same = |(key, value): (&String, &String)| key == "le" || exemplar.labels.get(key) == Some(value);
                bucket.labels.iter().all(same)
            });
            let bound = |text: &str| if text == "+Inf" { f64::INFINITY } else { text.parse().unwrap_or(f64::NAN) };
            let bounds = bounds.filter_map(|bucket| bucket.labels.get("le")).map(|text| bound(text));
            let least = bounds.filter(|bound| exemplar.seconds <= *bound).fold(f64::INFINITY, f64::min);
            ensure!(exemplar.labels.get("le").map(|text| bound(text)) == Some(least), "{exemplar:?}: not {least}");
            look_up(&agent, exemplar).with_context(|| format!("{exemplar:?}"))?;
        }
        // The trace of a command of Redis is the one that began at curl.
        let of_redis = shown.iter().find(|each| each.name.starts_with("db_server")).context("none of Redis")?;
        let services: BTreeSet<String> =
            spans.iter().filter(|span| id(span, "traceId") == of_redis.trace_id).map(Span::service).collect();
        ensure!(services == ["curl", "front", "shop", "store"].map(str::to_owned).into(), "{services:?}");
        let plain = http::get(agent.port, "/metrics")?.ok()?;
        ensure!(!plain.contains("trace_id"), "the older format has exemplars");
        agent.stop()
    })
}

#[test]
fn prometheus_keeps_the_exemplars_of_text_and_they_are_found_in_the_agent() -> Result<()> {
    kept_by(Prometheus::with_exemplars, "_bucket")
}

#[test]
fn prometheus_keeps_the_exemplars_of_protobuf_beside_native_histograms() -> Result<()> {
    kept_by(Prometheus::with_native_histograms_and_exemplars, "")
}

/// `suffix`: of the series that have them.
fn kept_by(start: impl Fn(&Rig, u16) -> Result<Prometheus>, suffix: &str) -> Result<()> {
    Rig::run(|rig| {
        let shop = Shop::open(rig)?;
        let agent = Agent::launch(rig, &shop.launch("")?)?;
        let prometheus = start(rig, agent.port)?;
        shop.visit(rig, REQUESTS)?;
        agent.awaited_spans(6 * REQUESTS + REQUESTS / 2, |_| true)?;
        for family in FAMILIES {
            let kept = wait::until(&format!("exemplars of {family}"), LIMIT, || {
                let kept = prometheus.exemplars(&format!("{family}{suffix}"))?;
                Ok(if kept.is_empty() { None } else { Some(kept) })
            })?;
            println!("{family}: Prometheus has {} exemplars, one of them: {:?}", kept.len(), kept.first());
            for (trace, seconds) in kept {
                let found = agent.json(&format!("/api/traces/{trace}"))?;
                let spans = found.pointer("/data/0/spans").and_then(Value::as_array).context("no spans")?;
                let took = |span: &Value| span.get("duration").and_then(Value::as_f64).map(|micros| micros / 1e6);
                let same = |span| took(span).is_some_and(|took| (took - seconds).abs() < 2e-6);
                ensure!(spans.iter().any(same), "no span of {trace} took {seconds} s");
            }
        }
        agent.stop()
    })
}

#[test]
fn an_exemplar_goes_when_its_span_makes_room() -> Result<()> {
    Rig::run(|rig| {
        let server = Server::start(rig, Language::Python)?;
        let config = Some("spans:\n  capacity: 20\n".to_owned());
        let agent = Agent::launch(rig, &Launch { config, ..Launch::default() })?;
        let slow = |exemplar: &Exemplar| exemplar.seconds >= 0.3;
        client(rig, Language::Python, server.port, &["/wait/300/a".to_owned()])?;
        let first = wait::until("an exemplar of the slow request", LIMIT, || {
            Ok(exemplars::read(agent.port)?.into_iter().find(slow))
        })?;
        look_up(&agent, &first)?;
        let paths: Vec<String> = (0..50).map(|turn| format!("/user/{turn}")).collect();
        client(rig, Language::Python, server.port, &paths)?;
        let count = "http_server_request_duration_seconds_count";
        ensure!(agent.settled(&51.0, |page| page.sum(count, &[]))? == 51.0, "not all requests were counted");
        let shown = wait::until("the slow request to go", LIMIT, || {
            let shown = exemplars::read(agent.port)?;
            Ok((!shown.iter().any(slow)).then_some(shown))
        })?;
        let held = agent.spans()?;
        println!("{} spans held, {} exemplars", held.len(), shown.len());
        ensure!(held.len() == 20 && !shown.is_empty(), "{} spans, {} exemplars", held.len(), shown.len());
        for exemplar in &shown {
            look_up(&agent, exemplar)?;
        }
        agent.stop()
    })
}

#[test]
fn where_traces_are_chosen_for_export_only_those_are_exemplars() -> Result<()> {
    Rig::run(|rig| {
        let shop = Shop::open(rig)?;
        let lines = rig.dir().join("spans.jsonl");
        // What fails is kept, and nothing else.
        let config = format!(
            "sampling: {{share: 0, slow_quantile: 1, rare_below: 0}}\nexport:\n  lines:\n    path: {}\n",
            lines.display()
        );
        let agent = Agent::launch(rig, &shop.launch(&config)?)?;
        shop.visit(rig, REQUESTS)?;
        agent.awaited_spans(6 * REQUESTS + REQUESTS / 2, |_| true)?;
        let page = agent.page_where("every trace to be decided", |page| {
            page.sum("seismo_sampling_spans_total", &[]) > 0.0 && page.sum("seismo_sampling_pending", &[]) == 0.0
        })?;
        println!("decided: {:?}", page.by("seismo_sampling_decided_total", "outcome", &[]));
        let written = wait::until("the spans to be written", LIMIT, || {
            let spans = fs::read_to_string(&lines)?.lines().map(Span::parse).collect::<Result<Vec<_>>>()?;
            let kept = page.sum("seismo_sampling_decided_total", &[("outcome", "kept")]) as usize;
            Ok((spans.len() == kept).then_some(spans))
        })?;
        let by_id: BTreeMap<_, _> = written.iter().map(|span| (id(span, "spanId"), span)).collect();
        let shown = exemplars::read(agent.port)?;
        println!("{} spans kept, {} exemplars", written.len(), shown.len());
        for family in FAMILIES {
            ensure!(shown.iter().any(|exemplar| exemplar.name == format!("{family}_bucket")), "none of {family}");
        }
        for exemplar in &shown {
            let span = by_id.get(&exemplar.span_id).with_context(|| format!("not kept: {exemplar:?}"))?;
            ensure!(id(span, "traceId") == exemplar.trace_id, "{exemplar:?} and {}", span.json);
            look_up(&agent, exemplar)?;
        }
        let whole = written.iter().filter(|span| span.kind == Kind::Server && span.service() == "shop").count();
        ensure!(whole == REQUESTS / 5, "{whole} failed requests are kept");
        agent.stop()
    })
}
