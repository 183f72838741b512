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

impl Direction {
    pub const fn other(self) -> Self {
        match self {
            Self::Send => Self::Receive,
            Self::Receive => Self::Send,
        }
    }
}

/// What carries the bytes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    Tcp,
    /// Stream of a UNIX socket: no addresses; both are unspecified.
    Unix,
    Udp,
    UnixDatagram,
}

impl Transport {
    /// `network.transport`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Unix | Self::UnixDatagram => "unix",
        }
    }

    /// Each operation is a message of its own, without a place in a stream.
    pub const fn is_datagram(self) -> bool {
        matches!(self, Self::Udp | Self::UnixDatagram)
    }
}

/// Who asked whom. A role, not a position: `local` and `peer` are positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    Client,
    Server,
}

/// One end of a connection. Addresses and ports in host order, IPv4-mapped IPv6 shown as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    pub cookie: Cookie,
    pub transport: Transport,
    pub local: SocketAddr,
    pub peer: SocketAddr,
    /// UNIX: the other end, where it is known.
    pub peer_cookie: Option<Cookie>,
}

/// A byte of a stream: its sequence number and its place counted from the connection's beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamPlace {
    pub sequence: u32,
    pub position: u64,
}

impl StreamPlace {
    /// Sequence number of the stream's first byte.
    pub const fn origin(self) -> u32 {
        self.sequence.wrapping_sub(self.position as u32)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnEventKind {
    /// The handshake is over. Sequence numbers of the first bytes that this end will send and receive.
    Opened { role: Role, send_sequence: u32, receive_sequence: u32 },
    /// The socket is older than the agent. Its role, where the handshake side could be told, and the bytes that this end
    /// will send and read next.
    Adopted { role: Option<Role>, send: StreamPlace, receive: StreamPlace },
    /// The socket reached CLOSE, and its owner may still read what has come. `error` is `sk_err`, 0 for an orderly end.
    Closed { retransmits: u32, error: u32 },
    /// The socket is gone: nothing follows. `error` as above, 0 where it was told before. Sequence numbers behind the last
    /// byte sent and read, or behind the FIN there.
    Destroyed { retransmits: u32, error: u32, send_sequence: u32, receive_sequence: u32 },
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
    const AF_INET: u16 = 2;
    const AF_INET6: u16 = 10;
    let ip = if family == AF_INET6 {
        let v6 = Ipv6Addr::from(address);
        v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
    } else if family != AF_INET {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    } else {
        IpAddr::V4(Ipv4Addr::new(address[0], address[1], address[2], address[3]))
    };
    SocketAddr::new(ip, port)
}
