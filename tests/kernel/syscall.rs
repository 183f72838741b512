//! System calls are counted exactly, with what they failed with, and as many of them timed as the configuration says.

use std::ffi::OsString;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seismo_tests::agent::{Agent, Launch};
use seismo_tests::exposition::Page;
use seismo_tests::programs;
use seismo_tests::rig::Rig;

const CLIENT: &str = env!("CARGO_BIN_EXE_seismo-testclient");
const LIMIT: Duration = Duration::from_secs(60);
const CALLS: u64 = 100_000;
/// Calls of the rest of the machine during the test: shells ask for their parent now and then.
const NOISE: f64 = 500.0;
const TOTAL: &str = "seismo_syscalls_total";
const ERRORS: &str = "seismo_syscall_errors_total";
const UNCOUNTED: &str = "seismo_cpu_uncounted_total";
const TIMED: &str = "seismo_syscall_duration_seconds_count";

#[test]
fn a_hundred_thousand_calls_of_one_program_are_counted() -> Result<()> {
    Rig::run(|rig| {
        let agent = Agent::start(rig)?;
        let select = [("syscall", "getppid")];
        let start = agent.page()?.sum(TOTAL, &select);
        rig.client(CLIENT, "getppid", &["getppid", &CALLS.to_string()])?;
        let counted = agent.reaches(TOTAL, start + CALLS as f64, |page| page.sum(TOTAL, &select))? - start;
        println!("the program made {CALLS} calls of getppid, the host {counted}");
        ensure!(counted < CALLS as f64 + NOISE, "{counted} are too many");
        Ok(())
    })
}

/// The agent sees a machine of one CPU; all that the other one does is what a CPU does that was put in later.
#[test]
fn what_a_cpu_does_that_came_after_the_agent_is_told_as_not_counted() -> Result<()> {
    Rig::run(|rig| {
        let one = rig.file("present", "0\n")?;
        let present = "/sys/devices/system/cpu/present";
        let script = format!("mount --bind {} {present} && exec \"$@\"", one.display());
        let through = ["unshare", "-m", "sh", "-c", &script, "sh"].map(OsString::from).to_vec();
        let config = "metrics:\n  workload_labels: [cgroup]\n".to_owned();
        let agent = Agent::launch(rig, &Launch { config: Some(config), through, ..Launch::default() })?;
        let group = rig.cgroup().name()?;
        let of_group = |page: &Page| page.of_group(group, TOTAL_OF_WORKLOAD, &[]);
        let missing = |page: &Page| page.sum(UNCOUNTED, &[]);
        let by_name = |page: &Page| page.sum(TOTAL, &[("syscall", "getppid")]);
        let taskset = programs::find("taskset")?;
        let mut counted = Vec::new();
        for cpu in ["0", "1"] {
            let before = agent.page()?;
            let mut command = Command::new(&taskset);
            command.args(["--cpu-list", cpu, CLIENT, "getppid", &CALLS.to_string()]);
            rig.inside("taskset", command)?.finish(LIMIT)?;
            let all = agent.reaches(TOTAL, by_name(&before) + CALLS as f64, by_name)? - by_name(&before);
            let own = agent.still(of_group)? - of_group(&before);
            let missed = missing(&agent.page()?) - missing(&before);
            println!("CPU {cpu}: {CALLS} calls; by name {all}, of the workload {own}, not counted {missed}");
            counted.push((own, missed));
        }
        let calls = CALLS as f64;
        let [(with, _), (without, missed)] = counted[..] else { anyhow::bail!("{counted:?}") };
        ensure!((calls..calls + NOISE).contains(&with), "{with} calls of the workload where there are rows");
        ensure!(without < NOISE, "{without} calls of the workload where there are none");
        // The calls of a thread are added up when it leaves its CPU: each time is one that is told.
        ensure!(missed > 0.0, "nothing told as not counted");
        Ok(())
    })
}

#[test]
fn about_one_call_in_sixteen_is_timed() -> Result<()> {
    Rig::run(|rig| {
        let agent = Agent::start(rig)?;
        let select = [("syscall", "getppid")];
        let before = agent.page()?;
        // The calls that begin in one sixteenth of each second are.
        rig.client(CLIENT, "getppid", &["getppid-for", "8000"])?;
        let page = agent.page()?;
        let of = |metric: &str| page.sum(metric, &select) - before.sum(metric, &select);
        let (counted, timed) = (of(TOTAL), of(TIMED));
        println!("counted {counted}, timed {timed}, one in {:.1}", counted / timed);
        ensure!((8.0..32.0).contains(&(counted / timed)), "not one in sixteen is timed");
        Ok(())
    })
}

