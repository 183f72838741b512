//! Memory: page faults, reclaim and kills by workload; how long reclaim took.
//!
//! Kernel programs: `agent-ebpf/src/probes/memory.rs`. No records: lanes of the workloads' rows, and two histograms. The
//! kernel's own counts of faults are taken over when metrics are read: one pass over all threads, about 0.1 µs each.

use std::borrow::Cow;

use seismo_common::workload::{MAJOR_FAULTS, MINOR_FAULTS, OOM_KILLS, RECLAIM_NS};

use super::seconds;
use crate::model::metric::{Kind, Metric, Sample, Value};
use crate::model::probe::{FamilySpec, Hook, KernelCounts, ProgramSpec, Restart};
use crate::semconv::PROCESS_PAGING_FAULT_TYPE;
use crate::workload_labels;

static FAULTS: Metric = Metric {
    name: "process.paging.faults",
    unit: "{fault}",
    kind: Kind::Counter,
    description: "Page faults, by the kernel's own count in each thread; of the workload that the thread was in when they \
                  were taken over: when it ended, or when metrics were last read",
    labels: workload_labels!(PROCESS_PAGING_FAULT_TYPE),
};
static RECLAIM_TIME: Metric = Metric {
    name: "seismo.memory.reclaim.time",
    unit: "s",
    kind: Kind::Counter,
    description: "Time that threads spent on reclaiming memory before they got some",
    labels: workload_labels!(),
};
static RECLAIM: Metric = Metric {
    name: "seismo.memory.reclaim.duration",
    unit: "s",
    kind: Kind::Histogram,
    description: "Duration of each time that a thread reclaimed memory itself: for the whole host, or because a cgroup \
                  had reached its limit",
    labels: &["reason"],
};
static KILLS: Metric = Metric {
    name: "seismo.oom.kills",
    unit: "{process}",
    kind: Kind::Counter,
    description: "Processes that the kernel chose to kill for lack of memory",
    labels: workload_labels!(),
};

const fn reclaim(name: &'static str, tracepoint: &'static str, without: &'static str) -> ProgramSpec {
    let hook = Hook::TpBtf(tracepoint);
    ProgramSpec { name, hook, structs: &["task_struct"], fields: &[], without: Some(without), tiers: &[] }
}

const HOST_LOST: &str = "reclaim for the host is not timed";
const GROUP_LOST: &str = "reclaim for a cgroup is not timed";
const FIELDS: &[&str] = &["Linux 5.12", "task_struct.min_flt", "task_struct.maj_flt", "task_struct.start_time"];
const ITERATOR: &str = "memory_tasks";

pub static FAMILY: FamilySpec = FamilySpec {
    name: "memory",
    gives: "page faults, reclaim and kills by workload",
    programs: &[
        ProgramSpec {
            name: "memory_exit",
            hook: Hook::TpBtf("sched_process_exit"),
            structs: &["task_struct"],
            fields: FIELDS,
            without: None,
            tiers: &[],
        },
        ProgramSpec {
            name: ITERATOR,
            hook: Hook::Iter { over: "task", helpers: &[] },
            structs: &["task_struct"],
            fields: FIELDS,
            without: Some("the page faults of a thread are counted when it ends"),
            tiers: &[],
        },
        reclaim("memory_reclaim", "mm_vmscan_direct_reclaim_begin", HOST_LOST),
        reclaim("memory_reclaimed", "mm_vmscan_direct_reclaim_end", HOST_LOST),
        reclaim("memory_group_reclaim", "mm_vmscan_memcg_reclaim_begin", GROUP_LOST),
        reclaim("memory_group_reclaimed", "mm_vmscan_memcg_reclaim_end", GROUP_LOST),
        ProgramSpec {
            name: "memory_kill",
            hook: Hook::TpBtfOf { name: "mark_victim", arguments: 2 },
            structs: &["task_struct"],
            fields: &[],
            without: Some("kills for lack of memory are not counted"),
            tiers: &[],
        },
    ],
    tiers: &[],
    restart: &[Restart::Clear("FAULTS"), Restart::Clear("RECLAIM_STARTS"), Restart::Now("FAULTS_SINCE")],
    beside: &[],
    metrics: &[&FAULTS, &RECLAIM_TIME, &RECLAIM, &KILLS],
    samples,
    workload_samples,
};

fn samples(kernel: &dyn KernelCounts, out: &mut Vec<Sample>) {
    kernel.iterate(ITERATOR);
    for (place, reason) in (0..).zip(["host", "cgroup"]) {
        if let Some(value) = kernel.row("RECLAIM", place).and_then(|lanes| seconds(&lanes, 1)) {
            out.push(Sample { metric: &RECLAIM, labels: vec![Cow::Borrowed(reason)], value });
        }
    }
}

fn workload_samples(lanes: &[u64], out: &mut Vec<Sample>) {
    let lane = |at: usize| lanes.get(at).copied().filter(|count| *count > 0);
    for (kind, at) in [("minor", MINOR_FAULTS), ("major", MAJOR_FAULTS)] {
        if let Some(count) = lane(at) {
            out.push(Sample { metric: &FAULTS, labels: vec![Cow::Borrowed(kind)], value: Value::Count(count) });
        }
    }
    if let Some(ns) = lane(RECLAIM_NS) {
        out.push(Sample { metric: &RECLAIM_TIME, labels: Vec::new(), value: Value::Float(ns as f64 * 1e-9) });
    }
    if let Some(count) = lane(OOM_KILLS) {
        out.push(Sample { metric: &KILLS, labels: Vec::new(), value: Value::Count(count) });
    }
}
