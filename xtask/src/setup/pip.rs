//! Python packages of a pinned version, by the distribution's own pip, into a folder of the build products.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::packages::PYTHON;
use crate::shell;

/// Installs a package into a new folder; what was there before goes.
pub fn install(
    folder: &Path,
    package: &str,
    version: &str,
    options: &[&str],
    (size, limit): (&str, Duration),
) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot write {}", folder.display()))?;
    let mut pip = Command::new(PYTHON);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"]).args(options);
    pip.arg("--target").arg(folder).arg(format!("{package}=={version}"));
    shell::watched(&format!("installing {package} {version}, {size}"), &mut pip, limit)
        .with_context(|| format!("pip cannot install {package}; it needs the Python package index"))
}
