//! `seismo link`: a span file through the linker alone; a line for each span, in the file's order.
//!
//! The file is as docs/span-file.md says. What is wrong with it is told with file and line, and nothing is printed then:
//! exit code 2. Needs no agent and no root; holds the whole file in memory.

use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;

use clap::Args;

use super::WrongFile;
use crate::traces::linker::{Limits, file};

#[derive(Debug, Args)]
pub struct Arguments {
    /// Span file; `-` reads standard input.
    file: String,
    /// Least probability of a parent that only statistics tells, 0 to 1.
    #[arg(long, default_value_t = Limits::default().margin)]
    margin: f64,
}

pub fn command(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let name = &arguments.file;
    let wrong = |message: String| WrongFile(format!("{name}{message}"));
    let mut text = String::new();
    let read = match name.as_str() {
        "-" => io::stdin().lock().read_to_string(&mut text).map(|_| ()),
        name => std::fs::read_to_string(name).map(|read| text = read),
    };
    read.map_err(|error| wrong(format!(": {error}")))?;
    let spans = file::parse(&text).map_err(|(line, message)| wrong(format!(":{line}: {message}")))?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    for answer in file::link(&spans, Limits { margin: arguments.margin, ..Limits::default() }) {
        writeln!(out, "{}", answer.json())?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
