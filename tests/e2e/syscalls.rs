//! System calls and their errors by name against `strace -c` of the same program.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seismo_tests::agent::Agent;
use seismo_tests::exposition::Page;
use seismo_tests::programs;
use seismo_tests::rig::Rig;

const CLIENT: &str = env!("CARGO_BIN_EXE_seismo-testclient");

/// Calls and errors by name, of the table that `strace -c` writes.
fn table(text: &str) -> BTreeMap<String, [u64; 2]> {
    let rows = text.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
        // % time, seconds, µs a call, calls, errors where there were any, name.
        let errors = if words.len() == 6 { number(4)? } else { 0 };
        Some(((*words.last()?).to_owned(), [number(3)?, errors]))
    });
    rows.filter(|(name, _)| name != "total").collect()
}

#[test]
fn calls_and_errors_by_name_are_those_of_strace() -> Result<()> {
    Rig::run(|rig| {
        let agent = Agent::start(rig)?;
        let counts = |page: &Page, name: &str| {
            let select = [("syscall", name)];
            [page.sum("seismo_syscalls_total", &select), page.sum("seismo_syscall_errors_total", &select)]
        };
        let summary = rig.dir().join("summary");
        let mut command = Command::new(programs::find("strace")?);
        command.args(["-f", "-c", "-o"]).arg(&summary).arg(rig.named(Path::new(CLIENT), "calls")?);
        command.args(["calls", "500"]);
        let before = agent.page()?;
        let told = rig.inside("strace", command)?.finish(Duration::from_secs(60))?;
        let table = table(&fs::read_to_string(summary)?);
        // What the program also calls, others on this host call too: those that hardly anybody else makes are compared.
        for name in told.lines().filter_map(|line| line.split(' ').next()) {
            let theirs = *table.get(name).with_context(|| format!("strace has no {name}"))?;
            let earlier = counts(&before, name);
            let expected = theirs.map(|count| count as f64);
            let ours = agent.settled(&expected, |page| {
                let now = counts(page, name);
                [now[0] - earlier[0], now[1] - earlier[1]]
            })?;
            println!("{name}: strace {theirs:?}, seismo {ours:?} (calls, errors)");
            ensure!(ours == expected, "{name}: {ours:?} are not {theirs:?}");
        }
        Ok(())
    })
}
