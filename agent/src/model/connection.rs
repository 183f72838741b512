//! A tracked connection as one end of it sees it, and the events of its life.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Names a socket for the life of the boot (`sock_gen_cookie`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cookie(pub u64);

/// What this end did with the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    Send,
    Receive,
}

/// Who asked whom. A role, not a position: `local` and `peer` are positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    Client,
    Server,
}

/// One end of a TCP connection. Addresses and ports in host order, IPv4-mapped IPv6 shown as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    pub cookie: Cookie,
    pub local: SocketAddr,
    pub peer: SocketAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnEventKind {
    /// The handshake side is known.
    Opened { role: Role },
    /// The socket reached CLOSE: nothing follows. `error` is `sk_err`, 0 for an orderly end.
    Closed { retransmits: u32, error: u32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnEvent {
    pub connection: Connection,
    /// `CLOCK_MONOTONIC`, ns.
    pub ktime_ns: u64,
    pub kind: ConnEventKind,
}

/// Address and port from a record: `family` as in `socket.h`, IPv4 in the first four bytes; IPv4-mapped IPv6 and
/// families that are neither become what they mean or the unspecified address.
pub fn socket_address(family: u16, address: [u8; 16], port: u16) -> SocketAddr {
    const AF_INET6: u16 = 10;
    let ip = if family == AF_INET6 {
        let v6 = Ipv6Addr::from(address);
        v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
    } else {
        IpAddr::V4(Ipv4Addr::new(address[0], address[1], address[2], address[3]))
    };
    SocketAddr::new(ip, port)
}
