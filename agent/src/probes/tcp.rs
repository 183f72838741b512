//! TCP: state-change records of tracked connections to [`ConnEvent`]; counts by workload, sockets by state, queues of
//! listeners and windows to metrics.
//!
//! Kernel programs: `agent-ebpf/src/probes/tcp.rs`. Sockets by state and listeners come from one pass over the sockets of
//! the agent's own network when metrics are read, at most every `tcp_sockets.interval`: it goes over the kernel's whole
//! table of them (262144 places: 2 ms). Windows and overflows come from `/proc/net/netstat`, also of that network.

use std::borrow::Cow;
use std::collections::BTreeMap;

use seismo_common::tcp::{
    CLOSE, DESTROYED, ESTABLISHED, FAILURES, LISTENERS, PASS_FIRST, PASS_LISTENERS, SYN_RECV, SYN_SENT, TcpStateRecord,
    of_listener,
};
use seismo_common::workload::{
    TCP_ACTIVE_OPENS, TCP_CLOSES, TCP_CONNECT_BUCKETS, TCP_CONNECT_EXPONENT, TCP_CONNECT_US, TCP_CONNECTS,
    TCP_FAILURES, TCP_PASSIVE_OPENS, TCP_RESETS_RECEIVED, TCP_RESETS_SENT, TCP_RETRANSMITS, TCP_RTT_BUCKETS,
    TCP_RTT_EXPONENT, TCP_RTT_US, TCP_RTTS,
};

use super::{account, octaves};
use crate::model::connection::{ConnEvent, ConnEventKind, Connection, Cookie, Role, Transport, socket_address};
use crate::model::handover::Opening;
use crate::model::metric::{Kind, Metric, Sample, Value};
use crate::model::probe::{FamilySpec, Hook, KernelCounts, ProgramSpec, Restart};
use crate::semconv::{NETWORK_IO_DIRECTION, SERVER_PORT};
use crate::workload_labels;

static RETRANSMITS: Metric = Metric {
    name: "seismo.tcp.retransmits",
    unit: "{segment}",
    kind: Kind::Counter,
    description: "TCP segments sent again, as the kernel counts them (RetransSegs): handshakes and probes of lost ends too",
    labels: workload_labels!(),
};
static RESETS: Metric = Metric {
    name: "seismo.tcp.resets",
    unit: "{reset}",
    kind: Kind::Counter,
    description: "TCP resets sent and received",
    labels: workload_labels!(NETWORK_IO_DIRECTION),
};
static FAILED: Metric = Metric {
    name: "seismo.tcp.failed_connections",
    unit: "{connection}",
    kind: Kind::Counter,
    description: "TCP connections that were tried to open and could not be, by why ('aborted': closed by their owner before \
                  there was an answer). Without a route there is no try",
    labels: workload_labels!("reason"),
};
static OPENED: Metric = Metric {
    name: "seismo.tcp.opened_connections",
    unit: "{connection}",
    kind: Kind::Counter,
    description: "TCP connections established, by the side that was taken",
    labels: workload_labels!("role"),
};
static CLOSED: Metric = Metric {
    name: "seismo.tcp.closed_connections",
    unit: "{connection}",
    kind: Kind::Counter,
    description: "Established TCP connections that ended",
    labels: workload_labels!(),
};
static CONNECT: Metric = Metric {
    name: "seismo.tcp.connect.duration",
    unit: "s",
    kind: Kind::Histogram,
    description: "Time from the first SYN of a connection to its answer, of connections that were opened from here",
    labels: workload_labels!(),
};
static RTT: Metric = Metric {
    name: "seismo.tcp.rtt",
    unit: "s",
    kind: Kind::Histogram,
    description: "Round trip time as the kernel has smoothed it, of the connection that one in 16 receives of a \
                  workload's threads belongs to: busy connections weigh more",
    labels: workload_labels!(),
};
static CONNECTIONS: Metric = Metric {
    name: "seismo.tcp.connections",
    unit: "{connection}",
    kind: Kind::Gauge,
    description: "TCP sockets of the agent's network now, by state (what is left of a connection in fin_wait_2 is time_wait)",
    labels: &["state"],
};
static WAITING: Metric = Metric {
    name: "seismo.tcp.accept_queue.length",
    unit: "{connection}",
    kind: Kind::Gauge,
    description: "Connections that wait to be accepted now, in the agent's network",
    labels: &[SERVER_PORT],
};
static LIMIT: Metric = Metric {
    name: "seismo.tcp.accept_queue.limit",
    unit: "{connection}",
    kind: Kind::Gauge,
    description: "Connections that may wait to be accepted, in the agent's network",
    labels: &[SERVER_PORT],
};
static DROPPED: Metric = Metric {
    name: "seismo.tcp.accept_queue.dropped",
    unit: "{connection}",
    kind: Kind::Gauge,
    description: "Attempts to connect that the sockets which listen now have dropped since they do, for a full queue above all",
    labels: &[SERVER_PORT],
};
static UNSEEN: Metric = Metric {
    name: "seismo.tcp.accept_queue.unseen",
    unit: "{listener}",
    kind: Kind::Gauge,
    description: "Listeners beyond the 256 whose queues are looked at",
    labels: &[],
};
static OVERFLOWS: Metric = Metric {
    name: "seismo.tcp.accept_queue.overflows",
    unit: "{connection}",
    kind: Kind::Counter,
    description: "Times that a full accept queue had the kernel drop a segment which was to open a connection, by its own \
                  account of the agent's network (ListenOverflows)",
    labels: &[],
};
static ZERO_WINDOWS: Metric = Metric {
    name: "seismo.tcp.zero_windows",
    unit: "{window}",
    kind: Kind::Counter,
    description: "Times that a connection had to announce a window of zero, because nobody read, by the kernel's own account \
                  of the agent's network (TCPToZeroWindowAdv)",
    labels: &[],
};
static WINDOW_PROBES: Metric = Metric {
    name: "seismo.tcp.window_probes",
    unit: "{probe}",
    kind: Kind::Counter,
    description: "Probes sent to peers that had announced a window of zero, by the kernel's own account of the agent's \
                  network (TCPWinProbe)",
    labels: &[],
};

