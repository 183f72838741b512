//! `cargo xtask setup`: finds or installs what building (and with `--test`, testing) needs, one line for each.
//!
//! Facts, then acts: every requirement is looked for first, which takes a fraction of a second and no network;
//! only what is missing is installed, by one setup at a time. What cannot be had is said with the way to get it.

mod core_source;
pub mod debian;
mod linker;
mod packages;
mod phoenix;
mod pip;
mod rotel;
mod victoria_metrics;

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{shell, workspace};

/// Find or install what building needs
#[derive(clap::Args)]
pub struct Arguments {
    /// Also the programs that the tests run (Debian packages, and one of Python)
    #[arg(long)]
    test: bool,
    /// Also what the accuracy lab runs beyond that: more of Python, Go, Java (Debian packages)
    #[arg(long)]
    accuracy: bool,
    /// Also what `cargo xtask bench` runs and measures the agent beside (Debian packages)
    #[arg(long)]
    bench: bool,
}

/// What a machine is set up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Build,
    Test,
    /// Also for tests.
    Accuracy,
    /// Also for tests.
    Phoenix,
    Bench,
}

pub fn command(arguments: &Arguments) -> Result<()> {
    setup(match arguments {
        Arguments { accuracy: true, .. } => Purpose::Accuracy,
        Arguments { test: true, .. } => Purpose::Test,
        _ => Purpose::Build,
    })?;
    if arguments.bench { setup(Purpose::Bench) } else { Ok(()) }
}

/// The compiler that is set up for.
struct Toolchain {
    /// Release number (`1.95.0`).
    version: String,
    sysroot: PathBuf,
}

/// One thing that must be there.
struct Requirement {
    name: &'static str,
    /// What was found, or nothing.
    find: fn(&Toolchain) -> Result<Option<String>>,
    /// Gets it and says how, or explains how the user can.
    install: fn(&Toolchain) -> Result<String>,
}

/// In the order in which they are installed.
const FOR_BUILDING: &[Requirement] = &[
    Requirement { name: "rustc", find: find_rustc, install: explain_rustc },
    Requirement { name: "source of `core` for the bpf target", find: core_source::find, install: core_source::install },
    Requirement { name: "bpf-linker", find: linker::find, install: linker::install },
];

const FOR_TESTING: &[Requirement] = &[
    Requirement {
        name: "programs for the tests",
        find: |_| packages::find(packages::FOR_TESTS),
        install: |_| packages::install(packages::FOR_TESTS),
    },
    Requirement { name: "rotel", find: rotel::find, install: rotel::install },
    Requirement { name: "VictoriaMetrics", find: victoria_metrics::find, install: victoria_metrics::install },
];

const FOR_PHOENIX: &[Requirement] = &[Requirement { name: "Phoenix", find: phoenix::find, install: phoenix::install }];

const FOR_ACCURACY: &[Requirement] = &[Requirement {
    name: "programs for the accuracy lab",
    find: |_| packages::find(packages::FOR_ACCURACY),
    install: |_| packages::install(packages::FOR_ACCURACY),
}];

const FOR_MEASURING: &[Requirement] = &[Requirement {
    name: "programs for measuring",
    find: |_| packages::find(packages::FOR_MEASURING),
    install: |_| packages::install(packages::FOR_MEASURING),
}];

/// Finds or installs everything that `purpose` needs; fails when something cannot be had.
pub fn setup(purpose: Purpose) -> Result<()> {
    let toolchain = toolchain()?;
    let lists: &[&[Requirement]] = match purpose {
        Purpose::Build => &[FOR_BUILDING],
        Purpose::Test => &[FOR_BUILDING, FOR_TESTING],
        Purpose::Accuracy => &[FOR_BUILDING, FOR_TESTING, FOR_ACCURACY],
        Purpose::Phoenix => &[FOR_BUILDING, FOR_TESTING, FOR_PHOENIX],
        Purpose::Bench => &[FOR_MEASURING],
    };
    let requirements = lists.iter().copied().flatten();
    let mut missing = Vec::new();
    for requirement in requirements {
        match (requirement.find)(&toolchain)? {
            Some(found) => eprintln!("  {}: found {found}", requirement.name),
            None => missing.push(requirement),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }

    let _lock = lock()?;
    let mut failed = Vec::new();
    for requirement in missing {
        // Another setup may have installed it while we waited for the lock.
        if let Some(found) = (requirement.find)(&toolchain)? {
            eprintln!("  {}: found {found}", requirement.name);
            continue;
        }
        match (requirement.install)(&toolchain) {
            Ok(how) => eprintln!("  {}: installed {how}", requirement.name),
            Err(error) => {
                eprintln!("  {}: MISSING: {error:#}", requirement.name);
                failed.push(requirement.name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("setup is incomplete, see above: {}", failed.join(", "));
    }
    Ok(())
}

fn toolchain() -> Result<Toolchain> {
    let version = shell::output(Command::new("rustc").arg("--version"))?;
    let sysroot = shell::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    Ok(Toolchain { version: release_number(&version)?.to_owned(), sysroot: PathBuf::from(sysroot.trim()) })
}

/// `1.95.0` of `rustc 1.95.0 (59807616e 2026-04-14)`.
fn release_number(version: &str) -> Result<&str> {
    version.split_whitespace().nth(1).with_context(|| format!("rustc calls itself '{}'", version.trim()))
}

fn find_rustc(toolchain: &Toolchain) -> Result<Option<String>> {
    Ok(is_at_least(&toolchain.version, env!("CARGO_PKG_RUST_VERSION")).then(|| toolchain.version.clone()))
}

fn explain_rustc(toolchain: &Toolchain) -> Result<String> {
    let (found, needed) = (&toolchain.version, env!("CARGO_PKG_RUST_VERSION"));
    bail!("rustc is {found}, Seismo needs {needed} or newer: `rustup update stable`")
}

/// Compares dotted release numbers; a suffix such as `-nightly` counts for nothing.
fn is_at_least(version: &str, needed: &str) -> bool {
    let numbers = |text: &str| -> Vec<u32> {
        text.split(['.', '-']).map_while(|part| part.parse().ok()).chain([0, 0, 0]).take(3).collect()
    };
    numbers(version) >= numbers(needed)
}

/// Held while something is installed: two setups would fight for the package manager and the sysroot.
fn lock() -> Result<File> {
    let folder = workspace::cargo_home().context("neither CARGO_HOME nor a home folder is known")?;
    let path = folder.join(".seismo-setup.lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    if file.try_lock().is_err() {
        eprintln!("  waiting for another setup to end");
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_number_is_read_from_what_rustc_says_of_itself() {
        assert_eq!(release_number("rustc 1.95.0 (59807616e 2026-04-14)\n").unwrap(), "1.95.0");
        assert!(release_number("").is_err());
    }

    #[test]
    fn release_numbers_are_compared_by_number_not_by_text() {
        for (version, needed, enough) in [
            ("1.95.0", "1.95", true),
            ("1.95.1", "1.95.0", true),
            ("1.100.0", "1.95", true),
            ("1.98.0-nightly", "1.95", true),
            ("1.94.9", "1.95", false),
            ("0.99.0", "1.95", false),
        ] {
            assert_eq!(is_at_least(version, needed), enough, "{version} for {needed}");
        }
    }
}
