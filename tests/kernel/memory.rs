//! Page faults against `getrusage`, kills for lack of memory and reclaim against the control group's own account.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use seismo_tests::agent::{Agent, Launch};
use seismo_tests::exposition::Page;
use seismo_tests::memory_limit::MemoryLimit;
use seismo_tests::rig::Rig;
use seismo_tests::{programs, wait};

const CLIENT: &str = env!("CARGO_BIN_EXE_seismo-testclient");
const FAULTS: &str = "process_paging_faults_total";
const LIMIT: Duration = Duration::from_secs(60);
const MEMORY: u64 = 32 << 20;

fn launch(rig: &Rig) -> Result<Agent<'_>> {
    let config = "metrics:\n  workload_labels: [cgroup]\n".to_owned();
    Agent::launch(rig, &Launch { config: Some(config), ..Launch::default() })
}

/// Sum over the series of the test's group.
fn own(page: &Page, rig: &Rig, metric: &str, with: &[(&str, &str)]) -> f64 {
    let group = rig.cgroup().path().file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let of_group =
        page.select(metric, with).filter(|sample| sample.labels.get("cgroup").is_some_and(|own| own.ends_with(&group)));
    of_group.map(|sample| sample.value).sum()
}

/// Runs a line of the shell inside the control group.
fn shell(rig: &Rig, line: &str) -> Result<seismo_tests::process::Process> {
    let mut command = Command::new(programs::find("sh")?);
    command.args(["-c", line]);
    rig.inside("shell", command)
}

#[test]
fn page_faults_are_those_of_getrusage_while_a_process_lives_and_after_its_end() -> Result<()> {
    const PAGES: u64 = 20_000;
    const FILE_PAGES: u64 = 500;
    // What a process faults between its own look and its end, and the kernel at a look at it.
    const REST: f64 = 60.0;
    Rig::run(|rig| {
        let agent = launch(rig)?;
        let file = rig.file("pages", &"x".repeat(FILE_PAGES as usize * 4096))?;
        fs::File::open(&file)?.sync_all()?;
        let file = file.display().to_string();
        let mut process = rig.start_client(CLIENT, "touch", &["touch", &PAGES.to_string(), &file])?;
        let used = wait::until("the faults", LIMIT, || Ok(Some(process.out()).filter(|out| out.ends_with('\n'))))?;
        let (minor, major) = used.trim().split_once(' ').context("the client said nothing")?;
        let used = [minor.parse::<f64>()?, major.parse::<f64>()?];
        ensure!(used[0] >= PAGES as f64 && used[1] > 0.0, "the client did not fault: {used:?}");
        let counted =
            |page: &Page| ["minor", "major"].map(|kind| own(page, rig, FAULTS, &[("process_paging_fault_type", kind)]));
        let alive = agent.still(counted)?;
        println!("alive: getrusage {used:?}, counted {alive:?}");
        drop(process.input()?);
        process.finish(LIMIT)?;
        let ended = agent.still(counted)?;
        println!("ended: counted {ended:?}");
        for counted in [alive, ended] {
            for (counted, used) in counted.iter().zip(used) {
                ensure!((used..used + REST).contains(counted), "{counted} faults where getrusage says {used}");
            }
        }
        Ok(())
    })
}

#[test]
fn a_process_that_is_killed_for_lack_of_memory_is_its_workload_s() -> Result<()> {
    Rig::run(|rig| {
        let agent = launch(rig)?;
        let limit = MemoryLimit::new(MEMORY)?;
        let hog = rig.named(Path::new(CLIENT), "hog")?;
        let line = format!("echo 0 > {}; {} hog; echo ended", limit.door().display(), hog.display());
        shell(rig, &line)?.finish(LIMIT)?;
        let kills = limit.kills()?;
        ensure!(kills >= 1, "nobody was killed");
        let counted = agent.settled(&(kills as f64), |page| own(page, rig, "seismo_oom_kills_total", &[]))?;
        println!("the group: {kills} killed, the agent {counted}");
        ensure!(counted == kills as f64, "the counts differ");
        Ok(())
    })
}

#[test]
fn reclaim_at_a_group_s_limit_is_timed_as_often_as_the_group_says() -> Result<()> {
    Rig::run(|rig| {
        let agent = launch(rig)?;
        let limit = MemoryLimit::new(MEMORY)?;
        let file = rig.dir().join("large");
        fs::File::create(&file)?.set_len(8 * MEMORY)?;
        let began = Instant::now();
        let line = format!("echo 0 > {}; cat {} > /dev/null", limit.door().display(), file.display());
        shell(rig, &line)?.finish(LIMIT)?;
        let took = began.elapsed().as_secs_f64();
        let reached = limit.reached()? as f64;
        let metric = "seismo_memory_reclaim_duration_seconds";
        let count = |page: &Page| page.sum(&format!("{metric}_count"), &[("reason", "cgroup")]);
        let reclaims = agent.reaches("reclaims", 1.0, count)?;
        let time = own(&agent.page()?, rig, "seismo_memory_reclaim_time_seconds_total", &[]);
        println!("limit reached {reached} times, {reclaims} reclaims, {time:.4} s of {took:.4} s");
        ensure!(reached >= reclaims && reclaims * 4.0 >= reached, "not as often");
        ensure!(time > 0.0 && time < took, "not the time of this process");
        Ok(())
    })
}
