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
const CONNECTIONS: u64 = 8;
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

/// Compares nginx's log with the agent's count of nginx's answers, and of wrk's questions if `both`.
fn compare(agent: &Agent<'_>, logged: &BTreeMap<String, u64>, both: bool) -> Result<()> {
    let ends = [(SERVER, "nginx"), (CLIENT, "wrk")];
    for (metric, service) in &ends[..if both { 2 } else { 1 }] {
        let counted =
            agent.settled(logged, |page| page.by(metric, "http_response_status_code", &[("service_name", service)]))?;
        println!("nginx logged {logged:?}, seismo counted {counted:?} ({metric} of {service})");
        if counted != *logged {
            println!("records dropped: {:?}", agent.page()?.by("seismo_records_dropped_total", "reason", &[]));
        }
        if counted != *logged {
            let page = agent.page()?;
            println!("what happened: {:?}", page.by("seismo_pipeline_events_total", "reason", &[]));
            println!("bytes: {:?}", page.by("seismo_workload_bytes_total", "visibility", &[("service_name", service)]));
            println!("dropped: {:?}", page.by("seismo_records_dropped_total", "reason", &[]));
            println!("connections: {}", agent.json("/api/seismo/flows")?);
        }
        ensure!(counted == *logged, "{metric}: {counted:?}, logged {logged:?}");
    }
    agent.nothing_lost()
}

/// wrk reads pipelined answers 8 KiB at a time, and 4 KiB of a read are captured: answers that begin behind are not
/// seen. They must be missing with a reason, and none may be wrong.
fn fewer_and_none_wrong(agent: &Agent<'_>, logged: &BTreeMap<String, u64>) -> Result<()> {
    let page = agent.page()?;
    let counted = page.by(CLIENT, "http_response_status_code", &[("service_name", "wrk")]);
    let lost = page.sum("seismo_workload_bytes_total", &[("service_name", "wrk"), ("visibility", "lost")]);
    println!("seismo counted {counted:?} on wrk's side, and {lost} bytes there as lost");
    ensure!(counted.iter().all(|(status, count)| logged.get(status).is_some_and(|all| count <= all)), "too many");
    let missing = logged.values().sum::<u64>() - counted.values().sum::<u64>();
    ensure!(missing == 0 || lost > 0.0, "{missing} requests are missing without a reason");
    Ok(())
}

fn exact(load: &Load) -> Result<()> {
    Rig::run(|rig| {
        let nginx = Nginx::start(rig, None)?;
        nginx.fail(true)?;
        let agent = Agent::start(rig)?;
        let wrk = Wrk::start(rig, nginx.port, load)?;
        let logged = nginx.logged(load.requests, LIMIT)?;
        let logged_by = by_status(&logged);
        let _ = &logged_by;
        compare(&agent, &logged_by, load.depth == 1)?;
        let answers = wrk.interrupt()?;
        println!("wrk got {answers} answers, nginx logged {}", logged.len());
        ensure!(answers == REQUESTS && logged.len() == REQUESTS, "the load was not exact");
        let logged = by_status(&logged);
        compare(&agent, &logged, load.depth == 1)?;
        fewer_and_none_wrong(&agent, &logged)?;
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
        Wrk::plain(rig, nginx.port, CONNECTIONS as usize, 1)?.finish()?;
        let total = nginx.logged(1, LIMIT)?.len();
        let select = [("service_name", "nginx")];
        let seen = agent.settled(&(total as f64), |page| page.sum(SERVER, &select))?;
        let counted = agent.page()?.by(SERVER, "http_response_status_code", &select);
        let logged = by_status(&nginx.log()?);
        println!("nginx logged {logged:?}, seismo counted {counted:?}");
        ensure!(seen as usize == nginx.log()?.len(), "the counts differ");
        // nginx logs the status that it meant to send; where the reset came first, nothing was sent.
        let unsent = counted.get("").copied().unwrap_or(0);
        ensure!(unsent <= CONNECTIONS, "{unsent} requests without an answer on {CONNECTIONS} connections");
        ensure!(counted.get("200").copied().unwrap_or(0) + unsent == logged["200"], "other answers than nginx sent");
        agent.nothing_lost()
    })
}
