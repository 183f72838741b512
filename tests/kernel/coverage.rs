//! Every path through a socket on every tier that this kernel can carry: lengths, bytes, and positions at both ends.
//!
//! What is promised stands in [`PATHS`]; the test fails where less is seen, or anything that is not true. What was
//! measured is written to the file that `SEISMOTEST_COVERAGE` names, from which `cargo xtask gen` makes
//! docs/coverage.md. One agent and one client a tier.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use seismo_tests::bpf::missed_runs;
use seismo_tests::pattern;
use seismo_tests::rig::Rig;
use seismo_tests::tap::{Record, Tap};
use serde_json::{Value, json};

use crate::paths::Bytes::{self, Length, Part, Unseen, Whole};
use crate::paths::{Hole, MISPLACED, PATHS, Path, TIERS, UNSEEN, release};

const CLIENT: &str = env!("CARGO_BIN_EXE_seismo-testclient");
/// For all paths of a tier.
const LIMIT: Duration = Duration::from_secs(60);

/// Rounds in which what the kernel did not run a program for is played again.
const ROUNDS: usize = 10;

/// What was seen of one path on one tier.
#[derive(Debug)]
struct Seen {
    bytes: Bytes,
    /// Every operation has a record of its own, with its length.
    each: bool,
    /// There are more records than operations.
    parts: bool,
    /// Both ends agree on where the bytes are in the stream; none for datagrams.
    positions: Option<bool>,
    /// What is not as it was.
    wrong: Vec<String>,
    /// What is not there.
    missing: Vec<String>,
}

/// What the client says of each path: the bytes that each operation moved, or why it could not.
fn told(out: &str) -> Result<Vec<Result<Vec<u64>, String>>> {
    let mut told: Vec<Result<Vec<u64>, String>> = Vec::new();
    for line in out.lines() {
        if line.starts_with("= ") {
            told.push(Ok(Vec::new()));
            continue;
        }
        let last = told.last_mut().with_context(|| format!("no path before {line}"))?;
        match (line.strip_prefix("! "), last) {
            (Some(error), last) => *last = Err(error.to_owned()),
            (None, Ok(moved)) => moved.push(line.parse().with_context(|| line.to_owned())?),
            (None, Err(error)) => error.push_str(line),
        }
    }
    Ok(told)
}

fn judge(path: &Path, tier: &str, moved: &[u64], step: &[Record]) -> Seen {
    // Descriptors are passed with one byte, and programs that begin or end may move some of their own.
    let of = |direction: &str| -> Vec<&Record> {
        let own = |record: &&Record| record.direction == direction && record.transport == path.transport();
        let mut records: Vec<&Record> = step.iter().filter(own).collect();
        records.sort_by_key(|record| record.position);
        records
    };
    let records = of(path.direction);
    let other = of(if path.direction == "send" { "receive" } else { "send" });
    let total: u64 = moved.iter().sum();
    let lengths: Vec<u64> = records.iter().map(|record| u64::from(record.length)).collect();
    let told: u64 = lengths.iter().sum();
    let (mut wrong, mut missing) = (Vec::new(), Vec::new());
    if told > total {
        wrong.push(format!("lengths {lengths:?} where {moved:?} moved"));
    }
    if told < total {
        missing.push(format!("lengths {lengths:?} where {moved:?} moved"));
    }
    let (mut bytes, mut at) = (if records.is_empty() { Unseen } else { Whole }, 0);
    for record in &records {
        let (length, captured) = (u64::from(record.length), record.data.len() as u64);
        // A connection's places begin with it, and so does the pattern. The tested end opened it, and its SYN counts.
        let place = match (path.transport(), path.direction) {
            ("tcp", "send") => record.position.wrapping_sub(1),
            ("tcp", _) => record.position,
            _ => at,
        };
        if record.data != pattern::bytes(place as usize, record.data.len()) {
            wrong.push(format!("other bytes than those at {place}: {captured} of {length}"));
        }
        if record.cut.is_empty() != (captured == length) {
            wrong.push(format!("{captured} of {length} captured, cut: {:?}", record.cut));
        }
        if path.name.contains("32-bit") && record.cut != ["compat"] {
            wrong.push(format!("a 32-bit process, cut: {:?}", record.cut));
        }
        if path.syscall().is_some_and(|name| record.syscall != name) {
            wrong.push(format!("system call {}", record.syscall));
        }
        let amount = [Whole, Part].into_iter().find(|bytes| Path::captured(*bytes, length) == captured);
        bytes = bytes.min(amount.unwrap_or(Length));
        at += length;
    }
    let positions = (!path.has_messages() && !records.is_empty()).then(|| {
        let ends = |records: &[&Record]| {
            let first = records.first().map_or(0, |record| record.sequence);
            let last = records.last().map_or(0, |record| record.sequence.wrapping_add(record.length));
            (first, last)
        };
        let in_order = records.windows(2).all(|two| two[0].sequence.wrapping_add(two[0].length) == two[1].sequence);
        let agree = in_order && ends(&records) == ends(&other);
        let text = format!("places {:?} here and {:?} there, in order: {in_order}", ends(&records), ends(&other));
        let there: u64 = other.iter().map(|record| u64::from(record.length)).sum();
        if !agree && (told < total || there < total) {
            missing.push(text);
        } else if !agree && Hole::of(MISPLACED, path, tier).is_none() {
            wrong.push(text);
        }
        agree
    });
    Seen { bytes, each: lengths == moved, parts: lengths.len() > moved.len(), positions, wrong, missing }
}

