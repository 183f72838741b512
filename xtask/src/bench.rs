//! `cargo xtask bench`: what the agent costs the machine it watches, against targets.
//!
//! Slowdown is CPU time of the workload per operation (never wall time) in interleaved pairs bare/attached, in
//! alternating order, with a fresh agent each pair, and every run holds its own null test. Prints a table, and with
//! `--json` a file that a later `--compare` holds against new results. Takes at most 8 minutes, `--quick` 2.

pub mod agent;
mod agent_cost;
pub mod cgroup;
mod condition;
mod cpu;
mod judge;
mod loops;
mod nginx;
mod pairs;
mod programs;
mod report;
mod rig;
mod saved;
mod slowdown;
mod statistics;
mod targets;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, fs};

use anyhow::{Context, Result, bail};

use crate::setup::{self, Purpose};
use crate::workspace::{self, Profile};
use crate::{build, shell};
use judge::Outcome;
use programs::Programs;
use rig::Rig;
use saved::Saved;
use targets::{Benchmark, Measure, ROWS, Row, Verdict};

/// Load above which the results will tell more about the neighbours.
const QUIET_LOAD: f64 = 0.5;

/// Measure what the agent costs (nothing else should run meanwhile)
#[derive(clap::Args)]
pub struct Arguments {
    /// What to measure; everything by default
    names: Vec<Benchmark>,
    /// Fewer pairs: under two minutes, wider quartiles
    #[arg(long)]
    quick: bool,
    /// Pairs of bursts for each slowdown
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pairs: Option<u16>,
    /// Write the results to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Fail when a result is worse than in this file by more than its bound allows
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Measure this agent instead of building one
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// Be the process that a workload runs in
    #[arg(long = "loop", hide = true)]
    workload: Option<loops::Loop>,
    #[arg(long, hide = true, default_value_t = 350)]
    burst_ms: u64,
}

pub fn command(arguments: &Arguments) -> Result<()> {
    if let Some(workload) = arguments.workload {
        return workload.run(Duration::from_millis(arguments.burst_ms));
    }
    // A file that cannot be read should not cost minutes first.
    let budget = arguments.compare.as_deref().map(Saved::read).transpose()?;
    let agent = match &arguments.agent {
        Some(agent) => agent.clone(),
        None => {
            setup::setup(Purpose::Build)?;
            build::agent(Profile::Release, &[])?;
            workspace::agent(Profile::Release)
        }
    };
    if !workspace::is_root() {
        return as_root(arguments, &agent);
    }

    let started = Instant::now();
    announce(arguments);
    let wanted = |benchmark: Benchmark| arguments.names.is_empty() || arguments.names.contains(&benchmark);
    let with_nginx = [Benchmark::Http, Benchmark::Programs, Benchmark::Agent].into_iter().any(wanted);
    let rig = Rig::new(&agent, with_nginx)?;
    let (outcomes, programs) = measure(&rig, arguments, wanted);
    drop(rig);
    let results = judge::judge(outcomes);
    print!("{}", report::table(&results));
    if !programs.lines.is_empty() {
        print!("\n{}", report::programs(&programs.lines));
    }
    println!("\nmedian [quartiles]; target (bound); measured in {} s", started.elapsed().as_secs());

    let saved = Saved::new(&results, programs.lines, arguments.quick)?;
    if let Some(file) = &arguments.json {
        saved.write(file)?;
    }
    let of_target = |verdict: &Verdict| *verdict != Verdict::NoTarget;
    if saved.rows.iter().map(|row| row.verdict).filter(of_target).all(|verdict| verdict == Verdict::NotMeasured) {
        bail!("nothing that has a target could be measured, see above");
    }
    let worse = budget.map(|budget| saved.worse_than(&budget)).unwrap_or_default();
    if !worse.is_empty() {
        bail!("worse than the saved results:\n{}", worse.join("\n"));
    }
    Ok(())
}

/// All wanted rows in order. One that fails says why in its place, and the others go on.
fn measure(
    rig: &Rig,
    arguments: &Arguments,
    wanted: impl Fn(Benchmark) -> bool,
) -> (Vec<(&'static Row, Outcome)>, Programs) {
    let quick = arguments.quick;
    let mut programs = Programs::default();
    let mut programs_failed = "none of its programs ran often enough".to_owned();
    if wanted(Benchmark::Programs) {
        eprintln!("  kernel programs, by the kernel's run statistics");
        match programs::measure(rig, quick) {
            Ok(measured) => programs = measured,
            Err(error) => programs_failed = format!("{error:#}"),
        }
    }
    let mut agent_costs = agent_cost::Costs::new();
    if wanted(Benchmark::Agent) {
        eprintln!("  the agent's own CPU time and memory");
        agent_costs = agent_cost::measure(rig, quick);
    }
    let mut outcome = |measure: Measure| -> Outcome {
        match measure {
            Measure::Slowdown(workload, condition) => {
                let pairs = arguments.pairs.map_or_else(|| slowdown::pairs(workload, quick), usize::from);
                slowdown::measure(rig, workload, condition, pairs).map_err(|error| format!("{error:#}"))
            }
            Measure::Program(cost) => programs.rows.remove(&cost).ok_or_else(|| programs_failed.clone()),
            Measure::Agent(cost) => agent_costs.remove(&cost).unwrap_or_else(|| Err("it was left out".to_owned())),
        }
    };
    let mut outcomes = Vec::new();
    for row in ROWS.iter().filter(|row| wanted(row.benchmark())) {
        if matches!(row.measure, Measure::Slowdown(..)) {
            eprintln!("  {}", row.name);
        }
        outcomes.push((row, outcome(row.measure)));
    }
    (outcomes, programs)
}

fn announce(arguments: &Arguments) {
    let minutes = if arguments.quick { 2 } else { 8 };
    eprintln!("  takes up to {minutes} minutes; nothing else should run on this machine meanwhile");
    let load = fs::read_to_string("/proc/loadavg").ok();
    let load = load.and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    if let Some(load) = load.filter(|load| *load > QUIET_LOAD) {
        eprintln!("  but something does: the load is {load}; watch the null tests");
    }
}

/// The same command again as root, with the agent that has been built as the user.
fn as_root(arguments: &Arguments, agent: &Path) -> Result<()> {
    let program = env::current_exe().context("cannot find this program's file")?;
    let mut command = workspace::as_root(&program, &["PATH"])?;
    command.args(env::args_os().skip(1));
    if arguments.agent.is_none() {
        command.arg("--agent").arg(agent);
    }
    shell::run(&mut command)
}
