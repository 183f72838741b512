//! Who wakes whom inside a process: records to [`Handover`], so that what a thread sends for another one has the request of
//! that one as its parent.
//!
//! Kernel program: `agent-ebpf/src/probes/wakeup.rs`; threads that are made are told by `process.rs` in the same form. In the
//! configuration's `auto` it is attached while a Java process is in scope, whose wake-ups alone are then told.

use seismo_common::counter::WAKES_UNTOLD;
use seismo_common::handover::{HandoverRecord, MADE, WOKE};

use crate::model::handover::{Handover, How};
use crate::model::metric::{Kind, Metric, Sample, Value};
use crate::model::probe::{FamilySpec, Hook, KernelCounts, ProgramSpec};

static UNTOLD: Metric = Metric {
    name: "seismo.wakeup.untold",
    unit: "{wakeup}",
    kind: Kind::Counter,
    description: "Threads that another one of their process woke and that were not told, since their CPU had told 2048 in 67 ms",
    labels: &[],
};

pub static FAMILY: FamilySpec = FamilySpec {
    name: "wakeup",
    gives: "threads that hand requests to each other: which request a thread sends for",
    programs: &[ProgramSpec {
        name: "wakeup_waking",
        hook: Hook::TpBtf("sched_waking"),
        structs: &["task_struct", "files_struct", "fdtable", "file", "inode", "pt_regs"],
        fields: &["Linux 5.15"],
        without: None,
        tiers: &[],
    }],
    tiers: &[],
    restart: &[],
    beside: &[],
    metrics: &[&UNTOLD],
    samples,
    workload_samples: |_, _| {},
};

fn samples(kernel: &dyn KernelCounts, out: &mut Vec<Sample>) {
    let Some(lanes) = kernel.lanes("COUNTERS") else { return };
    out.push(Sample { metric: &UNTOLD, labels: Vec::new(), value: Value::Count(lanes[WAKES_UNTOLD]) });
}

/// `None`: of a kind that this agent does not know.
pub fn event(record: &HandoverRecord) -> Option<Handover> {
    let how = match record.how {
        MADE => How::Made,
        WOKE => How::Woke,
        _ => return None,
    };
    let HandoverRecord { tgid: pid, from, to, .. } = *record;
    Some(Handover { pid, from, to, how, ktime_ns: record.header.ktime_ns })
}
