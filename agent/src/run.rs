//! The only wiring: configuration → facts → plan → programs in the kernel, the threads behind them, and the ways to look.
//!
//! Threads: drain (kernel ring → batches), pipeline (batches → metrics and spans), and one runtime for the API, the
//! alert rules and the terminal. Everything that can be refused is refused before a program is loaded; capabilities are
//! dropped before the first thread starts.

mod adoption;
mod agent;
mod alerting;
mod catalogue;
mod doctor;
mod exemplars;
mod exporting;
mod families;
mod kernel;
mod kernel_files;
mod metric_export;
mod pages;
mod pipeline;
mod probe_control;
mod reload;
mod samples;
mod sampling;
mod scope;
mod scope_control;
mod screen;
mod tap;
mod tasks;
mod wakers;
mod workloads;

pub use agent::run;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::bpf::plan::Wanted;
use crate::config::{Config, Probes, Wakeups};

/// Reads the configuration again, with what the command line lays over it.
pub type Reload = Box<dyn Fn() -> Result<Config> + Send + Sync>;

/// What the command line adds to the configuration.
#[derive(Default)]
pub struct RunOptions {
    /// Stop cleanly after this long.
    pub duration: Option<Duration>,
    /// Rule files beside the configured ones.
    pub rules: Vec<PathBuf>,
    /// Webhook for alerts instead of the configured one.
    pub webhook: Option<String>,
    /// For SIGHUP.
    pub reload: Option<Reload>,
}

/// Prints what this kernel and host offer.
pub fn doctor(config: &Config, json: bool) -> Result<ExitCode> {
    let mut report = doctor::examine(wanted(config));
    report.files = kernel_files::open(config).statuses().to_vec();
    if json {
        writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        write!(std::io::stdout(), "{}", report.text())?;
    }
    Ok(if report.can_run { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints every metric that the agent can show.
pub fn metrics(json: bool) -> Result<ExitCode> {
    let groups = catalogue::groups();
    if json {
        writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&groups)?)?;
    } else {
        write!(std::io::stdout(), "{}", catalogue::text(&groups))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Loads every program, those that are off by default too, and prints the verifier's verdict on each.
pub fn verify(json: bool) -> Result<ExitCode> {
    let families = crate::probes::FAMILIES.iter().map(|family| family.name).collect();
    let report = doctor::examine(Wanted { families, every_tier: true, ..Wanted::default() });
    let programs: Vec<_> = report.families.iter().flat_map(|family| &family.programs).collect();
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(&programs)?)?;
        report.problems.iter().for_each(|problem| eprintln!("! {problem}"));
    } else {
        for program in &programs {
            let verdict = if report.loaded { program.state.name() } else { "not tried" };
            let line = format!(
                "{:<20} {:<30} {verdict:<11} {:>7}  {}",
                program.program, program.hook, program.verified_instructions, program.reason
            );
            writeln!(out, "{}", line.trim_end())?;
        }
        for problem in &report.problems {
            writeln!(out, "! {problem}")?;
        }
    }
    // What the kernel does not offer is no verdict on the program.
    Ok(if report.loaded && report.accepted { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints the raw payload records of what is in scope.
pub fn tap(config: Config, duration: Duration) -> Result<ExitCode> {
    let until = Instant::now() + duration;
    let kernel = agent::start_kernel(&config)?;
    let printed = tap::print(&kernel.batches, until, &mut std::io::stdout().lock())?;
    kernel.stop();
    log::info!("{printed} records");
    Ok(ExitCode::SUCCESS)
}

/// What the configuration wants of the kernel.
fn wanted(config: &Config) -> Wanted<'static> {
    let families =
        families_of(&config.probes).into_iter().filter_map(|(name, wanted)| wanted.then_some(name)).collect();
    let forced = config.payload.tier.name().map(|tier| ("payload", tier)).into_iter().collect();
    Wanted { families, forced, ..Wanted::default() }
}

/// Families with programs, and whether the configuration wants them.
fn families_of(probes: &Probes) -> [(&'static str, bool); 16] {
    [
        ("workload", probes.workload),
        ("process", probes.process),
        ("tcp", probes.tcp),
        ("udp", probes.udp),
        ("payload", probes.payload),
        ("adopt", probes.adopt),
        ("task", probes.task),
        ("wakeup", probes.wakeup != Wakeups::Off),
        ("scheduler", probes.scheduler),
        ("syscall", probes.syscall),
        ("block", probes.block),
        ("memory", probes.memory),
        ("drop", probes.drop),
        ("interrupt", probes.interrupt),
        ("floor", probes.floor),
        ("records", probes.records),
    ]
}

/// The same of what is read of files.
const fn files_of(probes: &Probes) -> [(&'static str, bool); 2] {
    [("pressure", probes.pressure), ("cgroup", probes.cgroup)]
}

#[cfg(test)]
mod tests {
    use super::{families_of, files_of, kernel_files::FileSource};
    use crate::config::Probes;
    use crate::probes::FAMILIES;

    #[test]
    fn every_family_has_its_key_in_the_configuration() {
        let probes = Probes::default();
        let mut keys = families_of(&probes).map(|(name, _)| name);
        let mut names: Vec<_> = FAMILIES.iter().map(|family| family.name).collect();
        keys.sort_unstable();
        names.sort_unstable();
        assert_eq!(keys.as_slice(), names);
        assert_eq!(files_of(&probes).map(|(name, _)| name), FileSource::NAMES);
    }
}
