//! `cargo xtask run`: sets up what is missing, builds, and becomes `seismo run` (through sudo when not root).
//!
//! The agent replaces this process, so signals, exit code and terminal are its own.

use std::os::unix::process::CommandExt as _;

use anyhow::{Context, Result};

use crate::setup::{self, Purpose};
use crate::workspace::{self, Profile};
use crate::{build, shell};

/// Build and start the agent: `cargo xtask run -- --scope all`
#[derive(clap::Args)]
pub struct Arguments {
    /// Unoptimised, quicker to build
    #[arg(long)]
    debug: bool,
    /// Cargo features, comma-separated (kernel-log)
    #[arg(long, value_delimiter = ',')]
    features: Vec<String>,
    /// Arguments of `seismo run`
    #[arg(last = true)]
    arguments: Vec<String>,
}

pub fn command(arguments: &Arguments) -> Result<()> {
    setup::setup(Purpose::Build)?;
    let profile = if arguments.debug { Profile::Dev } else { Profile::Release };
    build::agent(profile, &arguments.features)?;
    let mut agent = workspace::as_root(&workspace::agent(profile), &[])?;
    agent.arg("run").args(&arguments.arguments);
    let shown = shell::line(&agent);
    // Only returns when the agent could not be started.
    Err(agent.exec()).with_context(|| format!("cannot start {shown}"))
}
