//! Scheduler by workload: waits in the run queue, time off CPU by what was waited for, switches, migrations.
//!
//! Kernel program: `agent-ebpf/src/probes/scheduler.rs`. No records; a row per workload read at every scrape.

use std::borrow::Cow;

use seismo_common::workload::{
    MIGRATIONS, OFF_CPU, OFF_CPU_OTHER, RUNQUEUE_BUCKETS, RUNQUEUE_EXPONENT, RUNQUEUE_NS, RUNQUEUE_WAITS,
    SWITCHES_INVOLUNTARY, SWITCHES_VOLUNTARY,
};

use crate::model::exponential::Exponential;
use crate::model::metric::{Kind, Metric, Sample, Value};
use crate::model::probe::{FamilySpec, Hook, ProgramSpec};
use crate::workload_labels;

static RUNQUEUE: Metric = Metric {
    name: "seismo.scheduler.runqueue.duration",
    unit: "s",
    kind: Kind::Histogram,
    description: "Time that runnable threads waited for a CPU, by the kernel's own account, recorded when the run that followed ends",
    labels: workload_labels!(),
};
static OFF_CPU_TIME: Metric = Metric {
    name: "seismo.scheduler.offcpu",
    unit: "s",
    kind: Kind::Counter,
    description: "Time that threads waited for something else than a CPU, by what it was, recorded when the run that followed ends",
    labels: workload_labels!("reason"),
};
static SWITCHES: Metric = Metric {
    name: "process.context_switches",
    unit: "{context_switch}",
    kind: Kind::Counter,
    description: "Switches from a thread to another: voluntary if it had to wait for something",
    labels: workload_labels!("process.context_switch.type"),
};
static MOVES: Metric = Metric {
    name: "seismo.scheduler.migrations",
    unit: "{migration}",
    kind: Kind::Counter,
    description: "Times that a thread was moved to another CPU",
    labels: workload_labels!(),
};

pub static FAMILY: FamilySpec = FamilySpec {
    name: "scheduler",
    gives: "run-queue latency, time off CPU by reason, switches and migrations by workload",
    programs: &[ProgramSpec {
        name: "scheduler_switch",
        hook: Hook::TpBtf("sched_switch"),
        structs: &["task_struct", "files_struct", "fdtable", "file", "inode", "pt_regs"],
        fields: &[
            "task_struct.sched_info.run_delay",
            "task_struct.sched_info.pcount",
            "task_struct.sched_info.last_arrival",
            "task_struct.se.sum_exec_runtime",
            "task_struct.se.nr_migrations",
            "task_struct.__state",
            "task_struct.cgroups",
        ],
        without: None,
        tiers: &[],
    }],
    tiers: &[],
    metrics: &[&RUNQUEUE, &OFF_CPU_TIME, &SWITCHES, &MOVES],
    samples: |_, _| {},
    workload_samples,
};

/// Buckets of a wait are a factor of four apart on the page.
const OCTAVES_PER_BUCKET: usize = 2;

fn workload_samples(lanes: &[u64], out: &mut Vec<Sample>) {
    let lane = |lane: usize| lanes.get(lane).copied().unwrap_or(0);
    let mut count = |metric, label: Option<&'static str>, value| {
        let labels = label.map(Cow::Borrowed).into_iter().collect();
        out.push(Sample { metric, labels, value });
    };
    let switches = [lane(SWITCHES_VOLUNTARY), lane(SWITCHES_INVOLUNTARY)];
    if switches == [0; 2] {
        return;
    }
    count(&SWITCHES, Some("voluntary"), Value::Count(switches[0]));
    count(&SWITCHES, Some("involuntary"), Value::Count(switches[1]));
    count(&MOVES, None, Value::Count(lane(MIGRATIONS)));
    for (place, reason) in OFF_CPU.iter().enumerate() {
        count(&OFF_CPU_TIME, Some(reason), Value::Float(lane(OFF_CPU_OTHER + place) as f64 * 1e-9));
    }
    let waits = lanes.get(RUNQUEUE_WAITS..RUNQUEUE_WAITS + RUNQUEUE_BUCKETS).unwrap_or_default();
    count(&RUNQUEUE, None, waited(waits, lane(RUNQUEUE_NS)));
}

/// The kernel's octaves, and as classic buckets.
fn waited(waits: &[u64], sum_ns: u64) -> Value {
    let octaves = Exponential::of_lanes(waits, 0, RUNQUEUE_EXPONENT);
    let last = RUNQUEUE_EXPONENT + RUNQUEUE_BUCKETS as i32 - 2;
    let classic = octaves.classic(RUNQUEUE_EXPONENT..=last, OCTAVES_PER_BUCKET, sum_ns as f64 * 1e-9);
    Value::Exponential(octaves, classic)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::waited;

    #[test]
    fn every_wait_is_in_the_first_bucket_that_is_not_shorter() {
        let mut waits = [0; 26];
        (waits[0], waits[1], waits[2], waits[24], waits[25]) = (1, 10, 100, 1000, 10_000);
        let value = waited(&waits, 2_500_000_000);
        let histogram = value.histogram().unwrap();
        assert_eq!(histogram.bounds.len(), 13);
        assert_eq!((histogram.bounds[0], histogram.bounds[12]), (2f64.powi(-20), 16.0));
        assert_eq!((histogram.counts[0], histogram.counts[1], histogram.counts[2]), (1, 110, 0));
        assert_eq!((histogram.counts[12], histogram.counts[13], histogram.sum), (1000, 10_000, 2.5));
    }
}
