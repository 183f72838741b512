//! `cargo xtask test`: every test this machine can run, from a machine without any set-up.
//!
//! First the plain tests, which need no root; then those that load programs into this kernel, one at a time.
//! Where that is impossible the kernel tests run in a virtual machine, and the command says what could not run and fails:
//! nothing is skipped in silence.

use std::io::{BufRead, BufReader, IsTerminal as _, Write as _};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::setup::{self, Purpose};
use crate::vm::{self, Outcome};
use crate::workspace::{self, Profile};
use crate::{build, shell};

/// Run all tests, those on the real kernel included
#[derive(clap::Args)]
pub struct Arguments {
    /// Only tests whose name contains one of these
    filters: Vec<String>,
    /// Only the test beside Phoenix, a backend for traces: the first time installs 830 MB of Python packages
    #[arg(long, conflicts_with = "filters")]
    phoenix: bool,
}

/// The feature of the tests that load programs into a kernel.
pub const ROOT_TESTS: &str = "seismo-tests/root-tests";
const PHOENIX_TEST: &str = "seismo-tests/phoenix";
/// Variables that tell the tests where things are; sudo passes them on.
const VARIABLES: &[&str] = &["SEISMOTEST_BIN", "SEISMOTEST_REPO", "PATH", "CI", "RUST_BACKTRACE", "INSTA_UPDATE"];

pub fn command(arguments: &Arguments) -> Result<()> {
    let started = Instant::now();
    if arguments.phoenix {
        return beside_phoenix();
    }
    setup::setup(Purpose::Test)?;
    build::agent(Profile::Dev, &[])?;

    let mut tally = Tally::default();
    let mut problems = Vec::new();
    let mut plain = cargo_test();
    plain.arg("--no-fail-fast");
    problems.extend(run(&mut plain, &arguments.filters, &[], &mut tally)?);
    match kernel_tests() {
        Ok(mut kernel) => problems.extend(run(&mut kernel, &arguments.filters, &["--test-threads=1"], &mut tally)?),
        Err(reason) => {
            eprintln!("  {reason:#}\n  so the kernel tests run in a virtual machine");
            problems.extend(in_machine(&arguments.filters, &mut tally));
            problems.push("the tests beside real servers could not run, see above".to_owned());
        }
    }
    if !arguments.filters.is_empty() && tally.passed + tally.failed == 0 {
        problems.push(format!("no test's name contains {}", arguments.filters.join(" or ")));
    }

    println!("{} in {} s", tally.summary(), started.elapsed().as_secs());
    if !problems.is_empty() {
        bail!("{}", problems.join("; "));
    }
    Ok(())
}

fn beside_phoenix() -> Result<()> {
    setup::setup(Purpose::Phoenix)?;
    build::agent(Profile::Dev, &[])?;
    let mut cargo = root_test()?;
    cargo.args(["--features", PHOENIX_TEST, "--test", "phoenix"]);
    match run(&mut cargo, &[], &["--nocapture"], &mut Tally::default())? {
        Some(problem) => bail!(problem),
        None => Ok(()),
    }
}

/// `cargo test` with what the tests want to know.
pub fn cargo_test() -> Command {
    let mut cargo = workspace::cargo();
    cargo.arg("test").env("SEISMOTEST_BIN", workspace::agent(Profile::Dev)).env("SEISMOTEST_REPO", workspace::root());
    cargo
}

/// The tests that need root and a kernel that loads our programs, or why they cannot run.
fn kernel_tests() -> Result<Command> {
    let doctor =
        workspace::as_root(&workspace::agent(Profile::Dev), &[])?.arg("doctor").stdin(Stdio::null()).output()?;
    if !doctor.status.success() {
        let said = [doctor.stdout, doctor.stderr].concat();
        bail!("this machine cannot run the agent, `seismo doctor` says:\n{}", String::from_utf8_lossy(&said).trim());
    }
    let mut cargo = root_test()?;
    cargo.args(["--features", ROOT_TESTS, "--test", "kernel", "--test", "e2e", "--no-fail-fast"]);
    Ok(cargo)
}

