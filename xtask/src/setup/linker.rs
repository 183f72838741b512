//! bpf-linker: joins the kernel programs' bitcode and writes BTF.
//!
//! The version is pinned: it is the one whose default build uses rustc's own LLVM. Compiling it takes about 70 s.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Toolchain;
use crate::{shell, workspace};

const VERSION: &str = "0.10.4";

pub(super) fn find(_: &Toolchain) -> Result<Option<String>> {
    let Some(program) = workspace::program("bpf-linker") else { return Ok(None) };
    // A linker that cannot start (its libraries are gone) is as good as missing.
    let said = shell::output(Command::new(program).arg("--version")).unwrap_or_default();
    Ok(accepts(&said).then(|| VERSION.to_owned()))
}

fn accepts(said: &str) -> bool {
    said.split_whitespace().nth(1) == Some(VERSION)
}

pub(super) fn install(_: &Toolchain) -> Result<String> {
    let mut cargo = workspace::cargo();
    cargo.args(["install", "bpf-linker", "--version", VERSION, "--locked", "--force"]);
    // Outside the source tree: neither our aliases nor our flags concern it.
    if let Some(home) = workspace::cargo_home() {
        cargo.current_dir(home);
    }
    shell::watched("compiling bpf-linker, about 70 s", &mut cargo, Duration::from_secs(1800)).with_context(|| {
        format!("`cargo install bpf-linker --version {VERSION} --locked` failed; it needs the package registry and a C linker")
    })?;
    Ok(format!("{VERSION} with cargo install"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_other_version_of_the_linker_is_replaced() {
        assert!(accepts(&format!("bpf-linker {VERSION}\n")));
        assert!(!accepts("bpf-linker 0.10.5\n"));
        assert!(!accepts(""));
    }
}
