//! `seismo config print` and `seismo config check`.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use crate::config::Config;
use crate::config::environment::Environment;
use crate::config::print::print;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the effective configuration, every key with its documentation and default.
    Print {
        /// Configuration file.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Say whether a configuration file is right; each error with file, line and key.
    Check {
        /// Configuration file.
        file: PathBuf,
    },
}

pub fn command(command: &Command, environment: &Environment) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    match command {
        Command::Print { config } => write!(out, "{}", print(&Config::load(config.as_deref(), environment)?))?,
        Command::Check { file } => {
            Config::load(Some(file), environment)?;
            writeln!(out, "{}: ok", file.display())?;
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
