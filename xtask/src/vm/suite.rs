//! The tests of the target `kernel` inside a virtual machine: which there are, which apply, and what became of each.
//!
//! Each test is a step of its own: one that hangs or kills the machine's processes takes no other with it. A test that
//! cannot apply on a kernel is listed with the fact that stands against it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::initramfs::Initramfs;
use super::kernels::numbers;
use super::report::Step;
use crate::workspace;
use crate::{shell, test};

/// Emulated, the longest test takes a minute.
const LIMIT_S: u64 = 300;

/// By how much longer than elsewhere the tests wait: emulation is ten to thirty times slower than the processor.
const PATIENCE: &str = "6";

/// Programs of this machine that the tests start.
const PROGRAMS: &[&str] = &["ip", "setpriv", "true"];
/// Parts of the source tree that the tests read.
const FOLDERS: &[&str] = &["deploy"];
const REPOSITORY: &str = "/repository";
const TESTS: &str = "/usr/bin/kernel-tests";
/// Where the coverage test leaves what it measured.
const COVERAGE: &str = "/tmp/coverage.json";

/// Tests that need more than the oldest kernel has, by the beginning of their names.
const NEEDS: &[Need] = &[Need {
    test: "adopt::",
    since: [5, 12],
    fact: "this kernel has no bpf_sock_from_file: what is older than the agent is not taken up",
}];

struct Need {
    test: &'static str,
    /// First release that has it.
    since: [u32; 2],
    fact: &'static str,
}

/// What became of a test on a kernel.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Passed,
    Failed,
    /// Does not apply: the fact against it.
    NotHere(String),
}

/// The built test program.
pub struct Suite {
    program: PathBuf,
    client: PathBuf,
    names: Vec<String>,
}

impl Suite {
    /// Builds them as `cargo xtask test` does, so that nothing is compiled twice.
    pub fn build(filters: &[String]) -> Result<Self> {
        let mut cargo = test::cargo_test();
        cargo.args([
            "--features",
            test::ROOT_TESTS,
            "--test",
            "kernel",
            "--no-run",
            "--message-format=json-render-diagnostics",
        ]);
        let built = cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("cannot start cargo")?;
        ensure!(built.status.success(), "the kernel tests did not compile");
        let messages = String::from_utf8_lossy(&built.stdout);
        let program = executable(&messages, "kernel").context("cargo built no kernel tests")?;
        let client = executable(&messages, "seismo-testclient").context("cargo built no test client")?;
        let listed = shell::output(Command::new(&program).args(["--list", "--format=terse"]))?;
        let names: Vec<String> =
            listed.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect();
        if let Some(need) = NEEDS.iter().find(|need| !names.iter().any(|name| name.starts_with(need.test))) {
            bail!("no kernel test begins with '{}': the list of what tests need is out of date", need.test);
        }
        let wanted = |name: &String| filters.is_empty() || filters.iter().any(|filter| name.contains(filter));
        let names: Vec<String> = names.into_iter().filter(wanted).collect();
        Ok(Self { program, client, names })
    }

    /// Does no test's name contain what was asked for?
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Adds what the tests need beside the agent.
    pub fn pack(&self, archive: &mut Initramfs) -> Result<()> {
        archive.program(&self.program, Path::new(TESTS))?;
        // The tests know the client by the place where it was built.
        archive.program(&self.client, &self.client)?;
        for name in PROGRAMS {
            let program = workspace::program(name).with_context(|| format!("the kernel tests need '{name}'"))?;
            archive.program(&program, &Path::new("/usr/bin").join(name))?;
        }
        for folder in FOLDERS {
            archive.tree(&workspace::root().join(folder), &Path::new(REPOSITORY).join(folder))?;
        }
        Ok(())
    }

    /// Every wanted test, with the fact against it where it cannot apply on a kernel of this release.
    pub fn on<'a>(&'a self, release: &str) -> impl Iterator<Item = (&'a str, Option<&'static str>)> {
        let release = numbers(release);
        self.names.iter().map(move |name| {
            let missing = NEEDS.iter().find(|need| name.starts_with(need.test) && release < need.since.to_vec());
            (name.as_str(), missing.map(|need| need.fact))
        })
    }
}

/// Runs one test.
pub fn step(name: &str) -> Step {
    let environment = [
        ("PATH", "/usr/bin"),
        ("HOME", "/tmp"),
        ("SEISMOTEST_BIN", super::AGENT),
        ("SEISMOTEST_REPO", REPOSITORY),
        ("SEISMOTEST_PATIENCE", PATIENCE),
        ("SEISMOTEST_COVERAGE", COVERAGE),
    ];
    Step {
        name: name.to_owned(),
        program: TESTS.to_owned(),
        arguments: [name, "--exact"].map(str::to_owned).to_vec(),
        environment: environment.map(|(name, text)| (name.to_owned(), text.to_owned())).to_vec(),
        limit_s: LIMIT_S,
        result: name.starts_with("coverage::").then(|| COVERAGE.to_owned()),
        watch_verifier: false,
    }
}

/// The executable of a target, from what cargo says as JSON.
fn executable(messages: &str, target: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == target)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_of_a_target_is_found_in_cargos_messages() {
        let messages = concat!(
            "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"kernel\"},\"executable\":null}\n",
            "not json\n",
            "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"kernel\"},\"executable\":\"/x/kernel-1\"}\n",
        );
        assert_eq!(executable(messages, "kernel"), Some(PathBuf::from("/x/kernel-1")));
        assert_eq!(executable(messages, "e2e"), None);
    }
}
