//! Socket payload: records to [`PayloadChunk`]; bytes by transport, direction and workload to metrics.
//!
//! Kernel programs: `agent-ebpf/src/probes/payload*.rs`, one file per tier.

use std::borrow::Cow;

use bytes::Bytes;
use seismo_common::counter::{
    PAYLOAD_CAPTURED_BYTES, PAYLOAD_CUT_BUDGET_BYTES, PAYLOAD_CUT_COMPAT_BYTES, PAYLOAD_CUT_FAULT_BYTES,
    PAYLOAD_CUT_IOVECS_BYTES, PAYLOAD_CUT_LIMIT_BYTES, PAYLOAD_CUT_NO_BUFFER_BYTES, PAYLOAD_CUT_SKIP_BYTES,
    PAYLOAD_DROPPED_BYTES, PAYLOAD_MESSAGES_UNSEEN, PAYLOAD_OUT_OF_SCOPE, PAYLOAD_PEEKS,
};
use seismo_common::payload::{AF_UNIX, PayloadRecord, SEND, UDP, UNIX_DATAGRAM, UNIX_STREAM};
use seismo_common::workload::{
    OFF_CPU, OTHER_RECEIVED_BYTES, OTHER_SENT_BYTES, TCP_RECEIVED_BYTES, TCP_SENT_BYTES, UDP_RECEIVED_BYTES,
    UDP_SENT_BYTES, UNIX_RECEIVED_BYTES, UNIX_SENT_BYTES,
};

use crate::model::connection::{Connection, Cookie, Direction, Transport, socket_address};
use crate::model::metric::{Kind, Metric, Sample, Value};
use crate::model::payload::{Moment, PayloadChunk};
use crate::model::probe::{FamilySpec, Hook, KernelCounts, ProgramSpec, Restart, TierSpec, TierTraits};
use crate::model::thread::{RUNQUEUE, STATES, ThreadAccount, UNKNOWN};
use crate::semconv::{NETWORK_IO_DIRECTION, NETWORK_TRANSPORT};
use crate::workload_labels;

static SOCKET_IO: Metric = Metric {
    name: "seismo.socket.io",
    unit: "By",
    kind: Kind::Counter,
    description: "Bytes that threads moved through sockets",
    labels: workload_labels!(NETWORK_IO_DIRECTION, NETWORK_TRANSPORT),
};
static SKIPPED: Metric = Metric {
    name: "seismo.payload.skipped",
    unit: "{operation}",
    kind: Kind::Counter,
    description: "Socket operations that gave no record: out of scope (nothing was copied), peeks (nothing moved), messages beyond the 64th of one call",
    labels: &["reason"],
};

static CAPTURE: Metric = Metric {
    name: "seismo.payload.capture",
    unit: "By",
    kind: Kind::Counter,
    description: "Bytes of recorded operations: captured, or why not (limit, no_buffer, fault, iovecs, compat, skip, budget; dropped: the record was lost)",
    labels: &["outcome"],
};

/// A stamp older than this is of an earlier send.
const MAX_SEND_NS: u32 = 1_000_000_000;

const STRUCTS: &[&str] = &["task_struct", "pt_regs", "sock", "net", "tcp_sock"];
/// Of what notes a send's iterator or an io_uring request.
const LOCKED: &[&str] = &["task_struct", "pt_regs", "sock", "net", "tcp_sock", "msghdr", "iov_iter"];
const REQUESTS: &[&str] =
    &["io_kiocb", "io_sr_msg", "io_async_msghdr", "io_async_rw", "iov_iter", "file", "inode", "socket"];
/// Of the walk through a file table.
const WALK: &[&str] =
    &["task_struct", "pt_regs", "sock", "net", "tcp_sock", "files_struct", "fdtable", "file", "inode", "socket"];
const URING: Option<&str> = Some("bytes that io_uring moves are counted, not captured");

/// Notes sends that begin; of use only where something is in scope.
pub const LOCKED_SENDS: &str = "payload_locked";

const fn tracepoint(name: &'static str, place: &'static str, tiers: &'static [&'static str]) -> ProgramSpec {
    ProgramSpec { name, hook: Hook::TpBtf(place), structs: STRUCTS, fields: &[], without: None, tiers }
}

