//! Entry points that wire the stages together.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::config::Config;

/// What the command line adds to the configuration.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// Stop cleanly after this long.
    pub duration: Option<Duration>,
    /// Rule files beside the configured ones.
    pub rules: Vec<PathBuf>,
    /// Webhook for alerts instead of the configured one.
    pub webhook: Option<String>,
}

/// Runs the agent until a signal or the duration ends it.
pub fn run(_config: Config, _options: RunOptions) -> anyhow::Result<ExitCode> {
    anyhow::bail!("run: not wired yet")
}

/// Prints what this kernel and host offer.
pub fn doctor(_config: Config, _json: bool) -> anyhow::Result<ExitCode> {
    anyhow::bail!("doctor: not wired yet")
}

/// Loads each program and prints the verifier's verdict.
pub fn verify(_json: bool) -> anyhow::Result<ExitCode> {
    anyhow::bail!("verify: not wired yet")
}

/// Reads a rule file; the number of rules in it.
pub fn check_rules(path: &std::path::Path) -> Result<usize, String> {
    Err(format!("{}: rules: not wired yet", path.display()))
}
