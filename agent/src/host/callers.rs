//! Which user of this host is at the other end of a TCP connection: its socket's owner in `net/tcp` and `net/tcp6`.
//!
//! One read of each table, a few milliseconds on a host with many sockets; for requests that are rare. A peer on another
//! host, or in another network namespace, has no line there and so no user.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// Owner of the socket whose own address is `peer` and whose other end is `local`; `net` is a process' `net` folder.
pub fn user(net: &Path, peer: SocketAddr, local: SocketAddr) -> Option<u32> {
    let (peer, local) = (spelled(peer), spelled(local));
    ["tcp", "tcp6"].iter().find_map(|table| {
        let text = fs::read_to_string(net.join(table)).ok()?;
        text.lines().find_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (own, other) = (fields.next()?, fields.next()?);
            // state, queues, timer, retransmits, uid
            let owner = fields.nth(4)?;
            (peer.iter().any(|peer| peer == own) && local.iter().any(|local| local == other))
                .then(|| owner.parse().ok())?
        })
    })
}

/// Effective user of a process by its folder.
pub fn own_user(process: &Path) -> Option<u32> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().nth(1)?.parse().ok())
}

/// As the tables write an address: words of the machine's byte order. An IPv4 address may stand in either table.
fn spelled(address: SocketAddr) -> Vec<String> {
    let port = address.port();
    let words = |octets: &[u8]| {
        octets
            .chunks_exact(4)
            .map(|word| format!("{:08X}", u32::from_ne_bytes([word[0], word[1], word[2], word[3]])))
            .collect::<String>()
    };
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => {
            vec![
                format!("{}:{port:04X}", words(&ip.octets())),
                format!("{}:{port:04X}", words(&ip.to_ipv6_mapped().octets())),
            ]
        }
        IpAddr::V6(ip) => vec![format!("{}:{port:04X}", words(&ip.octets()))],
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::fs::MetadataExt as _;
    use std::path::Path;

    use super::{own_user, user};

    #[test]
    fn the_owner_of_a_connection_on_this_host_is_found_whatever_the_family() {
        let net = Path::new("/proc/self/net");
        let me = std::fs::metadata("/proc/self").unwrap().uid();
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, peer) = listener.accept().unwrap();
            assert_eq!(user(net, peer, server.local_addr().unwrap()), Some(me), "{address}");
            drop(client);
        }
        assert_eq!(own_user(Path::new("/proc/self")), Some(me));
    }

    #[test]
    fn a_peer_that_is_not_on_this_host_has_no_user() {
        let peer = "192.0.2.1:4000".parse().unwrap();
        assert_eq!(user(Path::new("/proc/self/net"), peer, "127.0.0.1:9464".parse().unwrap()), None);
        assert_eq!(user(Path::new("/nonexistent"), peer, peer), None);
    }
}
