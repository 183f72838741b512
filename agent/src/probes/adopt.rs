//! Connections older than the agent: the sockets that are open now to one [`ConnEvent`] each, with role and places.
//!
//! Kernel program: `agent-ebpf/src/probes/adopt.rs` (5.12+). Who opened a connection is not kept by the kernel. Where both
//! ends are open on this host it follows from their sequence numbers: only who opens counts its SYN. Else whose port
//! has a listener in the same network namespace is the server. One pass over what was read, a hash entry per socket.

use std::collections::{HashMap, HashSet};

use seismo_common::adopt::SocketRecord;
use seismo_common::tcp::LISTEN;

use crate::model::connection::{
    ConnEvent, ConnEventKind, Connection, Cookie, Role, StreamPlace, Transport, socket_address,
};
use crate::model::metric::{Kind, Metric};
use crate::model::probe::{FamilySpec, Hook, ProgramSpec};

pub static ADOPTED: Metric = Metric {
    name: "seismo.adopted",
    unit: "{connection}",
    kind: Kind::Counter,
    description: "Connections older than the agent, or than their place in its scope, that it took up",
    labels: &["role"],
};
pub static ADOPT_FAILED: Metric = Metric {
    name: "seismo.adopt_failed",
    unit: "{connection}",
    kind: Kind::Counter,
    description: "Connections that could not be taken up; for a pass that failed as a whole and for processes, one each",
    labels: &["reason"],
};
pub static ADOPT_TIME: Metric = Metric {
    name: "seismo.adopt.duration",
    unit: "s",
    kind: Kind::Gauge,
    description: "How long the last pass over all open sockets took",
    labels: &[],
};

pub static FAMILY: FamilySpec = FamilySpec {
    name: "adopt",
    gives: "requests on connections that are older than the agent: their role and stream positions",
    programs: &[ProgramSpec {
        name: "adopt_files",
        hook: Hook::Iter { over: "task_file", helpers: &["bpf_sock_from_file", "bpf_get_socket_ptr_cookie"] },
        structs: &["task_struct", "socket", "sock", "net", "tcp_sock"],
        fields: &[],
        tiers: &[],
        without: None,
    }],
    tiers: &[],
    restart: &[],
    beside: &[],
    metrics: &[&ADOPTED, &ADOPT_FAILED, &ADOPT_TIME],
    samples: |_, _| {},
    workload_samples: |_, _| {},
};

/// First port that the kernel gives to who asks for any (`ip_local_port_range` as it comes).
const FIRST_EPHEMERAL: u16 = 32_768;

/// An event for each connection among the records, in the order of their times.
pub fn events(records: &[SocketRecord]) -> Vec<ConnEvent> {
    let (listeners, connections): (Vec<&SocketRecord>, Vec<_>) =
        records.iter().partition(|record| record.state == LISTEN);
    let listeners: HashSet<(u32, u16)> = listeners.iter().map(|record| (record.netns, record.local_port)).collect();
    let mut known = HashSet::new();
    // The same socket comes once for each descriptor.
    let connections: Vec<_> = connections.into_iter().filter(|record| known.insert(record.cookie)).collect();
    let ends: HashMap<_, _> = connections.iter().map(|record| ((local(record), peer(record)), *record)).collect();
    let mut events: Vec<ConnEvent> = connections
        .iter()
        .map(|record| {
            let other = ends.get(&(peer(record), local(record))).copied();
            event(record, role(record, other, &listeners))
        })
        .collect();
    events.sort_by_key(|event| event.ktime_ns);
    events
}

fn role(record: &SocketRecord, other: Option<&SocketRecord>, listeners: &HashSet<(u32, u16)>) -> Option<Role> {
    if let Some(other) = other {
        let begins = |sequence: u32, position: u64| sequence.wrapping_sub(position as u32);
        let mine = begins(record.send_sequence, record.send_position);
        let theirs = begins(other.send_sequence, other.send_position);
        let seen_there = begins(other.receive_sequence, other.receive_position);
        let seen_here = begins(record.receive_sequence, record.receive_position);
        match (seen_there.wrapping_sub(mine), seen_here.wrapping_sub(theirs)) {
            (1, 0) => return Some(Role::Client),
            (0, 1) => return Some(Role::Server),
            // Both opened at once, or one of them was caught between two loads.
            _ => {}
        }
    }
    if listeners.contains(&(record.netns, record.local_port)) {
        Some(Role::Server)
    } else if record.local_port >= FIRST_EPHEMERAL {
        Some(Role::Client)
    } else {
        // A port of its own choice and no listener: a server that listens no more, or a client that bound itself.
        None
    }
}

