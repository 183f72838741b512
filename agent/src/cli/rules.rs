//! `seismo rules check`: reads Prometheus rule files and says what is wrong with each, one line an error.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Subcommand;

use super::WrongFile;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say whether rule files are right.
    Check {
        /// Rule files; `*` and `?` stand for parts of a name.
        #[arg(required = true)]
        files: Vec<String>,
    },
}

/// `check` reads the files: what it says of sound ones, or the lines that say what is wrong.
pub fn command(
    command: &Command,
    check: impl Fn(&[String]) -> Result<String, String>,
) -> anyhow::Result<ExitCode> {
    let Command::Check { files } = command;
    let report = check(files).map_err(WrongFile)?;
    let mut out = io::stdout().lock();
    out.write_all(report.as_bytes())?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