#[test]
fn calls_and_errors_are_those_that_a_counting_program_made_by_name_and_for_its_workload() -> Result<()> {
    const COUNT: u64 = 1000;
    Rig::run(|rig| {
        let config = "metrics:\n  workload_labels: [cgroup]\n".to_owned();
        let agent = Agent::launch(rig, &Launch { config: Some(config), ..Launch::default() })?;
        let group = rig.cgroup().name()?;
        let workload = |page: &Page, metric: &str| page.of_group(group, metric, &[]);
        let before = agent.page()?;
        let told = rig.client(CLIENT, "calls", &["calls", &COUNT.to_string()])?;
        let mut failures = 0;
        for line in told.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [name, times, error] = words[..] else { anyhow::bail!("not a line: {line}") };
            let times: f64 = times.parse()?;
            let count = |page: &Page| page.sum(TOTAL, &[("syscall", name)]) - before.sum(TOTAL, &[("syscall", name)]);
            let counted = agent.settled(&times, count)?;
            let page = agent.page()?;
            let failed = page.by(ERRORS, "errno", &[("syscall", name)]);
            println!("{name}: made {times}, counted {counted}; expected {error}, counted {failed:?}");
            ensure!(counted == times, "{name}: {counted} calls are not {times}");
            if error == "-" {
                ensure!(failed.is_empty(), "{name} does not fail");
            } else {
                let earlier = before.sum(ERRORS, &[("syscall", name), ("errno", error)]);
                let new = page.sum(ERRORS, &[("syscall", name), ("errno", error)]) - earlier;
                ensure!(new == times, "{name}: {new} times {error}, not {times}");
                failures += times as u64;
            }
        }
        // One, two, three … times as many of each; then what a program does to begin and to end.
        let first = [TOTAL_OF_WORKLOAD, ERRORS_OF_WORKLOAD].map(|metric| agent.still(|page| workload(page, metric)));
        let [first, first_failed] = first.map(|count| count.unwrap_or_default());
        rig.client(CLIENT, "calls", &["calls", &(2 * COUNT).to_string()])?;
        let second = agent.still(|page| workload(page, TOTAL_OF_WORKLOAD))? - first;
        let second_failed = agent.still(|page| workload(page, ERRORS_OF_WORKLOAD))? - first_failed;
        println!("workload: {first} calls, then {second}; {first_failed} errors, then {second_failed}");
        let apart = second - first - (COUNT * 21) as f64;
        ensure!(apart.abs() <= 10.0, "the second run made {apart} more calls than asked for");
        let apart = second_failed - first_failed - failures as f64;
        ensure!(apart.abs() <= 2.0, "the second run had {apart} more errors than asked for");
        Ok(())
    })
}

const TOTAL_OF_WORKLOAD: &str = "seismo_workload_syscalls_total";
const ERRORS_OF_WORKLOAD: &str = "seismo_workload_syscall_errors_total";

#[test]
fn every_call_is_timed_where_the_configuration_says_so() -> Result<()> {
    const COUNT: u64 = 20_000;
    Rig::run(|rig| {
        let config = "syscalls:\n  sample_one_in: 1\n".to_owned();
        let agent = Agent::launch(rig, &Launch { config: Some(config), ..Launch::default() })?;
        rig.client(CLIENT, "calls", &["calls", &COUNT.to_string()])?;
        let lost = agent.json("/api/seismo/pipeline")?;
        let lost = lost["kernel"]["syscall_samples_lost"].as_f64().context("losses are not counted")?;
        for (name, times) in [("sched_get_priority_min", COUNT), ("inotify_rm_watch", 3 * COUNT)] {
            let select = [("syscall", name)];
            let timed = agent.settled(&(times as f64), |page| page.sum(TIMED, &select))?;
            println!("{name}: made {times}, timed {timed}, samples lost on the host {lost}");
            ensure!(timed <= times as f64 && timed + lost >= times as f64, "{name}: {timed} of {times} are timed");
        }
        Ok(())
    })
}
