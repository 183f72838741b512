//! Every path through a socket on every tier that this kernel can carry: lengths, bytes, and positions at both ends.
//!
//! What is promised stands in [`PATHS`]; the test fails where less is seen, or anything that is not true. What was
//! measured is written to the file that `SEISMOTEST_COVERAGE` names, from which `cargo xtask gen` makes
//! docs/coverage.md.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seismo_tests::pattern;
use seismo_tests::rig::Rig;
use seismo_tests::tap::{Record, Tap};
use serde_json::{Value, json};

use crate::payload_rows::CAPTURE;

const CLIENT: &str = env!("CARGO_BIN_EXE_seismo-testclient");
/// Tiers with the place of what they promise in [`Path::promised`]: the ends of functions show what L0 shows.
const TIERS: [(&str, usize); 4] = [("l0a", 0), ("l0", 1), ("l1", 1), ("l2", 2)];

/// How much of an operation's bytes is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Bytes {
    /// The operation is not seen.
    Unseen,
    /// Its length and position, without bytes.
    Length,
    /// Everything up to [`CAPTURE`].
    Whole,
}

use Bytes::{Length, Unseen, Whole};

struct Path {
    name: &'static str,
    direction: &'static str,
    /// On l0a, l0 and l2.
    promised: [Bytes; 3],
}

const fn path(name: &'static str, direction: &'static str, promised: [Bytes; 3]) -> Path {
    Path { name, direction, promised }
}

const fn sends(name: &'static str) -> Path {
    path(name, "send", [Whole; 3])
}

const fn receives(name: &'static str) -> Path {
    path(name, "receive", [Whole; 3])
}

const PATHS: &[Path] = &[
    sends("tcp4/write"),
    sends("tcp4/writev"),
    sends("tcp4/pwritev2"),
    sends("tcp4/send"),
    sends("tcp4/sendto"),
    sends("tcp4/sendmsg"),
    path("tcp4/sendmmsg", "send", [Whole, Length, Whole]),
    path("tcp4/sendfile", "send", [Length; 3]),
    path("tcp4/splice-out", "send", [Length; 3]),
    path("tcp4/vmsplice", "send", [Length; 3]),
    sends("tcp4/zerocopy"),
    sends("tcp4/partial"),
    sends("tcp4/dup"),
    sends("tcp4/passed"),
    sends("tcp4/fork"),
    path("tcp4/compat", "send", [Length; 3]),
    receives("tcp4/read"),
    receives("tcp4/readv"),
    receives("tcp4/preadv2"),
    receives("tcp4/recv"),
    receives("tcp4/recvfrom"),
    receives("tcp4/recvmsg"),
    path("tcp4/recvmmsg", "receive", [Length, Length, Whole]),
    path("tcp4/splice-in", "receive", [Unseen, Unseen, Length]),
    receives("tcp4/peek"),
    path("tcp4/truncate", "receive", [Length; 3]),
    receives("tcp4/eagain"),
    path("tcp4/io_uring-send", "send", [Whole, Length, Unseen]),
    path("tcp4/io_uring-write", "send", [Whole, Length, Unseen]),
    path("tcp4/io_uring-sendmsg", "send", [Whole, Length, Unseen]),
    path("tcp4/io_uring-sqpoll-send", "send", [Whole, Length, Unseen]),
    path("tcp4/io_uring-recv", "receive", [Whole, Length, Unseen]),
    path("tcp4/io_uring-read", "receive", [Whole, Length, Unseen]),
    path("tcp4/io_uring-recvmsg", "receive", [Whole, Length, Unseen]),
    path("tcp4/io_uring-sqpoll-recv", "receive", [Whole, Length, Unseen]),
    path("tcp4/io_uring-provided", "receive", [Whole, Length, Unseen]),
    sends("tcp6/write"),
    receives("tcp6/read"),
    sends("mapped/write"),
    receives("mapped/read"),
    sends("unix/write"),
    sends("unix/sendmsg"),
    receives("unix/read"),
    receives("unix/recvmsg"),
    path("unix/io_uring-send", "send", [Whole, Length, Unseen]),
    path("unix/io_uring-recv", "receive", [Whole, Length, Unseen]),
    sends("unix-datagram/send"),
    receives("unix-datagram/recv"),
    sends("udp/send"),
    sends("udp/sendmsg"),
    receives("udp/recv"),
    receives("udp/recvmsg"),
];

/// What was seen of one path on one tier.
#[derive(Debug)]
struct Seen {
    bytes: Bytes,
    /// Every operation has a record of its own, with its length.
    each: bool,
    /// Both ends agree on where the bytes are in the stream; none for datagrams.
    positions: Option<bool>,
    wrong: Vec<String>,
}

