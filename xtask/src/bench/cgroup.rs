//! Child groups of the unified cgroup hierarchy: what runs in them is ours, and can be put in scope by their path.
//!
//! A program enters its group between fork and exec, so that nothing of it runs outside. Dropping a group ends, one by
//! one, the processes that are still in it. No controller is enabled: groups alone cost nothing.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

const PREFIX: &str = "seismo-bench-";
/// How long a group's processes may take to go away.
const LIMIT: Duration = Duration::from_secs(2);

/// A group that exists as long as this value.
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// A new group under the root of the hierarchy; `name` tells the groups of one run apart.
    pub fn create(name: &str) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
        let root = unified_mount(&mounts).context("no cgroup v2 hierarchy is mounted")?;
        remove_leftovers(&root);
        let path = root.join(format!("{PREFIX}{}-{name}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot create the cgroup {}", path.display()))?;
        Ok(Self { path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The processes in it, by pid.
    pub fn processes(&self) -> Result<Vec<u32>> {
        let list = fs::read_to_string(self.path.join("cgroup.procs"))?;
        list.lines().map(|pid| pid.parse().with_context(|| format!("cgroup.procs: {pid}"))).collect()
    }

    /// Makes `command` start inside, and end when this process does.
    pub fn adopt(&self, command: &mut Command) -> Result<()> {
        let mut procs = File::options().write(true).open(self.path.join("cgroup.procs"))?;
        let enter = move || {
            procs.write_all(b"0")?;
            // SAFETY: takes no pointer; this option concerns the calling process alone.
            if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) } != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        };
        // SAFETY: between fork and exec `enter` makes two system calls and allocates nothing.
        unsafe { command.pre_exec(enter) };
        Ok(())
    }

    fn end(&self) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        loop {
            for pid in self.processes()? {
                // SAFETY: takes no pointer. Only we put processes into this group.
                unsafe { libc::kill(libc::pid_t::try_from(pid)?, libc::SIGKILL) };
            }
            // Busy until the last of them has been reaped.
            match fs::remove_dir(&self.path) {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error.into()),
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("cannot remove the cgroup {}: {error:#}", self.path.display());
        }
    }
}

/// Removes groups of runs that were interrupted. Those of a run under way are not empty, and stay.
fn remove_leftovers(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Whatever the reason it stays for, it is in nobody's way.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// Where the unified hierarchy is mounted, from `mountinfo`: `… mount-point options … - cgroup2 …`.
fn unified_mount(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        (kind.split(' ').next() == Some("cgroup2")).then(|| mount.split(' ').nth(4).map(PathBuf::from))?
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::unified_mount;

    #[test]
    fn the_unified_hierarchy_is_found_in_hybrid_and_pure_set_ups() {
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
                      32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(unified_mount(hybrid).as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
        let pure = "25 23 0:24 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(unified_mount(pure).as_deref(), Some(Path::new("/sys/fs/cgroup")));
        assert_eq!(unified_mount("31 23 0:28 / /sys/fs/cgroup rw - tmpfs cgroup2 rw\n"), None);
    }
}
