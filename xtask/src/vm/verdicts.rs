//! What each kernel said of each program: as a table, as the committed file, and held against that file.
//!
//! `docs/kernels.json` is what was measured last and thereby the budget: a program may take a twentieth more
//! instructions (point releases of a kernel differ by less), may not be refused, and may not become unsupported.
//! A kernel that cannot give a program something it needs is a verdict with a fact, not a failure.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::suite::Outcome;
use super::watch::Walked;
use crate::verify::Verified;

/// Command that brings the files up to date.
pub const SAVE: &str = "cargo xtask vm --kernel all --save";

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Loads,
    /// The kernel lacks what it needs, or the agent has something better there.
    Unsupported,
    Refused,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Line {
    pub program: String,
    pub hook: String,
    pub verdict: Verdict,
    /// Instructions that the verifier walked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<u64>,
    /// Why it does not load.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// All that is known of one kernel.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Column {
    pub release: String,
    pub programs: Vec<Line>,
    #[serde(default)]
    pub tests: BTreeMap<String, Outcome>,
    /// What the coverage test measured, kept in a file of its own.
    #[serde(skip)]
    pub coverage: Option<serde_json::Value>,
}

/// By kernel, as the matrix calls it.
pub type Matrix = BTreeMap<String, Column>;

/// What `seismo verify --json` printed, with the counts that the machine saw for itself on older kernels.
pub fn lines(json: &str, seen: &[Walked]) -> Result<Vec<Line>> {
    let programs: Vec<Verified> = serde_json::from_str(json).context("`seismo verify --json` is not as expected")?;
    ensure!(!programs.is_empty(), "no program was loaded");
    // Programs are loaded in the order in which they are listed; the loader's own small trials are in between.
    let mut seen = seen.iter();
    let mut line = |program: Verified| {
        let verdict = match program.state.as_str() {
            "active" => Verdict::Loads,
            "failed" => Verdict::Refused,
            _ => Verdict::Unsupported,
        };
        let kept = Some(program.verified_instructions).filter(|count| *count > 0);
        let instructions = if verdict == Verdict::Loads {
            kept.or_else(|| Some(seen.find(|each| same(&each.program, &program.program))?.instructions))
        } else {
            None
        };
        // The verifier's statistics of a program that it refused say nothing, and differ each time.
        let reason = program.reason.split(" | verification time").next().unwrap_or_default().to_owned();
        Line { program: program.program, hook: program.hook, verdict, instructions, reason }
    };
    Ok(programs.into_iter().map(&mut line).collect())
}

/// Is this the name that the kernel keeps, which is cut after 15 bytes?
fn same(kept: &str, name: &str) -> bool {
    kept == name || kept.len() == 15 && name.starts_with(kept)
}

/// What is wrong with the programs on a kernel, held against what is saved of it.
pub fn problems(kernel: &str, lines: &[Line], saved: Option<&Column>) -> Vec<String> {
    let mut problems = Vec::new();
    let mut unsaved = Vec::new();
    for Line { program, verdict, instructions, reason, .. } in lines {
        let before = saved.and_then(|column| column.programs.iter().find(|line| line.program == *program));
        match (verdict, before) {
            (Verdict::Refused, _) => problems.push(format!("{kernel}: {program} is refused: {reason}")),
            (Verdict::Loads, Some(Line { instructions: Some(most), .. })) => match instructions {
                Some(count) if *count > most + most / 20 => {
                    problems.push(format!("{kernel}: {program} takes {count} instructions, {most} are saved"));
                }
                Some(_) => {}
                None => problems.push(format!("{kernel}: {program} loads, but nobody counted its instructions")),
            },
            (Verdict::Unsupported, Some(Line { verdict: Verdict::Loads, .. })) => {
                problems.push(format!("{kernel}: {program} loaded once and is now unsupported: {reason}"));
            }
            (Verdict::Unsupported, Some(_)) => {}
            (Verdict::Loads, Some(_)) | (_, None) => unsaved.push(program.as_str()),
        }
    }
    if !unsaved.is_empty() {
        let programs = unsaved.join(", ");
        problems.push(format!("{kernel}: no such verdict is saved of {programs}; `{SAVE}` saves them"));
    }
    problems
}

pub fn read(file: &Path) -> Result<Matrix> {
    if !file.exists() {
        return Ok(Matrix::new());
    }
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} holds no saved verdicts", file.display()))
}

pub fn write(file: &Path, matrix: &Matrix) -> Result<()> {
    let text = serde_json::to_string_pretty(matrix)? + "\n";
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(program: &str, verdict: Verdict, instructions: Option<u64>) -> Line {
        Line { program: program.to_owned(), hook: String::new(), verdict, instructions, reason: "a fact".to_owned() }
    }

    fn judged(now: Line, before: Option<Line>) -> Vec<String> {
        let saved = Column { programs: before.into_iter().collect(), ..Column::default() };
        problems("5.10", &[now], Some(&saved))
    }

    #[test]
    fn a_program_may_grow_by_a_twentieth_and_keeps_what_it_could() {
        use Verdict::{Loads, Refused, Unsupported};
        let cases = [
            (line("a", Loads, Some(105)), Some(line("a", Loads, Some(100))), ""),
            (line("a", Loads, Some(106)), Some(line("a", Loads, Some(100))), "106 instructions, 100"),
            (line("a", Loads, None), Some(line("a", Loads, Some(100))), "nobody counted"),
            (line("a", Refused, None), Some(line("a", Refused, None)), "refused: a fact"),
            (line("a", Unsupported, None), Some(line("a", Loads, Some(1))), "now unsupported: a fact"),
            (line("a", Unsupported, None), Some(line("a", Unsupported, None)), ""),
            (line("a", Loads, Some(1)), Some(line("a", Unsupported, None)), "no such verdict is saved of a;"),
            (line("a", Loads, Some(1)), None, "no such verdict is saved of a;"),
        ];
        for (now, before, expected) in cases {
            let problems = judged(now, before);
            match expected {
                "" => assert_eq!(problems, Vec::<String>::new()),
                _ => assert!(problems.len() == 1 && problems[0].contains(expected), "{expected}: {problems:?}"),
            }
        }
    }

    #[test]
    fn a_kernel_that_keeps_no_counts_gets_those_that_were_seen_in_order() {
        let json = r#"[
            {"program": "a_name_longer_than_15", "hook": "h", "state": "active", "reason": "", "verified_instructions": 0},
            {"program": "x", "hook": "h", "state": "unsupported", "reason": "a fact", "verified_instructions": 0},
            {"program": "a_name_longer_than_16", "hook": "h", "state": "active", "reason": "", "verified_instructions": 0},
            {"program": "y", "hook": "h", "state": "active", "reason": "", "verified_instructions": 5},
            {"program": "z", "hook": "h", "state": "failed", "reason": "no", "verified_instructions": 0}
        ]"#;
        let seen = [("", 2), ("a_name_longer_t", 10), ("a_name_longer_t", 20), ("y", 30)];
        let seen = seen.map(|(program, instructions)| Walked { program: program.to_owned(), instructions });
        let lines = lines(json, &seen).unwrap();
        let counts: Vec<_> = lines.iter().map(|line| (line.verdict, line.instructions)).collect();
        let expected = [
            (Verdict::Loads, Some(10)),
            (Verdict::Unsupported, None),
            (Verdict::Loads, Some(20)),
            (Verdict::Loads, Some(5)),
            (Verdict::Refused, None),
        ];
        assert_eq!(counts, expected);
        assert!(super::lines("[]", &[]).is_err());
    }
}
