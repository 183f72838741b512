//! Cgroup paths against a directory that looks like procfs and cgroupfs.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use super::{Cgroup, Hierarchy, INITIAL_NAMESPACE};

/// A directory that goes away with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("seismo-cgroup-{name}-{}", std::process::id()));
        fs::create_dir_all(path.join("proc/self/ns")).unwrap();
        fs::create_dir_all(path.join("v2/system.slice/nginx.service")).unwrap();
        Self(path)
    }

    fn find(&self, root: &str, namespace: &str) -> Result<Hierarchy, String> {
        let mountinfo = format!(
            "24 1 0:22 / /proc rw - proc proc rw\n35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
             41 31 0:38 {root} {}/v2 rw,relatime shared:9 - cgroup2 cgroup2 rw\n",
            self.0.display()
        );
        fs::write(self.0.join("proc/self/mountinfo"), mountinfo).unwrap();
        symlink(namespace, self.0.join("proc/self/ns/cgroup")).unwrap();
        Hierarchy::find(&self.0.join("proc"))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _best_effort = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_cgroup_is_found_by_file_system_path_and_by_path_below_the_root() {
    let scratch = Scratch::new("paths");
    let hierarchy = scratch.find("/", INITIAL_NAMESPACE).unwrap();
    let directory = scratch.0.join("v2/system.slice/nginx.service");
    let expected = Cgroup { id: fs::metadata(&directory).unwrap().ino(), level: 2 };
    for path in
        [directory.as_path(), Path::new("/system.slice/nginx.service"), Path::new("system.slice/nginx.service/")]
    {
        assert_eq!(hierarchy.locate(path), Ok(expected), "{}", path.display());
    }
    assert_eq!(hierarchy.locate(Path::new("/")).unwrap().level, 0);
}

#[test]
fn a_mount_of_a_part_counts_levels_from_the_real_root() {
    let scratch = Scratch::new("part");
    let hierarchy = scratch.find("/machine.slice/vm", INITIAL_NAMESPACE).unwrap();
    assert_eq!(hierarchy.locate(Path::new("system.slice")).unwrap().level, 3);
}

#[test]
fn what_cannot_be_told_apart_is_refused() {
    let scratch = Scratch::new("refused");
    let hierarchy = scratch.find("/", INITIAL_NAMESPACE).unwrap();
    let missing = hierarchy.locate(Path::new("/no/such")).unwrap_err();
    assert!(missing.starts_with("cgroup=/no/such: there is no such cgroup"), "{missing}");
    assert!(hierarchy.locate(Path::new("/system.slice/../x")).unwrap_err().contains("'..'"));

    let scratch = Scratch::new("namespace");
    assert!(scratch.find("/", "cgroup:[4026532000]").unwrap_err().contains("namespace of its own"));
    fs::write(scratch.0.join("proc/self/mountinfo"), "24 1 0:22 / /proc rw - proc proc rw\n").unwrap();
    assert!(Hierarchy::find(&scratch.0.join("proc")).unwrap_err().contains("no cgroup v2 hierarchy"));
}
