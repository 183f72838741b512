//! Socket payload: records to [`PayloadChunk`]; bytes by transport and direction for the whole host to metrics.
//!
//! Kernel programs: `agent-ebpf/src/probes/payload.rs` (tier L0).

use std::borrow::Cow;

use bytes::Bytes;
use seismo_common::counter::{
    OTHER_RECEIVED_BYTES, OTHER_SENT_BYTES, PAYLOAD_OUT_OF_SCOPE, PAYLOAD_PEEKS, TCP_RECEIVED_BYTES, TCP_SENT_BYTES,
    UDP_RECEIVED_BYTES, UDP_SENT_BYTES, UNIX_RECEIVED_BYTES, UNIX_SENT_BYTES,
};
use seismo_common::payload::{AF_UNIX, PayloadRecord, SEND, UDP, UNIX_DATAGRAM, UNIX_STREAM};

use crate::model::connection::{Connection, Cookie, Direction, Transport, socket_address};
use crate::model::metric::{Kind, Metric, Sample, Value};
use crate::model::payload::PayloadChunk;
use crate::model::probe::{FamilySpec, Hook, KernelCounts, ProgramSpec};

static SOCKET_IO: Metric = Metric {
    name: "seismo.socket.io",
    unit: "By",
    kind: Kind::Counter,
    description: "Bytes moved through sockets on this host",
    labels: &["network.io.direction", "network.transport"],
};
static SKIPPED: Metric = Metric {
    name: "seismo.payload.skipped",
    unit: "{operation}",
    kind: Kind::Counter,
    description: "Socket operations that gave no record: out of scope (nothing was copied), or peeks (nothing moved)",
    labels: &["reason"],
};

/// A stamp older than this is of an earlier send.
const MAX_SEND_NS: u32 = 1_000_000_000;

const STRUCTS: &[&str] = &["task_struct", "pt_regs", "sock", "net", "tcp_sock"];

pub static FAMILY: FamilySpec = FamilySpec {
    name: "payload",
    gives: "request spans: bytes, lengths and stream positions of sockets in scope (tier L0)",
    programs: &[
        ProgramSpec {
            name: "payload_send",
            hook: Hook::TpBtf("sock_send_length"),
            structs: STRUCTS,
            fields: &[],
            without: None,
        },
        ProgramSpec {
            name: "payload_receive",
            hook: Hook::TpBtf("sock_recv_length"),
            structs: STRUCTS,
            fields: &[],
            without: None,
        },
    ],
    metrics: &[&SOCKET_IO, &SKIPPED],
    samples,
};

/// A record with its bytes as a chunk.
pub fn chunk(record: &PayloadRecord, data: Bytes) -> PayloadChunk {
    PayloadChunk {
        connection: Connection {
            cookie: Cookie(record.cookie),
            transport: match record.transport {
                UNIX_STREAM => Transport::UnixStream,
                UDP => Transport::Udp,
                UNIX_DATAGRAM => Transport::UnixDatagram,
                _ => Transport::Tcp,
            },
            local: socket_address(record.family, record.local_address, record.local_port),
            peer: socket_address(record.family, record.peer_address, record.peer_port),
            peer_cookie: peer_cookie(record),
        },
        direction: if record.direction == SEND { Direction::Send } else { Direction::Receive },
        ktime_ns: record.header.ktime_ns,
        began_ns: began_ns(record),
        tgid: record.tgid,
        tid: record.tid,
        position: record.position,
        sequence: record.sequence,
        other_sequence: record.other_sequence,
        length: record.length,
        skipped: record.skipped,
        data,
    }
}

/// Time of transmission, where it is known and can be that of this operation.
fn began_ns(record: &PayloadRecord) -> u64 {
    let (done, before) = (record.header.ktime_ns, record.sent_before_ns);
    if before < MAX_SEND_NS { done.saturating_sub(u64::from(before)) } else { done }
}

/// UNIX sockets have no address: the record names the other end by its cookie.
fn peer_cookie(record: &PayloadRecord) -> Option<Cookie> {
    let [a, b, c, d, e, f, g, h, ..] = record.peer_address;
    let cookie = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
    (record.family == AF_UNIX && cookie != 0).then_some(Cookie(cookie))
}

fn samples(kernel: &dyn KernelCounts, out: &mut Vec<Sample>) {
    let Some(lanes) = kernel.lanes("COUNTERS") else { return };
    for (direction, transport, lane) in [
        ("transmit", "tcp", TCP_SENT_BYTES),
        ("receive", "tcp", TCP_RECEIVED_BYTES),
        ("transmit", "udp", UDP_SENT_BYTES),
        ("receive", "udp", UDP_RECEIVED_BYTES),
        ("transmit", "unix", UNIX_SENT_BYTES),
        ("receive", "unix", UNIX_RECEIVED_BYTES),
        ("transmit", "other", OTHER_SENT_BYTES),
        ("receive", "other", OTHER_RECEIVED_BYTES),
    ] {
        let labels = vec![Cow::Borrowed(direction), Cow::Borrowed(transport)];
        out.push(Sample { metric: &SOCKET_IO, labels, value: Value::Count(lanes[lane]) });
    }
    for (reason, lane) in [("out_of_scope", PAYLOAD_OUT_OF_SCOPE), ("peek", PAYLOAD_PEEKS)] {
        out.push(Sample { metric: &SKIPPED, labels: vec![Cow::Borrowed(reason)], value: Value::Count(lanes[lane]) });
    }
}
