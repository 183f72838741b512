//! The few files of `/proc/PID` that the agent reads, each at most 64 KiB (mappings: 1 MiB). Absent or unreadable is `None`.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use super::glob::Glob;
use crate::model::display;

/// Longest part of a file that is read; command lines may be megabytes.
const MAX_BYTES: u64 = 64 << 10;
/// Ten thousand mappings and more.
const MAX_MAPS: u64 = 1 << 20;

/// A procfs, `/proc` or a directory that looks like it.
#[derive(Clone, Debug)]
pub struct Procfs {
    root: PathBuf,
}

impl Procfs {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub fn path(&self, pid: u32, file: &str) -> PathBuf {
        self.root.join(pid.to_string()).join(file)
    }

    /// The root file system as process 1 sees it: the host's, also from inside a container with the host's pids.
    pub fn host_root(&self) -> PathBuf {
        self.path(1, "root")
    }

    /// Path of the executable as the process sees it; a replaced file keeps its name.
    pub fn exe(&self, pid: u32) -> Option<PathBuf> {
        let link = fs::read_link(self.path(pid, "exe")).ok()?;
        match link.as_os_str().as_bytes().strip_suffix(b" (deleted)") {
            Some(path) => Some(OsString::from_vec(path.to_vec()).into()),
            None => Some(link),
        }
    }

    /// Arguments, the first being the program's own name. Bytes that are no UTF-8 are replaced.
    pub fn arguments(&self, pid: u32) -> Vec<String> {
        let line = self.read(&self.path(pid, "cmdline")).unwrap_or_default();
        let line = line.strip_suffix(b"\0").unwrap_or(&line);
        line.split(|byte| *byte == 0).map(|part| String::from_utf8_lossy(part).into_owned()).collect()
    }

    /// `/proc/PID/cgroup`, one `hierarchy:controllers:path` a line.
    pub fn cgroups(&self, pid: u32) -> Option<String> {
        Some(String::from_utf8_lossy(&self.read(&self.path(pid, "cgroup"))?).into_owned())
    }

    /// Name of the main thread, unprintable bytes escaped, and start time in clock ticks since boot, which tells a reused pid apart.
    pub fn stat(&self, pid: u32) -> Option<(String, u64)> {
        let stat = self.read(&self.path(pid, "stat"))?;
        // The name is in brackets and may hold brackets, spaces and any other byte itself: the last bracket ends it.
        let end = stat.iter().rposition(|byte| *byte == b')')?;
        let start = stat.iter().position(|byte| *byte == b'(')? + 1;
        let name = display::escaped(stat.get(start..end)?, display::MAX_NAME);
        // Field 22; the first after the bracket is field 3.
        let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
        Some((name, rest.split_whitespace().nth(19)?.parse().ok()?))
    }

    pub fn host_name(&self) -> Option<String> {
        let name = self.read(&self.root.join("sys/kernel/hostname"))?;
        Some(String::from_utf8_lossy(&name).trim().to_owned()).filter(|name| !name.is_empty())
    }

    /// Every process there is now.
    pub fn pids(&self) -> Vec<u32> {
        let Ok(entries) = fs::read_dir(&self.root) else { return Vec::new() };
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }

    /// Processes whose executable matches.
    pub fn running(&self, glob: &Glob) -> Vec<u32> {
        let mut pids = self.pids();
        pids.retain(|pid| self.exe(*pid).is_some_and(|exe| glob.matches(&exe)));
        pids
    }

    /// `/proc/PID/maps`, one mapping a line, at most [`MAX_MAPS`] bytes of it.
    pub fn maps(&self, pid: u32) -> Option<String> {
        Some(String::from_utf8_lossy(&Self::read_at_most(&self.path(pid, "maps"), MAX_MAPS)?).into_owned())
    }

    pub(super) fn read(&self, path: &Path) -> Option<Vec<u8>> {
        Self::read_at_most(path, MAX_BYTES)
    }

    fn read_at_most(path: &Path, most: u64) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path).ok()?.take(most).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }
}
