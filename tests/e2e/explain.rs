//! Requests that are slow for a known reason: their spans name it, with at least nine tenths of the time that was added.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seismo_tests::agent::Agent;
use seismo_tests::blockdevice::Loop;
use seismo_tests::controller::Controller;
use seismo_tests::cpu_limit::CpuLimit;
use seismo_tests::process::Process;
use seismo_tests::rig::{Rig, free_port};
use seismo_tests::spans::{Kind, Span};
use seismo_tests::{http, programs};

const SERVER: &str = include_str!("../harness/scripts/causes.py");
const READY: Duration = Duration::from_secs(20);
const LIMIT: Duration = Duration::from_secs(60);
/// Of each path.
const TURNS: usize = 5;

struct Server {
    process: Process,
    port: u16,
}

impl Server {
    fn start(rig: &Rig, mode: &str, device: &str) -> Result<Self> {
        let port = free_port()?;
        let mut python = Command::new(programs::PYTHON);
        python.arg(rig.file("causes.py", SERVER)?).args([&port.to_string(), mode, device]);
        let mut process = rig.inside("causes", python)?;
        process.await_ready(READY, || http::get(port, "/ready").is_ok_and(|answer| answer.status == 200))?;
        Ok(Self { process, port })
    }

    /// Asks for the path again and again on one connection; the server's spans in order of time.
    fn spans(&self, rig: &Rig, agent: &Agent<'_>, path: &str) -> Result<Vec<Span>> {
        let mut curl = Command::new(programs::find("curl")?);
        curl.args(["--silent", "--show-error", "--fail", "--max-time", "50", "--output", "/dev/null"]);
        curl.arg(format!("http://127.0.0.1:{}{path}?[1-{TURNS}]", self.port));
        rig.inside("curl", curl)?.finish(LIMIT)?;
        let of = |span: &Span| span.kind == Kind::Server && span.path() == path;
        let mut spans = agent.awaited_spans(TURNS, of)?;
        spans.retain(of);
        spans.sort_by_key(|span| span.start_ns);
        ensure!(spans.len() == TURNS, "{} spans of {TURNS} requests for {path}", spans.len());
        Ok(spans)
    }
}

/// Fails unless nine tenths of what `spans` took longer than `added` says goes to `cause`: of all of them together, and of
/// most of them each. A host that takes the processor away from this machine for a while does so to a single one.
fn named(spans: &[Span], cause: &str, added: impl Fn(&Span) -> u64) -> Result<()> {
    let is_most = |time: u64, added: u64| time >= added / 10 * 9;
    let (mut named, mut all, mut all_added) = (0, 0, 0);
    for span in spans {
        let (time, added) = (span.time_ns(cause), added(span));
        println!("{}: {cause} {time} of {added} ns added, {} in all", span.path(), span.duration_ns());
        if is_most(time, added) {
            named += 1;
        } else {
            println!("{}", span.json);
        }
        (all, all_added) = (all + time, all_added + added);
    }
    ensure!(is_most(all, all_added), "{cause} is {all} of {all_added} ns");
    ensure!(2 * named > spans.len(), "{cause} is most of the time in {named} of {} requests", spans.len());
    Ok(())
}

fn median_ns(spans: &[Span]) -> Result<u64> {
    let mut durations: Vec<u64> = spans.iter().map(Span::duration_ns).collect();
    durations.sort_unstable();
    durations.get(durations.len() / 2).copied().context("no span")
}

fn beyond(plain_ns: u64) -> impl Fn(&Span) -> u64 {
    move |span| span.duration_ns().saturating_sub(plain_ns)
}

#[test]
fn what_a_request_waits_for_is_named_by_its_span() -> Result<()> {
    Rig::run(|rig| {
        let agent = Agent::start(rig)?;
        let server = Server::start(rig, "serve", "none")?;
        let plain_ns = median_ns(&server.spans(rig, &agent, "/plain")?)?;
        for (path, cause) in
            [("/sleep/50", "sleep"), ("/burn/50", "on_cpu"), ("/lock/50", "futex"), ("/peer/50", "network")]
        {
            let spans = server.spans(rig, &agent, path)?;
            // What other processes took from it in the meantime is no doing of the path's.
            named(&spans, cause, |span| beyond(plain_ns)(span).saturating_sub(span.time_ns("runqueue")))?;
        }
        let page = agent.page()?;
        let time = |operation: &str, state: &str| {
            page.sum("seismo_span_time_seconds_total", &[("operation", operation), ("state", state)])
        };
        ensure!(time("GET /sleep/{id}", "sleep") >= 0.25, "not added up: {}", time("GET /sleep/{id}", "sleep"));
        Ok(())
    })
}

