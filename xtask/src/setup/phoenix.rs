//! Phoenix: a trace backend with a store and an API; one test exports to it and reads back.
//!
//! The Python package of a pinned version with all that it needs, by the distribution's own pip, into a folder of the build
//! products: nothing is installed system-wide. 830 MB and two minutes, so only for `cargo xtask test --phoenix`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use super::packages::PYTHON;
use super::{Toolchain, pip};
use crate::{shell, workspace};

const VERSION: &str = "20.26.1";
const MARK: &str = ".version";

fn folder() -> PathBuf {
    workspace::target().join("tools/phoenix")
}

/// Whether it is there and its program can be read: it may have been installed for another Python.
fn works() -> bool {
    let mut python = Command::new(PYTHON);
    python.env("PYTHONPATH", folder()).args(["-c", "import phoenix.version, uvicorn, sqlalchemy, google.protobuf"]);
    shell::output(&mut python).is_ok()
}

pub(super) fn find(_: &Toolchain) -> Result<Option<String>> {
    let marked = fs::read_to_string(folder().join(MARK)).unwrap_or_default();
    Ok((marked == VERSION && works()).then(|| VERSION.to_owned()))
}

pub(super) fn install(_: &Toolchain) -> Result<String> {
    let folder = folder();
    pip::install(&folder, "arize-phoenix", VERSION, &[], ("830 MB", Duration::from_secs(900)))?;
    if !works() {
        bail!("Phoenix {VERSION} was installed and does not start");
    }
    fs::write(folder.join(MARK), VERSION)?;
    Ok(format!("{VERSION} with pip, below {}", folder.display()))
}