const fn program(name: &'static str, tracepoint: &'static str, without: &'static str) -> ProgramSpec {
    let hook = Hook::TpBtf(tracepoint);
    ProgramSpec { name, hook, structs: &["sock", "tcp_sock"], fields: &[], without: Some(without), tiers: &[] }
}

const RESENT: &str = "segments sent again are not counted";
const PASS: &str = "tcp_sockets";

pub static FAMILY: FamilySpec = FamilySpec {
    name: "tcp",
    gives: "connections opened, closed and failed, how long that took; round trips, retransmits and resets; queues",
    programs: &[
        ProgramSpec {
            name: "tcp_set_state",
            hook: Hook::TpBtf("inet_sock_set_state"),
            structs: &["task_struct", "sock", "net", "tcp_sock"],
            fields: &[],
            without: None,
            tiers: &[],
        },
        program("tcp_destroy", "tcp_destroy_sock", "a connection that its peer reset is forgotten late"),
        ProgramSpec {
            fields: &["sk_buff.cb", "tcp_skb_cb.tcp_gso_segs"],
            ..program("tcp_retransmit", "tcp_retransmit_skb", RESENT)
        },
        program(
            "tcp_retransmit_answer",
            "tcp_retransmit_synack",
            "answers to a SYN that are sent again are not counted",
        ),
        program("tcp_reset_sent", "tcp_send_reset", "resets sent are not counted"),
        program("tcp_reset_received", "tcp_receive_reset", "resets received are not counted"),
        ProgramSpec {
            hook: Hook::Iter { over: "tcp", helpers: &[] },
            fields: &["sock.sk_ack_backlog", "sock.sk_max_ack_backlog", "sock.sk_drops.counter"],
            ..program(PASS, "", "sockets by state and queues of listeners are not known")
        },
    ],
    tiers: &[],
    restart: &[Restart::Clear("CONNECT_STARTS"), Restart::Clear("RESENT")],
    // The programs that see each receive look at them.
    beside: &[(&RTT, "payload")],
    metrics: &[
        &RETRANSMITS,
        &RESETS,
        &FAILED,
        &OPENED,
        &CLOSED,
        &CONNECT,
        &RTT,
        &CONNECTIONS,
        &WAITING,
        &LIMIT,
        &DROPPED,
        &UNSEEN,
        &OVERFLOWS,
        &ZERO_WINDOWS,
        &WINDOW_PROBES,
    ],
    samples,
    workload_samples,
};

