//! Spans exported to a real collector over HTTP and gRPC are those that the agent shows, attribute by attribute; a collector
//! that goes away and comes back gets everything; with a queue that is too small, what is missing is what was counted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seismo_tests::agent::{Agent, Launch};
use seismo_tests::rig::Rig;
use seismo_tests::rotel::{Ports, Received, Rotel};
use seismo_tests::scripted::{Language, Server, client};
use seismo_tests::spans::{Kind, Span};
use seismo_tests::wait;
use serde_json::Value;

/// Accounts of spans, not of points of metrics.
const SPANS: &[(&str, &str)] = &[("signal", "traces")];
const LIMIT: Duration = Duration::from_secs(60);

fn launch(export: &str) -> Launch {
    Launch { config: Some(export.to_owned()), ..Launch::default() }
}

/// So many requests to a server in Python, a few of them not found.
fn traffic(rig: &Rig, requests: usize) -> Result<()> {
    let server = Server::start(rig, Language::Python)?;
    let path = |turn: usize| if turn % 20 == 7 { format!("/missing/{turn}") } else { format!("/user/{turn}") };
    let paths: Vec<String> = (0..requests).map(path).collect();
    client(rig, Language::Python, server.port, &paths)?;
    Ok(())
}

/// The agent's own form of a span, in the collector's words.
fn expected(span: &Span) -> Result<Received> {
    let text = |key: &str| span.json.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let object = |key: &str| -> Result<BTreeMap<String, String>> {
        let members = span.json.get(key).and_then(Value::as_object).with_context(|| format!("no {key}"))?;
        let typed = |value: &Value| match value {
            Value::String(text) => format!("Str({text})"),
            Value::Bool(truth) => format!("Bool({truth})"),
            Value::Number(number) if number.is_f64() => format!("Double({number})"),
            Value::Number(number) => format!("Int({number})"),
            other => other.to_string(),
        };
        Ok(members.iter().map(|(key, value)| (key.clone(), typed(value))).collect())
    };
    let failed = span.json.pointer("/status/code").and_then(Value::as_u64) == Some(2);
    Ok(Received {
        trace_id: text("traceId"),
        span_id: text("spanId"),
        parent_id: text("parentSpanId"),
        name: span.name.clone(),
        kind: if span.kind == Kind::Server { "SPAN_KIND_SERVER" } else { "SPAN_KIND_CLIENT" }.to_owned(),
        status: if failed { "STATUS_CODE_ERROR" } else { "STATUS_CODE_UNSET" }.to_owned(),
        start_ns: span.start_ns,
        end_ns: span.end_ns,
        attributes: object("attributes")?,
        resource: object("resource")?,
    })
}

fn by_id(spans: Vec<Received>) -> BTreeMap<(String, String), Received> {
    spans.into_iter().map(|span| ((span.trace_id.clone(), span.span_id.clone()), span)).collect()
}