const fn request(name: &'static str, place: &'static str) -> ProgramSpec {
    ProgramSpec { structs: REQUESTS, without: URING, ..tracepoint(name, place, &["l0a"]) }
}

const fn end(name: &'static str, function: &'static str, without: Option<&'static str>) -> ProgramSpec {
    ProgramSpec { hook: Hook::FExit(function), structs: STRUCTS, without, ..tracepoint(name, function, &["l1"]) }
}

pub static FAMILY: FamilySpec = FamilySpec {
    name: "payload",
    gives: "request spans: bytes, lengths and stream positions of sockets in scope",
    programs: &[
        tracepoint("payload_send", "sock_send_length", &["l0a", "l0"]),
        tracepoint("payload_receive", "sock_recv_length", &["l0a", "l0"]),
        ProgramSpec { structs: LOCKED, ..tracepoint(LOCKED_SENDS, "tcp_sendmsg_locked", &["l0a"]) },
        request("payload_submit", "io_uring_submit_req"),
        request("payload_file_get", "io_uring_file_get"),
        request("payload_poll_arm", "io_uring_poll_arm"),
        request("payload_async", "io_uring_queue_async_work"),
        end("payload_tcp_send", "tcp_sendmsg", None),
        end("payload_tcp_receive", "tcp_recvmsg", None),
        end("payload_tcp_page", "tcp_sendpage", Some("sendfile is not seen (before 6.5)")),
        end("payload_tcp_splice", "tcp_splice_read", Some("splice out of a socket is not seen")),
        end("payload_udp_send", "udp_sendmsg", Some("datagrams are not seen")),
        end("payload_udp_receive", "udp_recvmsg", Some("datagrams are not seen")),
        end("payload_udp6_send", "udpv6_sendmsg", Some("IPv6 datagrams are not seen")),
        end("payload_udp6_receive", "udpv6_recvmsg", Some("IPv6 datagrams are not seen")),
        end("payload_unix_send", "unix_stream_sendmsg", Some("UNIX streams are not seen")),
        end("payload_unix_receive", "unix_stream_recvmsg", Some("UNIX streams are not seen")),
        end("payload_unix_dgram_send", "unix_dgram_sendmsg", Some("UNIX datagrams are not seen")),
        end("payload_unix_dgram_receive", "unix_dgram_recvmsg", Some("UNIX datagrams are not seen")),
        ProgramSpec { structs: WALK, ..tracepoint("payload_syscall", "sys_exit", &["l2"]) },
    ],
    tiers: &[
        TierSpec {
            name: "l0a",
            gives: "every send and receive where it happens; io_uring with its bytes; exact order of sends",
            helpers: &["bpf_task_pt_regs", "bpf_get_current_task_btf", "bpf_get_socket_ptr_cookie"],
            traits: TierTraits { cookies: true, iterators: true, scratches: 3, lanes: true },
        },
        TierSpec {
            name: "l0",
            gives: "every send and receive where it happens; io_uring and sendmmsg without their bytes",
            helpers: &["bpf_task_pt_regs", "bpf_get_current_task_btf", "bpf_get_socket_ptr_cookie"],
            traits: TierTraits { cookies: true, iterators: false, scratches: 3, lanes: true },
        },
        TierSpec {
            name: "l1",
            gives: "every send and receive at the end of the kernel's function; io_uring and sendmmsg without their bytes",
            helpers: &["bpf_task_pt_regs", "bpf_get_current_task_btf", "bpf_get_socket_ptr_cookie"],
            traits: TierTraits { cookies: true, iterators: false, scratches: 12, lanes: false },
        },
        TierSpec {
            name: "l2",
            gives: "system calls that send and receive, at their end; not io_uring",
            helpers: &[],
            traits: TierTraits { cookies: false, iterators: false, scratches: 1, lanes: false },
        },
    ],
    restart: &[
        Restart::Clear("SEND_STARTS"),
        Restart::Clear("REQUESTS"),
        Restart::Clear("THREAD_REQUESTS"),
        Restart::Clear("UNIX_STREAMS"),
    ],
    beside: &[],
    metrics: &[&SOCKET_IO, &SKIPPED, &CAPTURE],
    samples,
    workload_samples,
};

