//! Network namespaces: the inode number by which the kernel programs know one.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Inode of a namespace file (`/proc/PID/ns/net`, `/run/netns/NAME`).
pub fn inode(path: &Path) -> Result<u32, String> {
    let shown = path.display();
    let metadata = fs::metadata(path).map_err(|error| format!("netns={shown}: {error}"))?;
    if !metadata.is_file() {
        return Err(format!("netns={shown}: not a namespace file such as /run/netns/NAME or /proc/PID/ns/net"));
    }
    u32::try_from(metadata.ino()).map_err(|_| format!("netns={shown}: a plain file, not a network namespace"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    #[test]
    fn our_own_namespace_has_the_inode_that_its_link_names() {
        let link = std::fs::read_link("/proc/self/ns/net").unwrap();
        let inode = super::inode(Path::new("/proc/self/ns/net")).unwrap();
        assert_eq!(link.to_str().unwrap(), format!("net:[{inode}]"));
    }

    #[test]
    fn a_path_that_is_no_namespace_is_refused() {
        let missing = super::inode(Path::new("/nonexistent/ns")).unwrap_err();
        assert!(missing.starts_with("netns=/nonexistent/ns: No such file"), "{missing}");
        let directory = super::inode(Path::new("/proc")).unwrap_err();
        assert!(directory.contains("not a namespace file"), "{directory}");
    }
}
