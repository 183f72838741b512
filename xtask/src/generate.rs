//! `cargo xtask gen`: documents made from the program itself, so that they cannot drift from it.
//!
//! A document is one row: its path and a function from the built agent to its text. `--check` writes nothing and
//! fails when a file differs.

mod coverage;
mod metrics;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::setup::{self, Purpose};
use crate::workspace::{self, Profile};
use crate::{build, shell};

/// Write the generated documents
#[derive(clap::Args)]
pub struct Arguments {
    /// Write nothing; fail when a document is out of date
    #[arg(long)]
    check: bool,
}

struct Document {
    path: &'static str,
    render: fn(agent: &Path) -> Result<String>,
}

/// Every generated document.
const DOCUMENTS: &[Document] = &[
    Document { path: "docs/configuration.md", render: configuration },
    Document { path: "docs/coverage.md", render: coverage::render },
    Document { path: "docs/metrics.md", render: metrics::render },
];

pub fn command(arguments: &Arguments) -> Result<()> {
    setup::setup(Purpose::Build)?;
    if arguments.check { check() } else { write() }
}

/// Fails when a document on disk differs from what the agent says now.
pub fn check() -> Result<()> {
    let mut stale = Vec::new();
    for (path, text) in rendered()? {
        if fs::read_to_string(workspace::root().join(path)).ok().as_deref() != Some(&text) {
            stale.push(path);
        }
    }
    if !stale.is_empty() {
        bail!("out of date: {}; run `cargo xtask gen`", stale.join(", "));
    }
    Ok(())
}

fn write() -> Result<()> {
    for (path, text) in rendered()? {
        let file = workspace::root().join(path);
        if fs::read_to_string(&file).ok().as_deref() == Some(&text) {
            println!("{path}: unchanged");
        } else {
            fs::write(&file, text).with_context(|| format!("cannot write {path}"))?;
            println!("{path}: written");
        }
    }
    Ok(())
}

fn rendered() -> Result<Vec<(&'static str, String)>> {
    build::agent(Profile::Dev, &[])?;
    let agent = workspace::agent(Profile::Dev);
    DOCUMENTS
        .iter()
        .map(|document| {
            let text = (document.render)(&agent).with_context(|| format!("cannot make {}", document.path))?;
            Ok((document.path, text))
        })
        .collect()
}

fn configuration(agent: &Path) -> Result<String> {
    // Nobody's own settings may get into the document.
    let printed = shell::output(Command::new(agent).args(["config", "print"]).env_clear())?;
    Ok(format!(
        "# Configuration\n\n\
         One YAML file, given with `seismo run --config FILE`. This is every key with its default, as\n\
         `seismo config print` shows it; unknown keys are errors. `seismo config check FILE` reads a file and says\n\
         what is wrong with it. Written by `cargo xtask gen`.\n\n\
         ```yaml\n{}\n```\n",
        printed.trim_end()
    ))
}
