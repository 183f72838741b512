//! Scheduler: how long threads waited in the run queue, for the whole host.
//!
//! Kernel program: `agent-ebpf/src/probes/scheduler.rs`. No records; a histogram read at every scrape.

use super::seconds;
use crate::model::metric::{Kind, Metric, Sample, Value};
use crate::model::probe::{FamilySpec, Hook, KernelCounts, ProgramSpec};

static RUNQUEUE: Metric = Metric {
    name: "seismo.scheduler.runqueue.duration",
    unit: "s",
    kind: Kind::Histogram,
    description: "Time that runnable threads waited for a CPU, by the kernel's own account, recorded when the run that followed ends",
    labels: &[],
};

pub static FAMILY: FamilySpec = FamilySpec {
    name: "scheduler",
    gives: "run-queue latency",
    programs: &[ProgramSpec {
        name: "scheduler_switch",
        hook: Hook::TpBtf("sched_switch"),
        structs: &["task_struct"],
        fields: &["task_struct.sched_info.run_delay", "task_struct.sched_info.pcount"],
        without: None,
        tiers: &[],
    }],
    tiers: &[],
    metrics: &[&RUNQUEUE],
    samples,
    workload_samples: |_, _| {},
};

fn samples(kernel: &dyn KernelCounts, out: &mut Vec<Sample>) {
    if let Some(histogram) = kernel.lanes("RUNQUEUE").and_then(|lane| seconds(&lane, 1)) {
        out.push(Sample { metric: &RUNQUEUE, labels: Vec::new(), value: Value::Histogram(histogram) });
    }
}
