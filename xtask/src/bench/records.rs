//! How many records of 64 bytes a second one consumer takes without losing any.
//!
//! A program that does nothing but write records (the agent's family `records`) writes as many as a process asks for.
//! The process asks at a given rate, evenly over each millisecond; the rate goes up step by step, and the result is the
//! highest at which every record asked for came through the ring, the drain thread and the pipeline's decoder.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::agent::Agent;
use super::agent_cost::{Account, wait_until_at_rest};
use super::cgroup::Cgroup;
use super::condition::Condition;
use super::loops::Loop;
use super::rig::Rig;
use super::targets::Workload;
use crate::shell;

/// Rates that are tried, thousands of records a second.
const STEPS: [u64; 16] = [100, 200, 300, 400, 600, 800, 1000, 1300, 1600, 2000, 2500, 3000, 4000, 5000, 6500, 8000];
/// Records for one system call; the kernel program takes no more.
const EACH: u64 = 64;
/// What marks the call, as in the wire contract (`FILLERS_ASKED`).
const ASKED: u64 = 0x6f6d_7369_6573;
const TICK: Duration = Duration::from_millis(1);
const LENGTH: Duration = Duration::from_millis(700);
const ASCENTS: usize = 3;

/// Highest rates without loss, M/s, one an ascent, and what ended the last.
pub fn measure(rig: &Rig, quick: bool) -> Result<(Vec<f64>, String)> {
    let mut highest = Vec::new();
    let mut ended = String::new();
    for _ in 0..if quick { 1 } else { ASCENTS } {
        let agent = rig.attach(Condition::Records, Workload::Loop(Loop::Getppid), false)?;
        let (most, why) = ascend(rig.cgroup(), &agent)?;
        rig.detach(agent)?;
        highest.push(most);
        ended = why;
    }
    Ok((highest, ended))
}

fn ascend(cgroup: &Cgroup, agent: &Agent) -> Result<(f64, String)> {
    let mut most = 0.0;
    for thousands in STEPS {
        wait_until_at_rest(agent)?;
        let before = Account::of(&agent.get("/metrics")?)?;
        let (asked, seconds) = ask(cgroup, thousands)?;
        wait_until_at_rest(agent)?;
        let seen = Account::of(&agent.get("/metrics")?)?.since(before);
        if seen.lost > 0 {
            return Ok((
                most,
                format!("at {:.1} M/s {} of {asked} were lost", asked as f64 / seconds / 1e6, seen.lost),
            ));
        }
        // Processes that start and end have records too.
        if seen.records < asked || seen.records > asked + asked / 100 + 100 {
            bail!("{asked} records were asked for, {} came and none was lost", seen.records);
        }
        let rate = asked as f64 / seconds / 1e6;
        if rate < 0.9 * thousands as f64 / 1e3 {
            return Ok((most.max(rate), format!("no more than {rate:.1} M/s could be written")));
        }
        most = rate;
    }
    Ok((most, "no loss at the highest rate that was tried".to_owned()))
}

/// One burst in a process of its own: records asked for, and how long that took in seconds.
fn ask(cgroup: &Cgroup, thousands: u64) -> Result<(u64, f64)> {
    let mut command = Command::new("/proc/self/exe");
    let length = LENGTH.as_millis().to_string();
    command.args(["bench", "--records", &thousands.to_string(), "--burst-ms", &length]);
    cgroup.adopt(&mut command)?;
    let printed = shell::output(&mut command)?;
    let (asked, ns) = printed.trim().split_once(' ').context("the process printed no account")?;
    Ok((asked.parse()?, ns.parse::<f64>()? / 1e9))
}

/// Is that process.
pub fn run(thousands: u64, length: Duration) -> Result<()> {
    let started = Instant::now();
    let per_tick = |tick: u64| thousands * tick / EACH;
    let (mut tick, mut calls) = (0_u64, 0_u64);
    while started.elapsed() < length {
        tick += 1;
        for _ in calls..per_tick(tick) {
            // SAFETY: takes no argument in the kernel's eyes, and cannot fail.
            unsafe { libc::syscall(libc::SYS_getppid, ASKED, EACH) };
        }
        calls = per_tick(tick);
        let next = TICK * u32::try_from(tick).unwrap_or(u32::MAX);
        thread::sleep(next.saturating_sub(started.elapsed()));
    }
    println!("{} {}", calls * EACH, started.elapsed().as_nanos());
    Ok(())
}
