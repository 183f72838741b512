//! A control group of a test that may use only a part of one CPU, in whichever hierarchy has the CPU controller.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::wait;

/// Removed when dropped: its processes must have ended.
#[derive(Debug)]
pub struct CpuLimit {
    path: PathBuf,
    version_1: bool,
}

impl CpuLimit {
    /// A group that may run `quota_us` of each `period_us`, below the one that the tests run in.
    pub fn new(quota_us: u64, period_us: u64) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let groups = fs::read_to_string("/proc/self/cgroup")?;
        let mounted = |wanted: &dyn Fn(&str) -> bool| {
            mounts.lines().find_map(|line| {
                let (mount, filesystem) = line.split_once(" - ")?;
                wanted(filesystem).then(|| mount.split(' ').nth(4)).flatten()
            })
        };
        let one = mounted(&|filesystem| {
            filesystem.starts_with("cgroup ") && filesystem.split([',', ' ']).any(|word| word == "cpu")
        });
        let own = |is: &dyn Fn(&str) -> bool| {
            let of_line = |line: &str| {
                let mut parts = line.splitn(3, ':').skip(1);
                let (controllers, path) = (parts.next()?, parts.next()?);
                is(controllers).then(|| path.trim_start_matches('/').to_owned())
            };
            groups.lines().find_map(of_line).unwrap_or_default()
        };
        let (parent, version_1) = match one {
            Some(mount) => (Path::new(mount).join(own(&|list| list.split(',').any(|word| word == "cpu"))), true),
            None => {
                let unified = mounted(&|filesystem| filesystem.starts_with("cgroup2 "));
                (Path::new(unified.context("no control groups are mounted")?).join(own(&str::is_empty)), false)
            }
        };
        let path = parent.join(format!("seismo-test-{}-cpu", std::process::id()));
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        let limit = Self { path, version_1 };
        let files: &[(&str, String)] = if version_1 {
            &[("cpu.cfs_period_us", period_us.to_string()), ("cpu.cfs_quota_us", quota_us.to_string())]
        } else {
            &[("cpu.max", format!("{quota_us} {period_us}"))]
        };
        for (file, value) in files {
            let file = limit.path.join(file);
            fs::write(&file, value).with_context(|| format!("no CPU controller: {}", file.display()))?;
        }
        Ok(limit)
    }

    /// What a process writes `0` to in order to move itself in.
    pub fn door(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// Is it in the hierarchy by which workloads are told apart?
    pub const fn is_workload(&self) -> bool {
        !self.version_1
    }

    /// Its last part.
    pub fn name(&self) -> Result<&str> {
        self.path.file_name().and_then(|name| name.to_str()).context("a control group has a name")
    }

    /// Time in which it was held back, ns, by the kernel's account.
    pub fn throttled_ns(&self) -> Result<u64> {
        let text = fs::read_to_string(self.path.join("cpu.stat"))?;
        let (key, unit) = if self.version_1 { ("throttled_time ", 1) } else { ("throttled_usec ", 1000) };
        let line = text.lines().find_map(|line| line.strip_prefix(key)).context("the kernel does not say")?;
        Ok(line.trim().parse::<u64>()? * unit)
    }
}

impl Drop for CpuLimit {
    fn drop(&mut self) {
        let removed = wait::until("an empty control group", Duration::from_secs(5), || {
            Ok(fs::remove_dir(&self.path).is_ok().then_some(()))
        });
        if removed.is_err() {
            eprintln!("{} could not be removed", self.path.display());
        }
    }
}
