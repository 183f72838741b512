//! Cgroup v2 paths to what the kernel compares: the cgroup's id and its level in the hierarchy.
//!
//! On a 64-bit kernel the id is the inode number of the directory. The level counts from the real root, which
//! a cgroup namespace hides: there we refuse instead of matching the wrong ancestor.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

/// Inode of the first cgroup namespace (`PROC_CGROUP_INIT_INO`).
const INITIAL_NAMESPACE: &str = "cgroup:[4026531835]";

/// Cgroups looked at for their processes.
const MAX_GROUPS: usize = 65_536;

/// A cgroup as the scope map names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cgroup {
    pub id: u64,
    /// 0 is the root.
    pub level: u32,
}

/// The mounted cgroup v2 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    mount: PathBuf,
    /// Which part of the hierarchy the mount shows; "/" for all of it.
    root: PathBuf,
}

impl Hierarchy {
    /// The hierarchy, where levels count from the real root.
    pub fn find(proc_root: &Path) -> Result<Self, String> {
        let hierarchy = Self::mounted(proc_root)?;
        match fs::read_link(proc_root.join("self/ns/cgroup")) {
            Ok(namespace) if namespace.as_os_str() != INITIAL_NAMESPACE => {
                Err("the agent runs in a cgroup namespace of its own and cannot tell levels: give it the host's".into())
            }
            _ => Ok(hierarchy),
        }
    }

    /// Finds the mount in `PROC/self/mountinfo`; it may be `/sys/fs/cgroup/unified` beside version 1.
    pub fn mounted(proc_root: &Path) -> Result<Self, String> {
        let path = proc_root.join("self/mountinfo");
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let found = text.lines().find_map(|line| {
            let (mount, filesystem) = line.split_once(" - ")?;
            let mut fields = mount.split(' ').skip(3);
            let (root, point) = (fields.next()?, fields.next()?);
            filesystem.starts_with("cgroup2 ").then(|| Self { mount: unescape(point), root: unescape(root) })
        });
        found.ok_or_else(|| "no cgroup v2 hierarchy is mounted (mount -t cgroup2 none /sys/fs/cgroup)".to_owned())
    }

    /// Where the hierarchy of a version 1 controller is mounted.
    pub fn version_one(proc_root: &Path, controller: &str) -> Option<PathBuf> {
        let text = fs::read_to_string(proc_root.join("self/mountinfo")).ok()?;
        text.lines().find_map(|line| {
            let (mount, filesystem) = line.split_once(" - ")?;
            let mut words = filesystem.split(' ');
            let (kind, options) = (words.next()?, words.nth(1)?);
            let holds = kind == "cgroup" && options.split(',').any(|option| option == controller);
            holds.then(|| mount.split(' ').nth(4).map(unescape)).flatten()
        })
    }

    /// Where the hierarchy is mounted.
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// The cgroup at a path of the file system or below the v2 root.
    pub fn locate(&self, path: &Path) -> Result<Cgroup, String> {
        let wrong = |what: &str| format!("cgroup={}: {what}", path.display());
        if path.components().any(|part| part == Component::ParentDir) {
            return Err(wrong("'..' is not allowed"));
        }
        let below = match path.strip_prefix(&self.mount) {
            Ok(below) => below,
            Err(_) if path.starts_with("/sys/fs/cgroup") && path.exists() => {
                return Err(wrong("not in the cgroup v2 hierarchy (version 1 cannot be used for a scope)"));
            }
            Err(_) => path.strip_prefix("/").unwrap_or(path),
        };
        let directory = self.mount.join(below);
        let metadata = fs::metadata(&directory)
            .map_err(|_| wrong(&format!("there is no such cgroup ({} was tried)", directory.display())))?;
        if !metadata.is_dir() {
            return Err(wrong("not a cgroup (not a directory)"));
        }
        Ok(Cgroup { id: metadata.ino(), level: depth(&self.root) + depth(below) })
    }

    /// The directory of a cgroup that [`Hierarchy::locate`] found.
    pub fn directory(&self, path: &Path) -> PathBuf {
        self.mount.join(path.strip_prefix(&self.mount).unwrap_or_else(|_| path.strip_prefix("/").unwrap_or(path)))
    }
}

/// Processes in a cgroup and in those below it now. What is gone or cannot be read has none; at most [`MAX_GROUPS`]
/// directories are looked at.
pub fn members(directory: &Path) -> Vec<u32> {
    let mut pids = Vec::new();
    let mut groups = vec![directory.to_owned()];
    for _ in 0..MAX_GROUPS {
        let Some(group) = groups.pop() else { break };
        let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        // 0: a process of a pid namespace that we cannot see.
        pids.extend(text.lines().filter_map(|line| line.parse().ok()).filter(|pid: &u32| *pid != 0));
        let below = fs::read_dir(&group).into_iter().flatten().flatten();
        groups
            .extend(below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()));
    }
    pids
}

fn depth(path: &Path) -> u32 {
    path.components().filter(|part| matches!(part, Component::Normal(_))).count() as u32
}

/// mountinfo writes space, tab, line feed and backslash as three octal digits.
fn unescape(field: &str) -> PathBuf {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(field.to_owned(), |text, (from, to)| text.replace(from, to)).into()
}

#[cfg(test)]
mod tests;
