//! A control group of one test: what the agent's scope names, so that it reads nobody else's bytes.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::wait;

/// Begins the name of every group and directory of a test; the process id of the tests and a number follow.
const PREFIX: &str = "seismo-test-";

/// A version 2 control group below the one that the tests run in; removed when dropped.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    pub fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let parent = own()?;
        // An empty group goes; one that still has processes refuses to.
        left_behind(&parent).iter().for_each(|path| drop(fs::remove_dir(path)));
        let path = parent.join(name);
        fs::create_dir(&path).with_context(|| format!("the tests make control groups: {}", path.display()))?;
        Ok(Self { path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file that a process writes `0` to in order to move itself in.
    pub fn door(&self) -> Result<File> {
        let file = self.path.join("cgroup.procs");
        OpenOptions::new().write(true).open(&file).with_context(|| file.display().to_string())
    }

    /// Its last part, which no other group has.
    pub fn name(&self) -> Result<&str> {
        self.path.file_name().and_then(|name| name.to_str()).context("a control group has a name")
    }

    /// A number of its `cpu.stat`, which every group has, also where another hierarchy limits its CPUs.
    pub fn cpu_stat(&self, key: &str) -> Result<u64> {
        let text = fs::read_to_string(self.path.join("cpu.stat"))?;
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        Ok(line.with_context(|| format!("no {key} in cpu.stat"))?.trim().parse()?)
    }

    /// Its path below the root of the hierarchy.
    pub fn below_root(&self) -> Result<&Path> {
        Ok(self.path.strip_prefix(mounted_at()?)?)
    }

    /// Processes in the group now.
    pub fn pids(&self) -> Vec<i32> {
        let text = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for pid in self.pids() {
            // SAFETY: kill takes no pointers; every process of this group was started by the test.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        // A group can be removed once its last process is reaped, which may take a moment.
        let removed = wait::until("an empty control group", Duration::from_secs(5), || {
            Ok(fs::remove_dir(&self.path).is_ok().then_some(()))
        });
        if removed.is_err() {
            eprintln!("{} could not be removed", self.path.display());
        }
    }
}

/// Entries of a directory that test processes made which are gone: they were killed before they could clean up.
pub fn left_behind(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let gone = |name: &str| {
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
    };
    entries.filter(|entry| gone(&entry.file_name().to_string_lossy())).map(|entry| entry.path()).collect()
}

/// The version 2 control group that this process is in.
fn own() -> Result<PathBuf> {
    let root = mounted_at()?;
    let groups = fs::read_to_string("/proc/self/cgroup")?;
    let place = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or("");
    Ok(root.join(place))
}

fn mounted_at() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    mounts.lines().find_map(mount_point).context("no version 2 control group hierarchy is mounted")
}

fn mount_point(line: &str) -> Option<PathBuf> {
    let (mount, filesystem) = line.split_once(" - ")?;
    filesystem.starts_with("cgroup2 ").then(|| mount.split(' ').nth(4).map(PathBuf::from)).flatten()
}
