//! The source of Rust's `core`, in the compiler's sysroot: there is no prebuilt `core` for the bpf target.
//!
//! Ways to get it, in order: rustup's component; on Debian the package `rust-src` of exactly the compiler's version,
//! from the backports of whatever mirror the machine uses, unpacked privately (nothing is installed system-wide).
//! It must match the compiler: a copy we made for another version is replaced.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Toolchain;
use super::debian::Suite;
use crate::{shell, workspace};

/// Where cargo looks for it, below the sysroot.
const PLACE: &str = "lib/rustlib/src/rust";
/// Suite of the Debian archive that carries recent compilers.
const SUITE: &str = "trixie-backports";
/// Left in a copy that we made: rustup does not know it and would keep it over an update.
const MARK: &str = ".copied-for-rustc";

pub(super) fn find(toolchain: &Toolchain) -> Result<Option<String>> {
    let library = toolchain.sysroot.join(PLACE).join("library");
    if !library.join("core/Cargo.toml").is_file() {
        return Ok(None);
    }
    match fs::read_to_string(library.join(MARK)) {
        Ok(version) if version != toolchain.version => Ok(None),
        _ => Ok(Some("in the sysroot".to_owned())),
    }
}

pub(super) fn install(toolchain: &Toolchain) -> Result<String> {
    let by_rustup = match from_rustup(toolchain) {
        Ok(()) => return Ok("with rustup".to_owned()),
        Err(error) => error,
    };
    let by_debian = match from_debian(toolchain) {
        Ok(package) => return Ok(format!("from Debian's {package}")),
        Err(error) => error,
    };
    bail!(
        "not in {}; run `rustup component add rust-src` where there is a network, or unpack that release's `library` \
         folder there. rustup: {}; Debian: {}",
        toolchain.sysroot.join(PLACE).display(),
        first_line(&by_rustup),
        first_line(&by_debian),
    )
}

fn first_line(error: &anyhow::Error) -> String {
    format!("{error:#}").lines().next().unwrap_or_default().to_owned()
}

fn from_rustup(toolchain: &Toolchain) -> Result<()> {
    let rustup = workspace::program("rustup").context("not installed")?;
    // Without a network it may hang instead of failing; the download has 4 MB.
    let mut add = Command::new(rustup);
    add.args(["component", "add", "rust-src"]);
    shell::watched("rustup component add rust-src", &mut add, Duration::from_secs(120))?;
    find(toolchain)?.map(drop).context("it succeeded but the source is not in the sysroot")
}

/// Returns the package and version that was used.
fn from_debian(toolchain: &Toolchain) -> Result<String> {
    let place = toolchain.sysroot.join(PLACE);
    fs::create_dir_all(&place).with_context(|| format!("cannot write {}", place.display()))?;
    // In the sysroot itself, so that the last step is a rename.
    let folder = place.join(format!(".setup-{}", std::process::id()));
    fs::create_dir(&folder).with_context(|| format!("cannot write {}", folder.display()))?;
    let result = fetch(&folder, toolchain).and_then(|(package, library)| {
        fs::write(library.join(MARK), &toolchain.version)?;
        let old = place.join("library");
        if old.exists() {
            fs::rename(&old, folder.join("replaced"))?;
        }
        fs::rename(&library, &old)?;
        Ok(package)
    });
    fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    result
}

/// Downloads and unpacks into `folder`; returns the package's name with version, and its `library`.
fn fetch(folder: &Path, toolchain: &Toolchain) -> Result<(String, PathBuf)> {
    let suite = Suite::open(folder, SUITE)?;
    let version = matching_version(&suite.ask(&["madison", "rust-src"])?, &toolchain.version)
        .with_context(|| format!("{SUITE} has no rust-src for rustc {}", toolchain.version))?;
    let unpacked = suite.unpack(&format!("rust-src={version}"))?;
    let library = unpacked.join(format!("usr/src/rustc-{}/library", toolchain.version));
    if !library.join("core/Cargo.toml").is_file() {
        bail!("the package has no {}", library.display());
    }
    Ok((format!("rust-src {version}"), library))
}

/// The row of `apt-cache madison` whose upstream version is the compiler's.
fn matching_version(table: &str, release: &str) -> Option<String> {
    table
        .lines()
        .filter_map(|row| row.split('|').nth(1))
        .map(str::trim)
        .find(|version| version.strip_prefix(release).is_some_and(|rest| rest.starts_with(['+', '-', '~'])))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_of_exactly_the_compilers_release_is_chosen() {
        let table = "\
            rust-src | 1.95.10+dfsg1-1~bpo13+1 | mirror trixie-backports/main amd64 Packages\n\
            rust-src | 1.95.0+dfsg1-1~bpo13+1 | mirror trixie-backports/main amd64 Packages\n";
        assert_eq!(matching_version(table, "1.95.0").as_deref(), Some("1.95.0+dfsg1-1~bpo13+1"));
        assert_eq!(matching_version(table, "1.95.1"), None);
        assert_eq!(matching_version("", "1.95.0"), None);
    }

    #[test]
    fn a_copy_made_for_another_compiler_counts_as_missing() {
        let sysroot = std::env::temp_dir().join(format!("seismo-core-{}", std::process::id()));
        let library = sysroot.join(PLACE).join("library");
        fs::create_dir_all(library.join("core")).unwrap();
        let toolchain = Toolchain { version: "1.95.0".to_owned(), sysroot: sysroot.clone() };
        assert_eq!(find(&toolchain).unwrap(), None, "no source at all");
        fs::write(library.join("core/Cargo.toml"), "").unwrap();
        assert!(find(&toolchain).unwrap().is_some(), "rustup's component");
        fs::write(library.join(MARK), "1.94.0").unwrap();
        assert_eq!(find(&toolchain).unwrap(), None, "a copy for 1.94.0");
        fs::write(library.join(MARK), "1.95.0").unwrap();
        assert!(find(&toolchain).unwrap().is_some(), "a copy for 1.95.0");
        fs::remove_dir_all(sysroot).unwrap();
    }
}
