//! Nothing grows: after many connections and processes every table is empty again and memory is where it was.

use std::thread;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use seismo_tests::agent::{Agent, Launch};
use seismo_tests::exposition::Page;
use seismo_tests::rig::Rig;

const CLIENT: &str = env!("CARGO_BIN_EXE_seismo-testclient");
/// Five rounds: 20 000 connections and 10 000 processes. Twice as many before, until what is bounded has been full.
const ROUNDS: u64 = 5;
const CONNECTIONS: &str = "4000";
const PROCESSES: &str = "2000";
/// What is in use may differ by the room that tables have grown to, and by the series of every client's port.
const HEAP_TOLERANCE: u64 = 2 << 20;
/// What is resident, by what the allocator may keep and by free pieces of pages that are in use for the rest.
const RESIDENT_TOLERANCE: u64 = 4 << 20;
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

/// Bytes of the agent's heap that are in use, and bytes of its memory that are resident.
fn memory(agent: &Agent<'_>) -> Result<[u64; 2]> {
    let page = agent.page()?;
    let metrics = ["seismo_heap_bytes", "process_resident_memory_bytes"];
    let bytes = metrics.map(|metric| page.sum(metric, &[]) as u64);
    ensure!(!bytes.contains(&0), "memory is not on the page");
    Ok(bytes)
}

#[test]
fn connections_and_processes_that_come_and_go_leave_every_table_empty_and_memory_flat() -> Result<()> {
    Rig::run(|rig| {
        let scopes = [format!("cgroup={}", rig.cgroup().path().display()), format!("exe={}/leaf", rig.dir().display())];
        // Few spans, as each is in pages of which the rest cannot be given back. What is kept for late spans is forgotten
        // sooner than by default.
        let config = "spans:\n  capacity: 10\nnames:\n  linger: 1s\nlinks:\n  wait: 500ms\n\
                      explain:\n  remember: 1s\n"
            .to_owned();
        let agent = Agent::launch(rig, &Launch { scopes: scopes.to_vec(), config: Some(config), ..Launch::default() })?;
        let mut readings = Vec::new();
        for _ in 0..3 {
            for _ in 0..ROUNDS {
                round(rig)?;
            }
            emptied(&agent)?;
            thread::sleep(GIVES_BACK);
            readings.push(memory(&agent)?);
        }
        let [_, [heap, resident], [heap_after, resident_after]] = readings[..] else { bail!("three readings") };
        println!("heap in use: {heap} B after the first rounds, {heap_after} B after {ROUNDS} more");
        println!("resident: {resident} B after the first rounds, {resident_after} B after {ROUNDS} more");
        let seen = agent.page()?.sum("http_server_request_duration_seconds_count", &[]);
        println!("{seen} requests were seen");
        ensure!(heap_after <= heap + HEAP_TOLERANCE, "heap in use grew by {} B", heap_after - heap);
        ensure!(
            resident_after <= resident + RESIDENT_TOLERANCE,
            "resident memory grew by {} B",
            resident_after - resident
        );
        agent.stop()
    })
}
