//! Packets that the kernel dropped, by its own reasons.
//!
//! Kernel programs: `agent-ebpf/src/probes/drop.rs`. No records. Reasons are named as the kernel's type information has
//! them, so a reason that is new is there without a change here.

use std::borrow::Cow;

use seismo_common::config::SKB_REASONS;

use crate::model::metric::{Kind, Metric, Sample, Value};
use crate::model::probe::{FamilySpec, Hook, KernelCounts, ProgramSpec};

static DROPPED: Metric = Metric {
    name: "seismo.network.packet.dropped",
    unit: "{packet}",
    kind: Kind::Counter,
    description: "Packets that the kernel dropped, by its own name of the reason ('other': a module's)",
    labels: &["reason"],
};
static UNSPECIFIED: Metric = Metric {
    name: "seismo.network.packet.freed",
    unit: "{packet}",
    kind: Kind::Counter,
    description: "Packets that the kernel freed and for which it gives no reason: not all of them are losses",
    labels: &[],
};

pub static FAMILY: FamilySpec = FamilySpec {
    name: "drop",
    gives: "packets dropped, by reason",
    programs: &[ProgramSpec {
        name: "drop_packet",
        hook: Hook::TpBtfOf { name: "kfree_skb", arguments: 3 },
        structs: &[],
        fields: &[],
        without: None,
        tiers: &[],
    }],
    tiers: &[],
    restart: &[],
    beside: &[],
    metrics: &[&DROPPED, &UNSPECIFIED],
    samples,
    workload_samples: |_, _| {},
};

const ENUMERATION: &str = "skb_drop_reason";
const PREFIX: &str = "SKB_DROP_REASON_";
const NO_REASON: &str = "SKB_DROP_REASON_NOT_SPECIFIED";
/// What the kernel tells in the same place and is no loss: the packet was used, or its bytes live on in another one.
const NOT_LOST: [&str; 3] = ["SKB_NOT_DROPPED_YET", "SKB_CONSUMED", "SKB_DROP_REASON_TCP_OFOMERGE"];

fn samples(kernel: &dyn KernelCounts, out: &mut Vec<Sample>) {
    let Some(counts) = kernel.lanes("SKB_DROPS") else { return };
    let reasons = kernel.constants(ENUMERATION);
    for (number, count) in (0..).zip(counts).filter(|(_, count)| *count > 0) {
        let known = reasons.iter().find(|(_, each)| *each == number).filter(|_| number as usize != SKB_REASONS - 1);
        let label = match known.map_or("", |(name, _)| name.as_str()) {
            NO_REASON => {
                out.push(Sample { metric: &UNSPECIFIED, labels: Vec::new(), value: Value::Count(count) });
                continue;
            }
            name if NOT_LOST.contains(&name) => continue,
            "" => "other".to_owned(),
            name => name.strip_prefix(PREFIX).unwrap_or(name).to_ascii_lowercase(),
        };
        out.push(Sample { metric: &DROPPED, labels: vec![Cow::Owned(label)], value: Value::Count(count) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Kernel(Vec<u64>, Vec<(String, u32)>);

    impl KernelCounts for Kernel {
        fn lanes(&self, _: &str) -> Option<Vec<u64>> {
            Some(self.0.clone())
        }

        fn row(&self, _: &str, _: u32) -> Option<Vec<u64>> {
            None
        }

        fn keyed(&self, _: &str) -> std::collections::BTreeMap<u64, u64> {
            std::collections::BTreeMap::new()
        }

        fn constants(&self, _: &str) -> &[(String, u32)] {
            &self.1
        }

        fn file(&self, _: &str) -> Option<String> {
            None
        }

        fn iterate(&self, _: &str) {}
    }

    #[test]
    fn reasons_are_the_kernel_s_and_what_is_no_loss_is_left_out() {
        let mut lanes = vec![0; SKB_REASONS];
        for (number, count) in [(1, 9), (2, 5), (6, 3), (7, 1), (255, 2)] {
            lanes[number] = count;
        }
        let names = [("SKB_CONSUMED", 1), (NO_REASON, 2), ("SKB_DROP_REASON_SOCKET_RCVBUFF", 6)];
        let mut out = Vec::new();
        samples(&Kernel(lanes, names.map(|(name, number)| (name.to_owned(), number)).to_vec()), &mut out);
        let told: Vec<_> =
            out.iter().map(|sample| (sample.metric.name, sample.labels.join(","), sample.value.clone())).collect();
        let expected = [
            (UNSPECIFIED.name, "", 5),
            (DROPPED.name, "socket_rcvbuff", 3),
            (DROPPED.name, "other", 1),
            (DROPPED.name, "other", 2),
        ];
        assert_eq!(told, expected.map(|(name, label, count)| (name, label.to_owned(), Value::Count(count))));
    }
}
