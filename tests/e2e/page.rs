//! The pages that the interface promises: names, content types, and agreement between them.

use anyhow::{Context, Result, ensure};
use seismo_tests::agent::Agent;
use seismo_tests::http;
use seismo_tests::nginx::Nginx;
use seismo_tests::rig::Rig;
use seismo_tests::scripted::{Language, client};
use seismo_tests::spans::Span;
use serde_json::Value;

/// Shown by an agent that has seen a few requests, whatever the machine does.
const NAMES: [&str; 18] = [
    "http_server_request_duration_seconds_count",
    "http_client_request_duration_seconds_bucket",
    "seismo_syscalls_total",
    "seismo_syscall_duration_seconds_count",
    "seismo_scheduler_runqueue_duration_seconds_count",
    "seismo_tcp_retransmits_total",
    "seismo_tcp_resets_total",
    "seismo_socket_io_bytes_total",
    "seismo_process_starts_total",
    "seismo_process_exits_total",
    "seismo_pipeline_records_total",
    "seismo_records_dropped_total",
    "seismo_probe_state",
    "seismo_probe_runs_total",
    "seismo_probe_run_seconds_total",
    "seismo_workload_bytes_total",
    "seismo_metric_series",
    "process_resident_memory_bytes",
];

#[test]
fn the_agent_shows_what_the_interface_promises() -> Result<()> {
    Rig::run(|rig| {
        let nginx = Nginx::start(rig, None)?;
        let agent = Agent::start(rig)?;
        let paths: Vec<String> = (0..20).map(|turn| format!("/user/{turn}")).collect();
        client(rig, Language::Python, nginx.port, &paths)?;
        agent.settled(&20.0, |page| page.sum("http_server_request_duration_seconds_count", &[]))?;

        let page = agent.page()?;
        let absent: Vec<&str> = NAMES.into_iter().filter(|name| !page.has(name)).collect();
        ensure!(absent.is_empty(), "not on the page: {absent:?}");
        let routes = page.by("http_server_request_duration_seconds_count", "http_route", &[]);
        println!("routes: {routes:?}");
        ensure!(routes.keys().eq(["/user/{id}"]), "routes: {routes:?}");

        let open = http::get_as(agent.port, "/metrics", "application/openmetrics-text; version=1.0.0")?;
        ensure!(open.head.to_ascii_lowercase().contains("application/openmetrics-text"), "{}", open.head);
        ensure!(open.body.ends_with("# EOF\n"), "OpenMetrics has no end");

        ensure!(http::get(agent.port, "/healthz")?.status == 200, "not healthy");
        for path in ["/api/seismo/probes", "/api/seismo/pipeline", "/api/seismo/workloads", "/api/v1/rules"] {
            agent.json(path).with_context(|| path.to_owned())?;
        }
        same_spans(&agent)
    })
}

/// `seismo spans --json` and the API are two views of one ring.
fn same_spans(agent: &Agent<'_>) -> Result<()> {
    let ids = |spans: Vec<Span>| -> Vec<String> {
        let mut ids: Vec<String> = spans.iter().map(|span| span.json["spanId"].to_string()).collect();
        ids.sort();
        ids
    };
    let printed = ids(agent.spans()?);
    let answer = http::get(agent.port, "/api/seismo/spans?limit=1000000")?.ok()?;
    let shown: Vec<Value> = match serde_json::from_str(&answer) {
        Ok(Value::Array(spans)) => spans,
        _ => answer.lines().map(serde_json::from_str).collect::<Result<_, _>>()?,
    };
    let shown = ids(shown.into_iter().map(Span::from_json).collect::<Result<_>>()?);
    println!("{} spans printed, {} spans served", printed.len(), shown.len());
    ensure!(printed.len() == 40 && printed == shown, "two views differ");
    Ok(())
}
