//! `cargo xtask bench`: what the agent costs the machine it watches, against targets.
//!
//! Slowdown is CPU time of the workload per operation (never wall time) in interleaved pairs bare/attached, in
//! alternating order, with a fresh agent each pair, and every run holds its own null test; other tools are measured the
//! same way. Prints a table; `--save` writes the budget (docs/bench-budget.json) that `--compare` holds new results
//! against. Takes at most 15 minutes, `--quick` 4.

pub mod agent;
mod agent_cost;
mod budget;
pub mod cgroup;
mod condition;
mod cpu;
mod judge;
mod loops;
mod nginx;
mod pairs;
mod peers;
mod programs;
mod records;
mod report;
mod rig;
mod saved;
mod select;
mod slowdown;
mod statistics;
mod targets;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs};

use anyhow::{Context, Result, bail};

use crate::setup::{self, Purpose};
use crate::workspace::{self, Profile};
use crate::{build, shell};
use budget::{Budget, Finding};
use judge::{Judged, Outcome};
use programs::Programs;
use rig::Rig;
use saved::Saved;
use targets::{Benchmark, Measure, Row, Verdict};

/// Load above which the results will tell more about the neighbours.
const QUIET_LOAD: f64 = 0.5;

/// The budget of this repository.
const BUDGET: &str = "docs/bench-budget.json";

/// Measure what the agent costs (nothing else should run meanwhile)
#[derive(clap::Args)]
pub struct Arguments {
    /// What to measure, everything by default: getppid, read-write, ping-pong, http, programs, agent, peers, or a part of
    /// the names of rows
    names: Vec<String>,
    /// Leave other tools out
    #[arg(long)]
    no_peers: bool,
    /// Fewer pairs: under four minutes, wider quartiles
    #[arg(long)]
    quick: bool,
    /// Pairs of bursts for each slowdown
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pairs: Option<u16>,
    /// Write the results to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Fail when a result exceeds its budget, that is docs/bench-budget.json or this file
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = BUDGET, conflicts_with = "save")]
    compare: Option<PathBuf>,
    /// Make what is measured now the budget, in docs/bench-budget.json or this file
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = BUDGET)]
    save: Option<PathBuf>,
    /// Measure this agent instead of building one
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// Be the process that a workload runs in
    #[arg(long = "loop", hide = true)]
    workload: Option<loops::Loop>,
    /// Be the process that asks for so many thousand records a second
    #[arg(long, hide = true)]
    records: Option<u64>,
    #[arg(long, hide = true, default_value_t = 350)]
    burst_ms: u64,
}

pub fn command(arguments: &Arguments) -> Result<()> {
    if let Some(workload) = arguments.workload {
        return workload.run(Duration::from_millis(arguments.burst_ms));
    }
    if let Some(thousands) = arguments.records {
        return records::run(thousands, Duration::from_millis(arguments.burst_ms));
    }
    // What is asked for wrongly, or a file that cannot be read, should not cost minutes first.
    let rows = select::rows(&arguments.names, !arguments.no_peers)?;
    let budget = arguments.compare.as_deref().map(|file| Budget::read(&placed(file))).transpose()?;
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
    let wanted = |benchmark: Benchmark| rows.iter().any(|row| row.benchmark() == benchmark);
    let with_nginx = [Benchmark::Http, Benchmark::Programs, Benchmark::Agent].into_iter().any(wanted);
    let rig = Rig::new(&agent, with_nginx)?;
    let (outcomes, programs) = measure(&rig, arguments, &rows);
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
    if let Some(file) = &arguments.save {
        save(&placed(file), &results)?;
    }
    budget.map_or(Ok(()), |budget| compare(&budget, &results))
}

/// A path as it was given; that of the budget is the repository's, wherever the command runs.
fn placed(file: &Path) -> PathBuf {
    if file == Path::new(BUDGET) { workspace::root().join(file) } else { file.to_owned() }
}

fn save(file: &Path, results: &[Judged]) -> Result<()> {
    let mut budget = if file.exists() { Budget::read(file)? } else { Budget::default() };
    let kernel = shell::output(Command::new("uname").arg("-srm"))?;
    let cpus = std::thread::available_parallelism()?;
    for name in budget.take(results, format!("{}, {cpus} CPUs", kernel.trim())) {
        println!("{name}: not saved, its null test was off");
    }
    budget.write(file)?;
    println!("{}: {} rows", file.display(), budget.rows.len());
    Ok(())
}

fn compare(budget: &Budget, results: &[Judged]) -> Result<()> {
    let findings = budget.compare(results);
    let mut exceeded = Vec::new();
    for finding in &findings {
        match finding {
            Finding::Kept => {}
            Finding::Unknown(why) => println!("{why}"),
            Finding::Exceeded(line) => exceeded.push(line.as_str()),
        }
    }
    if !exceeded.is_empty() {
        bail!("beyond the budget:\n{}", exceeded.join("\n"));
    }
    let kept = findings.iter().filter(|finding| **finding == Finding::Kept).count();
    if kept == 0 {
        bail!("no row could be compared with the budget");
    }
    println!("{kept} rows are within their budget");
    Ok(())
}

/// All wanted rows in order. One that fails says why in its place, and the others go on.
fn measure(rig: &Rig, arguments: &Arguments, rows: &[&'static Row]) -> (Vec<(&'static Row, Outcome)>, Programs) {
    let quick = arguments.quick;
    let wanted = |benchmark: Benchmark| rows.iter().any(|row| row.benchmark() == benchmark);
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
                let pairs = arguments.pairs.map_or_else(|| slowdown::pairs(workload, condition, quick), usize::from);
                slowdown::measure(rig, workload, condition, pairs).map_err(|error| format!("{error:#}"))
            }
            Measure::Program(cost) => programs.rows.remove(&cost).ok_or_else(|| programs_failed.clone()),
            Measure::Agent(cost) => agent_costs.remove(&cost).unwrap_or_else(|| Err("it was left out".to_owned())),
        }
    };
    let mut outcomes = Vec::new();
    for row in rows {
        if matches!(row.measure, Measure::Slowdown(..)) {
            eprintln!("  {}", row.name);
        }
        outcomes.push((*row, outcome(row.measure)));
    }
    (outcomes, programs)
}

fn announce(arguments: &Arguments) {
    let minutes = if arguments.quick { 4 } else { 15 };
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
