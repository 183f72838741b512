//! Every request that nginx logged is counted, by status code, on both ends of the connection.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use seismo_tests::agent::Agent;
use seismo_tests::nginx::{Nginx, Request};
use seismo_tests::rig::Rig;
use seismo_tests::wrk::{Load, Wrk};

const REQUESTS: usize = 10_000;
const LIMIT: Duration = Duration::from_secs(90);
const SERVER: &str = "http_server_request_duration_seconds_count";
const CLIENT: &str = "http_client_request_duration_seconds_count";

fn mixed(connections: usize, depth: usize) -> Load {
    let paths = ["/", "/user/123", "/missing", "/fail", "/static/file"].map(str::to_owned).to_vec();
    Load { requests: REQUESTS, connections, depth, paths }
}

fn by_status(requests: &[Request]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for request in requests {
        *counts.entry(request.status.clone()).or_insert(0) += 1;
    }
    counts
}

/// Compares nginx's log with the agent's count of nginx's answers and of wrk's questions.
fn compare(agent: &Agent<'_>, logged: &BTreeMap<String, u64>) -> Result<()> {
    for (metric, service) in [(SERVER, "nginx"), (CLIENT, "wrk")] {
        let counted =
            agent.settled(logged, |page| page.by(metric, "http_response_status_code", &[("service_name", service)]))?;
        println!("nginx logged {logged:?}, seismo counted {counted:?} ({metric} of {service})");
        ensure!(counted == *logged, "{metric}: {counted:?}, logged {logged:?}");
    }
    agent.nothing_lost()
}

fn exact(load: &Load) -> Result<()> {
    Rig::run(|rig| {
        let nginx = Nginx::start(rig, None)?;
        nginx.fail(true)?;
        let agent = Agent::start(rig)?;
        let wrk = Wrk::start(rig, nginx.port, load)?;
        let logged = nginx.logged(load.requests, LIMIT)?;
        let answers = wrk.interrupt()?;
        println!("wrk got {answers} answers, nginx logged {}", logged.len());
        ensure!(answers == REQUESTS && logged.len() == REQUESTS, "the load was not exact");
        compare(&agent, &by_status(&logged))?;
        agent.stop()
    })
}

#[test]
fn ten_thousand_requests_over_keep_alive_are_counted_exactly_by_status_code() -> Result<()> {
    exact(&mixed(8, 1))
}

#[test]
fn ten_thousand_pipelined_requests_are_counted_exactly_by_status_code() -> Result<()> {
    exact(&mixed(8, 16))
}

#[test]
fn connections_older_than_the_agent_are_counted_from_its_start_on() -> Result<()> {
    Rig::run(|rig| {
        let nginx = Nginx::start(rig, None)?;
        let connections = 4;
        let endless = Load { requests: 1_000_000_000, connections, depth: 1, paths: vec!["/".to_owned()] };
        let wrk = Wrk::start(rig, nginx.port, &endless)?;
        nginx.logged(100, LIMIT)?;
        let agent = Agent::start(rig)?;
        let before = nginx.log()?.len();
        nginx.logged(before + REQUESTS, LIMIT)?;
        wrk.interrupt()?;
        let total = nginx.log()?.len();
        let seen = agent.still(|page| page.sum(SERVER, &[("service_name", "nginx")]))? as usize;
        println!("nginx logged {total}, {before} of them before the agent was ready; seismo counted {seen}");
        // On each connection, one request was under way when the agent came and one when wrk was interrupted.
        ensure!(seen + 2 * connections >= total - before && seen <= total, "old connections are not followed");
        agent.nothing_lost()
    })
}

#[test]
fn wrk_cut_off_in_the_middle_of_requests_still_leaves_equal_counts_on_the_server() -> Result<()> {
    Rig::run(|rig| {
        let nginx = Nginx::start(rig, None)?;
        let agent = Agent::start(rig)?;
        Wrk::plain(rig, nginx.port, 8, 1)?.finish()?;
        let total = nginx.logged(1, LIMIT)?.len();
        let logged = BTreeMap::from([("200".to_owned(), total as u64)]);
        let select = [("service_name", "nginx")];
        let counted = agent.settled(&logged, |page| page.by(SERVER, "http_response_status_code", &select))?;
        println!("nginx logged {:?}, seismo counted {counted:?}", by_status(&nginx.log()?));
        ensure!(counted == by_status(&nginx.log()?), "the counts differ");
        agent.nothing_lost()
    })
}
