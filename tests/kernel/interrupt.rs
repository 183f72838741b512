//! Interrupts against the kernel's own count of them, and the host's CPU time against `/proc/stat`.

use std::fs;

use anyhow::{Context, Result, ensure};
use seismo_tests::agent::{Agent, Launch};
use seismo_tests::rig::Rig;

const CLIENT: &str = env!("CARGO_BIN_EXE_seismo-testclient");

/// Runs of a kind of soft interrupt on all CPUs, by `/proc/softirqs`.
fn softirqs(name: &str) -> Result<f64> {
    let text = fs::read_to_string("/proc/softirqs")?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'));
    line.context("no such soft interrupt")?.split_ascii_whitespace().map(|word| Ok(word.parse::<f64>()?)).sum()
}

#[test]
fn soft_interrupts_are_counted_as_the_kernel_counts_them() -> Result<()> {
    Rig::run(|rig| {
        let config = "probes:\n  interrupt: true\n".to_owned();
        let agent = Agent::launch(rig, &Launch { config: Some(config), ..Launch::default() })?;
        let runs = "seismo_interrupt_soft_runs_total";
        let with = [("vector", "net_rx")];
        // The page is read between two looks at the kernel's count, at both ends.
        let first = [softirqs("NET_RX")?, agent.page()?.sum(runs, &with), softirqs("NET_RX")?];
        rig.client(CLIENT, "refused", &["refused", "9", "2000"])?;
        let last = [softirqs("NET_RX")?, agent.page()?.sum(runs, &with), softirqs("NET_RX")?];
        let (least, counted, most) = (last[0] - first[2], last[1] - first[1], last[2] - first[0]);
        println!("net_rx: the kernel between {least} and {most}, the agent {counted}");
        ensure!(counted >= 1000.0, "hardly any");
        ensure!((least..=most).contains(&counted), "the counts differ");
        let page = agent.page()?;
        let (time, hard) = ("seismo_interrupt_soft_time_seconds_total", "seismo_interrupt_hard_runs_total");
        println!("{} s in net_rx, {} hard interrupts", page.sum(time, &with), page.sum(hard, &[]));
        ensure!(page.sum(time, &with) > 0.0 && page.sum(hard, &[]) > 0.0, "no time or no hard interrupt");
        Ok(())
    })
}

#[test]
fn interrupts_cost_nothing_unless_asked_for() -> Result<()> {
    Rig::run(|rig| {
        let agent = Agent::start(rig)?;
        let page = agent.page()?;
        ensure!(!page.has("seismo_interrupt_soft_runs_total"), "soft interrupts are counted without being asked for");
        let disabled = [("probe", "interrupt"), ("state", "disabled")];
        ensure!(page.sum("seismo_probe_state", &disabled) == 4.0, "a program is attached");
        Ok(())
    })
}

#[test]
fn cpu_time_is_that_of_proc_stat() -> Result<()> {
    Rig::run(|rig| {
        let agent = Agent::start(rig)?;
        let user = || -> Result<f64> {
            let text = fs::read_to_string("/proc/stat")?;
            let word = text.split_ascii_whitespace().nth(1).context("an empty file")?;
            Ok(word.parse::<f64>()? / 100.0)
        };
        let before = user()?;
        let shown = agent.page()?.sum("system_cpu_time_seconds_total", &[("cpu_mode", "user")]);
        let after = user()?;
        println!("user: between {before} and {after} s, shown {shown} s");
        ensure!((before..=after).contains(&shown), "not what the kernel says");
        Ok(())
    })
}
