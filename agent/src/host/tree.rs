//! The cgroup v2 directory tree as the kernel numbers it: id of each group → its path.
//!
//! On a 64-bit kernel the id is the directory's inode, which a listing tells without opening the group; ids are not used
//! twice. A group without groups below it (two links) is not listed. Cost of a walk: one stat per group and one listing
//! of each inner one, about 3 µs and 40 µs. At most [`MAX_GROUPS`] are remembered.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::place::Place;
use crate::model::display::{self, MAX_NAME};

/// Groups that a walk remembers; about 150 bytes each.
const MAX_GROUPS: usize = 16_384;

/// Paths by cgroup id, as they were at the last walk.
#[derive(Debug)]
pub(super) struct Tree {
    mount: PathBuf,
    groups: HashMap<u64, Group>,
    truncated: u64,
}

#[derive(Debug)]
struct Group {
    /// Below the mount, beginning with a slash.
    path: Box<str>,
    /// Has no groups below it.
    leaf: bool,
}

impl Tree {
    pub fn new(mount: PathBuf) -> Self {
        Self { mount, groups: HashMap::new(), truncated: 0 }
    }

    pub fn get(&self, id: u64) -> Option<&str> {
        self.groups.get(&id).map(|group| &*group.path)
    }

    pub fn ids(&self) -> impl Iterator<Item = u64> {
        self.groups.keys().copied()
    }

    /// Paths of the groups that are workloads, sorted: containers, units, and groups that belong to neither and have none
    /// below them. A user's service manager that has units is none.
    pub fn workload_roots(&self) -> Vec<&str> {
        let is_root = |group: &&Group| {
            let place = Place::of(&group.path);
            let named = place.container_id.is_some() || place.service().is_some() || is_scope(&place);
            place.root(&group.path) == &*group.path && (named || group.leaf)
        };
        let mut roots: Vec<&str> = self.groups.values().filter(is_root).map(|group| &*group.path).collect();
        roots.sort_unstable();
        roots
    }

    /// Walks that ended at [`MAX_GROUPS`].
    pub fn truncated(&self) -> u64 {
        self.truncated
    }

    /// Directory of a group's path.
    pub fn directory(&self, path: &str) -> PathBuf {
        self.mount.join(path.trim_start_matches('/'))
    }

    /// Does the group at this path still have this id?
    pub fn holds(&self, path: &str, id: u64) -> bool {
        fs::metadata(self.directory(path)).is_ok_and(|metadata| metadata.ino() == id)
    }

    /// Takes in a group that somebody else was told of. One more than the bound is not taken.
    pub fn learn(&mut self, id: u64, path: &str) {
        if self.groups.len() < MAX_GROUPS && path.starts_with('/') {
            self.groups.insert(id, Group { path: path.into(), leaf: true });
        }
    }

    /// Looks at the whole tree again; says whether all of it was seen. A group that goes meanwhile is left out.
    pub fn walk(&mut self) -> bool {
        self.groups.clear();
        let mut below = vec![(self.mount.clone(), String::from("/"))];
        while let Some((directory, path)) = below.pop() {
            if self.groups.len() >= MAX_GROUPS {
                self.truncated += 1;
                return false;
            }
            let Ok(metadata) = fs::metadata(&directory) else { continue };
            let mut leaf = true;
            if metadata.nlink() != 2 {
                for (child, name) in children(&directory) {
                    leaf = false;
                    let slash = if path.ends_with('/') { "" } else { "/" };
                    below.push((child, format!("{path}{slash}{name}")));
                }
            }
            self.groups.insert(metadata.ino(), Group { path: path.into(), leaf });
        }
        true
    }
}

fn is_scope(place: &Place) -> bool {
    place.unit.as_deref().is_some_and(|unit| unit.ends_with(".scope"))
}

/// Groups directly below; a name may hold any byte.
fn children(directory: &Path) -> Vec<(PathBuf, String)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| (entry.path(), name_of(&entry.file_name())))
        .collect()
}

/// systemd's own escapes hold backslashes: they stay as they are unless something has to be escaped.
fn name_of(name: &std::ffi::OsStr) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    match name.to_str() {
        Some(plain) if plain.len() <= MAX_NAME && !plain.contains(char::is_control) => plain.to_owned(),
        _ => display::escaped(name.as_bytes(), MAX_NAME),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::MetadataExt as _;

    use super::Tree;

    #[test]
    fn every_group_is_found_by_its_inode_whatever_it_is_called() {
        let mount = std::env::temp_dir().join(format!("seismo-tree-{}", std::process::id()));
        let odd = OsStr::from_bytes(b"a\n\xff");
        fs::create_dir_all(mount.join("system.slice/my\\x2dapp.service")).unwrap();
        fs::create_dir_all(mount.join(odd)).unwrap();
        fs::write(mount.join("system.slice/cgroup.procs"), "").unwrap();
        let id = |path: &OsStr| fs::metadata(mount.join(path)).unwrap().ino();
        let mut tree = Tree::new(mount.clone());
        tree.walk();
        assert_eq!(tree.get(id("".as_ref())), Some("/"));
        assert_eq!(tree.get(id("system.slice".as_ref())), Some("/system.slice"));
        let unit = id("system.slice/my\\x2dapp.service".as_ref());
        assert_eq!(tree.get(unit), Some("/system.slice/my\\x2dapp.service"));
        assert_eq!(tree.get(id(odd)), Some("/a\\x0a\\xff"));
        assert_eq!(tree.groups.len(), 4);
        assert_eq!(tree.workload_roots(), ["/a\\x0a\\xff", "/system.slice/my\\x2dapp.service"]);
        assert!(tree.holds("/system.slice/my\\x2dapp.service", unit));

        fs::remove_dir(mount.join("system.slice/my\\x2dapp.service")).unwrap();
        assert!(!tree.holds("/system.slice/my\\x2dapp.service", unit));
        tree.walk();
        assert_eq!((tree.get(unit), tree.groups.len()), (None, 3));
        fs::remove_dir_all(&mount).unwrap();
    }

    #[test]
    fn workloads_are_containers_units_and_leaves() {
        let mount = std::env::temp_dir().join(format!("seismo-roots-{}", std::process::id()));
        let container = "/docker/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        let user = "/user.slice/user-1.slice/user@1.service";
        for path in ["/system.slice/a.service/inner", "/plain/leaf", "/u.slice/session-2.scope/x"] {
            fs::create_dir_all(mount.join(&path[1..])).unwrap();
        }
        for path in [format!("{container}/init"), format!("{user}/app.slice/b.service")] {
            fs::create_dir_all(mount.join(&path[1..])).unwrap();
        }
        let mut tree = Tree::new(mount.clone());
        tree.walk();
        let unit = format!("{user}/app.slice/b.service");
        let expected = [container, "/plain/leaf", "/system.slice/a.service", "/u.slice/session-2.scope", &unit];
        assert_eq!(tree.workload_roots(), expected);
        fs::remove_dir_all(&mount).unwrap();
    }
}
