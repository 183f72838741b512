//! Which language runtime a process has, where its threads keep their task, and where tasks begin.
//!
//! Out of `/proc/PID`: the executable and the libraries that it has mapped, and for Python two words of its memory; once per
//! process, and of an executable once for all that run it, not on the way of records. What is not certain is refused with
//! the reason: a wrong offset would give wrong parents.

mod code;
mod elf;
mod go;
pub mod java;
mod python;
mod tokio;

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::procfs::Procfs;
use crate::model::task::TaskRuntime;
use elf::Elf;

/// Executables that are remembered; all are forgotten when there are more.
const REMEMBERED: usize = 1024;

/// Why the tasks of a process cannot be read, though it has a runtime of a language that could be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported(pub String);

/// `None`: it has no runtime with tasks that are known here.
type Found = Result<Option<TaskRuntime>, Unsupported>;

/// A file as it is: device, inode, length, and when it was changed, ns.
type Version = (u64, u64, u64, i64, i64);

/// Looks at processes, and remembers what was found in executables.
#[derive(Debug, Default)]
pub struct Runtimes {
    executables: HashMap<Version, Found>,
}

impl Runtimes {
    pub fn find(&mut self, proc: &Procfs, pid: u32) -> Found {
        if let Some(found) = python::find(proc, pid)? {
            return Ok(Some(found));
        }
        let path = proc.path(pid, "exe");
        let Ok(meta) = std::fs::metadata(&path) else { return Ok(None) };
        if self.executables.len() >= REMEMBERED {
            self.executables.clear();
        }
        let found = self.executables.entry(version(&meta)).or_insert_with(|| look_into(&path));
        // By the way through this process: the one that it was found by may be gone.
        found.clone().map(|found| found.map(|found| TaskRuntime { file: path, ..found }))
    }
}

fn version(meta: &Metadata) -> Version {
    (meta.dev(), meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec())
}

fn look_into(path: &Path) -> Found {
    let looked = Elf::with(path, |elf| match go::find(elf, path)? {
        Some(found) => Ok(Some(found)),
        None => tokio::find(elf, path),
    });
    // Not one that can be read.
    looked.unwrap_or(Ok(None))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{REMEMBERED, Runtimes};
    use crate::host::procfs::Procfs;

    #[test]
    fn an_executable_is_looked_into_once_until_it_changes() {
        let root = std::env::temp_dir().join(format!("seismo-runtimes-{}", std::process::id()));
        let exe = |pid: u32, text: &str| {
            let folder = root.join(pid.to_string());
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("exe"), text).unwrap();
        };
        let proc = Procfs::new(&root);
        let mut runtimes = Runtimes::default();
        exe(1, "not an executable");
        assert_eq!(runtimes.find(&proc, 1), Ok(None));
        assert_eq!(runtimes.find(&proc, 1), Ok(None));
        assert_eq!(runtimes.executables.len(), 1);
        exe(1, "another one at the same place");
        assert_eq!(runtimes.find(&proc, 1), Ok(None));
        assert_eq!(runtimes.executables.len(), 2);
        assert_eq!(runtimes.find(&proc, 2), Ok(None), "no such process");
        (3..REMEMBERED as u32 + 9).for_each(|pid| {
            exe(pid, &pid.to_string());
            assert_eq!(runtimes.find(&proc, pid), Ok(None));
        });
        assert!(runtimes.executables.len() <= REMEMBERED);
        std::fs::remove_dir_all(&root).unwrap();
    }
}
