//! Nothing grows: after many connections and processes every table is empty again and memory is where it was.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use seismo_tests::agent::{Agent, Launch};
use seismo_tests::exposition::Page;
use seismo_tests::rig::Rig;

const CLIENT: &str = env!("CARGO_BIN_EXE_seismo-testclient");
/// Five rounds: 20 000 connections and 10 000 processes. As many before, until what is bounded has been full once.
const ROUNDS: u64 = 5;
const CONNECTIONS: &str = "4000";
const PROCESSES: &str = "2000";
/// Memory may differ by what the allocator may keep and by pages of which a piece is in use.
const TOLERANCE_KIB: u64 = 4096;
/// The agent looks every 5 s whether it has freed memory to give back.
const GIVES_BACK: Duration = Duration::from_secs(6);
const LIMIT: Duration = Duration::from_secs(120);

fn round(rig: &Rig) -> Result<()> {
    rig.start_client(CLIENT, "churn", &["churn", CONNECTIONS])?.finish(LIMIT)?;
    rig.start_client(CLIENT, "leaf", &["leaves", PROCESSES])?.finish(LIMIT)?;
    Ok(())
}

/// Entries of all tables but that of the host's cgroups, which are there whatever the agent did.
fn entries(page: &Page) -> u64 {
    let tables = page.by("seismo_table_entries", "table", &[]);
    tables.iter().filter(|(table, _)| *table != "workloads").map(|(_, entries)| entries).sum()
}

/// Waits until the agent has nothing to do and every table is empty; what they hold if they do not get so.
fn emptied(agent: &Agent<'_>) -> Result<()> {
    let left = agent.settled(&0, entries)?;
    let page = agent.page()?;
    let tables = page.by("seismo_table_entries", "table", &[]);
    println!("tables: {tables:?}");
    for table in [
        "flows",
        "names",
        "scope_processes",
        "flow_control",
        "link_connections",
        "link_client_spans",
        "link_waiting_spans",
    ] {
        ensure!(tables.contains_key(table), "{table} is not on the page");
        ensure!(page.sum("seismo_table_capacity", &[("table", table)]) > 0.0, "{table} has no capacity");
    }
    if left != 0 {
        println!("dropped: {:?}", page.by("seismo_records_dropped_total", "reason", &[]));
        println!("connections: {}", agent.json("/api/seismo/flows")?);
    }
    ensure!(left == 0, "tables are not empty: {tables:?}");
    Ok(())
}

fn resident_kib(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

#[test]
fn connections_and_processes_that_come_and_go_leave_every_table_empty_and_memory_flat() -> Result<()> {
    Rig::run(|rig| {
        let scopes = [format!("cgroup={}", rig.cgroup().path().display()), format!("exe={}/leaf", rig.dir().display())];
        // Spans are a ring: full after the first round. What is kept for late spans is forgotten sooner than by default.
        let config = "spans:\n  capacity: 1000\nnames:\n  linger: 1s\nlinks:\n  wait: 500ms\n\
                      explain:\n  remember: 1s\n"
            .to_owned();
        let agent = Agent::launch(rig, &Launch { scopes: scopes.to_vec(), config: Some(config), ..Launch::default() })?;
        let pid = agent.process.pid();
        let mut resident = Vec::new();
        for _ in 0..2 {
            for _ in 0..ROUNDS {
                round(rig)?;
            }
            emptied(&agent)?;
            thread::sleep(GIVES_BACK);
            resident.push(resident_kib(pid)?);
        }
        let [warm, after] = resident[..] else { bail!("two readings") };
        println!("resident: {warm} KiB after {ROUNDS} rounds, {after} KiB after {ROUNDS} more");
        let seen = agent.page()?.sum("http_server_request_duration_seconds_count", &[]);
        println!("{seen} requests were seen");
        ensure!(after <= warm + TOLERANCE_KIB, "memory grew by {} KiB", after - warm);
        agent.stop()
    })
}
