//! A control group of a test in whichever hierarchy has the controller it needs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::wait;

/// Removed when dropped: its processes must have ended.
#[derive(Debug)]
pub struct Controller {
    path: PathBuf,
    pub version_1: bool,
}

impl Controller {
    /// A new group of a controller (`memory`, `cpu`, `blkio`), below the one that the tests run in.
    pub fn new(controller: &str) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let groups = fs::read_to_string("/proc/self/cgroup")?;
        let version_1 = mounts.lines().find_map(|line| {
            let (mount, filesystem) = line.split_once(" - ")?;
            let is = filesystem.starts_with("cgroup ") && filesystem.split([',', ' ']).any(|word| word == controller);
            is.then(|| mount.split(' ').nth(4)).flatten()
        });
        let own = |is_own: &dyn Fn(&str) -> bool| {
            let of_line = |line: &str| {
                let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
                is_own(controllers).then(|| path.trim_start_matches('/').to_owned())
            };
            groups.lines().find_map(of_line).unwrap_or_default()
        };
        let path = match version_1 {
            Some(mount) => Path::new(mount).join(own(&|all| all.split(',').any(|each| each == controller))),
            None => {
                let unified = mounts.lines().find_map(|line| {
                    let (mount, filesystem) = line.split_once(" - ")?;
                    filesystem.starts_with("cgroup2 ").then(|| mount.split(' ').nth(4)).flatten()
                });
                Path::new(unified.context("no control groups are mounted")?).join(own(&str::is_empty))
            }
        };
        let path = path.join(format!("seismo-test-{}-{controller}", std::process::id()));
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Self { path, version_1: version_1.is_some() })
    }

    /// A group that may read so much of a device (`MAJOR:MINOR`).
    pub fn slow_reads(device: &str, bytes_a_second: u64) -> Result<Self> {
        let group = Self::new("blkio")?;
        if group.version_1 {
            group.set("blkio.throttle.read_bps_device", &format!("{device} {bytes_a_second}"))?;
        } else {
            group.set("io.max", &format!("{device} rbps={bytes_a_second}"))?;
        }
        Ok(group)
    }

    pub fn set(&self, file: &str, value: &str) -> Result<()> {
        let file = self.path.join(file);
        fs::write(&file, value).with_context(|| format!("no such controller: {}", file.display()))
    }

    pub fn read(&self, file: &str) -> Result<String> {
        let file = self.path.join(file);
        fs::read_to_string(&file).with_context(|| file.display().to_string())
    }

    /// What a process writes `0` to in order to move itself in.
    pub fn door(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// Moves a process in.
    pub fn take(&self, pid: u32) -> Result<()> {
        self.set("cgroup.procs", &pid.to_string())
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let removed = wait::until("an empty control group", Duration::from_secs(5), || {
            Ok(fs::remove_dir(&self.path).is_ok().then_some(()))
        });
        if removed.is_err() {
            eprintln!("{} could not be removed", self.path.display());
        }
    }
}