/// A record with its bytes as a chunk.
pub fn chunk(record: &PayloadRecord, data: Bytes) -> PayloadChunk {
    PayloadChunk {
        connection: Connection {
            cookie: Cookie(record.cookie),
            transport: match record.transport {
                UNIX_STREAM => Transport::Unix,
                UDP => Transport::Udp,
                UNIX_DATAGRAM => Transport::UnixDatagram,
                _ => Transport::Tcp,
            },
            local: socket_address(record.family, record.local_address, record.local_port),
            peer: socket_address(record.family, record.peer_address, record.peer_port),
            peer_cookie: peer_cookie(record),
        },
        direction: if record.direction == SEND { Direction::Send } else { Direction::Receive },
        moment: moment(record),
        position: record.position,
        sequence: record.sequence,
        other_sequence: record.other_sequence,
        length: record.length,
        skipped: record.skipped,
        retransmits: record.retransmits,
        data,
    }
}

fn moment(record: &PayloadRecord) -> Moment {
    let (done_ns, before_ns) = (record.header.ktime_ns, record.moved_before_ns);
    // Of a send, time of transmission, where it is known and can be that of this operation.
    let sent = record.direction == SEND && before_ns < MAX_SEND_NS;
    Moment {
        ktime_ns: done_ns,
        began_ns: if sent { done_ns.saturating_sub(u64::from(before_ns)) } else { done_ns },
        tgid: record.tgid,
        tid: record.tid,
        task: None,
        wake: None,
        account: account(record),
        queued_ns: (record.direction != SEND && before_ns != u32::MAX).then_some(u64::from(before_ns)),
    }
}

fn account(record: &PayloadRecord) -> Option<ThreadAccount> {
    let mut waits_ns = [0; STATES.len()];
    let [runqueue_ns, off_cpu_ns @ ..] = record.account;
    waits_ns[RUNQUEUE] = runqueue_ns;
    for (reason, ns) in OFF_CPU.into_iter().zip(off_cpu_ns) {
        let state = STATES.iter().position(|state| *state == reason).unwrap_or(UNKNOWN);
        waits_ns[state] += ns;
    }
    (record.account_epoch != 0).then_some(ThreadAccount { epoch: record.account_epoch, waits_ns })
}

/// UNIX sockets have no address: the record names the other end by its cookie.
fn peer_cookie(record: &PayloadRecord) -> Option<Cookie> {
    let [a, b, c, d, e, f, g, h, ..] = record.peer_address;
    let cookie = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
    (record.family == AF_UNIX && cookie != 0).then_some(Cookie(cookie))
}

fn samples(kernel: &dyn KernelCounts, out: &mut Vec<Sample>) {
    let Some(lanes) = kernel.lanes("COUNTERS") else { return };
    for (outcome, lane) in [
        ("captured", PAYLOAD_CAPTURED_BYTES),
        ("limit", PAYLOAD_CUT_LIMIT_BYTES),
        ("no_buffer", PAYLOAD_CUT_NO_BUFFER_BYTES),
        ("fault", PAYLOAD_CUT_FAULT_BYTES),
        ("iovecs", PAYLOAD_CUT_IOVECS_BYTES),
        ("compat", PAYLOAD_CUT_COMPAT_BYTES),
        ("skip", PAYLOAD_CUT_SKIP_BYTES),
        ("budget", PAYLOAD_CUT_BUDGET_BYTES),
        ("dropped", PAYLOAD_DROPPED_BYTES),
    ] {
        out.push(Sample { metric: &CAPTURE, labels: vec![Cow::Borrowed(outcome)], value: Value::Count(lanes[lane]) });
    }
    for (reason, lane) in
        [("message_unseen", PAYLOAD_MESSAGES_UNSEEN), ("out_of_scope", PAYLOAD_OUT_OF_SCOPE), ("peek", PAYLOAD_PEEKS)]
    {
        out.push(Sample { metric: &SKIPPED, labels: vec![Cow::Borrowed(reason)], value: Value::Count(lanes[lane]) });
    }
}

fn workload_samples(lanes: &[u64], out: &mut Vec<Sample>) {
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
        if let Some(bytes) = lanes.get(lane).filter(|bytes| **bytes > 0) {
            out.push(Sample { metric: &SOCKET_IO, labels, value: Value::Count(*bytes) });
        }
    }
}
