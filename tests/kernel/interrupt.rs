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

/// Interrupts of numbered lines so far: those that a device's handler runs for.
fn device_interrupts() -> Result<f64> {
    let text = fs::read_to_string("/proc/interrupts")?;
    let lines = text.lines().filter(|line| {
        line.split(':')
            .next()
            .is_some_and(|name| !name.trim().is_empty() && name.trim().bytes().all(|byte| byte.is_ascii_digit()))
    });
    Ok(lines.flat_map(|line| line.split_ascii_whitespace().skip(1).map_while(|word| word.parse::<f64>().ok())).sum())
}

#[test]
fn soft_interrupts_are_counted_as_the_kernel_counts_them() -> Result<()> {
    Rig::run(|rig| {
        let config = "probes:\n  interrupt: true\n".to_owned();
        let agent = Agent::launch(rig, &Launch { config: Some(config), ..Launch::default() })?;
        let runs = "seismo_interrupt_soft_runs_total";
        let with = [("vector", "net_rx")];
        // The page is read between two looks at the kernel's count, at both ends.
        let hard = "seismo_interrupt_hard_runs_total";
        let before = agent.page()?.sum(hard, &[]);
        let began = device_interrupts()?;
        let first = [softirqs("NET_RX")?, agent.page()?.sum(runs, &with), softirqs("NET_RX")?];
        rig.client(CLIENT, "refused", &["refused", "9", "2000"])?;
        let last = [softirqs("NET_RX")?, agent.page()?.sum(runs, &with), softirqs("NET_RX")?];
        let (least, counted, most) = (last[0] - first[2], last[1] - first[1], last[2] - first[0]);
        println!("net_rx: the kernel between {least} and {most}, the agent {counted}");
        ensure!(counted >= 1000.0, "hardly any");
        ensure!((least..=most).contains(&counted), "the counts differ");
        let came = device_interrupts()? - began;
        let page = agent.page()?;
        let (time, handled) =
            (page.sum("seismo_interrupt_soft_time_seconds_total", &with), page.sum(hard, &[]) - before);
        println!("{time} s in net_rx; {came} interrupts of devices, {handled} handled");
        ensure!(time > 0.0, "no time in net_rx");
        // Each is handled at least once: by every device that shares the line.
        ensure!(handled >= came, "interrupts were not seen");
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
