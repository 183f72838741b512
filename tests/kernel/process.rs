//! Process life by workload: exactly what a test's control group started, and how each process ended.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seismo_tests::agent::{Agent, Launch};
use seismo_tests::exposition::Page;
use seismo_tests::programs;
use seismo_tests::rig::Rig;

const LIMIT: Duration = Duration::from_secs(120);
const STARTS: &str = "seismo_process_starts_total";
const EXECS: &str = "seismo_process_execs_total";
const EXITS: &str = "seismo_process_exits_total";

fn launch(rig: &Rig) -> Result<Agent<'_>> {
    let config = "metrics:\n  workload_labels: [cgroup]\nnames:\n  linger: 1s\n".to_owned();
    Agent::launch(rig, &Launch { config: Some(config), ..Launch::default() })
}

/// Runs a line of the shell inside the control group.
fn shell(rig: &Rig, line: &str) -> Result<String> {
    let mut command = Command::new(programs::find("sh")?);
    command.args(["-c", line]);
    rig.inside("shell", command)?.finish(LIMIT)
}

fn group(rig: &Rig) -> Result<String> {
    Ok(rig.cgroup().path().file_name().context("a group has a name")?.to_string_lossy().into_owned())
}

/// Sum over the series of the group whose label has the value.
fn own(page: &Page, metric: &str, group: &str, label: (&str, &str)) -> u64 {
    let value =
        |sample: &seismo_tests::exposition::Sample, name: &str| sample.labels.get(name).cloned().unwrap_or_default();
    let of_group = page.select(metric, &[]).filter(|sample| {
        value(sample, "cgroup").ends_with(group) && (label.0.is_empty() || value(sample, label.0) == label.1)
    });
    of_group.map(|sample| sample.value as u64).sum()
}

#[test]
fn ten_thousand_short_processes_of_a_loop_are_its_group_s_and_leave_nothing_behind() -> Result<()> {
    const LOOPS: u64 = 10_000;
    Rig::run(|rig| {
        let agent = launch(rig)?;
        let group = group(rig)?;
        shell(rig, &format!("i=0; while [ $i -lt {LOOPS} ]; do /bin/true; i=$((i+1)); done"))?;
        // The shell itself is started outside and moves in, then executes; it ends inside.
        let expected = [LOOPS, LOOPS + 1, LOOPS + 1];
        let read = |page: &Page| [STARTS, EXECS, EXITS].map(|metric| own(page, metric, &group, ("", "")));
        let counted = agent.settled(&expected, read)?;
        println!("starts, programs, exits of the group: expected {expected:?}, counted {counted:?}");
        ensure!(counted == expected, "the counts differ");
        let succeeded = own(&agent.page()?, EXITS, &group, ("process_exit_code", "0"));
        println!("{succeeded} of them ended with 0");
        ensure!(succeeded == LOOPS + 1, "an end is told wrong");
        // A workload is there as long as its group is.
        let entries = |page: &Page| {
            let tables = page.by("seismo_table_entries", "table", &[]);
            tables.iter().filter(|(table, _)| *table != "workloads").map(|(_, entries)| entries).sum::<u64>()
        };
        let left = agent.settled(&0, entries)?;
        println!("entries left in tables: {left} {:?}", agent.page()?.by("seismo_table_entries", "table", &[]));
        ensure!(left == 0, "something is left behind");
        agent.nothing_lost()
    })
}

#[test]
fn an_end_is_told_by_its_code_or_by_its_signal() -> Result<()> {
    const EACH: u64 = 20;
    Rig::run(|rig| {
        let agent = launch(rig)?;
        let group = group(rig)?;
        let ends = [
            ("sh -c 'exit 1'", ("process_exit_code", "1")),
            ("sh -c 'exit 127'", ("process_exit_code", "127")),
            ("sh -c 'exit 77'", ("process_exit_code", "other")),
            ("sh -c 'kill -9 $$'", ("signal", "SIGKILL")),
            ("sh -c 'kill -15 $$'", ("signal", "SIGTERM")),
            ("sh -c 'ulimit -c 0; kill -11 $$'", ("signal", "SIGSEGV")),
            ("sh -c 'kill -10 $$'", ("signal", "other")),
        ];
        for (line, label) in ends {
            let before = own(&agent.page()?, EXITS, &group, label);
            shell(rig, &format!("i=0; while [ $i -lt {EACH} ]; do {line}; i=$((i+1)); done; true"))?;
            let counted = agent.settled(&EACH, |page| own(page, EXITS, &group, label) - before)?;
            println!("{line}: {EACH} ends, counted {counted} as {label:?}");
            ensure!(counted == EACH, "{line} is told wrong");
        }
        Ok(())
    })
}

#[test]
fn every_process_of_the_host_is_counted_somewhere() -> Result<()> {
    const PROCESSES: f64 = 200.0;
    // What the rest of a busy machine may start meanwhile.
    const NOISE: f64 = 2000.0;
    Rig::run(|rig| {
        let agent = Agent::start(rig)?;
        let before = agent.page()?;
        shell(rig, &format!("i=0; while [ $i -lt {PROCESSES} ]; do /bin/true; i=$((i+1)); done"))?;
        for metric in [STARTS, EXITS] {
            let start = before.sum(metric, &[]);
            let counted = agent.reaches(metric, start + PROCESSES, |page| page.sum(metric, &[]))? - start;
            println!("{metric}: the test started {PROCESSES}, the host {counted}");
            ensure!(counted < PROCESSES + NOISE, "{metric} counts too much: {counted}");
        }
        agent.nothing_lost()
    })
}
