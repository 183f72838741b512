//! Scheduler by workload: time on CPU, waits in the run queue, time off CPU by what was waited for, switches, migrations.
//!
//! Kernel program: `agent-ebpf/src/probes/scheduler.rs`. No records; a row per workload read at every scrape.

use std::borrow::Cow;

use seismo_common::workload::{
    CPU_SYSTEM_NS, CPU_USER_NS, MIGRATIONS, OFF_CPU, OFF_CPU_OTHER, RUNQUEUE_BUCKETS, RUNQUEUE_EXPONENT, RUNQUEUE_NS,
    RUNQUEUE_WAITS, SWITCHES_INVOLUNTARY, SWITCHES_VOLUNTARY,
};

use super::octaves;
use crate::model::metric::{Kind, Metric, Sample, Value};
use crate::model::probe::{FamilySpec, Hook, ProgramSpec, Restart};
use crate::semconv::CPU_MODE;
use crate::workload_labels;

static RUNQUEUE: Metric = Metric {
    name: "seismo.scheduler.runqueue.duration",
    unit: "s",
    kind: Kind::Histogram,
    description: "Time that runnable threads waited for a CPU, by the kernel's own account, recorded when the run that followed ends",
    labels: workload_labels!(),
};
static CPU_TIME: Metric = Metric {
    name: "process.cpu.time",
    unit: "s",
    kind: Kind::Counter,
    description: "Time on CPU, by the scheduler's own account, recorded when a thread leaves its CPU; user and system are told \
                  apart by the ticks that it saw, what saw none waits for the next (a few milliseconds a CPU)",
    labels: workload_labels!(CPU_MODE),
};
static OFF_CPU_TIME: Metric = Metric {
    name: "seismo.scheduler.offcpu",
    unit: "s",
    kind: Kind::Counter,
    description: "Time that threads waited for something else than a CPU, by what it was, recorded when the run that followed \
                  ends; throttled: the CPU limit of the cgroup, from when it stopped the thread until it had a CPU again",
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
    gives: "time on CPU, run-queue latency, time off CPU by reason, switches and migrations by workload",
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
    restart: &[Restart::Clear("THREAD_RUNS"), Restart::Clear("SYSCALLS_TOLD")],
    beside: &[],
    metrics: &[&CPU_TIME, &RUNQUEUE, &OFF_CPU_TIME, &SWITCHES, &MOVES],
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
    for (mode, at) in [("user", CPU_USER_NS), ("system", CPU_SYSTEM_NS)] {
        count(&CPU_TIME, Some(mode), Value::Float(lane(at) as f64 * 1e-9));
    }
    for (place, reason) in OFF_CPU.iter().enumerate() {
        count(&OFF_CPU_TIME, Some(reason), Value::Float(lane(OFF_CPU_OTHER + place) as f64 * 1e-9));
    }
    let waits = lanes.get(RUNQUEUE_WAITS..RUNQUEUE_WAITS + RUNQUEUE_BUCKETS).unwrap_or_default();
    let waited = octaves(waits, RUNQUEUE_EXPONENT, 1, OCTAVES_PER_BUCKET, lane(RUNQUEUE_NS) as f64 * 1e-9);
    count(&RUNQUEUE, None, waited);
}