fn same_spans(protocol: &str) -> Result<()> {
    const REQUESTS: usize = 200;
    Rig::run(|rig| {
        let ports = Ports::free()?;
        let rotel = Rotel::start(rig, "rotel", ports)?;
        let port = if protocol == "grpc" { ports.grpc } else { ports.http };
        let lines = rig.dir().join("spans.jsonl");
        let config = format!(
            "export:\n  otlp:\n    endpoint: http://127.0.0.1:{port}\n    protocol: {protocol}\n    batch_wait: 100ms\n  \
             lines:\n    path: {}\n",
            lines.display()
        );
        let agent = Agent::launch(rig, &launch(&config))?;
        traffic(rig, REQUESTS)?;
        let shown = agent.awaited_spans(2 * REQUESTS, |_| true)?;
        wait::until("the spans to arrive", LIMIT, || Ok((rotel.count() >= 2 * REQUESTS).then_some(())))?;
        let page = agent.page_where("nothing is under way", |page| page.sum("seismo_export_queued", SPANS) == 0.0)?;
        let sent = page.sum("seismo_export_spans_total", &[("exporter", "otlp"), ("outcome", "sent")]);
        ensure!(sent == shown.len() as f64, "{sent} sent of {}", shown.len());
        ensure!(page.sum("seismo_export_spans_total", &[("outcome", "lost")]) == 0.0, "something was lost");
        agent.nothing_lost()?;
        agent.stop()?;

        let received = by_id(rotel.stop()?);
        let wanted = by_id(shown.iter().map(expected).collect::<Result<_>>()?);
        println!("{protocol}: {} spans shown, {} received", wanted.len(), received.len());
        ensure!(wanted.len() == 2 * REQUESTS && received.len() == wanted.len(), "not as many spans");
        for (id, span) in &wanted {
            let found = received.get(id).with_context(|| format!("not received: {span:?}"))?;
            ensure!(found == span, "received {found:?}\nwhere {span:?} was shown");
        }
        let parents = wanted.values().filter(|span| !span.parent_id.is_empty()).count();
        let failed = wanted.values().filter(|span| span.status == "STATUS_CODE_ERROR").count();
        ensure!(parents == REQUESTS && failed >= REQUESTS / 20, "{parents} linked, {failed} failed");
        println!("one of them: {:?}", wanted.values().next());

        let text = fs::read_to_string(&lines)?;
        let written: BTreeSet<String> = text.lines().map(str::to_owned).collect();
        let shown: BTreeSet<String> = shown.iter().map(|span| span.json.to_string()).collect();
        ensure!(written == shown, "the file has {} spans, {} were shown", written.len(), shown.len());
        Ok(())
    })
}

#[test]
fn a_collector_gets_over_http_what_the_agent_shows() -> Result<()> {
    same_spans("http/protobuf")
}

#[test]
fn a_collector_gets_over_grpc_what_the_agent_shows() -> Result<()> {
    same_spans("grpc")
}

/// Requests before, while and after the collector is away.
const EACH: usize = 100;

