//! Calls with buffers, lengths and vectors that are wrong, or go wrong while they last: nothing is told of what did not
//! happen, no byte is captured that was not moved, what cannot be read is counted by reason, and the kernel has nothing to
//! say.
//!
//! On each tier that this kernel carries one agent and one tap watch the same client; each call is a row of [`ROWS`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seismo_tests::agent::{Agent, Launch};
use seismo_tests::bpf::missed_runs;
use seismo_tests::exposition::Page;
use seismo_tests::pattern;
use seismo_tests::rig::Rig;
use seismo_tests::tap::{Record, Tap};

use crate::paths::TIERS;

const CLIENT: &str = env!("CARGO_BIN_EXE_seismo-testclient");
const LIMIT: Duration = Duration::from_secs(60);
/// Rounds in which what the kernel did not run a program for is played again.
const ROUNDS: usize = 10;
/// Of 1024 messages that one call sends, those whose lengths the syscall tier does not look at.
const UNSEEN_MESSAGES: u64 = 1024 - 64;

/// What the call must say.
#[derive(Clone, Copy, Debug)]
enum Said {
    /// One of these errors, and so nothing is told.
    Fails(&'static [i32]),
    Moves(u64),
    /// As much as there was room for.
    MovesSome,
}

use Said::{Fails, Moves, MovesSome};

/// What must be told of what the call moved.
#[derive(Clone, Copy, Debug)]
struct Told {
    /// Bytes of the operations; none: all that the call moved.
    length: Option<u64>,
    captured: u64,
    /// Why it is not all.
    cut: &'static [&'static str],
}

struct Row {
    name: &'static str,
    direction: &'static str,
    said: Said,
    /// By tier; none where nothing may be told.
    told: Option<[Told; 4]>,
}

const fn told(captured: u64, cut: &'static [&'static str]) -> Told {
    Told { length: None, captured, cut }
}

const fn fails(name: &'static str, direction: &'static str, errors: &'static [i32]) -> Row {
    Row { name, direction, said: Fails(errors), told: None }
}

const fn sends(name: &'static str, said: Said, told: [Told; 4]) -> Row {
    Row { name, direction: "send", said, told: Some(told) }
}

const fn receives(name: &'static str, said: Said, told: [Told; 4]) -> Row {
    Row { name, direction: "receive", said, told: Some(told) }
}

const FAULT: &[i32] = &[libc::EFAULT];
const INVALID: &[i32] = &[libc::EINVAL, libc::EFAULT];
/// The beginning of more than is captured.
const BEGINNING: [Told; 4] = [told(4096, &["limit"]); 4];
/// The same where only the kernel's own copy of the description is left, which only the best tier reads.
const KERNELS_COPY: [Told; 4] = {
    const GONE: Told = told(0, &["limit", "fault"]);
    [told(4096, &["limit"]), GONE, GONE, GONE]
};

const ROWS: &[Row] = &[
    fails("write-unmapped", "send", FAULT),
    fails("write-no-access", "send", FAULT),
    fails("write-edge", "send", FAULT),
    fails("write-negative", "send", INVALID),
    fails("writev-edge", "send", FAULT),
    fails("writev-overflow", "send", INVALID),
    fails("writev-overflow-sum", "send", INVALID),
    fails("writev-1025", "send", &[libc::EINVAL]),
    fails("sendmsg-1025", "send", &[libc::EMSGSIZE]),
    fails("sendmsg-null", "send", FAULT),
    fails("sendmsg-null-vectors", "send", FAULT),
    fails("recvmsg-null", "receive", FAULT),
    fails("recvmsg-null-vectors", "receive", FAULT),
    fails("read-unmapped", "receive", FAULT),
    fails("read-edge", "receive", FAULT),
    fails("io_uring-no-access", "send", FAULT),
    Row { name: "sendmsg-no-vectors", direction: "send", said: Moves(0), told: None },
    // The datagram comes back as an error; nobody sent it here.
    Row { name: "udp-error-queue", direction: "receive", said: Moves(100), told: None },
    sends("write-large-edge", MovesSome, BEGINNING),
    sends("write-int-max", MovesSome, BEGINNING),
    sends("write-beyond-32-bits", MovesSome, BEGINNING),
    sends("writev-clipped", MovesSome, BEGINNING),
    sends("writev-1024", Moves(3072), [told(24, &["iovecs"]); 4]),
    sends("sendmsg-empty-vectors", Moves(300), [told(300, &[]); 4]),
    sends("write-changed", Moves(6000), BEGINNING),
    sends("write-gone", MovesSome, [told(0, &["limit", "fault"]); 4]),
    sends("writev-vectors-gone", MovesSome, KERNELS_COPY),
    sends("sendmsg-message-gone", MovesSome, KERNELS_COPY),
    sends(
        "sendmmsg-bad-second",
        Moves(5),
        [told(5, &[]), told(0, &["no_buffer"]), told(0, &["no_buffer"]), told(5, &[])],
    ),
    sends(
        "sendmmsg-1024",
        Moves(3072),
        [
            told(3072, &[]),
            told(0, &["no_buffer"]),
            told(0, &["no_buffer"]),
            Told { length: Some((1024 - UNSEEN_MESSAGES) * 3), ..told(24, &["iovecs"]) },
        ],
    ),
    receives("read-int-max", Moves(300), [told(300, &[]); 4]),
    receives("recv-gone", Moves(300), [told(0, &["fault"]); 4]),
    receives("udp-truncated", Moves(3000), [told(100, &["no_buffer"]); 4]),
    receives("udp-truncated-vectors", Moves(3000), [told(100, &["no_buffer"]); 4]),
];

