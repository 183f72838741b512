//! VictoriaMetrics: a real store that takes metrics over OTLP; the tests export to it and query it.
//!
//! The package of a later Debian release than the machine's may be (bookworm's does not know OTLP yet), unpacked into a
//! folder of the build products: nothing is installed system-wide.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Toolchain;
use super::debian::Suite;
use crate::{shell, workspace};

const SUITE: &str = "trixie";
const PACKAGE: &str = "victoria-metrics";
const MARK: &str = ".version";

fn folder() -> PathBuf {
    workspace::target().join("tools/victoria-metrics")
}

/// Whether it starts; it does not say which version it is.
fn works() -> bool {
    let program = folder().join("victoria-metrics");
    program.is_file() && shell::output(Command::new(program).arg("-version")).is_ok()
}

pub(super) fn find(_: &Toolchain) -> Result<Option<String>> {
    let marked = fs::read_to_string(folder().join(MARK)).unwrap_or_default();
    Ok(Some(marked).filter(|version| !version.is_empty() && works()))
}

pub(super) fn install(_: &Toolchain) -> Result<String> {
    let folder = folder();
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    let suite = Suite::open(&folder.join("debian"), SUITE)?;
    let shown = suite.ask(&["show", "--no-all-versions", PACKAGE])?;
    let version = shown.lines().find_map(|line| line.strip_prefix("Version: "));
    let version = version.with_context(|| format!("Debian's {SUITE} has no {PACKAGE}"))?;
    let program = suite.unpack(PACKAGE)?.join("usr/bin/victoria-metrics");
    fs::rename(program, folder.join("victoria-metrics")).context("the package has no /usr/bin/victoria-metrics")?;
    fs::remove_dir_all(folder.join("debian"))?;
    if !works() {
        bail!("victoria-metrics of Debian's {SUITE} does not start here");
    }
    fs::write(folder.join(MARK), version)?;
    Ok(format!("{version}, of Debian's {SUITE}, below {}", folder.display()))
}
