//! Slowdown of a workload in one condition: pairs of bursts, a fresh agent (or another tool) for every attached one.

use anyhow::{Context, Result};

use super::condition::Condition;
use super::judge::{self, Measured};
use super::loops::Loop;
use super::pairs::{self, Side};
use super::rig::Rig;
use super::statistics::Quartiles;
use super::targets::Workload;

/// The loops that never leave their CPU are steady; the others depend on where the scheduler puts whom.
const PAIRS_STEADY: usize = 9;
const PAIRS_NOISY: usize = 15;
const PAIRS_QUICK: usize = 3;
/// Other tools are there to be compared with; nothing is decided by their quartiles.
const PAIRS_PEER: usize = 5;
const PAIRS_PEER_QUICK: usize = 1;

/// How many pairs a workload needs.
pub fn pairs(workload: Workload, condition: Condition, quick: bool) -> usize {
    match workload {
        _ if matches!(condition, Condition::Peer(_)) => {
            if quick {
                PAIRS_PEER_QUICK
            } else {
                PAIRS_PEER
            }
        }
        _ if quick => PAIRS_QUICK,
        Workload::Loop(Loop::Getppid | Loop::ReadWrite) => PAIRS_STEADY,
        Workload::Loop(Loop::PingPong) | Workload::Http => PAIRS_NOISY,
    }
}

pub fn measure(rig: &Rig, workload: Workload, condition: Condition, count: usize) -> Result<Measured> {
    let mut resident = Vec::new();
    let ratios = pairs::measure(count, |side| {
        if side == Side::Bare || condition == Condition::Null {
            return rig.burst(workload);
        }
        if let Condition::Peer(peer) = condition {
            let running = rig.attach_peer(peer)?;
            let cost = rig.burst(workload)?;
            resident.push(running.resident_mb()?);
            rig.detach_peer(running, peer, workload)?;
            return Ok(cost);
        }
        let agent = rig.attach(condition, workload, false)?;
        let cost = rig.burst(workload)?;
        resident.push(agent.resident_mb()?);
        rig.detach(agent)?;
        Ok(cost)
    })?;
    let mut measured = Measured::new(ratios.workload).context("no pair was measured")?;
    if let Some(client) = Quartiles::of(&ratios.client) {
        judge::note(&mut measured, &format!("wrk's own CPU ×{:.3}", client.median));
    }
    if let Some(resident) = Quartiles::of(&resident) {
        judge::note(&mut measured, &format!("RSS {:.1} MB", resident.median));
    }
    Ok(measured)
}
