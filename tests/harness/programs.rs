//! Finds the programs that the tests run: servers and clients from packages, and the agent's own executable.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Where Debian puts programs, searched after `PATH`: a user's `PATH` may lack the administrator's places.
const PLACES: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Python of the distribution: the one that the package `python3-requests` belongs to.
pub const PYTHON: &str = "/usr/bin/python3";

/// Full path of a program, or an error that says how to get it.
pub fn find(name: &str) -> Result<PathBuf> {
    if name.starts_with('/') {
        return existing(Path::new(name));
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(PLACES.iter().map(PathBuf::from))
        .map(|place| place.join(name))
        .find(|file| file.is_file())
        .with_context(|| missing(name))
}

fn existing(file: &Path) -> Result<PathBuf> {
    if file.is_file() { Ok(file.to_owned()) } else { bail!(missing(&file.display().to_string())) }
}

fn missing(name: &str) -> String {
    format!("the test needs '{name}', which is not installed: run `cargo xtask setup --test`")
}

/// The root of the source tree.
pub fn repository() -> PathBuf {
    env::var_os("SEISMOTEST_REPO").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), PathBuf::from)
}

/// Build products of the source tree.
fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from)
}

/// rotel, the collector.
pub fn rotel() -> Result<PathBuf> {
    existing(&target().join("tools/rotel/rotel/rotel-agent"))
}

/// VictoriaMetrics, the store.
pub fn victoria_metrics() -> Result<PathBuf> {
    existing(&target().join("tools/victoria-metrics/victoria-metrics"))
}

/// The folder of Python packages that Phoenix is in.
pub fn phoenix() -> Result<PathBuf> {
    let folder = target().join("tools/phoenix");
    let program = folder.join("phoenix/server/main.py");
    if program.is_file() { Ok(folder) } else { bail!("the test needs Phoenix: run `cargo xtask test --phoenix`") }
}

/// The agent: `SEISMOTEST_BIN`, else the newest of the builds under the source tree.
pub fn seismo() -> Result<PathBuf> {
    if let Some(file) = env::var_os("SEISMOTEST_BIN") {
        let file = PathBuf::from(file);
        return if file.is_file() {
            Ok(file)
        } else {
            bail!("SEISMOTEST_BIN names {}, which is no file", file.display())
        };
    }
    let target = target();
    ["release", "debug"]
        .iter()
        .map(|profile| target.join(profile).join("seismo"))
        .filter_map(|file| Some((file.metadata().ok()?.modified().ok()?, file)))
        .max()
        .map(|(_, file)| file)
        .context("no agent to test: run `cargo xtask build`, or name one in SEISMOTEST_BIN")
}
