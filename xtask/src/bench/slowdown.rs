//! Slowdown of a workload in one condition: pairs of bursts, a fresh agent for every attached one.

use anyhow::{Context, Result};

use super::condition::Condition;
use super::judge::Measured;
use super::loops::Loop;
use super::pairs::{self, Side};
use super::rig::Rig;
use super::statistics::Quartiles;
use super::targets::Workload;

/// The loops that never leave their CPU are steady; the others depend on where the scheduler puts whom.
const PAIRS_STEADY: usize = 9;
const PAIRS_NOISY: usize = 15;
const PAIRS_QUICK: usize = 3;

/// How many pairs a workload needs.
pub fn pairs(workload: Workload, quick: bool) -> usize {
    match workload {
        _ if quick => PAIRS_QUICK,
        Workload::Loop(Loop::Getppid | Loop::ReadWrite) => PAIRS_STEADY,
        Workload::Loop(Loop::PingPong) | Workload::Http => PAIRS_NOISY,
    }
}

pub fn measure(rig: &Rig, workload: Workload, condition: Condition, count: usize) -> Result<Measured> {
    let ratios = pairs::measure(count, |side| {
        if side == Side::Bare || condition == Condition::Null {
            return rig.burst(workload);
        }
        let agent = rig.attach(condition, workload, false)?;
        let cost = rig.burst(workload)?;
        rig.detach(agent)?;
        Ok(cost)
    })?;
    let mut measured = Measured::new(ratios.workload).context("no pair was measured")?;
    if let Some(client) = Quartiles::of(&ratios.client) {
        measured.note = format!("wrk's own CPU ×{:.3}", client.median);
    }
    Ok(measured)
}
