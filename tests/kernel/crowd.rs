//! Programs that several threads run at the same time do not mix what they tell: every record has the bytes of its own
//! operation, on each tier.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use seismo_tests::bpf::missed_runs;
use seismo_tests::pattern::CROWD_BYTES;
use seismo_tests::rig::Rig;
use seismo_tests::tap::Tap;

use crate::paths::TIERS;

const CLIENT: &str = env!("CARGO_BIN_EXE_seismo-testclient");
const PAIRS: usize = 4;
const COUNT: usize = 400;

#[test]
fn what_threads_move_at_the_same_time_is_told_each_with_its_own_bytes() -> Result<()> {
    Rig::run(|rig| {
        let mut wrong = Vec::new();
        for tier in TIERS {
            let mut tap = Tap::start_with(rig, &[], &[("SEISMO_PAYLOAD_TIER", tier)])?;
            if let Err(error) = tap.await_attached(|| rig.client(CLIENT, "mark", &["mark"]).map(|_| ())) {
                let text = format!("{error:#}");
                ensure!(text.contains("cannot be used here"), "{tier}: {text}");
                continue;
            }
            let before = tap.records()?.len();
            let words = ["crowd", &PAIRS.to_string(), &COUNT.to_string()];
            rig.start_client(CLIENT, "crowd", &words)?.finish(Duration::from_secs(60))?;
            let records = tap.steps(before, 1)?.pop().unwrap_or_default();
            let missed = missed_runs(tap.pid())?;
            let mut bytes: BTreeMap<u64, BTreeMap<u8, usize>> = BTreeMap::new();
            let (mut mixed, mut other_lengths) = (0, 0);
            let own = |record: &&seismo_tests::tap::Record| record.transport == "tcp";
            for record in records.iter().filter(own) {
                let first = record.data.first().copied().unwrap_or(0);
                mixed += usize::from(record.data.iter().any(|byte| *byte != first));
                other_lengths += usize::from(record.length as usize != CROWD_BYTES || record.data.len() != CROWD_BYTES);
                *bytes.entry(record.cookie).or_default().entry(first).or_default() += 1;
            }
            let strangers: usize =
                bytes.values().map(|counts| counts.values().sum::<usize>() - counts.values().max().unwrap_or(&0)).sum();
            let told = records.iter().filter(own).count();
            println!(
                "{tier}: {told} of {} records, {missed} runs missed; {mixed} with mixed bytes, {strangers} with another \
                 connection's, {other_lengths} with another length",
                2 * PAIRS * COUNT
            );
            if mixed + strangers + other_lengths > 0 || bytes.len() != 2 * PAIRS {
                wrong.push(format!("{tier}: {mixed} mixed, {strangers} of others, {other_lengths} of another length"));
            }
            if told > 2 * PAIRS * COUNT || told < 2 * PAIRS * COUNT && missed == 0 {
                wrong.push(format!("{tier}: {told} records"));
            }
        }
        ensure!(wrong.is_empty(), "\n{}", wrong.join("\n"));
        Ok(())
    })
}