/// A state change as an event of the connection's life; `None` for one that begins or ends nothing.
/// A thread that begins to open a connection.
pub fn opening(record: &TcpStateRecord) -> Option<Opening> {
    let is_one = (record.old_state, record.new_state) == (CLOSE, SYN_SENT) && record.tid != 0;
    is_one.then_some(Opening {
        socket: Cookie(record.cookie),
        pid: record.tgid,
        tid: record.tid,
        ktime_ns: record.header.ktime_ns,
    })
}

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

const NETSTAT: &str = "/proc/net/netstat";
/// Names of states, as OpenTelemetry has them, by the kernel's number; a request for a connection is `syn_received` too.
const STATES: [&str; 13] = [
    "",
    "established",
    "syn_sent",
    "syn_received",
    "fin_wait_1",
    "fin_wait_2",
    "time_wait",
    "closed",
    "close_wait",
    "last_ack",
    "listen",
    "closing",
    "syn_received",
];

fn samples(kernel: &dyn KernelCounts, out: &mut Vec<Sample>) {
    if let Some(words) = kernel.pass(PASS) {
        of_pass(&words, out);
    }
    let netstat = kernel.file(NETSTAT).unwrap_or_default();
    for (metric, name) in
        [(&OVERFLOWS, "ListenOverflows"), (&ZERO_WINDOWS, "TCPToZeroWindowAdv"), (&WINDOW_PROBES, "TCPWinProbe")]
    {
        if let Some(count) = account(&netstat, "TcpExt", name) {
            out.push(Sample { metric, labels: Vec::new(), value: Value::Count(count) });
        }
    }
}

/// What [`seismo_common::tcp`] says a pass counts.
fn of_pass(words: &[u64], out: &mut Vec<Sample>) {
    let mut states = BTreeMap::new();
    for (state, count) in STATES.iter().zip(words).skip(1) {
        *states.entry(*state).or_insert(0) += count;
    }
    for (state, count) in states {
        out.push(Sample { metric: &CONNECTIONS, labels: vec![Cow::Borrowed(state)], value: Value::Count(count) });
    }
    let seen = words.get(PASS_LISTENERS).copied().unwrap_or(0);
    let mut ports: BTreeMap<u16, [u64; 3]> = BTreeMap::new();
    for pair in words.get(PASS_FIRST..).unwrap_or_default().chunks_exact(2).take(seen as usize) {
        let (port, waiting, limit) = of_listener(pair[0]);
        // Several may share a port: on different addresses, or for one to be chosen.
        let sums = ports.entry(port).or_default();
        for (sum, value) in sums.iter_mut().zip([waiting, limit, pair[1]]) {
            *sum += value;
        }
    }
    for (port, sums) in ports {
        for (metric, value) in [&WAITING, &LIMIT, &DROPPED].into_iter().zip(sums) {
            out.push(Sample { metric, labels: vec![Cow::Owned(port.to_string())], value: Value::Count(value) });
        }
    }
    let unseen = Value::Count(seen.saturating_sub(LISTENERS as u64));
    out.push(Sample { metric: &UNSEEN, labels: Vec::new(), value: unseen });
}

