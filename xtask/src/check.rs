//! `cargo xtask check`: what a change must pass: format, lints on host and bpf target, unit tests, tidy, generated files.
//!
//! Every part runs even when one fails; the last lines say which did.

use std::process::Command;

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::setup::{self, Purpose};
use crate::{generate, shell, tidy, workspace};

/// Format, lints on host and bpf target, unit tests, tidy, generated files
#[derive(clap::Args)]
pub struct Arguments {
    /// Leave these parts out
    #[arg(long, value_enum, value_delimiter = ',')]
    skip: Vec<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// rustfmt
    Format,
    /// The rules of `cargo xtask tidy`
    Tidy,
    /// clippy on the agent, the tests and these commands
    Lint,
    /// clippy on the kernel programs, with and without their log
    LintBpf,
    /// The tests that need no root
    Tests,
    /// Generated documents are up to date
    Gen,
}

impl Part {
    fn run(self) -> Result<()> {
        match self {
            Self::Format => shell::run(workspace::cargo().args(["fmt", "--all", "--check"])),
            Self::Tidy => tidy::check(&workspace::root()),
            Self::Lint => shell::run(&mut lint_host()),
            Self::LintBpf => {
                shell::run(&mut lint_bpf(&[]))?;
                shell::run(&mut lint_bpf(&["--features", "kernel-log"]))
            }
            Self::Tests => shell::run(workspace::cargo().arg("test")),
            Self::Gen => generate::check(),
        }
    }
}

pub fn command(arguments: &Arguments) -> Result<()> {
    setup::setup(Purpose::Test)?;
    let mut failed = Vec::new();
    for &part in Part::value_variants() {
        let name = part.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        if arguments.skip.contains(&part) {
            println!("check {name}: left out");
            continue;
        }
        match part.run() {
            Ok(()) => println!("check {name}: ok"),
            Err(error) => {
                println!("check {name}: FAILED: {error:#}");
                failed.push(name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("check failed: {}", failed.join(", "));
    }
    Ok(())
}

fn lint_host() -> Command {
    let mut cargo = workspace::cargo();
    cargo
        .args(["clippy", "--workspace", "--exclude", "seismo-ebpf", "--all-targets"])
        // So that tests which need root are looked at, too.
        .args(["--features", "seismo-tests/root-tests"])
        .args(["--", "-D", "warnings"]);
    cargo
}

/// The same target and flags as the agent's build script, in a target folder of its own.
fn lint_bpf(features: &[&str]) -> Command {
    let mut cargo = workspace::cargo();
    cargo
        .args([
            "clippy",
            "--release",
            "--package",
            "seismo-ebpf",
            "--target",
            "bpfel-unknown-none",
            "-Z",
            "build-std=core",
        ])
        .arg("--target-dir")
        .arg(workspace::target().join("lint-bpf"))
        .args(features)
        .args(["--", "-D", "warnings"])
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH));
    cargo
}
