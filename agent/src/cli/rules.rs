//! `seismo rules check`: reads Prometheus rule files and says what is wrong with each, one line an error.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;

use super::WrongFile;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say whether rule files are right.
    Check {
        /// Rule files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

/// `check` reads a file: the number of rules in it, or the lines that say what is wrong.
pub fn command(command: &Command, check: impl Fn(&Path) -> Result<usize, String>) -> anyhow::Result<ExitCode> {
    let Command::Check { files } = command;
    let mut out = io::stdout().lock();
    let mut wrong = Vec::new();
    for file in files {
        match check(file) {
            Ok(count) => writeln!(out, "{}: ok, {count} rules", file.display())?,
            Err(message) => wrong.push(message),
        }
    }
    out.flush()?;
    if wrong.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(WrongFile(wrong.join("\n")).into()) }
}