fn play(rig: &Rig, tap: &Tap, path: &Path, promised: Bytes) -> Result<Seen> {
    let before = tap.records()?.len();
    let mut process = rig.start_client(CLIENT, "cover", &["cover", path.name])?;
    let pid = process.pid();
    let out = match process.finish(Duration::from_secs(30)).context(path.name) {
        // An old kernel may not offer this way at all; the tiers that promise something are on new ones.
        Err(_) if promised == Unseen => return judge(&[], &[], &[], false),
        out => out?,
    };
    let moved: Vec<u64> = out.lines().map(str::parse).collect::<Result<_, _>>()?;
    let total = moved.iter().sum::<u64>() as usize;
    let opposite = if path.direction == "send" { "receive" } else { "send" };
    let datagram = path.name.starts_with("udp") || path.name.contains("datagram");
    // The socket that passes a descriptor or belongs to a child has another name, or another process.
    let of = |direction: &str| -> Result<Vec<Record>> {
        // What is not promised is not waited for; the other end, which is seen, was.
        let wait = if direction == path.direction && promised == Unseen { 0 } else { total };
        let all = tap.of(pid, direction, wait)?;
        Ok(all.into_iter().filter(|record| record.length != 1).collect())
    };
    let mut other = of(opposite)?;
    let mut records = if path.name.ends_with("/fork") {
        // Names of sockets can come again where they are made of addresses.
        let peers = tap.records()?.split_off(before);
        let cookies: Vec<u64> = of(path.direction)?.iter().map(|record| record.cookie).collect();
        peers
            .into_iter()
            .filter(|record| cookies.contains(&record.cookie) && record.direction == path.direction)
            .collect()
    } else {
        of(path.direction)?
    };
    records.sort_by_key(|record| record.position);
    other.sort_by_key(|record| record.position);
    judge(&moved, &records, &other, datagram)
}

fn judge(moved: &[u64], records: &[Record], other: &[Record], datagram: bool) -> Result<Seen> {
    let total: u64 = moved.iter().sum();
    let lengths: Vec<u64> = records.iter().map(|record| u64::from(record.length)).collect();
    let mut wrong = Vec::new();
    if records.is_empty() {
        return Ok(Seen { bytes: Unseen, each: false, positions: None, wrong });
    }
    if lengths.iter().sum::<u64>() != total {
        wrong.push(format!("lengths {lengths:?} where {moved:?} moved"));
    }
    let mut whole = true;
    let mut at = 0usize;
    for record in records {
        if record.data != pattern::bytes(at, record.data.len()) {
            wrong.push(format!("other bytes than those at {at}: {} of {}", record.data.len(), record.length));
        }
        if record.cut.is_empty() != (record.data.len() == record.length as usize) {
            wrong.push(format!("{} of {} captured, cut: {:?}", record.data.len(), record.length, record.cut));
        }
        whole &= record.data.len() as u64 == u64::from(record.length).min(CAPTURE);
        at += record.length as usize;
    }
    let ends = |records: &[Record]| {
        let first = records.first().map_or(0, |record| record.sequence);
        let last = records.last().map_or(0, |record| record.sequence.wrapping_add(record.length));
        (first, last)
    };
    let in_order = records.windows(2).all(|two| two[0].sequence.wrapping_add(two[0].length) == two[1].sequence);
    let positions = (!datagram).then(|| in_order && ends(records) == ends(other));
    if positions == Some(false) {
        wrong.push(format!("positions {:?} here and {:?} there, in order: {in_order}", ends(records), ends(other)));
    }
    Ok(Seen { bytes: if whole { Whole } else { Length }, each: lengths == moved, positions, wrong })
}

#[test]
fn every_path_is_seen_as_promised_on_every_tier_that_this_kernel_carries() -> Result<()> {
    Rig::run(|rig| {
        let mut wrong = Vec::new();
        let mut measured: BTreeMap<&str, BTreeMap<&str, Value>> = BTreeMap::new();
        let mut carried = 0;
        for (tier, index) in TIERS {
            let mut tap = Tap::start_with(rig, &[], &[("SEISMO_PAYLOAD_TIER", tier)])?;
            if let Err(error) =
                tap.await_attached(|| rig.client(CLIENT, "cover", &["cover", PATHS[0].name]).map(|_| ()))
            {
                let text = format!("{error:#}");
                ensure!(text.contains("cannot be used here"), "{tier}: {text}");
                println!("{tier}: {}", text.lines().last().unwrap_or(""));
                continue;
            }
            carried += 1;
            for path in PATHS {
                let seen = play(rig, &tap, path, path.promised[index])?;
                let promised = path.promised[index];
                println!(
                    "{tier:4} {:28} {:?} each {} {:?} {:?}",
                    path.name, seen.bytes, seen.each, seen.positions, seen.wrong
                );
                if seen.bytes < promised || !seen.wrong.is_empty() {
                    wrong.push(format!("{tier} {}: {promised:?} promised: {seen:?}", path.name));
                }
                let bytes = format!("{:?}", seen.bytes).to_lowercase();
                let entry = json!({"bytes": bytes, "each": seen.each, "positions": seen.positions});
                measured.entry(path.name).or_default().insert(tier, entry);
            }
            tap.stop();
        }
        ensure!(carried > 0, "this kernel carries no tier");
        if let Some(file) = std::env::var_os("SEISMOTEST_COVERAGE") {
            let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
            let document = json!({"kernel": release.trim(), "paths": measured});
            std::fs::write(&file, serde_json::to_string_pretty(&document)? + "\n")?;
        }
        ensure!(wrong.is_empty(), "\n{}", wrong.join("\n"));
        Ok(())
    })
}