/// What the tap showed of a row.
struct Seen {
    length: u64,
    captured: u64,
    cut: BTreeSet<String>,
    wrong: Vec<String>,
}

fn seen(row: &Row, step: &[Record]) -> Seen {
    let transport = if row.name.starts_with("udp") { "udp" } else { "tcp" };
    let own = |record: &&Record| record.direction == row.direction && record.transport == transport;
    let mut seen = Seen { length: 0, captured: 0, cut: BTreeSet::new(), wrong: Vec::new() };
    for record in step.iter().filter(own) {
        // What another thread changed may be anything, but no more than was moved.
        let changed = row.name == "write-changed";
        if !changed && record.data != pattern::bytes(seen.length as usize, record.data.len()) {
            seen.wrong.push(format!("other bytes than those at {}", seen.length));
        }
        if record.data.len() > record.length as usize {
            seen.wrong.push(format!("{} captured of {}", record.data.len(), record.length));
        }
        seen.length += u64::from(record.length);
        seen.captured += record.data.len() as u64;
        seen.cut.extend(record.cut.iter().cloned());
    }
    seen
}

/// What is wrong with a row, and whether something is missing rather than wrong.
fn judge(row: &Row, place: usize, said: i64, seen: &Seen) -> (String, bool) {
    let mut wrong = seen.wrong.clone();
    let as_expected = match row.said {
        Fails(errors) => errors.iter().any(|error| said == -i64::from(*error)),
        Moves(bytes) => said == bytes as i64,
        MovesSome => said > 0,
    };
    if !as_expected {
        wrong.push(format!("the call said {said}, {:?} expected", row.said));
    }
    let Some(told) = row.told.map(|told| told[place]) else {
        if seen.length > 0 {
            wrong.push(format!("{} bytes told of nothing", seen.length));
        }
        return (wrong.join("; "), false);
    };
    let length = told.length.unwrap_or(said.max(0) as u64);
    let missing = wrong.is_empty() && seen.length < length;
    let cut: BTreeSet<String> = told.cut.iter().map(|reason| (*reason).to_owned()).collect();
    if (seen.length, seen.captured) != (length, told.captured) || seen.cut != cut {
        wrong.push(format!(
            "{} of {} bytes, cut {:?}, where {} of {length}, cut {cut:?} was expected",
            seen.captured, seen.length, seen.cut, told.captured
        ));
    }
    (wrong.join("; "), missing)
}

/// The kernel's messages from now on.
struct KernelLog(File);

impl KernelLog {
    fn open() -> Result<Self> {
        let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg")?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self(file))
    }

    /// Those that tell of a mistake in the kernel or of one that a program made.
    fn alarms(&mut self) -> Vec<String> {
        const WORDS: [&str; 6] = ["BUG:", "WARNING:", "Oops", "unable to handle", "general protection", "KASAN"];
        let (mut alarms, mut message) = (Vec::new(), [0; 8192]);
        // Each read gives a whole message; the last fails.
        while let Ok(length) = self.0.read(&mut message) {
            let text = String::from_utf8_lossy(message.get(..length).unwrap_or_default()).into_owned();
            if length == 0 {
                break;
            }
            if WORDS.iter().any(|word| text.contains(word)) {
                alarms.push(text);
            }
        }
        alarms
    }
}

/// Bytes that were not captured, by the reason under which they are counted, of operations whose counts no adaption to a
/// connection changes.
const REASONS: [&str; 2] = ["fault", "iovecs"];

fn counted(page: &Page, reason: &str) -> u64 {
    page.sum("seismo_payload_capture_bytes_total", &[("outcome", reason)]) as u64
}

