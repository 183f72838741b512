//! Spans exported to a real Phoenix over OTLP/HTTP, read back by its API, are those that the agent shows.
//!
//! Installing it takes two minutes and 830 MB, so that neither `cargo xtask test` nor CI runs this: `cargo xtask test
//! --phoenix` does.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seismo_tests::agent::{Agent, Launch};
use seismo_tests::phoenix::{Phoenix, Stored};
use seismo_tests::rig::Rig;
use seismo_tests::scripted::{Language, Server, client};
use seismo_tests::spans::Span;
use seismo_tests::wait;
use serde_json::Value;

const REQUESTS: usize = 200;
const LIMIT: Duration = Duration::from_secs(60);
/// It keeps times as a floating number of seconds, rounded to µs.
const ROUNDED_NS: u64 = 2_000;

fn expected(span: &Span) -> Stored {
    let text = |key: &str| span.json.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    Stored {
        trace_id: text("traceId"),
        span_id: text("spanId"),
        parent_id: Some(text("parentSpanId")).filter(|id| !id.is_empty()),
        name: span.name.clone(),
        start_ns: span.start_ns,
        end_ns: span.end_ns,
        status: span.json.pointer("/status/code").and_then(Value::as_u64).unwrap_or(0),
    }
}

fn by_id(spans: impl Iterator<Item = Stored>) -> BTreeMap<(String, String), Stored> {
    spans.map(|span| ((span.trace_id.clone(), span.span_id.clone()), span)).collect()
}

#[test]
fn phoenix_gives_back_the_spans_that_the_agent_shows() -> Result<()> {
    Rig::run(|rig| {
        let phoenix = Phoenix::start(rig)?;
        let config = format!(
            "export:\n  otlp:\n    traces: {{endpoint: '{}'}}\n    protocol: http/protobuf\n    batch_wait: 100ms\n",
            phoenix.endpoint()
        );
        let agent = Agent::launch(rig, &Launch { config: Some(config), ..Launch::default() })?;
        let server = Server::start(rig, Language::Python)?;
        let path = |turn: usize| if turn % 20 == 7 { format!("/missing/{turn}") } else { format!("/user/{turn}") };
        let paths: Vec<String> = (0..REQUESTS).map(path).collect();
        client(rig, Language::Python, server.port, &paths)?;
        let shown = agent.awaited_spans(2 * REQUESTS, |_| true)?;
        let stored = wait::until("the spans to be stored", LIMIT, || {
            let stored = phoenix.spans()?;
            Ok((stored.len() >= 2 * REQUESTS).then_some(stored))
        })?;
        let page = agent.page()?;
        let lost = page.sum("seismo_export_spans_total", &[("outcome", "lost")]);
        ensure!(lost == 0.0, "{lost} spans were lost");
        agent.stop()?;

        let count = stored.len();
        let (wanted, stored) = (by_id(shown.iter().map(expected)), by_id(stored.into_iter()));
        println!("{} spans shown, {count} stored", wanted.len());
        ensure!(wanted.len() == 2 * REQUESTS && count == wanted.len() && stored.len() == count, "not as many spans");
        for (id, span) in &wanted {
            let found = stored.get(id).with_context(|| format!("not stored: {span:?}"))?;
            let same = Stored { start_ns: span.start_ns, end_ns: span.end_ns, ..found.clone() } == *span;
            let off_ns = found.start_ns.abs_diff(span.start_ns).max(found.end_ns.abs_diff(span.end_ns));
            ensure!(same && off_ns <= ROUNDED_NS, "stored {found:?}\nwhere {span:?} was shown");
        }
        let parents = wanted.values().filter(|span| span.parent_id.is_some()).count();
        let failed = wanted.values().filter(|span| span.status == 2).count();
        ensure!(parents == REQUESTS && failed >= REQUESTS / 20, "{parents} linked, {failed} failed");
        Ok(())
    })
}
