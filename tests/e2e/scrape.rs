//! A real Prometheus scrapes the agent and has the same numbers; promtool has nothing to object to.

use std::time::Duration;

use anyhow::{Result, ensure};
use seismo_tests::agent::Agent;
use seismo_tests::nginx::Nginx;
use seismo_tests::prometheus::{Prometheus, lint};
use seismo_tests::rig::Rig;
use seismo_tests::wrk::{Load, Wrk};
use seismo_tests::{http, wait};

const COUNT: &str = "http_server_request_duration_seconds_count";

#[test]
fn prometheus_scrapes_the_agent_and_counts_the_same_requests() -> Result<()> {
    Rig::run(|rig| {
        let nginx = Nginx::start(rig, None)?;
        let agent = Agent::start(rig)?;
        let prometheus = Prometheus::start(rig, agent.port)?;
        let load = Load { requests: 1000, connections: 4, depth: 1, paths: vec!["/".to_owned()] };
        let wrk = Wrk::start(rig, nginx.port, &load)?;
        let logged = nginx.logged(load.requests, Duration::from_secs(30))?.len() as f64;
        wrk.interrupt()?;
        let counted = agent.settled(&logged, |page| page.sum(COUNT, &[]))?;
        let mut scraped = None;
        let arrived = wait::until("Prometheus to have the count", Duration::from_secs(15), || {
            scraped = prometheus.value(&format!("sum({COUNT})"))?;
            Ok((scraped == Some(counted)).then_some(()))
        });
        println!("nginx logged {logged}, seismo counted {counted}, Prometheus has {scraped:?}");
        arrived?;
        ensure!(counted == logged, "seismo {counted}, nginx {logged}");
        let up = prometheus.value("up{job=\"seismo\"}")?;
        println!("up: {up:?}");
        ensure!(up == Some(1.0), "up is {up:?}");
        Ok(())
    })
}

#[test]
fn promtool_accepts_the_page_without_a_complaint() -> Result<()> {
    Rig::run(|rig| {
        let nginx = Nginx::start(rig, None)?;
        let agent = Agent::start(rig)?;
        let load = Load { requests: 100, connections: 2, depth: 1, paths: vec!["/".to_owned()] };
        let wrk = Wrk::start(rig, nginx.port, &load)?;
        nginx.logged(load.requests, Duration::from_secs(30))?;
        wrk.interrupt()?;
        agent.settled(&100.0, |page| page.sum(COUNT, &[]))?;
        let page = http::get(agent.port, "/metrics")?.ok()?;
        let complaints = lint(rig, &page)?;
        println!("{} lines, promtool says: '{complaints}'", page.lines().count());
        ensure!(complaints.is_empty(), "{complaints}");
        Ok(())
    })
}