/// Stops the collector, lets requests go on, starts it again and lets more go on; what the three runs received, and the
/// agent with nothing under way.
fn outage(export: &str, check: impl Fn(&Agent<'_>, usize) -> Result<()>) -> Result<()> {
    Rig::run(|rig| {
        let ports = Ports::free()?;
        let first = Rotel::start(rig, "rotel-before", ports)?;
        let config = format!(
            "export:\n  otlp:\n    endpoint: http://127.0.0.1:{}\n    batch_wait: 50ms\n    batch_spans: 10\n    \
             retry_wait: 100ms\n    retry_most: 500ms\n{export}",
            ports.http
        );
        let agent = Agent::launch(rig, &launch(&config))?;
        traffic(rig, EACH)?;
        // A small queue can overflow while the collector is there, too.
        let lost = || Ok::<f64, anyhow::Error>(agent.page()?.sum("seismo_export_spans_total", &[("outcome", "lost")]));
        wait::until("the spans to arrive", LIMIT, || {
            Ok((first.count() as f64 + lost()? >= (2 * EACH) as f64).then_some(()))
        })?;
        let mut received = first.stop()?;
        traffic(rig, EACH)?;
        agent.awaited_spans(4 * EACH, |_| true)?;
        agent.page_where("an attempt to fail", |page| {
            page.sum("seismo_export_requests_total", &[("signal", "traces"), ("outcome", "failed")]) >= 2.0
        })?;
        let second = Rotel::start(rig, "rotel-after", ports)?;
        traffic(rig, EACH)?;
        agent.awaited_spans(6 * EACH, |_| true)?;
        agent.page_where("nothing is under way", |page| {
            page.sum("seismo_export_offered_total", &[("exporter", "otlp"), ("signal", "traces")]) >= (6 * EACH) as f64
                && page.sum("seismo_export_queued", SPANS) == 0.0
        })?;
        received.extend(second.stop()?);
        let distinct = by_id(received).len();
        check(&agent, distinct)?;
        agent.nothing_lost()?;
        agent.stop()?;
        Ok(())
    })
}

#[test]
fn a_collector_that_was_away_gets_everything() -> Result<()> {
    outage("", |agent, received| {
        println!("{received} distinct spans of {} arrived", 6 * EACH);
        ensure!(received == 6 * EACH, "{received} spans arrived");
        let lost = agent.page()?.sum("seismo_export_spans_total", &[("outcome", "lost")]);
        ensure!(lost == 0.0, "{lost} spans are said to be lost");
        Ok(())
    })
}

#[test]
fn an_outage_that_exceeds_the_queue_loses_exactly_what_the_counter_says() -> Result<()> {
    outage("    queue_bytes: 8KiB\n", |agent, received| {
        let page = agent.page()?;
        let lost = page.sum("seismo_export_spans_total", &[("outcome", "lost"), ("reason", "queue_full")]);
        let all = page.sum("seismo_export_spans_total", &[("outcome", "lost")]);
        println!("{received} distinct spans arrived, {lost} were counted as lost");
        ensure!(lost > 0.0 && lost == all, "{lost} lost by a full queue, {all} lost");
        ensure!(received as f64 + lost == (6 * EACH) as f64, "{received} arrived and {lost} were lost");
        Ok(())
    })
}

#[test]
fn with_a_small_share_whole_traces_go_and_every_error_does() -> Result<()> {
    const REQUESTS: usize = 400;
    Rig::run(|rig| {
        let ports = Ports::free()?;
        let rotel = Rotel::start(rig, "rotel", ports)?;
        let config = format!(
            "export:\n  otlp:\n    endpoint: http://127.0.0.1:{}\n    batch_wait: 50ms\n\
             sampling:\n  share: 0.2\n  rare_below: 0\n  slow_quantile: 1\n",
            ports.http
        );
        let agent = Agent::launch(rig, &launch(&config))?;
        traffic(rig, REQUESTS)?;
        let shown = agent.awaited_spans(2 * REQUESTS, |_| true)?;
        let page = agent.page_where("every trace to be decided", |page| {
            page.sum("seismo_sampling_spans_total", &[]) == (2 * REQUESTS) as f64
                && page.sum("seismo_sampling_pending", &[]) == 0.0
                && page.sum("seismo_export_queued", SPANS) == 0.0
        })?;
        let decided = |outcome| page.sum("seismo_sampling_decided_total", &[("outcome", outcome)]);
        let (kept, dropped) = (decided("kept"), decided("dropped"));
        println!("kept and dropped: {:?}", page.by("seismo_sampling_decided_total", "reason", &[]));
        ensure!(kept + dropped == (2 * REQUESTS) as f64, "{kept} kept, {dropped} dropped");
        agent.stop()?;
        let received = rotel.stop()?;
        ensure!(received.len() as f64 == kept, "{} received, {kept} kept", received.len());
        let traces: BTreeSet<&str> = received.iter().map(|span| span.trace_id.as_str()).collect();
        let mut wanted = 0;
        for span in &shown {
            let trace = span.json.get("traceId").and_then(Value::as_str).context("no trace")?;
            let failed = shown.iter().any(|other| {
                other.json.get("traceId") == span.json.get("traceId")
                    && other.json.pointer("/status/code").and_then(Value::as_u64) == Some(2)
            });
            // OpenTelemetry's rule, worked out here: the lower 56 bits against the share's threshold.
            let randomness = u128::from_str_radix(trace, 16)? & ((1 << 56) - 1);
            let chosen = randomness as f64 >= 0.8 * (1_u64 << 56) as f64;
            ensure!(traces.contains(trace) == (failed || chosen), "{trace}: failed {failed}, chosen {chosen}");
            wanted += usize::from(failed || chosen);
        }
        ensure!(received.len() == wanted, "{} received where {wanted} were to be", received.len());
        Ok(())
    })
}
