//! What one test works in: a directory, a control group, and the machine to itself.
//!
//! Tests of one binary run one after the other, because their processes share two cores and the agent's
//! counters of system calls and scheduling are those of the whole host.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cgroup::{Cgroup, left_behind};
use crate::process::{self, Process};

static TURN: Mutex<()> = Mutex::new(());

/// Directory and control group of a test.
#[derive(Debug)]
pub struct Rig {
    dir: PathBuf,
    cgroup: Cgroup,
    _turn: MutexGuard<'static, ()>,
}

impl Rig {
    /// Runs a test; its processes' logs are printed when it fails.
    pub fn run(test: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        let rig = Self::new()?;
        let result = test(&rig);
        if result.is_err() {
            process::show_logs(&rig.dir);
        }
        result
    }

    fn new() -> Result<Self> {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let cgroup = Cgroup::new()?;
        let name = cgroup.path().file_name().context("a control group has a name")?;
        let temporary = std::env::temp_dir();
        left_behind(&temporary).iter().for_each(|path| drop(fs::remove_dir_all(path)));
        let dir = temporary.join(name);
        fs::create_dir(&dir).with_context(|| dir.display().to_string())?;
        Ok(Self { dir, cgroup, _turn: turn })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Starts a process inside the control group: its payloads may be read.
    pub fn inside(&self, name: &str, command: Command) -> Result<Process> {
        Process::start(name, &self.dir, command, Some(self.cgroup.door()?))
    }

    /// Starts a process outside the control group: no byte of it may be read.
    pub fn outside(&self, name: &str, command: Command) -> Result<Process> {
        Process::start(name, &self.dir, command, None)
    }

    /// Writes a file of the test.
    pub fn file(&self, name: &str, text: &str) -> Result<PathBuf> {
        let file = self.dir.join(name);
        fs::write(&file, text).with_context(|| file.display().to_string())?;
        Ok(file)
    }

    /// A copy of an executable under a name of its own, so that the agent knows it as a service of its own.
    pub fn named(&self, program: &Path, name: &str) -> Result<PathBuf> {
        let copy = self.dir.join(name);
        if !copy.exists() && fs::hard_link(program, &copy).is_err() {
            fs::copy(program, &copy).with_context(|| format!("copying {}", program.display()))?;
        }
        Ok(copy)
    }

    /// Runs the test client inside the control group, under `name`, to its end.
    pub fn client(&self, program: &str, name: &str, arguments: &[&str]) -> Result<String> {
        let mut process = self.start_client(program, name, arguments)?;
        drop(process.input()?);
        process.finish(Duration::from_secs(60))
    }

    /// Starts the test client inside the control group with an open input.
    pub fn start_client(&self, program: &str, name: &str, arguments: &[&str]) -> Result<Process> {
        let mut command = Command::new(self.named(Path::new(program), name)?);
        command.args(arguments).stdin(Stdio::piped());
        self.inside(name, command)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            process::show_logs(&self.dir);
        }
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            eprintln!("{}: {error}", self.dir.display());
        }
    }
}

/// A loopback port that nobody listens on.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
