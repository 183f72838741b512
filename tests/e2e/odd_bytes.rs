//! What is not HTTP, or HTTP beyond the bounds, gives no span with made-up values; the counters say what it was.

use std::io::Write;
use std::time::Duration;

use anyhow::{Result, ensure};
use seismo_tests::agent::Agent;
use seismo_tests::conversation::{Step, client, client_closes, server, to_json};
use seismo_tests::pattern;
use seismo_tests::rig::Rig;

const CLIENT: &str = env!("CARGO_BIN_EXE_seismo-testclient");
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Name (also the service's), what is said, in turns.
fn cases() -> Vec<(&'static str, Vec<Step>)> {
    let long = format!("GET /a HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "y".repeat(1 << 20));
    let noise: Vec<u8> = (0..20_000u32).map(|turn| (turn.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    vec![
        ("noise", vec![client(noise.clone()), server(noise)]),
        ("zeroes", vec![client(vec![0; 5000]), server(vec![0; 5000])]),
        (
            "lines",
            vec![client("EHLO example\r\n"), server("250 example\r\n"), client("QUIT\r\n"), server("221 bye\r\n")],
        ),
        ("tls-like", vec![client([&b"\x16\x03\x01\x02\x00\x01"[..], &pattern::bytes(0, 512)].concat())]),
        ("cut-request", vec![client("GET /a HTT"), client_closes()]),
        ("long-header", vec![client(long).by(4096), server(OK)]),
        ("negative", vec![client("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\nhello")]),
        (
            "doubled",
            vec![client("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!")],
        ),
        ("only-answer", vec![server(OK), server(OK)]),
    ]
}

#[test]
fn bytes_that_are_not_http_give_no_span_and_are_counted() -> Result<()> {
    Rig::run(|rig| {
        let agent = Agent::start(rig)?;
        let mut wrong = Vec::new();
        // Whatever befell bytes and messages, but exchanges that came about.
        let events = |page: &seismo_tests::exposition::Page| {
            page.sum("seismo_pipeline_events_total", &[])
                - page.sum("seismo_pipeline_events_total", &[("reason", "exchange")])
        };
        for (name, steps) in cases() {
            let events_before = events(&agent.page()?);
            let mut process = rig.start_client(CLIENT, name, &["play"])?;
            process.input()?.write_all(to_json(&steps).as_bytes())?;
            process.finish(Duration::from_secs(30))?;
            let said: usize =
                steps.iter().map(|step| if let Step::Say { bytes, .. } = step { bytes.len() } else { 0 }).sum();
            // Both ends are in scope: every byte is sent once and received once.
            let bytes = |visibility: &'static str| {
                move |page: &seismo_tests::exposition::Page| {
                    page.sum("seismo_workload_bytes_total", &[("service_name", name), ("visibility", visibility)])
                }
            };
            let all = |page: &seismo_tests::exposition::Page| {
                page.sum("seismo_workload_bytes_total", &[("service_name", name)])
            };
            let counted = agent.settled(&(2.0 * said as f64), all)?;
            let page = agent.page()?;
            let by = page.by("seismo_workload_bytes_total", "visibility", &[("service_name", name)]);
            println!("{name:12} {said} bytes said, {counted} bytes counted: {by:?}");
            if counted != 2.0 * said as f64 {
                wrong.push(format!("{name}: {counted} bytes counted where {} moved", 2 * said));
            }
            let told = events(&page) > events_before || bytes("unknown_protocol")(&page) + bytes("opaque")(&page) > 0.0;
            if !told {
                wrong.push(format!("{name}: no counter says what it was"));
            }
            // A span that says it is incomplete and has no status is honest; anything else is made up.
            for span in agent.spans()?.iter().filter(|span| span.service() == name) {
                let honest = name == "long-header" || name == "cut-request";
                if !honest || span.attribute("seismo.incomplete").is_empty() {
                    wrong.push(format!("{name}: a span: {}", span.json));
                }
            }
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    })
}
