//! A control group of a test with little memory, in whichever hierarchy has the memory controller.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::wait;

/// Removed when dropped: its processes must have ended.
#[derive(Debug)]
pub struct MemoryLimit {
    path: PathBuf,
    version_1: bool,
}

impl MemoryLimit {
    /// A group of so many bytes, without swap, below the one that the tests run in.
    pub fn new(bytes: u64) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let groups = fs::read_to_string("/proc/self/cgroup")?;
        let version_1 = mounts.lines().find_map(|line| {
            let (mount, filesystem) = line.split_once(" - ")?;
            let is = filesystem.starts_with("cgroup ") && filesystem.split([',', ' ']).any(|word| word == "memory");
            is.then(|| mount.split(' ').nth(4)).flatten()
        });
        let name = format!("seismo-test-{}-memory", std::process::id());
        let own = |of: &str| {
            let of_line = |line: &str| Some(line.split_once(of)?.1.trim_start_matches('/').to_owned());
            groups.lines().find_map(of_line).unwrap_or_default()
        };
        let path = match version_1 {
            Some(mount) => Path::new(mount).join(own(":memory:")),
            None => {
                let unified = mounts.lines().find_map(|line| {
                    let (mount, filesystem) = line.split_once(" - ")?;
                    filesystem.starts_with("cgroup2 ").then(|| mount.split(' ').nth(4)).flatten()
                });
                Path::new(unified.context("no control groups are mounted")?).join(own("0::"))
            }
        };
        let path = path.join(name);
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        let limit = Self { path, version_1: version_1.is_some() };
        let files: &[(&str, u64)] = if limit.version_1 {
            &[("memory.swappiness", 0), ("memory.limit_in_bytes", bytes)]
        } else {
            &[("memory.swap.max", 0), ("memory.max", bytes)]
        };
        for (file, value) in files {
            let file = limit.path.join(file);
            fs::write(&file, value.to_string()).with_context(|| format!("no memory controller: {}", file.display()))?;
        }
        Ok(limit)
    }

    /// What a process writes `0` to in order to move itself in.
    pub fn door(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// Processes that were killed in the group because it had no memory, by the kernel's account.
    pub fn kills(&self) -> Result<u64> {
        let file = if self.version_1 { "memory.oom_control" } else { "memory.events" };
        let text = fs::read_to_string(self.path.join(file))?;
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        Ok(line.context("the kernel does not count kills")?.trim().parse()?)
    }

    /// How often the limit was reached, by the kernel's account.
    pub fn reached(&self) -> Result<u64> {
        if self.version_1 {
            return Ok(fs::read_to_string(self.path.join("memory.failcnt"))?.trim().parse()?);
        }
        let text = fs::read_to_string(self.path.join("memory.events"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("max "));
        Ok(line.context("the kernel does not count it")?.trim().parse()?)
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        let removed = wait::until("an empty control group", Duration::from_secs(5), || {
            Ok(fs::remove_dir(&self.path).is_ok().then_some(()))
        });
        if removed.is_err() {
            eprintln!("{} could not be removed", self.path.display());
        }
    }
}
