//! The scheduler's account by workload against the kernel's own: run queue against `schedstat`, CPU time against the control
//! group's, waits by reason against the clocks of who waited, throttling against the limit's account.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::thread::{available_parallelism, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use seismo_tests::agent::{Agent, Launch};
use seismo_tests::blockdevice::Loop;
use seismo_tests::cpu_limit::CpuLimit;
use seismo_tests::exposition::Page;
use seismo_tests::programs;
use seismo_tests::rig::Rig;
use seismo_tests::wait;

const CLIENT: &str = env!("CARGO_BIN_EXE_seismo-testclient");
const WAITS: &str = "seismo_scheduler_runqueue_duration_seconds_count";
const WAITED: &str = "seismo_scheduler_runqueue_duration_seconds_sum";
const OFF_CPU: &str = "seismo_scheduler_offcpu_seconds_total";
const CPU: &str = "process_cpu_time_seconds_total";
const LIMIT: Duration = Duration::from_secs(60);
const REASONS: [&str; 6] = ["sleep", "futex", "network", "disk", "throttled", "other"];

fn launch(rig: &Rig) -> Result<Agent<'_>> {
    let config = "metrics:\n  workload_labels: [cgroup]\n".to_owned();
    Agent::launch(rig, &Launch { config: Some(config), ..Launch::default() })
}

/// `ours` within so many hundredths of `theirs`; both are printed.
fn within(what: &str, theirs: f64, ours: f64, percent: f64) -> Result<()> {
    let apart = 100.0 * (ours - theirs) / theirs;
    println!("{what}: the kernel says {theirs:.4} s, seismo {ours:.4} s, apart {apart:+.2} %");
    ensure!(apart.abs() <= percent, "{what}: {apart:+.2} % apart");
    Ok(())
}

#[test]
fn more_busy_threads_than_processors_wait_in_the_run_queue_for_the_time_they_miss() -> Result<()> {
    const MILLIS: u64 = 1000;
    Rig::run(|rig| {
        let agent = Agent::start(rig)?;
        let before = agent.page()?;
        let processors = available_parallelism()?.get();
        // Three threads a processor: two of them wait at any time.
        let threads = (processors * 3).to_string();
        rig.client(CLIENT, "spinner", &["spin", &threads, &MILLIS.to_string()])?;
        let missed = processors as f64 * 2.0 * MILLIS as f64 / 1e3;
        let waited = agent.reaches(WAITED, before.sum(WAITED, &[]) + missed * 0.8, |page| page.sum(WAITED, &[]))?;
        let count = agent.page()?.sum(WAITS, &[]) - before.sum(WAITS, &[]);
        println!("missed {missed:.1} s, waited {:.1} s in {count} waits", waited - before.sum(WAITED, &[]));
        ensure!(count > 0.0, "no wait was counted");
        Ok(())
    })
}

#[test]
fn the_run_queue_time_of_two_that_share_a_processor_is_that_of_schedstat() -> Result<()> {
    const MILLIS: &str = "4000";
    Rig::run(|rig| {
        let agent = launch(rig)?;
        let mut both = [
            rig.start_client(CLIENT, "one", &["share", "0", MILLIS])?,
            rig.start_client(CLIENT, "two", &["share", "0", MILLIS])?,
        ];
        let mut theirs = [0.0; 2];
        for process in &mut both {
            let told = process.finish(LIMIT)?;
            for (sum, word) in theirs.iter_mut().zip(told.split_whitespace()) {
                *sum += word.parse::<f64>()? / 1e9;
            }
        }
        let group = rig.cgroup().name()?;
        let ours = agent.still(|page| [CPU, WAITED].map(|metric| page.of_group(group, metric, &[])))?;
        within("run queue", theirs[1], ours[1], 2.0)?;
        within("on CPU", theirs[0], ours[0], 2.0)
    })
}

#[test]
fn cpu_time_is_that_of_the_control_group_s_own_account() -> Result<()> {
    Rig::run(|rig| {
        let agent = launch(rig)?;
        let mut both =
            [rig.start_client(CLIENT, "one", &["mix", "6000"])?, rig.start_client(CLIENT, "two", &["mix", "6000"])?];
        for process in &mut both {
            process.finish(LIMIT)?;
        }
        let group = rig.cgroup();
        let name = group.name()?;
        let ours =
            agent.still(|page| ["user", "system"].map(|mode| page.of_group(name, CPU, &[("cpu_mode", mode)])))?;
        let theirs = |key: &str| -> Result<f64> { Ok(group.cpu_stat(key)? as f64 / 1e6) };
        within("CPU time", theirs("usage_usec")?, ours[0] + ours[1], 1.0)?;
        // Told apart by ticks on both sides, though not by the same arithmetic.
        within("user time", theirs("user_usec")?, ours[0], 3.0)?;
        within("system time", theirs("system_usec")?, ours[1], 3.0)
    })
}

