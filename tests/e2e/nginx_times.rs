//! Durations against the clocks of nginx and of a client with one connection.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seismo_tests::agent::Agent;
use seismo_tests::nginx::Nginx;
use seismo_tests::numbers;
use seismo_tests::rig::Rig;
use seismo_tests::scripted::{Language, Server};
use seismo_tests::spans::Kind;
use seismo_tests::wrk::{Load, Wrk};

const CLIENT: &str = env!("CARGO_BIN_EXE_seismo-testclient");
/// What two clocks that start and stop a system call apart may differ by.
const SLACK_NS: u64 = 20_000;

#[test]
fn client_spans_agree_with_the_clock_of_a_client_with_one_connection() -> Result<()> {
    Rig::run(|rig| {
        let nginx = Nginx::start(rig, None)?;
        let agent = Agent::start(rig)?;
        for (name, path) in [("quick", "/"), ("file", "/static/file")] {
            let out = rig.client(CLIENT, name, &["http", &nginx.port.to_string(), path, "1000"])?;
            let own: Vec<u64> = out.lines().map(str::parse).collect::<Result<_, _>>()?;
            ensure!(own.len() == 1000, "the client made {} requests", own.len());
            let spans = agent.awaited_spans(1000, |span| span.kind == Kind::Client && span.service() == name)?;
            ensure!(spans.len() == 1000, "{} client spans for 1000 requests", spans.len());
            let ours: Vec<u64> = spans.iter().map(|span| span.duration_ns()).collect();
            numbers::agree(&format!("a client of nginx's {path}"), &own, &ours, SLACK_NS)?;
        }
        agent.nothing_lost()
    })
}

#[test]
fn server_spans_agree_with_the_request_time_that_nginx_logs() -> Result<()> {
    Rig::run(|rig| {
        let upstream = Server::start(rig, Language::Python)?;
        let nginx = Nginx::start(rig, Some(upstream.port))?;
        let agent = Agent::start(rig)?;
        let paths: Vec<String> = (0..60).map(|turn| format!("/up/wait/{}/{turn}", 20 + turn % 31)).collect();
        let load = Load { requests: paths.len(), connections: 2, depth: 1, paths: paths.clone() };
        let wrk = Wrk::start(rig, nginx.port, &load)?;
        let logged = nginx.logged(paths.len(), Duration::from_secs(30))?;
        wrk.interrupt()?;
        let spans = agent.awaited_spans(paths.len(), |span| span.kind == Kind::Server && span.service() == "nginx")?;
        let by_path: BTreeMap<String, u64> = spans.iter().map(|span| (span.path(), span.duration_ns())).collect();
        let (mut furthest, mut apart) = ((0.0, String::new()), Vec::new());
        for request in &logged {
            let ns = *by_path.get(&request.path).with_context(|| format!("no span of {}", request.path))?;
            let (theirs_ms, ours_ms) = (request.time_ms as f64, ns as f64 / 1e6);
            let apart_ms = (theirs_ms - ours_ms).abs();
            let line = format!("{}: nginx {theirs_ms:.0} ms, seismo {ours_ms:.3} ms", request.path);
            // nginx cuts off at whole milliseconds of a clock that it reads once per turn of its event loop.
            if apart_ms > 1.0 + theirs_ms * 0.05 {
                apart.push(line.clone());
            }
            if apart_ms >= furthest.0 {
                furthest = (apart_ms, line);
            }
        }
        println!("{} requests; the furthest apart ({:.3} ms): {}", logged.len(), furthest.0, furthest.1);
        // A turn lasts longer where the processor is taken away in the middle of it: nginx's clock then stands still, and
        // the answer leaves later than it says.
        ensure!(apart.len() * 20 <= logged.len(), "{} of {} are apart: {apart:#?}", apart.len(), logged.len());
        let theirs: Vec<u64> = logged.iter().map(|request| request.time_ms * 1_000_000).collect();
        let ours: Vec<u64> = by_path.into_values().collect();
        numbers::agree("nginx's $request_time", &theirs, &ours, 1_000_000)?;
        agent.nothing_lost()
    })
}

#[test]
fn a_proxied_request_has_spans_on_all_four_ends() -> Result<()> {
    Rig::run(|rig| {
        let upstream = Server::start(rig, Language::Python)?;
        let nginx = Nginx::start(rig, Some(upstream.port))?;
        let agent = Agent::start(rig)?;
        let url = format!("http://127.0.0.1:{}/up/user/7", nginx.port);
        let mut curl = std::process::Command::new(seismo_tests::programs::find("curl")?);
        curl.args(["--silent", "--fail", "--output", "/dev/null", &url]);
        rig.inside("curl", curl)?.finish(Duration::from_secs(20))?;
        let spans = agent.awaited_spans(4, |_| true)?;
        let mut ends: Vec<(u64, Kind, String, String)> =
            spans.iter().map(|span| (span.start_ns, span.kind, span.service(), span.path())).collect();
        ends.sort();
        ends.iter().for_each(|end| println!("{end:?}"));
        let found: Vec<_> = ends.iter().map(|(_, kind, service, path)| (*kind, &**service, &**path)).collect();
        let expected = [
            (Kind::Client, "curl", "/up/user/7"),
            (Kind::Server, "nginx", "/up/user/7"),
            (Kind::Client, "nginx", "/user/7"),
            (Kind::Server, "server", "/user/7"),
        ];
        ensure!(found == expected, "spans: {found:?}, expected {expected:?}");
        Ok(())
    })
}