#[test]
fn a_hog_on_the_same_processor_shows_as_waits_in_the_run_queue() -> Result<()> {
    Rig::run(|rig| {
        let agent = Agent::start(rig)?;
        let server = Server::start(rig, "serve", "none")?;
        let alone = server.spans(rig, &agent, "/burn/40")?;
        let mut alone: Vec<u64> = alone.iter().map(|span| span.duration_ns() - span.time_ns("runqueue")).collect();
        alone.sort_unstable();
        let alone_ns = *alone.get(TURNS / 2).context("no span")?;
        let pin = |pid: u32| {
            let mut taskset = Command::new(programs::find("taskset")?);
            taskset.args(["--all-tasks", "--cpu-list", "--pid", "0", &pid.to_string()]);
            rig.outside("taskset", taskset)?.finish(LIMIT)
        };
        pin(server.process.pid())?;
        let mut spin = Command::new(programs::PYTHON);
        spin.args(["-c", "while True: pass"]);
        let hog = rig.outside("hog", spin)?;
        pin(hog.pid())?;
        let spans = server.spans(rig, &agent, "/burn/41")?;
        let added_ns = median_ns(&spans)?.saturating_sub(alone_ns);
        ensure!(added_ns > 20_000_000, "the hog took only {added_ns} ns");
        named(&spans, "runqueue", |span| beyond(alone_ns)(span))
    })
}

#[test]
fn a_cpu_limit_shows_as_throttled() -> Result<()> {
    Rig::run(|rig| {
        let agent = Agent::start(rig)?;
        let server = Server::start(rig, "serve", "none")?;
        let free_ns = median_ns(&server.spans(rig, &agent, "/burn/60")?)?;
        let limit = CpuLimit::new(20_000, 100_000)?;
        fs::write(limit.door(), server.process.pid().to_string())?;
        let spans = server.spans(rig, &agent, "/burn/61")?;
        let added_ns = median_ns(&spans)?.saturating_sub(free_ns);
        ensure!(added_ns > 100_000_000, "the limit took only {added_ns} ns");
        let named = named(&spans, "throttled", |span| beyond(free_ns)(span).saturating_sub(span.time_ns("runqueue")));
        drop(server);
        named
    })
}

#[test]
fn a_slow_disk_shows_as_disk() -> Result<()> {
    Rig::run(|rig| {
        let agent = Agent::start(rig)?;
        let device = Loop::new(rig, 16 << 20)?;
        let server = Server::start(rig, "serve", &device.path().display().to_string())?;
        let fast_ns = median_ns(&server.spans(rig, &agent, "/disk/8")?)?;
        let group = Controller::slow_reads(&device.number()?, 4 << 20)?;
        group.take(server.process.pid())?;
        let spans = server.spans(rig, &agent, "/disk/9")?;
        let added_ns = median_ns(&spans)?.saturating_sub(fast_ns);
        ensure!(added_ns > 50_000_000, "the limit took only {added_ns} ns");
        let named = named(&spans, "disk", beyond(fast_ns));
        drop(server);
        named
    })
}

#[test]
fn a_worker_that_takes_requests_over_accounts_for_its_share() -> Result<()> {
    Rig::run(|rig| {
        let agent = Agent::start(rig)?;
        let server = Server::start(rig, "pool", "none")?;
        let plain_ns = median_ns(&server.spans(rig, &agent, "/plain")?)?;
        for (path, cause) in [("/sleep/50", "sleep"), ("/burn/50", "on_cpu")] {
            let spans = server.spans(rig, &agent, path)?;
            named(&spans, cause, |span| beyond(plain_ns)(span).saturating_sub(span.time_ns("runqueue")))?;
        }
        Ok(())
    })
}
