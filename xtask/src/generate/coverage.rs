//! docs/coverage.md: which path through a socket is seen on which tier, from what the coverage test measured.
//!
//! One file per kernel in docs/coverage, as the kernel test `coverage` writes them → a table of paths by kernel and tier.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::workspace;

const FOLDER: &str = "docs/coverage";
/// Best first.
const TIERS: [&str; 4] = ["l0a", "l0", "l1", "l2"];

/// What was measured on one kernel.
#[derive(Debug, Deserialize)]
struct Measured {
    kernel: String,
    /// Runs of programs that the kernel missed meanwhile, by tier; what was missing was played again.
    #[serde(default)]
    missed: BTreeMap<String, u64>,
    /// By path, then by tier.
    paths: BTreeMap<String, BTreeMap<String, Seen>>,
}

#[derive(Debug, Deserialize)]
struct Seen {
    /// `whole`, `part`, `length`, `unseen`, or `absent` where the kernel does not have the path.
    bytes: String,
    /// A record for each operation.
    each: bool,
    /// More records than operations.
    #[serde(default)]
    parts: bool,
    /// Both ends agree; none for datagrams.
    positions: Option<bool>,
    /// Why they do not, or why nothing is seen.
    reason: Option<String>,
}

impl Seen {
    fn mark(&self) -> String {
        let bytes = match self.bytes.as_str() {
            "whole" => "bytes",
            "part" => "bytes of 8 vectors",
            "length" => "length",
            "absent" => return "the kernel has it not".to_owned(),
            _ => return "**not seen**".to_owned(),
        };
        let calls = match (self.each, self.parts) {
            (true, _) => "",
            (false, true) => ", in parts",
            (false, false) => ", one record for several",
        };
        let place = if self.positions == Some(false) { ", **place wrong**" } else { "" };
        format!("{bytes}{calls}{place}")
    }
}

pub fn render(_: &Path) -> Result<String> {
    let mut all = Vec::new();
    for entry in fs::read_dir(workspace::root().join(FOLDER)).context(FOLDER)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            all.push(serde_json::from_str(&text).with_context(|| path.display().to_string())?);
        }
    }
    table(all)
}

fn table(mut all: Vec<Measured>) -> Result<String> {
    if all.is_empty() {
        bail!("{FOLDER} has no measurement; the kernel test `coverage` writes one to $SEISMOTEST_COVERAGE");
    }
    all.sort_by_key(|measured| version(&measured.kernel));
    let mut columns = Vec::new();
    for measured in &all {
        let seen: BTreeSet<&str> = measured.paths.values().flat_map(BTreeMap::keys).map(String::as_str).collect();
        columns.extend(TIERS.into_iter().filter(|tier| seen.contains(tier)).map(|tier| (measured, tier)));
    }
    let mut out = String::from(
        "# What is seen of each way to move bytes\n\n\
         Measured by the kernel test `coverage`; written by `cargo xtask gen`. Each way moves bytes whose value tells\n\
         their place; \"bytes\" means that everything up to 4 KiB of each operation was captured and right, \"length\" that\n\
         length and place in the stream are exact and the bytes are known missing. Places were compared at both ends.\n\
         Tiers: `payload.tier` in [configuration.md](configuration.md).\n\n| path |",
    );
    for (measured, tier) in &columns {
        let _ = write!(out, " {} {tier} |", short(&measured.kernel));
    }
    out.push_str("\n|---|");
    out.push_str(&"---|".repeat(columns.len()));
    out.push('\n');
    let paths: BTreeSet<&String> = all.iter().flat_map(|measured| measured.paths.keys()).collect();
    for path in paths {
        let _ = write!(out, "| {path} |");
        for (measured, tier) in &columns {
            let seen = measured.paths.get(path).and_then(|tiers| tiers.get(*tier));
            let _ = write!(out, " {} |", seen.map_or_else(|| "not measured".to_owned(), Seen::mark));
        }
        out.push('\n');
    }
    for measured in all.iter().filter(|measured| measured.missed.values().any(|missed| *missed > 0)) {
        let missed = measured.missed.iter().map(|(tier, missed)| format!("{missed} with {tier}"));
        let _ = write!(
            out,
            "\n{} can interrupt a program and does not run the same program on that CPU meanwhile: it missed {} runs, and\n\
             what was missing was moved again until it was seen.\n",
            short(&measured.kernel),
            missed.collect::<Vec<_>>().join(", "),
        );
    }
    let seen = all.iter().flat_map(|measured| measured.paths.values().flat_map(BTreeMap::values));
    let reasons: BTreeSet<&str> = seen.filter_map(|seen| seen.reason.as_deref()).collect();
    if !reasons.is_empty() {
        out.push_str("\nWhat is not seen, or not in its place:\n\n");
        reasons.iter().for_each(|reason| out.push_str(&format!("- {reason}.\n")));
    }
    Ok(out)
}

/// Major and minor.
fn version(release: &str) -> (u32, u32) {
    let mut parts = release.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

fn short(release: &str) -> String {
    let (major, minor) = version(release);
    format!("{major}.{minor}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_columns_in_order_and_holes_are_named() -> Result<()> {
        let measured = |text| serde_json::from_str::<Measured>(text);
        let new = measured(
            r#"{"kernel": "6.18.1-x", "paths": {"tcp4/write": {"l0": {"bytes": "whole", "each": true, "positions": true},
                "l0a": {"bytes": "whole", "each": false, "positions": false,
                "reason": "because"}}}}"#,
        )?;
        let old = measured(
            r#"{"kernel": "5.10.0", "paths": {"tcp4/uring": {"l2": {"bytes": "unseen", "each": false, "positions": null}}}}"#,
        )?;
        let text = table(vec![new, old])?;
        assert!(text.ends_with("\nWhat is not seen, or not in its place:\n\n- because.\n"), "{text}");
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(
            rows,
            [
                "| path | 5.10 l2 | 6.18 l0a | 6.18 l0 |",
                "|---|---|---|---|",
                "| tcp4/uring | **not seen** | not measured | not measured |",
                "| tcp4/write | not measured | bytes, one record for several, **place wrong** | bytes |",
            ]
        );
        assert!(table(Vec::new()).is_err());
        Ok(())
    }
}