/// A running agent of one tier.
struct Round<'a> {
    rig: &'a Rig,
    tap: &'a Tap,
    tier: &'a str,
    place: usize,
}

impl Round<'_> {
    /// Plays paths with one client, and says what was seen of each.
    fn play(&self, paths: &[&Path], round: usize) -> Result<Vec<Seen>> {
        let words: Vec<&str> = ["cover"].into_iter().chain(paths.iter().map(|path| path.name)).collect();
        let before = self.tap.records()?.len();
        let out = self.rig.start_client(CLIENT, &format!("cover-{round}"), &words)?.finish(LIMIT)?;
        let told = told(&out)?;
        ensure!(told.len() == paths.len(), "the client played {} of {} paths", told.len(), paths.len());
        let steps = self.tap.steps(before, paths.len())?;
        let judged = paths.iter().zip(&steps).zip(told).map(|((path, step), moved)| {
            let moved = moved.map_err(|error| anyhow!("{}: the client could not: {error}", path.name))?;
            Ok(judge(path, self.tier, &moved, step))
        });
        judged.collect()
    }

    /// Plays all, and again those of which something is missing after the kernel told of runs that it missed: that is a
    /// hole of the kernel, not of the path. Says how many runs it missed.
    fn play_all<'p>(&self, paths: &[&'p Path]) -> Result<(Vec<(&'p Path, Seen)>, u64)> {
        let (mut done, mut left, mut missed) = (Vec::new(), paths.to_vec(), 0);
        for round in 1..=ROUNDS {
            let seen = self.play(&left, round)?;
            let now = missed_runs(self.tap.pid())?;
            let excused = now > missed && round < ROUNDS;
            missed = now;
            let mut again = Vec::new();
            for (path, seen) in left.into_iter().zip(seen) {
                let lacking = !seen.missing.is_empty() && seen.bytes.max(path.promised[self.place]) > Unseen;
                if excused && lacking && seen.wrong.is_empty() {
                    again.push(path);
                } else {
                    done.push((path, seen));
                }
            }
            left = again;
            if left.is_empty() {
                break;
            }
        }
        Ok((done, missed))
    }
}

#[test]
fn every_path_is_seen_as_promised_on_every_tier_that_this_kernel_carries() -> Result<()> {
    Rig::run(|rig| {
        let (kernel, numbers) = release()?;
        let (here, absent): (Vec<&Path>, Vec<&Path>) = PATHS.iter().partition(|path| path.is_on(numbers));
        let mut wrong = Vec::new();
        let mut measured: BTreeMap<&str, BTreeMap<&str, Value>> = BTreeMap::new();
        let mut missed_by_tier: BTreeMap<&str, u64> = BTreeMap::new();
        for (place, tier) in TIERS.into_iter().enumerate() {
            let mut tap = Tap::start_with(rig, &[], &[("SEISMO_PAYLOAD_TIER", tier)])?;
            if let Err(error) = tap.await_attached(|| rig.client(CLIENT, "mark", &["mark"]).map(|_| ())) {
                let text = format!("{error:#}");
                ensure!(text.contains("cannot be used here"), "{tier}: {text}");
                println!("{tier}: {}", text.lines().last().unwrap_or(""));
                continue;
            }
            let round = Round { rig, tap: &tap, tier, place };
            let (all, missed) = round.play_all(&here)?;
            missed_by_tier.insert(tier, missed);
            println!("{tier}: {missed} runs missed");
            for (path, seen) in all {
                let promised = path.promised[place];
                println!(
                    "{tier:4} {:28} {:?} each {} {:?} {:?} {:?}",
                    path.name, seen.bytes, seen.each, seen.positions, seen.wrong, seen.missing
                );
                // Of what is not seen and not promised nothing can be missing.
                let lacking = !seen.missing.is_empty() && seen.bytes.max(promised) > Unseen;
                if seen.bytes < promised || !seen.wrong.is_empty() || lacking {
                    wrong.push(format!("{tier} {}: {promised:?} promised: {seen:?}", path.name));
                }
                let bytes = format!("{:?}", seen.bytes).to_lowercase();
                let mut entry = json!({"bytes": bytes, "each": seen.each, "positions": seen.positions});
                if seen.parts {
                    entry["parts"] = true.into();
                }
                let reason = match seen {
                    Seen { bytes: Unseen, .. } => {
                        let reason = Hole::of(UNSEEN, path, tier);
                        ensure!(reason.is_some(), "{tier} {}: a hole without a reason", path.name);
                        reason
                    }
                    Seen { positions: Some(false), .. } => Hole::of(MISPLACED, path, tier),
                    _ => None,
                };
                if let Some(reason) = reason {
                    entry["reason"] = reason.into();
                }
                measured.entry(path.name).or_default().insert(tier, entry);
            }
            for path in &absent {
                let entry = json!({"bytes": "absent", "each": false, "positions": null});
                measured.entry(path.name).or_default().insert(tier, entry);
            }
        }
        ensure!(!missed_by_tier.is_empty(), "this kernel carries no tier");
        if let Some(file) = std::env::var_os("SEISMOTEST_COVERAGE") {
            let document = json!({"kernel": kernel, "missed": missed_by_tier, "paths": measured});
            std::fs::write(&file, serde_json::to_string_pretty(&document)? + "\n")?;
        }
        ensure!(wrong.is_empty(), "\n{}", wrong.join("\n"));
        Ok(())
    })
}
