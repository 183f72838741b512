//! `seismo tap`: the raw records of what is in scope, one JSON object a line. For debugging and for tests that compare
//! what the kernel reported with what a client did. Shows captured bytes: treat its output like the traffic itself.

use std::io::Write;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::Result;
use seismo_common::payload::{
    CUT_BUDGET, CUT_COMPAT, CUT_FAULT, CUT_IOVECS, CUT_LIMIT, CUT_NO_BUFFER, CUT_SKIP, PayloadRecord, SEND, TCP, UDP,
    UNIX_DATAGRAM, UNIX_STREAM,
};
use serde_json::json;

use crate::bpf::decode::{Batch, Record};

/// Prints payload records until `until`, then returns how many there were.
pub fn print(batches: &Receiver<Batch>, until: Instant, out: &mut dyn Write) -> Result<u64> {
    let mut printed = 0;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        let Ok(batch) = batches.recv_timeout(left.min(Duration::from_millis(100))) else { continue };
        for record in batch.iter() {
            if let Ok(Record::Payload(record, data)) = record {
                serde_json::to_writer(&mut *out, &object(&record, &data))?;
                writeln!(out)?;
                printed += 1;
            }
        }
        out.flush()?;
    }
    Ok(printed)
}

fn object(record: &PayloadRecord, data: &[u8]) -> serde_json::Value {
    json!({
        "ktime_ns": record.header.ktime_ns,
        "cookie": record.cookie,
        "direction": if record.direction == SEND { "send" } else { "receive" },
        "transport": transport(record.transport),
        "position": record.position,
        "sequence": record.sequence,
        "other_sequence": record.other_sequence,
        "length": record.length,
        "skipped": record.skipped,
        "captured": record.captured,
        "syscall": seismo_common::syscall::name(record.syscall as usize),
        "cut": cut(record.header.flags),
        "tgid": record.tgid,
        "tid": record.tid,
        "local_port": record.local_port,
        "peer_port": record.peer_port,
        "data_hex": data.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
    })
}

const fn transport(transport: u8) -> &'static str {
    match transport {
        TCP => "tcp",
        UNIX_STREAM => "unix_stream",
        UDP => "udp",
        UNIX_DATAGRAM => "unix_datagram",
        _ => "unknown",
    }
}

/// Why fewer bytes than the length were captured.
fn cut(flags: u16) -> Vec<&'static str> {
    [
        (CUT_LIMIT, "limit"),
        (CUT_NO_BUFFER, "no_buffer"),
        (CUT_FAULT, "fault"),
        (CUT_IOVECS, "iovecs"),
        (CUT_COMPAT, "compat"),
        (CUT_SKIP, "skip"),
        (CUT_BUDGET, "budget"),
    ]
    .into_iter()
    .filter(|(bit, _)| flags & bit != 0)
    .map(|(_, name)| name)
    .collect()
}
