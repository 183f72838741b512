//! UDP: datagrams moved and dropped by workload; errors by the kernel's own account.
//!
//! Kernel program: `agent-ebpf/src/probes/udp.rs`; what is moved is counted by those of family payload. No records.
//! Errors are those of the agent's own network: `/proc/net/snmp` and, for IPv6, `snmp6`; what is in neither is absent.

use std::borrow::Cow;

use seismo_common::workload::{UDP_FULL_BUFFERS, UDP_NO_MEMORY, UDP_RECEIVES, UDP_SENDS};

use super::account;
use crate::model::metric::{Kind, Metric, Sample, Value};
use crate::model::probe::{FamilySpec, Hook, KernelCounts, ProgramSpec};
use crate::semconv::NETWORK_IO_DIRECTION;
use crate::workload_labels;

static DATAGRAMS: Metric = Metric {
    name: "seismo.udp.datagrams",
    unit: "{datagram}",
    kind: Kind::Counter,
    description: "UDP datagrams that threads sent and received, empty ones left out; needs family payload. Where one \
                  operation moves several that the kernel splits or joins, it is one",
    labels: workload_labels!(NETWORK_IO_DIRECTION),
};
static DROPPED: Metric = Metric {
    name: "seismo.udp.dropped",
    unit: "{datagram}",
    kind: Kind::Counter,
    description: "UDP datagrams that came and were dropped: the socket's buffer was full, or UDP was out of memory",
    labels: workload_labels!("reason"),
};
static ERRORS: Metric = Metric {
    name: "seismo.udp.errors",
    unit: "{datagram}",
    kind: Kind::Counter,
    description: "UDP datagrams that could not be delivered or sent, by the kernel's own account of the agent's network \
                  since it is there",
    labels: &["reason"],
};

pub static FAMILY: FamilySpec = FamilySpec {
    name: "udp",
    gives: "UDP datagrams and what became of those that were not delivered",
    programs: &[ProgramSpec {
        name: "udp_drop",
        hook: Hook::TpBtf("udp_fail_queue_rcv_skb"),
        structs: &["sock"],
        fields: &[],
        without: Some("datagrams that found their socket full are not counted by workload"),
        tiers: &[],
    }],
    tiers: &[],
    restart: &[],
    beside: &[(&DATAGRAMS, "payload")],
    metrics: &[&DATAGRAMS, &DROPPED, &ERRORS],
    samples,
    workload_samples,
};

const SNMP: &str = "/proc/net/snmp";
const SNMP6: &str = "/proc/net/snmp6";
/// The kernel's names (`net/ipv4/proc.c`); the first, of all errors at the receiving end, holds the last three.
const ALL: &str = "InErrors";
const REASONS: [(&str, &str); 5] = [
    ("no_port", "NoPorts"),
    ("send_buffer", "SndbufErrors"),
    ("receive_buffer", "RcvbufErrors"),
    ("checksum", "InCsumErrors"),
    ("memory", "MemErrors"),
];

fn samples(kernel: &dyn KernelCounts, out: &mut Vec<Sample>) {
    let files = [kernel.file(SNMP), kernel.file(SNMP6)].map(Option::unwrap_or_default);
    let of = |name: &str| {
        let [four, six] = [account(&files[0], "Udp", name), account6(&files[1], name)];
        four.or(six).map(|_| four.unwrap_or(0) + six.unwrap_or(0))
    };
    let mut named = 0;
    for (place, (reason, name)) in REASONS.into_iter().enumerate() {
        if let Some(count) = of(name) {
            named += if place < 2 { 0 } else { count };
            out.push(Sample { metric: &ERRORS, labels: vec![Cow::Borrowed(reason)], value: Value::Count(count) });
        }
    }
    if let Some(all) = of(ALL) {
        let value = Value::Count(all.saturating_sub(named));
        out.push(Sample { metric: &ERRORS, labels: vec![Cow::Borrowed("other")], value });
    }
}

/// `Udp6NAME VALUE`, a line each.
fn account6(table: &str, name: &str) -> Option<u64> {
    let mut values = table.lines().filter_map(|line| line.strip_prefix("Udp6")?.strip_prefix(name));
    values.find(|value| value.starts_with([' ', '\t'])).and_then(|value| value.trim().parse().ok())
}

fn workload_samples(lanes: &[u64], out: &mut Vec<Sample>) {
    for (metric, label, lane) in [
        (&DATAGRAMS, "transmit", UDP_SENDS),
        (&DATAGRAMS, "receive", UDP_RECEIVES),
        (&DROPPED, "receive_buffer", UDP_FULL_BUFFERS),
        (&DROPPED, "memory", UDP_NO_MEMORY),
    ] {
        if let Some(count) = lanes.get(lane).filter(|count| **count > 0) {
            out.push(Sample { metric, labels: vec![Cow::Borrowed(label)], value: Value::Count(*count) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Files(&'static str, &'static str);

    impl KernelCounts for Files {
        fn lanes(&self, _: &str) -> Option<Vec<u64>> {
            None
        }

        fn row(&self, _: &str, _: u32) -> Option<Vec<u64>> {
            None
        }

        fn constants(&self, _: &str) -> &[(String, u32)] {
            &[]
        }

        fn file(&self, path: &str) -> Option<String> {
            let text = if path == SNMP { self.0 } else { self.1 };
            (!text.is_empty()).then(|| text.to_owned())
        }

        fn keyed(&self, _: &str) -> std::collections::BTreeMap<u64, u64> {
            std::collections::BTreeMap::new()
        }

        fn iterate(&self, _: &str) {}
    }

    fn told(files: &Files) -> Vec<(String, Value)> {
        let mut out = Vec::new();
        samples(files, &mut out);
        out.iter().map(|sample| (sample.labels.join(","), sample.value.clone())).collect()
    }

    #[test]
    fn errors_of_both_families_are_added_and_those_without_a_name_are_the_rest() {
        let four = "Udp: InDatagrams NoPorts InErrors RcvbufErrors SndbufErrors InCsumErrors\nUdp: 9 1 10 4 2 3\n";
        let six = "Udp6InErrors                   5\nUdp6RcvbufErrors 4\nUdp6NoPorts\t2\nUdpLite6NoPorts 7\n";
        let expected = [("no_port", 3), ("send_buffer", 2), ("receive_buffer", 8), ("checksum", 3), ("other", 4)];
        let expected = expected.map(|(reason, count)| (reason.to_owned(), Value::Count(count)));
        assert_eq!(told(&Files(four, six)), expected);
    }

    #[test]
    fn what_the_kernel_does_not_have_is_absent() {
        assert_eq!(told(&Files("", "")), []);
        assert_eq!(told(&Files("Udp: NoPorts\nUdp: x\n", "")), []);
    }
}
