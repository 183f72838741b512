//! Workloads: cgroups get their row of kernel counters when they are made.
//!
//! Kernel program: `agent-ebpf/src/probes/workload.rs`. What is counted by workload is the other families'.

use seismo_common::workload::WORKLOAD_UNPLACED;

use crate::model::metric::{Kind, Metric, Sample, Value};
use crate::model::probe::{FamilySpec, Hook, ProgramSpec};
use crate::workload_labels;

static UNPLACED: Metric = Metric {
    name: "seismo.workload.unplaced",
    unit: "{cgroup}",
    kind: Kind::Counter,
    description: "New cgroups that found no row of counters: what they do is counted under no name",
    labels: workload_labels!(),
};

pub static FAMILY: FamilySpec = FamilySpec {
    name: "workload",
    gives: "kernel counters by cgroup from its first process on",
    programs: &[ProgramSpec {
        name: "workload_made",
        hook: Hook::TpBtf("cgroup_mkdir"),
        structs: &[],
        fields: &["Linux 5.12", "cgroup.kn", "cgroup.root", "cgroup_root.hierarchy_id", "kernfs_node.id"],
        without: None,
        tiers: &[],
    }],
    tiers: &[],
    restart: &[],
    beside: &[],
    metrics: &[&UNPLACED],
    samples: |_, _| {},
    workload_samples,
};

fn workload_samples(lanes: &[u64], out: &mut Vec<Sample>) {
    if let Some(count) = lanes.get(WORKLOAD_UNPLACED).filter(|count| **count > 0) {
        out.push(Sample { metric: &UNPLACED, labels: Vec::new(), value: Value::Count(*count) });
    }
}
