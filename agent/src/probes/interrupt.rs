//! Interrupts: how often devices' handlers and soft interrupts ran, and for how long.
//!
//! Kernel programs: `agent-ebpf/src/probes/interrupt.rs`. No records; lanes read at every scrape. The time that the
//! kernel itself accounts for interrupts is `system.cpu.time`, which needs no program.

use std::borrow::Cow;

use seismo_common::interrupt::{HARD_NS, HARD_RUNS, SOFT_NS, SOFT_RUNS, VECTOR_NAMES};

use crate::model::metric::{Kind, Metric, Sample, Value};
use crate::model::probe::{FamilySpec, Hook, KernelCounts, ProgramSpec};

static HARD_TIME: Metric = Metric {
    name: "seismo.interrupt.hard.time",
    unit: "s",
    kind: Kind::Counter,
    description: "Time spent in the interrupt handlers of devices",
    labels: &[],
};
static HARD: Metric = Metric {
    name: "seismo.interrupt.hard.runs",
    unit: "{run}",
    kind: Kind::Counter,
    description: "Runs of the interrupt handlers of devices",
    labels: &[],
};
static SOFT_TIME: Metric = Metric {
    name: "seismo.interrupt.soft.time",
    unit: "s",
    kind: Kind::Counter,
    description: "Time spent in soft interrupts, without that of the handlers that interrupted them",
    labels: &["vector"],
};
static SOFT: Metric = Metric {
    name: "seismo.interrupt.soft.runs",
    unit: "{run}",
    kind: Kind::Counter,
    description: "Runs of soft interrupts",
    labels: &["vector"],
};

const fn program(name: &'static str, tracepoint: &'static str, without: &'static str) -> ProgramSpec {
    let hook = Hook::TpBtf(tracepoint);
    ProgramSpec { name, hook, structs: &[], fields: &[], without: Some(without), tiers: &[] }
}

const HARD_LOST: &str = "devices' handlers are not timed";
const SOFT_LOST: &str = "soft interrupts are not timed";

pub static FAMILY: FamilySpec = FamilySpec {
    name: "interrupt",
    gives: "time in interrupts, by kind",
    programs: &[
        program("interrupt_enter", "irq_handler_entry", HARD_LOST),
        program("interrupt_exit", "irq_handler_exit", HARD_LOST),
        program("interrupt_soft_enter", "softirq_entry", SOFT_LOST),
        program("interrupt_soft_exit", "softirq_exit", SOFT_LOST),
    ],
    tiers: &[],
    restart: &[],
    beside: &[],
    metrics: &[&HARD_TIME, &HARD, &SOFT_TIME, &SOFT],
    samples,
    workload_samples: |_, _| {},
};

fn samples(kernel: &dyn KernelCounts, out: &mut Vec<Sample>) {
    let Some(lanes) = kernel.lanes("INTERRUPTS") else { return };
    let lane = |at: usize| lanes.get(at).copied().unwrap_or_default();
    let mut both = |time, runs, label: Option<&'static str>, ns: u64, count: u64| {
        if count > 0 {
            let labels: Vec<_> = label.map(Cow::Borrowed).into_iter().collect();
            out.push(Sample { metric: time, labels: labels.clone(), value: Value::Float(ns as f64 * 1e-9) });
            out.push(Sample { metric: runs, labels, value: Value::Count(count) });
        }
    };
    both(&HARD_TIME, &HARD, None, lane(HARD_NS), lane(HARD_RUNS));
    for (vector, name) in VECTOR_NAMES.iter().enumerate() {
        both(&SOFT_TIME, &SOFT, Some(name), lane(SOFT_NS + vector), lane(SOFT_RUNS + vector));
    }
}
