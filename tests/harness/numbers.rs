//! Small statistics for comparing two clocks, and the way two numbers are printed side by side.

use anyhow::{Result, ensure};

/// The middle value; of an even number the lower middle. Empty input has none.
pub fn median(values: &[u64]) -> Option<u64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}

/// Prints both medians and fails when they are further apart than 5 % or `slack_ns`, whichever is more.
pub fn agree(what: &str, theirs: &[u64], ours: &[u64], slack_ns: u64) -> Result<()> {
    let (Some(theirs_ns), Some(ours_ns)) = (median(theirs), median(ours)) else {
        anyhow::bail!("{what}: nothing to compare ({} and {} values)", theirs.len(), ours.len());
    };
    let apart_ns = theirs_ns.abs_diff(ours_ns);
    println!(
        "{what}: own clock {:.3} ms (of {}), seismo {:.3} ms (of {}), apart {:.1} µs ({:.2} %)",
        theirs_ns as f64 / 1e6,
        theirs.len(),
        ours_ns as f64 / 1e6,
        ours.len(),
        apart_ns as f64 / 1e3,
        100.0 * apart_ns as f64 / theirs_ns as f64
    );
    ensure!(apart_ns <= slack_ns.max(theirs_ns / 20), "{what}: the medians are {apart_ns} ns apart");
    Ok(())
}