fn workload_samples(lanes: &[u64], out: &mut Vec<Sample>) {
    let lane = |lane: usize| lanes.get(lane).copied().unwrap_or(0);
    let of = |first: usize, count: usize| lanes.get(first..first + count).unwrap_or_default();
    let mut push = |metric: &'static Metric, label: Option<&'static str>, value: Value| {
        let labels = label.map(Cow::Borrowed).into_iter().collect();
        out.push(Sample { metric, labels, value });
    };
    // Who has nothing to do with TCP has no series of it.
    if of(TCP_RETRANSMITS, TCP_CONNECT_US - TCP_RETRANSMITS).iter().all(|count| *count == 0) && lane(TCP_RTT_US) == 0 {
        return;
    }
    for (metric, label, at) in [
        (&RETRANSMITS, None, TCP_RETRANSMITS),
        (&RESETS, Some("transmit"), TCP_RESETS_SENT),
        (&RESETS, Some("receive"), TCP_RESETS_RECEIVED),
        (&OPENED, Some("client"), TCP_ACTIVE_OPENS),
        (&OPENED, Some("server"), TCP_PASSIVE_OPENS),
        (&CLOSED, None, TCP_CLOSES),
    ] {
        push(metric, label, Value::Count(lane(at)));
    }
    for (reason, at) in FAILURES.iter().zip(TCP_FAILURES..).filter(|(_, at)| lane(*at) > 0) {
        push(&FAILED, Some(reason), Value::Count(lane(at)));
    }
    for (metric, first, buckets, exponent, step, us) in [
        (&CONNECT, TCP_CONNECTS, TCP_CONNECT_BUCKETS, TCP_CONNECT_EXPONENT, 2, TCP_CONNECT_US),
        (&RTT, TCP_RTTS, TCP_RTT_BUCKETS, TCP_RTT_EXPONENT, 1, TCP_RTT_US),
    ] {
        let counts = of(first, buckets);
        if counts.iter().any(|count| *count > 0) {
            push(metric, None, octaves(counts, exponent, step, 1, lane(us) as f64 * 1e-6));
        }
    }
}

#[cfg(test)]
mod tests {
    use seismo_common::tcp::{PASS_WORDS, listener};
    use seismo_common::workload::WORKLOAD_LANES;

    use super::*;

    fn told(out: &[Sample]) -> Vec<(&'static str, String, Value)> {
        out.iter().map(|sample| (sample.metric.name, sample.labels.join(","), sample.value.clone())).collect()
    }

    #[test]
    fn listeners_that_share_a_port_are_one_queue_and_states_keep_their_names() {
        let mut words = vec![0; PASS_WORDS];
        (words[1], words[3], words[12], words[10]) = (5, 1, 2, 3);
        words[PASS_LISTENERS] = 3;
        for (at, word) in [listener(80, 1, 10), 4, listener(443, 0, 9), 0, listener(80, 2, 20), 5, listener(7, 7, 7), 7]
            .into_iter()
            .enumerate()
        {
            words[PASS_FIRST + at] = word;
        }
        let mut out = Vec::new();
        of_pass(&words, &mut out);
        let told = told(&out);
        let has = |metric: &Metric, label: &str, count: u64| {
            told.contains(&(metric.name, label.to_owned(), Value::Count(count)))
        };
        assert!(has(&CONNECTIONS, "established", 5) && has(&CONNECTIONS, "syn_received", 3), "{told:?}");
        assert!(has(&WAITING, "80", 3) && has(&LIMIT, "80", 30) && has(&DROPPED, "80", 9), "{told:?}");
        assert!(has(&WAITING, "443", 0) && has(&UNSEEN, "", 0), "{told:?}");
        // Beyond those of this pass are some of an earlier one.
        assert!(!told.iter().any(|(_, label, _)| label == "7"), "{told:?}");
        words[PASS_LISTENERS] = 300;
        out.clear();
        of_pass(&words, &mut out);
        assert_eq!(out.last().map(|sample| sample.value.clone()), Some(Value::Count(300 - 256)));
    }

    #[test]
    fn a_workload_without_tcp_has_no_series_and_one_with_has_its_zeros() {
        let mut lanes = [0; WORKLOAD_LANES];
        let mut out = Vec::new();
        workload_samples(&lanes, &mut out);
        assert_eq!(told(&out), []);
        lanes[TCP_FAILURES + 1] = 2;
        (lanes[TCP_RTTS + 1], lanes[TCP_RTT_US]) = (4, 200);
        workload_samples(&lanes, &mut out);
        let told = told(&out);
        assert!(told.contains(&(RETRANSMITS.name, String::new(), Value::Count(0))), "{told:?}");
        assert!(told.contains(&(FAILED.name, "timeout".to_owned(), Value::Count(2))), "{told:?}");
        assert!(!told.iter().any(|(name, ..)| *name == CONNECT.name), "{told:?}");
        let Some((.., Value::Exponential(_, rtt))) = told.last() else { panic!("{told:?}") };
        assert_eq!((rtt.counts.get(1), rtt.bounds.get(1)), (Some(&4), Some(&2f64.powi(-14))));
        assert!((rtt.sum - 200e-6).abs() < 1e-12, "{}", rtt.sum);
    }
}
