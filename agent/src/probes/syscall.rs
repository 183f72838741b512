//! System calls: how many of each, and how long a sample of them took, for the whole host.
//!
//! Kernel programs: `agent-ebpf/src/probes/syscall.rs`. No records; tables read at every scrape (one row per system
//! call that was ever called).

use std::borrow::Cow;

use seismo_common::syscall::name;

use super::seconds;
use crate::model::metric::{Kind, Metric, Sample, Value};
use crate::model::probe::{FamilySpec, Hook, KernelCounts, ProgramSpec};

static CALLS: Metric = Metric {
    name: "seismo.syscalls",
    unit: "{call}",
    kind: Kind::Counter,
    description: "System calls on this host, every one counted; 32-bit and unknown numbers are 'other'",
    labels: &["syscall"],
};
static DURATION: Metric = Metric {
    name: "seismo.syscall.duration",
    unit: "s",
    kind: Kind::Histogram,
    description: "Duration of system calls, of a sample (one call in sixteen of each kind, unless configured otherwise)",
    labels: &["syscall"],
};

/// Some fifty system calls are in use on a host, each with a histogram: factors of four keep the page small.
const OCTAVES_PER_BUCKET: usize = 2;

pub static FAMILY: FamilySpec = FamilySpec {
    name: "syscall",
    gives: "system calls counted, a sample of them timed",
    programs: &[
        ProgramSpec {
            name: "syscall_enter",
            hook: Hook::TpBtf("sys_enter"),
            structs: &["task_struct"],
            fields: &[],
            without: None,
            tiers: &[],
        },
        ProgramSpec {
            name: "syscall_exit",
            hook: Hook::TpBtf("sys_exit"),
            structs: &["task_struct", "pt_regs"],
            fields: &[],
            without: Some("system calls are counted, not timed"),
            tiers: &[],
        },
    ],
    tiers: &[],
    metrics: &[&CALLS, &DURATION],
    samples,
    workload_samples: |_, _| {},
};

fn samples(kernel: &dyn KernelCounts, out: &mut Vec<Sample>) {
    let Some(counts) = kernel.lanes("SYSCALL_COUNTS") else { return };
    let mut other = 0;
    for (number, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let Some(name) = name(number) else {
            other += count;
            continue;
        };
        let labels = vec![Cow::Borrowed(name)];
        let durations = kernel.row("SYSCALL_DURATIONS", number as u32);
        if let Some(value) = durations.and_then(|row| seconds(&row, OCTAVES_PER_BUCKET)) {
            out.push(Sample { metric: &DURATION, labels: labels.clone(), value });
        }
        out.push(Sample { metric: &CALLS, labels, value: Value::Count(*count) });
    }
    if other > 0 {
        out.push(Sample { metric: &CALLS, labels: vec![Cow::Borrowed("other")], value: Value::Count(other) });
    }
}
