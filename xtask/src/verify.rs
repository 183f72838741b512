//! `cargo xtask verify`: loads every kernel program on this kernel and shows the verifier's verdict and its effort.
//!
//! `seismo verify` does the loading. Where `docs/verify-budget.json` (program → most instructions) exists, a program
//! above its budget, refused, or missing from the budget fails the command: the verifier's work is a cost we watch.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::build;
use crate::setup::{self, Purpose};
use crate::workspace::{self, Profile};

/// Load each kernel program here; show verdict and instruction count
#[derive(clap::Args)]
pub struct Arguments {
    /// One JSON array instead of a table
    #[arg(long)]
    json: bool,
}

const BUDGET: &str = "docs/verify-budget.json";

/// What `seismo verify --json` says of a program.
#[derive(Debug, Deserialize)]
pub struct Verified {
    pub program: String,
    pub hook: String,
    /// `active` when the kernel took it.
    pub state: String,
    /// Why it did not.
    pub reason: String,
    pub verified_instructions: u64,
}

pub fn command(arguments: &Arguments) -> Result<()> {
    setup::setup(Purpose::Build)?;
    build::agent(Profile::Dev, &[])?;
    let mut verify = workspace::as_root(&workspace::agent(Profile::Dev), &[])?;
    let output = verify.args(["verify", "--json"]).stdin(Stdio::null()).output().context("cannot start the agent")?;
    // It also fails when a program is refused; then the table still says which.
    let programs: Vec<Verified> = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("`seismo verify` failed: {}", String::from_utf8_lossy(&output.stderr).trim()))?;
    if arguments.json {
        print!("{}", String::from_utf8_lossy(&output.stdout));
    } else {
        println!("{:<24} {:<36} {:>12}  verdict", "program", "hook", "instructions");
        for Verified { program, hook, state, reason, verified_instructions } in &programs {
            println!(
                "{}",
                format!("{program:<24} {hook:<36} {verified_instructions:>12}  {state} {reason}").trim_end()
            );
        }
    }
    let problems = problems(&programs, budget(&workspace::root().join(BUDGET))?.as_ref());
    if !problems.is_empty() {
        bail!("{}", problems.join("; "));
    }
    if !output.status.success() {
        bail!("`seismo verify` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Most verified instructions by program, if the project has set any.
fn budget(path: &Path) -> Result<Option<BTreeMap<String, u64>>> {
    if !path.exists() {
        return Ok(None);
    }
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).map(Some).with_context(|| format!("{} is not a table of numbers", path.display()))
}

fn problems(programs: &[Verified], budget: Option<&BTreeMap<String, u64>>) -> Vec<String> {
    if programs.is_empty() {
        return vec!["no program was loaded".to_owned()];
    }
    let mut problems = Vec::new();
    for Verified { program, state, reason, verified_instructions, .. } in programs {
        if state != "active" {
            problems.push(format!("{program} is {state}: {reason}"));
        }
        match budget.map(|budget| budget.get(program)) {
            Some(None) => problems.push(format!("{program} has no budget in {BUDGET}")),
            Some(Some(most)) if verified_instructions > most => {
                problems.push(format!("{program} took {verified_instructions} instructions, its budget is {most}"));
            }
            Some(Some(_)) | None => {}
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(program: &str, state: &str, verified_instructions: u64) -> Verified {
        let (program, state) = (program.to_owned(), state.to_owned());
        Verified { program, hook: String::new(), state, reason: String::new(), verified_instructions }
    }

    #[test]
    fn a_program_that_is_refused_above_or_without_budget_is_a_problem() {
        let budget = BTreeMap::from([("a".to_owned(), 100)]);
        assert_eq!(problems(&[program("a", "active", 100)], Some(&budget)), Vec::<String>::new());
        assert_eq!(problems(&[program("a", "active", 101)], Some(&budget)).len(), 1);
        assert_eq!(problems(&[program("b", "active", 1)], Some(&budget)).len(), 1);
        assert_eq!(problems(&[program("a", "failed", 1)], None).len(), 1);
        assert_eq!(problems(&[], None).len(), 1);
    }
}