/// `cargo test` whose tests run as root.
fn root_test() -> Result<Command> {
    let mut cargo = cargo_test();
    if !workspace::is_root() {
        // Compiled by the user, run by root: the build products stay the user's.
        let runner = workspace::as_root(std::path::Path::new("env"), VARIABLES)?;
        cargo.env(runner_variable(&shell::output(Command::new("rustc").arg("-vV"))?)?, shell::line(&runner));
    }
    Ok(cargo)
}

/// The kernel tests where this kernel cannot run them; what went wrong.
fn in_machine(filters: &[String], tally: &mut Tally) -> Vec<String> {
    let outcomes = match vm::kernel_tests(filters) {
        Ok(outcomes) => outcomes,
        Err(error) => return vec![format!("the kernel tests could not run in a virtual machine: {error:#}")],
    };
    let mut failed = Vec::new();
    for (name, outcome) in outcomes {
        match outcome {
            Outcome::Passed => tally.passed += 1,
            Outcome::Failed => {
                tally.failed += 1;
                failed.push(format!("the test {name} failed in a virtual machine"));
            }
            Outcome::NotHere(fact) => {
                tally.ignored += 1;
                println!("test {name} ... does not apply: {fact}");
            }
        }
    }
    failed
}

/// The variable that tells cargo how to start programs of the host's target, from what `rustc -vV` prints.
fn runner_variable(rustc: &str) -> Result<String> {
    let host = rustc.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc does not name its host")?;
    Ok(format!("CARGO_TARGET_{}_RUNNER", host.to_uppercase().replace('-', "_")))
}

/// Runs a cargo test command, passing its output on. Returns what went wrong, if anything did.
fn run(cargo: &mut Command, filters: &[String], options: &[&str], tally: &mut Tally) -> Result<Option<String>> {
    cargo.arg("--").args(options).args(filters);
    let shown = shell::line(cargo);
    if std::io::stdout().is_terminal() {
        cargo.arg("--color=always");
    }
    eprintln!("  {shown}");
    let mut child =
        cargo.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start {shown}"))?;
    let output = child.stdout.take().context("no output to read")?;
    for line in BufReader::new(output).split(b'\n') {
        let line = line?;
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(&line)?;
        stdout.write_all(b"\n")?;
        tally.add(&String::from_utf8_lossy(&line));
    }
    let status = child.wait()?;
    Ok((!status.success()).then(|| format!("`{shown}` failed: {status}")))
}

/// Sums of the `test result:` lines.
#[derive(Debug, Default, PartialEq)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Tally {
    fn add(&mut self, line: &str) {
        let Some(results) = line.strip_prefix("test result: ") else { return };
        // `ok. 3 passed; 0 failed; 1 ignored; …`, the first word perhaps in colour.
        for part in results.split(['.', ';']) {
            let Some((count, what)) = part.trim().split_once(' ') else { continue };
            let Ok(count) = count.parse::<u64>() else { continue };
            match what {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.ignored += count,
                _ => {}
            }
        }
    }

    fn summary(&self) -> String {
        let Self { passed, failed, ignored } = self;
        format!("all tests: {passed} passed; {failed} failed; {ignored} ignored")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runner_is_set_for_the_hosts_target() {
        let rustc = "rustc 1.95.0\nhost: x86_64-unknown-linux-gnu\nrelease: 1.95.0\n";
        assert_eq!(runner_variable(rustc).unwrap(), "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER");
        assert!(runner_variable("").is_err());
    }

    #[test]
    fn results_of_all_test_programs_are_summed() {
        let mut tally = Tally::default();
        for line in [
            "running 3 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: \u{1b}[31mFAILED\u{1b}(B\u{1b}[m. 10 passed; 2 failed; 0 ignored; 7 measured; 0 filtered out; finished in 1.07s",
        ] {
            tally.add(line);
        }
        assert_eq!(tally, Tally { passed: 13, failed: 2, ignored: 1 });
        assert_eq!(tally.summary(), "all tests: 13 passed; 2 failed; 1 ignored");
    }
}
