//! Which TCP ports a process listens on: its socket inodes (`fd/*`) found among the listening ones (`net/tcp`, `net/tcp6`).
//!
//! Only asked when the configuration names services by port, once for each process that is named.
//! At most 4096 descriptors are looked at.

use std::collections::HashSet;
use std::fs;

use super::procfs::Procfs;

const MAX_DESCRIPTORS: usize = 4096;
/// `TCP_LISTEN` as `/proc/net/tcp` spells it.
const LISTEN: &str = "0A";

pub(super) fn listening(proc: &Procfs, pid: u32) -> HashSet<u16> {
    let Ok(descriptors) = fs::read_dir(proc.path(pid, "fd")) else { return HashSet::new() };
    let sockets: HashSet<u64> = descriptors
        .flatten()
        .take(MAX_DESCRIPTORS)
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        })
        .collect();
    let tables = ["net/tcp", "net/tcp6"].iter().filter_map(|file| fs::read_to_string(proc.path(pid, file)).ok());
    tables.flat_map(|table| table.lines().filter_map(|line| port_of(line, &sockets)).collect::<Vec<_>>()).collect()
}

/// `sl local remote state … inode`: the port when the line is a listener among `sockets`.
fn port_of(line: &str, sockets: &HashSet<u64>) -> Option<u16> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    let (_, port) = local.rsplit_once(':')?;
    (*state == LISTEN && sockets.contains(&inode.parse().ok()?)).then(|| u16::from_str_radix(port, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Procfs, listening};

    #[test]
    fn our_own_listeners_are_found_and_connections_are_not() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let ports = listening(&Procfs::new("/proc"), std::process::id());
        assert!(ports.contains(&port));
        assert!(!ports.contains(&client.local_addr().unwrap().port()));
        assert!(listening(&Procfs::new("/nonexistent"), 1).is_empty());
    }
}