fn event(record: &SocketRecord, role: Option<Role>) -> ConnEvent {
    let syn = u64::from(role == Some(Role::Client));
    ConnEvent {
        connection: Connection {
            cookie: Cookie(record.cookie),
            transport: Transport::Tcp,
            local: local(record),
            peer: peer(record),
            peer_cookie: None,
        },
        ktime_ns: record.ktime_ns,
        kind: ConnEventKind::Adopted {
            role,
            send: StreamPlace { sequence: record.send_sequence, position: record.send_position.saturating_sub(syn) },
            receive: StreamPlace { sequence: record.receive_sequence, position: record.receive_position },
        },
    }
}

fn local(record: &SocketRecord) -> std::net::SocketAddr {
    socket_address(record.family, record.local_address, record.local_port)
}

fn peer(record: &SocketRecord) -> std::net::SocketAddr {
    socket_address(record.family, record.peer_address, record.peer_port)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use seismo_common::adopt::SocketRecord;
    use seismo_common::tcp::{ESTABLISHED, LISTEN};

    use super::{ConnEvent, ConnEventKind, Role, events};

    /// A socket of namespace 1 on 127.0.0.1.
    fn socket(cookie: u64, state: u8, local_port: u16, peer_port: u16) -> SocketRecord {
        let mut address = [0; 16];
        address[..4].copy_from_slice(&[127, 0, 0, 1]);
        SocketRecord {
            cookie,
            ktime_ns: cookie,
            send_position: 0,
            receive_position: 0,
            send_sequence: 0,
            receive_sequence: 0,
            tgid: 1,
            netns: 1,
            state,
            reserved: 0,
            family: 2,
            local_port,
            peer_port,
            local_address: address,
            peer_address: address,
        }
    }

    /// Both ends of a connection whose client wrote 1000 bytes and read 50.
    fn pair(client_port: u16, server_port: u16) -> [SocketRecord; 2] {
        let (client_first, server_first) = (u32::MAX - 499, 77);
        let mut client = socket(1, ESTABLISHED, client_port, server_port);
        (client.send_sequence, client.send_position) = (client_first.wrapping_add(1000), 1001);
        (client.receive_sequence, client.receive_position) = (server_first + 50, 50);
        let mut server = socket(2, ESTABLISHED, server_port, client_port);
        (server.send_sequence, server.send_position) = (server_first + 50, 50);
        (server.receive_sequence, server.receive_position) = (client_first.wrapping_add(1000), 1000);
        [client, server]
    }

    fn adopted(event: &ConnEvent) -> (Option<Role>, u64, u64) {
        let ConnEventKind::Adopted { role, send, receive } = event.kind else { panic!("{event:?}") };
        (role, send.position, receive.position)
    }

    #[test]
    fn both_ends_of_a_connection_count_the_same_bytes_and_know_their_roles() {
        // No listener any more, and ports that say nothing.
        let events = events(&pair(9000, 8000));
        let found: Vec<_> = events.iter().map(adopted).collect();
        assert_eq!(found, [(Some(Role::Client), 1000, 50), (Some(Role::Server), 50, 1000)]);
    }

    #[test]
    fn alone_the_end_with_a_listener_is_the_server() {
        let [client, server] = pair(40_000, 8000);
        let mut listener = socket(0, LISTEN, 8000, 0);
        let role = |records: &[SocketRecord]| adopted(&events(records)[0]).0;
        assert_eq!(role(&[server, listener]), Some(Role::Server));
        assert_eq!(role(&[client, listener]), Some(Role::Client));
        // In another namespace the same port says nothing.
        listener.netns = 2;
        assert_eq!(role(&[server, listener]), None);
    }

    #[test]
    fn a_socket_with_several_descriptors_is_adopted_once_and_listeners_never() {
        let [client, server] = pair(40_000, 8000);
        let listener = socket(0, LISTEN, 8000, 0);
        let cookies: Vec<u64> = events(&[server, listener, client, server, listener, client])
            .iter()
            .map(|event| event.connection.cookie.0)
            .collect();
        assert_eq!(cookies, [1, 2]);
    }
}
