//! Every way to move bytes through a socket is seen: as records with exact positions, lengths and bytes, and as
//! bytes of the workload in the agent's counters.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seismo_tests::agent::Agent;
use seismo_tests::pattern;
use seismo_tests::peer::Peer;
use seismo_tests::rig::Rig;
use seismo_tests::tap::{Record, Tap};

use crate::payload_rows::{ROWS, Row};

const CLIENT: &str = env!("CARGO_BIN_EXE_seismo-testclient");

/// Plays one row; says the client's process id and what each of its operations returned.
fn transfer(rig: &Rig, row: &Row) -> Result<(u32, Vec<u64>)> {
    let sends = if row.direction == "receive" { row.total as usize } else { 0 };
    let peer = if row.asked > 0 { Peer::sending_when_asked(sends)? } else { Peer::sending(sends)? };
    let mut process = rig.start_client(CLIENT, row.path, &["transfer", row.path, &peer.port.to_string()])?;
    let pid = process.pid();
    let out = process.finish(Duration::from_secs(30)).context(row.path)?;
    let moved: Vec<u64> = out.lines().map(str::parse).collect::<Result<_, _>>()?;
    ensure!(moved.iter().sum::<u64>() == row.total, "{}: the client moved {moved:?}", row.path);
    let received = peer.received()?;
    if row.direction == "send" {
        ensure!(received == pattern::bytes(0, row.total as usize), "{}: other bytes arrived", row.path);
    }
    Ok((pid, moved))
}

/// What is wrong with the records of a row; nothing if all is as the client said.
fn faults(row: &Row, moved: &[u64], records: &[Record]) -> String {
    let mut faults = String::new();
    let mut fault = |text: String| write!(faults, "\n  {}: {text}", row.path).is_ok();
    let lengths: Vec<u64> = records.iter().map(|record| u64::from(record.length)).collect();
    // The kernel may do one of these in several steps; any other operation is one record.
    let cut_by_kernel = ["sendfile", "splice", "io_uring-late"].contains(&row.path);
    if !(lengths == moved || cut_by_kernel && lengths.iter().sum::<u64>() == row.total) {
        fault(format!("lengths {lengths:?}, the client moved {moved:?}"));
    }
    let mut position = 0;
    for (record, next) in records.iter().zip(records.iter().skip(1).map(Some).chain([None])) {
        let end = record.sequence.wrapping_add(record.length);
        if next.is_some_and(|next| next.sequence != end || next.cookie != record.cookie) {
            fault(format!("the record after {} does not follow it", record.sequence));
        }
        if record.data != pattern::bytes(position, record.data.len()) {
            fault(format!("other bytes than those at {position}"));
        }
        if !row.captured.allows(record.length.into(), record.data.len() as u64) {
            fault(format!("captured {} of {}: {:?}", record.data.len(), record.length, row.captured));
        }
        if row.syscall.is_some_and(|expected| record.syscall != expected) {
            fault(format!("system call {}, expected {:?}", record.syscall, row.syscall));
        }
        // Whatever is missing has a reason.
        if record.cut.is_empty() != (record.data.len() == record.length as usize) {
            fault(format!("captured {} of {}, cut: {:?}", record.data.len(), record.length, record.cut));
        }
        position += record.length as usize;
    }
    faults
}

#[test]
fn every_way_to_move_bytes_is_seen_with_its_exact_position_and_length() -> Result<()> {
    Rig::run(|rig| {
        let mut tap = Tap::start(rig, &[])?;
        tap.await_attached(|| transfer(rig, &ROWS[0]).map(|_| ()))?;
        println!("{:14} {:8} {:>24} {:>24} {:>24}", "path", "", "client moved", "lengths seen", "captured");
        let mut wrong = String::new();
        for row in &ROWS {
            let (pid, moved) = transfer(rig, row)?;
            let records = tap.of(pid, row.direction, row.total as usize)?;
            let lengths: Vec<u32> = records.iter().map(|record| record.length).collect();
            let captured: Vec<usize> = records.iter().map(|record| record.data.len()).collect();
            let cells = [format!("{moved:?}"), format!("{lengths:?}"), format!("{captured:?}")];
            println!("{:14} {:8} {:>24} {:>24} {:>24}", row.path, row.direction, cells[0], cells[1], cells[2]);
            wrong += &faults(row, &moved, &records);
        }
        ensure!(wrong.is_empty(), "{wrong}");
        Ok(())
    })
}

#[test]
fn the_agents_counters_say_the_same_bytes_for_every_way_to_move_them() -> Result<()> {
    Rig::run(|rig| {
        let agent = Agent::start(rig)?;
        let host = |page: &seismo_tests::exposition::Page, direction: &str| {
            page.sum(
                "seismo_socket_io_bytes_total",
                &[("network_io_direction", direction), ("network_transport", "tcp")],
            )
        };
        let before = agent.page()?;
        let mut wrong = Vec::new();
        println!("{:14} {:>12} {:>12}", "path", "client moved", "counted");
        for row in &ROWS {
            transfer(rig, row)?;
            let own = (row.total + row.asked) as f64;
            let counted =
                agent.settled(&own, |page| page.sum("seismo_workload_bytes_total", &[("service_name", row.path)]))?;
            println!("{:14} {:>12} {counted:>12}", row.path, own);
            if counted != own {
                let all = agent.page()?.by("seismo_workload_bytes_total", "service_name", &[]);
                wrong.push(format!("{}: {counted} where {own} moved; all: {all:?}", row.path));
            }
        }
        for (label, row_direction) in [("transmit", "send"), ("receive", "receive")] {
            let own: u64 = ROWS.iter().filter(|row| row.direction == row_direction).map(|row| row.total).sum();
            let counted =
                agent.reaches("bytes of the host", host(&before, label) + own as f64, |page| host(page, label))?;
            println!("{label}: the clients moved {own}, the host {}", counted - host(&before, label));
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        agent.nothing_lost()
    })
}
