//! A control group (version 2) for the demo's workload: it is what the agent's scope names.
//!
//! The mount is looked up, since hybrid systems have it elsewhere than at `/sys/fs/cgroup`.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

pub(super) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    pub(super) fn create(name: &str) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read the list of mounts")?;
        let path = mount_point(&mounts).context("no cgroup v2 file system is mounted")?.join(name);
        fs::create_dir(&path).with_context(|| format!("cannot create the control group {}", path.display()))?;
        Ok(Self { path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it; its members must have ended, and leave a moment after they were reaped.
    pub(super) fn remove(self) -> Result<()> {
        let mut attempts = 20;
        loop {
            match fs::remove_dir(&self.path) {
                Ok(()) => return Ok(()),
                Err(_) if attempts > 0 => attempts -= 1,
                Err(error) => return Err(error).with_context(|| format!("cannot remove {}", self.path.display())),
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Where cgroup v2 is mounted, from the text of `/proc/self/mountinfo`.
fn mount_point(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        (filesystem.split(' ').next()? == "cgroup2").then(|| mount.split(' ').nth(4).map(PathBuf::from))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_2_mount_is_found_beside_those_of_version_1() {
        let mounts = "\
            24 30 0:22 / /proc rw - proc proc rw\n\
            31 30 0:26 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu\n\
            32 30 0:27 / /sys/fs/cgroup/unified rw shared:10 master:1 - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_point(mounts), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(mount_point("24 30 0:22 / /proc rw - proc proc rw\n"), None);
    }
}
