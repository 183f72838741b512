//! `cargo xtask demo`: the agent beside a small workload, and within ten seconds the spans and metrics it saw.
//!
//! `visitor` asks `shop`, which asks `stock`; all three are this executable under other names, in a control group of
//! their own, and the agent reads nobody else's bytes. Everything that was started is ended, also on Ctrl-C.
//! It fails when no span was seen.

mod cgroup;
mod children;
mod http;
pub mod service;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::setup::{self, Purpose};
use crate::workspace::{self, Profile};
use crate::{build, shell};

use cgroup::Cgroup;
use children::Children;

/// Show spans and metrics of a small built-in workload
#[derive(clap::Args)]
pub struct Arguments {
    /// Use this agent instead of building one
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
}

/// From loading the probes to being ready; the rest of the ten seconds is traffic.
const START_LIMIT: Duration = Duration::from_secs(20);
const TRAFFIC: Duration = Duration::from_secs(4);
/// The agent ends by itself should this process be killed.
const AGENT_LIFETIME: &str = "120s";
const SHOWN_SPANS: &str = "8";
const SHOWN_METRICS: usize = 12;

pub fn command(arguments: &Arguments) -> Result<()> {
    let agent = match &arguments.agent {
        Some(agent) => agent.clone(),
        None => build_agent()?,
    };
    if !workspace::is_root() {
        let mut again = workspace::as_root(&std::env::current_exe()?, &["CARGO_TARGET_DIR"])?;
        return shell::run(again.args(["demo", "--agent"]).arg(&agent));
    }
    children::stop_on_interrupt();

    let folder = workspace::target().join(format!("demo-{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let result = Cgroup::create(&format!("seismo-demo-{}", std::process::id())).and_then(|cgroup| {
        let mut children = Children::default();
        let result = show(&agent, &folder, &cgroup, &mut children);
        // In this order: the group cannot be removed while somebody lives in it.
        let ended = children.end();
        let removed = cgroup.remove();
        result.and(ended).and(removed)
    });
    fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    result
}

/// Optimised if the user has such a build, else whichever is quick to get.
fn build_agent() -> Result<PathBuf> {
    setup::setup(Purpose::Build)?;
    let profile = if workspace::agent(Profile::Release).exists() { Profile::Release } else { Profile::Dev };
    build::agent(profile, &[])?;
    Ok(workspace::agent(profile))
}

fn show(agent: &Path, folder: &Path, cgroup: &Cgroup, children: &mut Children) -> Result<()> {
    let port = http::free_port()?;
    let url = format!("http://127.0.0.1:{port}");
    let log = folder.join("agent.log");
    let started = Instant::now();
    let mut run = Command::new(agent);
    run.args(["run", "--listen", &format!("127.0.0.1:{port}"), "--duration", AGENT_LIFETIME])
        .arg("--scope")
        .arg(format!("cgroup={}", cgroup.path().display()));
    children.start("the agent", &mut run, &log)?;
    wait_until_ready(&url, children, &log)?;
    println!("agent ready after {:.1} s, reading only {}", started.elapsed().as_secs_f64(), cgroup.path().display());

    let stock = children.start_service("stock", folder, cgroup, None)?;
    let shop = children.start_service("shop", folder, cgroup, Some(&stock))?;
    children.start_service("visitor", folder, cgroup, Some(&shop))?;
    println!(
        "visitor → shop ({shop}) → stock ({stock}), HTTP over kept-alive connections, for {} s",
        TRAFFIC.as_secs()
    );
    let until = Instant::now() + TRAFFIC;
    while Instant::now() < until {
        children.check()?;
        thread::sleep(Duration::from_millis(50));
    }

    let ask = |options: &[&str]| {
        let mut spans = Command::new(agent);
        shell::output(spans.args(["spans", "--agent", &url, "--limit", SHOWN_SPANS]).args(options))
    };
    let spans = ask(&[])?;
    println!("\nThe last spans (`seismo spans`):\n{}", spans.trim_end());
    println!("\nThe last that failed (`seismo spans --status error`):\n{}", ask(&["--status", "error"])?.trim_end());
    let page = http::get(&url, "/metrics")?.text;
    println!("\nRequests counted (histograms, from {url}/metrics):");
    for line in request_counts(&page) {
        println!("{line}");
    }
    let seen = request_count(&page);
    println!("\n{seen} requests measured {:.1} s after the start.", started.elapsed().as_secs_f64());
    println!(
        "Next: `cargo xtask run -- --scope exe=NAME` for a service of yours, `seismo doctor`, `seismo probes`, docs/."
    );
    if spans.trim().is_empty() || seen == 0 {
        bail!("no request was seen: the agent's log says\n{}", last_lines(&log));
    }
    Ok(())
}

fn wait_until_ready(url: &str, children: &mut Children, log: &Path) -> Result<()> {
    let started = Instant::now();
    let mut reason = "it does not answer".to_owned();
    while started.elapsed() < START_LIMIT {
        children.check().with_context(|| format!("its log says\n{}", last_lines(log)))?;
        match http::get(url, "/readyz") {
            Ok(answer) if answer.status == 200 => return Ok(()),
            Ok(answer) => reason = answer.text.trim().to_owned(),
            Err(error) => reason = format!("{error:#}"),
        }
        thread::sleep(Duration::from_millis(50));
    }
    bail!("the agent is not ready after {} s: {reason}; its log says\n{}", START_LIMIT.as_secs(), last_lines(log))
}

fn last_lines(log: &Path) -> String {
    let text =
        fs::read(log).map_or_else(|error| error.to_string(), |bytes| String::from_utf8_lossy(&bytes).into_owned());
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// Every series' number of requests.
fn request_counts(page: &str) -> impl Iterator<Item = &str> {
    page.lines().filter(|line| line.starts_with("http_") && line.contains("_count{")).take(SHOWN_METRICS)
}

/// Requests that servers answered, over all series.
fn request_count(page: &str) -> u64 {
    page.lines()
        .filter(|line| line.starts_with("http_server_request_duration_seconds_count"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum::<f64>() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
# TYPE http_server_request_duration_seconds histogram
http_server_request_duration_seconds_bucket{service_name=\"shop\",le=\"+Inf\"} 7
http_server_request_duration_seconds_sum{service_name=\"shop\"} 0.07
http_server_request_duration_seconds_count{service_name=\"shop\"} 7
http_server_request_duration_seconds_count{service_name=\"stock\"} 5
http_client_request_duration_seconds_count{service_name=\"shop\"} 5
seismo_syscalls_total{syscall=\"read\"} 100
";

    #[test]
    fn requests_are_counted_once_where_they_are_served() {
        assert_eq!(request_count(PAGE), 12);
        assert_eq!(request_count(""), 0);
    }

    #[test]
    fn of_a_histogram_only_the_count_is_shown() {
        let shown: Vec<_> = request_counts(PAGE).collect();
        assert_eq!(shown.len(), 3);
        assert!(shown.iter().all(|line| line.contains("_count{")));
    }
}
