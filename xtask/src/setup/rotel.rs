//! rotel: a small OpenTelemetry collector that prints the spans it decodes; the tests export to it.
//!
//! The Python package of a pinned version, by the distribution's own pip, into a folder of the build products: nothing is
//! installed system-wide. It needs the distribution's libpython, which is in the list of packages.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use super::packages::PYTHON;
use super::{Toolchain, pip};
use crate::{shell, workspace};

const VERSION: &str = "0.0.1a15";
const MARK: &str = ".version";

fn folder() -> PathBuf {
    workspace::target().join("tools/rotel")
}

/// Whether it is there and starts: it may have been installed for another Python.
fn works() -> bool {
    let program = folder().join("rotel/rotel-agent");
    program.is_file() && shell::output(Command::new(program).arg("--version")).is_ok()
}

pub(super) fn find(_: &Toolchain) -> Result<Option<String>> {
    let marked = fs::read_to_string(folder().join(MARK)).unwrap_or_default();
    Ok((marked == VERSION && works()).then(|| VERSION.to_owned()))
}

pub(super) fn install(_: &Toolchain) -> Result<String> {
    let folder = folder();
    pip::install(&folder, "rotel", VERSION, &["--no-deps"], ("10 MB", Duration::from_secs(300)))?;
    if !works() {
        bail!("rotel {VERSION} was installed and does not start; is libpython of {PYTHON} there?");
    }
    fs::write(folder.join(MARK), VERSION)?;
    Ok(format!("{VERSION} with pip, below {}", folder.display()))
}