fn play_tier(rig: &Rig, place: usize, tier: &str, tap: &Tap, agent: &mut Agent<'_>) -> Result<Vec<String>> {
    let (mut left, mut missed, mut wrong): (Vec<&Row>, u64, Vec<String>) = (ROWS.iter().collect(), 0, Vec::new());
    let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
    for round in 1..=ROUNDS {
        let words: Vec<&str> = ["hostile"].into_iter().chain(left.iter().map(|row| row.name)).collect();
        let before = tap.records()?.len();
        let out = rig.start_client(CLIENT, &format!("hostile-{round}"), &words)?.finish(LIMIT)?;
        let results: Result<Vec<i64>, _> = out.lines().filter(|line| !line.starts_with("= ")).map(str::parse).collect();
        let results = results.with_context(|| out.clone())?;
        ensure!(results.len() == left.len(), "the client played {} of {} cases", results.len(), left.len());
        let steps = tap.steps(before, left.len())?;
        let now = missed_runs(tap.pid())?;
        let excused = now > missed && round < ROUNDS;
        missed = now;
        let mut again = Vec::new();
        for ((row, said), step) in left.iter().zip(results).zip(&steps) {
            let seen = seen(row, step);
            let reason = seen.cut.iter().next().map(String::as_str).filter(|_| seen.cut.len() == 1);
            if let Some(reason) = REASONS.iter().find(|each| Some(**each) == reason) {
                *expected.entry(reason).or_default() += seen.length - seen.captured;
            }
            let (text, missing) = judge(row, place, said, &seen);
            println!(
                "{tier:4} {:22} said {said}: {} of {} {:?} {text}",
                row.name, seen.captured, seen.length, seen.cut
            );
            if missing && excused {
                again.push(*row);
            } else if !text.is_empty() {
                wrong.push(format!("{tier} {}: {text}", row.name));
            }
        }
        left = again;
        if left.is_empty() {
            break;
        }
    }
    let missed_too = missed_runs(agent.process.pid())?;
    println!("{tier}: {missed} and {missed_too} runs missed");
    ensure!(agent.process.ended()?.is_none(), "{tier}: the agent ended: {}", agent.process.err());
    let page = agent.page_where("observed records that were all submitted or dropped", |page| {
        let count = |outcome| page.sum("seismo_pipeline_records_total", &[("stage", "observed"), ("outcome", outcome)]);
        let settled = REASONS.iter().all(|reason| counted(page, reason) >= expected.get(reason).copied().unwrap_or(0));
        count("entered") > 0.0 && count("entered") == count("passed") + count("dropped") && (settled || missed_too > 0)
    })?;
    for reason in REASONS {
        let (counted, expected) = (counted(&page, reason), expected.get(reason).copied().unwrap_or(0));
        println!("{tier}: {counted} bytes counted as {reason}, {expected} shown");
        if counted != expected && missed + missed_too == 0 {
            wrong.push(format!("{tier}: {counted} bytes counted as {reason}, {expected} shown"));
        }
    }
    let skipped = |reason| page.sum("seismo_payload_skipped_total", &[("reason", reason)]) as u64;
    let unseen = if tier == "l2" { UNSEEN_MESSAGES } else { 0 };
    if missed_too == 0 && (skipped("peek") == 0 || skipped("message_unseen") < unseen) {
        wrong.push(format!("{tier}: {} peeks, {} messages unseen", skipped("peek"), skipped("message_unseen")));
    }
    Ok(wrong)
}

#[test]
fn a_hostile_call_is_told_as_far_as_it_went_and_nothing_is_read_that_it_did_not_move() -> Result<()> {
    Rig::run(|rig| {
        let mut log = KernelLog::open().context("/dev/kmsg")?;
        let (mut wrong, mut carried) = (Vec::new(), 0);
        for (place, tier) in TIERS.into_iter().enumerate() {
            let mut tap = Tap::start_with(rig, &[], &[("SEISMO_PAYLOAD_TIER", tier)])?;
            if let Err(error) = tap.await_attached(|| rig.client(CLIENT, "mark", &["mark"]).map(|_| ())) {
                let text = format!("{error:#}");
                ensure!(text.contains("cannot be used here"), "{tier}: {text}");
                println!("{tier}: {}", text.lines().last().unwrap_or(""));
                continue;
            }
            carried += 1;
            let config = Some(format!("payload:\n  tier: {tier}\n"));
            let mut agent = Agent::launch(rig, &Launch { config, ..Launch::default() })?;
            wrong.extend(play_tier(rig, place, tier, &tap, &mut agent)?);
            agent.stop()?;
        }
        ensure!(carried > 0, "this kernel carries no tier");
        let alarms = log.alarms();
        ensure!(alarms.is_empty(), "the kernel says:\n{}", alarms.join("\n"));
        ensure!(wrong.is_empty(), "\n{}", wrong.join("\n"));
        Ok(())
    })
}
