//! Stage by stage, what entered is what passed and what was dropped, also when records are lost on purpose; and a loss
//! never turns into a request that nobody made.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use seismo_tests::agent::{Agent, Launch};
use seismo_tests::exposition::Page;
use seismo_tests::nginx::Nginx;
use seismo_tests::rig::Rig;
use seismo_tests::wrk::{Load, Wrk};

const LIMIT: Duration = Duration::from_secs(90);
const REQUESTS: usize = 5_000;
/// One payload record in so many is lost.
const DROP_ONE_IN: u64 = 20;

const STAGES: [&str; 4] = ["observed", "collected", "analyzed", "stored"];

fn balanced([entered, passed, dropped]: [u64; 3]) -> bool {
    entered == passed + dropped
}

/// Entered, passed and dropped of a stage.
fn stage(page: &Page, name: &str) -> [u64; 3] {
    ["entered", "passed", "dropped"]
        .map(|outcome| page.sum("seismo_pipeline_records_total", &[("stage", name), ("outcome", outcome)]) as u64)
}

#[test]
fn every_stage_accounts_for_every_record_also_when_some_are_lost_on_purpose() -> Result<()> {
    Rig::run(|rig| {
        let nginx = Nginx::start(rig, None)?;
        nginx.fail(true)?;
        let config = Some(format!("capture:\n  drop_one_in: {DROP_ONE_IN}\n"));
        let agent = Agent::launch(rig, &Launch { config, ..Launch::default() })?;
        let paths = ["/", "/user/123", "/missing", "/fail"].map(str::to_owned).to_vec();
        let wrk = Wrk::start(rig, nginx.port, &Load { requests: REQUESTS, connections: 8, depth: 1, paths })?;
        let requests = nginx.logged(REQUESTS, LIMIT)?;
        wrk.interrupt()?;
        agent.still(|page| page.sum("http_server_request_duration_seconds_count", &[("service_name", "nginx")]))?;
        // Server spans wait 2 s for a client span that was lost; records of other processes come all the time.
        let page = agent.page_where("a moment at which every stage's account is even", |page| {
            let [observed, collected, analyzed, stored] = STAGES.map(|name| stage(page, name));
            [observed, collected, analyzed, stored].into_iter().all(balanced)
                && observed[1] == collected[0]
                && collected[1] == analyzed[0]
        })?;

        let stages = STAGES.map(|name| (name, stage(&page, name)));
        println!("stage: [entered, passed, dropped]: {stages:?}");
        let [(_, observed), _, _, (_, stored)] = stages;
        ensure!(stored[0] > 0, "no span was stored");

        let injected = page.sum("seismo_records_dropped_total", &[("reason", "injected")]) as u64;
        println!("{injected} records were lost on purpose");
        ensure!(injected == observed[2], "other losses than those on purpose: {} of {}", injected, observed[2]);
        // Two operations on each side of each request, and one in twenty is lost.
        ensure!(injected >= 4 * REQUESTS as u64 / DROP_ONE_IN / 2, "too few losses for the test to mean anything");

        let mut logged = BTreeMap::new();
        for request in &requests {
            *logged.entry(request.status.clone()).or_insert(0u64) += 1;
        }
        for service in ["nginx", "wrk"] {
            let side = if service == "nginx" { "server" } else { "client" };
            let metric = format!("http_{side}_request_duration_seconds_count");
            let counted = page.by(&metric, "http_response_status_code", &[("service_name", service)]);
            println!("{service}: {counted:?} of {logged:?}");
            for (status, count) in &counted {
                let most = logged.get(status).copied().unwrap_or(0);
                ensure!(*count <= most, "{service}: {count} requests with status {status}, {most} were made");
            }
            // A request and its answer are one record each: nine in ten lose neither.
            let known: u64 = counted.iter().filter(|(status, _)| !status.is_empty()).map(|(_, count)| count).sum();
            ensure!(known as f64 >= 0.75 * REQUESTS as f64, "a loss costs more than its own exchange: {known} known");
        }
        agent.stop()
    })
}
