//! TCP: state-change records of tracked connections to [`ConnEvent`]; host-wide counts to metrics.
//!
//! Kernel programs: `agent-ebpf/src/probes/tcp.rs`.

use std::borrow::Cow;

use seismo_common::counter::{
    TCP_ACTIVE_OPENS, TCP_CLOSES, TCP_CONNECT_OTHER, TCP_CONNECT_REFUSED, TCP_CONNECT_TIMEOUT, TCP_PASSIVE_OPENS,
    TCP_RESETS_RECEIVED, TCP_RESETS_SENT, TCP_RETRANSMITS,
};
use seismo_common::tcp::{CLOSE, DESTROYED, ESTABLISHED, SYN_RECV, SYN_SENT, TcpStateRecord};

use crate::model::connection::{ConnEvent, ConnEventKind, Connection, Cookie, Role, Transport, socket_address};
use crate::model::metric::{Kind, Metric, Sample, Value};
use crate::model::probe::{FamilySpec, Hook, KernelCounts, ProgramSpec};

static RETRANSMITS: Metric = Metric {
    name: "seismo.tcp.retransmits",
    unit: "{segment}",
    kind: Kind::Counter,
    description: "TCP segments retransmitted on this host",
    labels: &[],
};
static RESETS: Metric = Metric {
    name: "seismo.tcp.resets",
    unit: "{reset}",
    kind: Kind::Counter,
    description: "TCP resets on this host",
    labels: &["network.io.direction"],
};
static FAILED: Metric = Metric {
    name: "seismo.tcp.failed_connections",
    unit: "{connection}",
    kind: Kind::Counter,
    description: "TCP connections that this host tried to open and could not",
    labels: &["reason"],
};
static OPENED: Metric = Metric {
    name: "seismo.tcp.opened_connections",
    unit: "{connection}",
    kind: Kind::Counter,
    description: "TCP connections established on this host, by the side that it took",
    labels: &["role"],
};
static CLOSED: Metric = Metric {
    name: "seismo.tcp.closed_connections",
    unit: "{connection}",
    kind: Kind::Counter,
    description: "Established TCP connections that ended on this host",
    labels: &[],
};

pub static FAMILY: FamilySpec = FamilySpec {
    name: "tcp",
    gives: "connections opened, closed and failed; retransmits and resets",
    programs: &[
        ProgramSpec {
            name: "tcp_set_state",
            hook: Hook::TpBtf("inet_sock_set_state"),
            structs: &["task_struct", "sock", "net", "tcp_sock"],
            fields: &[],
            without: None,
            tiers: &[],
        },
        ProgramSpec {
            name: "tcp_destroy",
            hook: Hook::TpBtf("tcp_destroy_sock"),
            structs: &["sock", "tcp_sock"],
            fields: &[],
            without: Some("a connection that its peer reset is forgotten late"),
            tiers: &[],
        },
        ProgramSpec {
            name: "tcp_retransmit",
            hook: Hook::TpBtf("tcp_retransmit_skb"),
            structs: &[],
            fields: &[],
            without: Some("retransmits are not counted"),
            tiers: &[],
        },
        ProgramSpec {
            name: "tcp_reset_sent",
            hook: Hook::TpBtf("tcp_send_reset"),
            structs: &[],
            fields: &[],
            without: Some("resets sent are not counted"),
            tiers: &[],
        },
        ProgramSpec {
            name: "tcp_reset_received",
            hook: Hook::TpBtf("tcp_receive_reset"),
            structs: &[],
            fields: &[],
            without: Some("resets received are not counted"),
            tiers: &[],
        },
    ],
    tiers: &[],
    restart: &[],
    beside: &[],
    metrics: &[&RETRANSMITS, &RESETS, &FAILED, &OPENED, &CLOSED],
    samples,
    workload_samples: |_, _| {},
};

/// A state change as an event of the connection's life; `None` for one that begins or ends nothing.
pub fn event(record: &TcpStateRecord) -> Option<ConnEvent> {
    let kind = match (record.old_state, record.new_state) {
        (SYN_SENT, ESTABLISHED) => opened(Role::Client, record),
        (SYN_RECV, ESTABLISHED) => opened(Role::Server, record),
        (_, CLOSE) => ConnEventKind::Closed { retransmits: record.retransmits, error: record.error },
        (_, DESTROYED) => ConnEventKind::Destroyed {
            retransmits: record.retransmits,
            error: record.error,
            send_sequence: record.send_sequence,
            receive_sequence: record.receive_sequence,
        },
        _ => return None,
    };
    Some(ConnEvent {
        connection: Connection {
            cookie: Cookie(record.cookie),
            transport: Transport::Tcp,
            local: socket_address(record.family, record.local_address, record.local_port),
            peer: socket_address(record.family, record.peer_address, record.peer_port),
            peer_cookie: None,
        },
        ktime_ns: record.header.ktime_ns,
        kind,
    })
}

fn opened(role: Role, record: &TcpStateRecord) -> ConnEventKind {
    let (send_sequence, receive_sequence) = (record.send_sequence, record.receive_sequence);
    ConnEventKind::Opened { role, send_sequence, receive_sequence }
}

fn samples(kernel: &dyn KernelCounts, out: &mut Vec<Sample>) {
    let Some(lanes) = kernel.lanes("COUNTERS") else { return };
    let mut push = |metric: &'static Metric, label: Option<&'static str>, lane: usize| {
        let labels = label.map(Cow::Borrowed).into_iter().collect();
        out.push(Sample { metric, labels, value: Value::Count(lanes[lane]) });
    };
    push(&RETRANSMITS, None, TCP_RETRANSMITS);
    push(&RESETS, Some("transmit"), TCP_RESETS_SENT);
    push(&RESETS, Some("receive"), TCP_RESETS_RECEIVED);
    push(&FAILED, Some("refused"), TCP_CONNECT_REFUSED);
    push(&FAILED, Some("timeout"), TCP_CONNECT_TIMEOUT);
    push(&FAILED, Some("other"), TCP_CONNECT_OTHER);
    push(&OPENED, Some("client"), TCP_ACTIVE_OPENS);
    push(&OPENED, Some("server"), TCP_PASSIVE_OPENS);
    push(&CLOSED, None, TCP_CLOSES);
}
