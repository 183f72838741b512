//! The command line: what can be typed, and how failures are told. Each client command has a file below `cli/`.
//!
//! Results go to standard output, the log and errors to standard error. The commands that need the whole
//! agent (`run`, `doctor`, `verify`) are called from `main`.

pub mod client;
pub mod config;
pub mod link;
pub mod logger;
pub mod probes;
pub mod query;
pub mod rules;
pub mod scope;
pub mod spans;
pub mod table;
pub mod trace;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::environment::{Environment, unknown_variables};
use crate::config::scope::ScopeItem;
use crate::config::{Config, ConfigError, Listen, LogFormat, LogLevel};
use crate::section::Interval;

/// Where client commands find the agent.
pub const AGENT_VARIABLE: &str = "SEISMO_AGENT";

/// eBPF host agent: every request, with the kernel's own explanation of where its time went.
#[derive(Debug, Parser)]
#[command(name = "seismo", version, arg_required_else_help = true)]
pub struct Cli {
    /// Least important level that is logged to standard error.
    #[arg(long, global = true, value_enum)]
    pub log_level: Option<LogLevel>,
    /// Form of the log.
    #[arg(long, global = true, value_enum)]
    pub log_format: Option<LogFormat>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent.
    Run(RunArguments),
    /// What this kernel and host offer, and what is missing.
    Doctor(DoctorArguments),
    /// Programs of a running agent: hook, state, runs, time; and switching probe families on and off.
    Probes(probes::Arguments),
    /// Recent spans of a running agent, newest first.
    Spans(spans::Arguments),
    /// One trace of a running agent as a waterfall, with where each span's time went.
    Trace(trace::Arguments),
    /// A PromQL expression over the last minutes of a running agent.
    Query(query::Arguments),
    /// Whose payload a running agent may read: show it, or replace it while the agent runs.
    Scope(scope::Arguments),
    /// Every metric that the agent can show: name, type, unit, labels, and what gives it.
    Metrics {
        /// As JSON, with the kernel programs behind each family.
        #[arg(long)]
        json: bool,
    },
    /// Link the spans of a file (one JSON object a line, `-`: standard input) as the agent would.
    Link(link::Arguments),
    /// Alert rule files.
    #[command(subcommand)]
    Rules(rules::Command),
    /// The configuration.
    #[command(subcommand)]
    Config(config::Command),
    /// Print the raw payload records of what is in scope, one JSON object a line.
    #[command(hide = true)]
    Tap(TapArguments),
    /// Load each program and print the verifier's verdict.
    #[command(hide = true)]
    Verify {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Clone, Debug, Args)]
pub struct RunArguments {
    /// Configuration file (YAML; `seismo config print` shows every key).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address of the HTTP API instead of the configured one.
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<Listen>,
    /// Whose payloads may be read, beside the configured: pid=N, cgroup=PATH, exe=GLOB, port=N, netns=PATH, all. Can be
    /// changed while the agent runs: `seismo scope set`, or the configuration file and SIGHUP.
    #[arg(long)]
    pub scope: Vec<ScopeItem>,
    /// Prometheus rule file, beside the configured ones.
    #[arg(long, value_name = "FILE")]
    pub rules: Vec<PathBuf>,
    /// Stop cleanly after this long (30s, 5m).
    #[arg(long)]
    pub duration: Option<Interval>,
    /// Send alerts to this URL.
    #[arg(long, value_name = "URL")]
    pub webhook: Option<String>,
}

impl RunArguments {
    /// Lays the command line over the configuration.
    pub fn over(&self, mut config: Config) -> Config {
        config.listen = self.listen.unwrap_or(config.listen);
        config.scope.include.extend(self.scope.iter().cloned());
        config
    }
}

#[derive(Debug, Args)]
pub struct TapArguments {
    /// Configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Whose payloads may be read, as for `run`.
    #[arg(long)]
    pub scope: Vec<ScopeItem>,
    /// How long.
    #[arg(long, default_value = "10s")]
    pub duration: Interval,
    /// As JSON, which it always is.
    #[arg(long)]
    pub json: bool,
}

impl TapArguments {
    /// Lays the command line over the configuration.
    pub fn over(&self, mut config: Config) -> Config {
        config.scope.include.extend(self.scope.iter().cloned());
        config
    }
}

#[derive(Debug, Args)]
pub struct DoctorArguments {
    /// Configuration file to judge by.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

impl Cli {
    /// Reads the configuration and starts the log as it and the command line say.
    pub fn start(&self, file: Option<&Path>, environment: &Environment) -> anyhow::Result<Config> {
        let mut config = Config::load(file, environment)?;
        config.log.level = self.log_level.unwrap_or(config.log.level);
        config.log.format = self.log_format.unwrap_or(config.log.format);
        logger::start(&config.log)?;
        for name in unknown_variables(environment) {
            log::warn!("{name} names no key of the configuration");
        }
        Ok(config)
    }
}

/// A wrong file that has told its own place and needs no prefix. Exit code 2, like wrong usage.
#[derive(Debug)]
pub struct WrongFile(pub String);

impl std::fmt::Display for WrongFile {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for WrongFile {}

/// Tells a failure on standard error; its exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    let closed = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(closed) {
        return ExitCode::SUCCESS;
    }
    let wrong_file = error.is::<ConfigError>() || error.is::<WrongFile>();
    let prefix = if wrong_file { "" } else { "seismo: " };
    // Standard error may be closed too; the exit code still tells.
    let _nobody_reads = writeln!(io::stderr(), "{prefix}{error:#}");
    let wrong_usage = error.downcast_ref::<client::Refused>().is_some_and(client::Refused::is_wrong_usage);
    ExitCode::from(if wrong_file || wrong_usage { 2 } else { 1 })
}