/// The time that a workload was off CPU, by reason.
fn off_cpu(page: &Page, group: &str) -> [f64; REASONS.len()] {
    REASONS.map(|reason| page.of_group(group, OFF_CPU, &[("reason", reason)]))
}

/// Waits for one thing for two seconds; the time must be under its name.
fn waits_for(kind: &str, argument: &str, reason: &str) -> Result<()> {
    Rig::run(|rig| {
        let agent = launch(rig)?;
        let device = if kind == "disk" { Some(Loop::new(rig, 64 << 20)?) } else { None };
        let argument =
            device.as_ref().map_or_else(|| argument.to_owned(), |device| format!("disk={}", device.path().display()));
        let told = rig.client(CLIENT, "waiter", &["rest", &argument, "2000"])?;
        let theirs = told.trim().parse::<f64>()? / 1e9;
        let group = rig.cgroup().name()?;
        let all = agent.still(|page| off_cpu(page, group))?;
        println!("{REASONS:?}: {all:.4?}");
        let queued = agent.page()?.of_group(group, WAITED, &[]);
        let ours = REASONS
            .iter()
            .zip(all)
            .find_map(|(name, time)| (*name == reason).then_some(time))
            .context("no such reason")?;
        println!(
            "{reason}: {theirs:.4} s by the waiter's clocks, {ours:.4} s by seismo, {queued:.4} s in the run queue"
        );
        ensure!(ours >= 0.95 * all.iter().sum::<f64>(), "other reasons have more than a twentieth");
        ensure!((ours + queued - theirs).abs() <= 0.05 * theirs, "not what the waiter's clocks say");
        Ok(())
    })
}

#[test]
fn who_sleeps_waits_for_sleep() -> Result<()> {
    waits_for("sleep", "sleep", "sleep")
}

#[test]
fn who_waits_for_another_thread_waits_for_a_futex() -> Result<()> {
    waits_for("futex", "futex", "futex")
}

#[test]
fn who_waits_for_bytes_of_a_socket_waits_for_the_network() -> Result<()> {
    waits_for("network", "network", "network")
}

#[test]
fn who_reads_past_the_page_cache_waits_for_the_disk() -> Result<()> {
    waits_for("disk", "", "disk")
}

#[test]
fn who_was_there_before_the_agent_waits_only_since_it_was_seen() -> Result<()> {
    const STEP: Duration = Duration::from_millis(500);
    Rig::run(|rig| {
        let file = rig.file("touched", "all of it")?.display().to_string();
        // Reads its input to the end, whatever comes.
        let mut old = rig.start_client(CLIENT, "reader", &["touch", "1", &file])?;
        wait::until("it to read", LIMIT, || Ok(old.out().ends_with('\n').then_some(())))?;
        let mut input = old.input()?;
        let agent = launch(rig)?;
        let began = Instant::now();
        // Seen for the first time, for the second, and after a wait of which both ends were seen.
        for _ in 0..3 {
            input.write_all(b"line\n")?;
            sleep(STEP);
        }
        let most = began.elapsed().as_secs_f64();
        let least = STEP.as_secs_f64();
        let group = rig.cgroup().name()?;
        let all = agent.still(|page| off_cpu(page, group))?;
        let ours = all.iter().sum::<f64>();
        println!("{REASONS:?}: {all:.4?} s off CPU; at least {least:.3}, at most {most:.3}");
        drop(input);
        old.finish(LIMIT)?;
        ensure!((0.9 * least..=most).contains(&ours), "{ours:.4} s off CPU");
        Ok(())
    })
}

#[test]
fn who_is_held_back_by_a_cpu_limit_is_throttled_for_as_long_as_the_limit_says() -> Result<()> {
    Rig::run(|rig| {
        let agent = launch(rig)?;
        // A fifth of a CPU.
        let limit = CpuLimit::new(20_000, 100_000)?;
        let spinner = rig.named(Path::new(CLIENT), "spinner")?;
        let line = format!("echo 0 > {}; exec {} spin 1 3000", limit.door().display(), spinner.display());
        let mut command = Command::new(programs::find("sh")?);
        command.args(["-c", &line]);
        rig.inside("shell", command)?.finish(LIMIT)?;
        let group = if limit.is_workload() { limit.name()? } else { rig.cgroup().name()? };
        let ours = agent.still(|page| page.of_group(group, OFF_CPU, &[("reason", "throttled")]))?;
        let queued = agent.page()?.of_group(group, WAITED, &[]);
        let theirs = limit.throttled_ns()? as f64 / 1e9;
        println!("{queued:.4} s in the run queue");
        within("throttled", theirs, ours, 10.0)
    })
}
