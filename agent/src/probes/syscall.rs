//! System calls: how many of each, how many failed and with what, and how long a sample of them took, for the whole host;
//! how many there were by workload.
//!
//! Kernel programs: `agent-ebpf/src/probes/syscall.rs`; whose calls they were is told by the scheduler's. No records; tables
//! read at every scrape (one row per system call that was ever called).

use std::borrow::Cow;
use std::collections::BTreeMap;

use seismo_common::counter::SYSCALL_ERRORS_UNPLACED;
use seismo_common::syscall::{errno, name, of_failure};
use seismo_common::workload::{SYSCALL_CALLS, SYSCALL_FAILURES};

use super::seconds;
use crate::model::metric::{Kind, Metric, Sample, Value};
use crate::model::probe::{FamilySpec, Hook, KernelCounts, ProgramSpec, Restart};
use crate::workload_labels;

static CALLS: Metric = Metric {
    name: "seismo.syscalls",
    unit: "{call}",
    kind: Kind::Counter,
    description: "System calls on this host that returned, every one counted; 32-bit and unknown numbers are 'other'",
    labels: &["syscall"],
};
static ERRORS: Metric = Metric {
    name: "seismo.syscall.errors",
    unit: "{call}",
    kind: Kind::Counter,
    description: "System calls on this host that failed, every one counted; 'ERESTART…': a signal interrupted the call, which \
                  began again or gave EINTR; 'other': numbers without a name, and kinds that found no place",
    labels: &["syscall", "errno"],
};
static WORKLOAD_CALLS: Metric = Metric {
    name: "seismo.workload.syscalls",
    unit: "{call}",
    kind: Kind::Counter,
    description: "System calls of a workload, recorded when a thread leaves its CPU; needs the scheduler family too",
    labels: workload_labels!(),
};
static WORKLOAD_FAILURES: Metric = Metric {
    name: "seismo.workload.syscall.errors",
    unit: "{call}",
    kind: Kind::Counter,
    description: "System calls of a workload that failed",
    labels: workload_labels!(),
};
static DURATION: Metric = Metric {
    name: "seismo.syscall.duration",
    unit: "s",
    kind: Kind::Histogram,
    description: "Duration of system calls, of a sample: those that began in one sixteenth of each second, unless configured otherwise",
    labels: &["syscall"],
};

/// Some fifty system calls are in use on a host, each with a histogram: factors of four keep the page small.
const OCTAVES_PER_BUCKET: usize = 2;

/// The program that is attached for a share of the time: calls that begin then are timed.
pub const TIMED: &str = "syscall_enter";

pub static FAMILY: FamilySpec = FamilySpec {
    name: "syscall",
    gives: "system calls and errors counted, a sample of the calls timed",
    programs: &[
        ProgramSpec {
            name: TIMED,
            hook: Hook::TpBtf("sys_enter"),
            structs: &["task_struct"],
            fields: &[],
            without: Some("system calls are counted, not timed"),
            tiers: &[],
        },
        ProgramSpec {
            name: "syscall_exit",
            hook: Hook::TpBtf("sys_exit"),
            structs: &["task_struct", "pt_regs"],
            fields: &[],
            without: None,
            tiers: &[],
        },
    ],
    tiers: &[],
    restart: &[Restart::Clear("SYSCALL_STARTS")],
    beside: &[(&WORKLOAD_CALLS, "scheduler")],
    metrics: &[&CALLS, &ERRORS, &DURATION, &WORKLOAD_CALLS, &WORKLOAD_FAILURES],
    samples,
    workload_samples,
};

/// All calls since the start.
pub fn calls(kernel: &dyn KernelCounts) -> u64 {
    kernel.lanes("SYSCALL_COUNTS").map_or(0, |counts| counts.iter().sum())
}

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
    errors(kernel, out);
}

/// Numbers without a name join their like.
fn errors(kernel: &dyn KernelCounts, out: &mut Vec<Sample>) {
    let mut named: BTreeMap<[&'static str; 2], u64> = BTreeMap::new();
    for (kind, count) in kernel.keyed("SYSCALL_FAILED") {
        let (call, error) = of_failure(kind);
        *named.entry([name(call).unwrap_or("other"), errno(error).unwrap_or("other")]).or_default() += count;
    }
    let unplaced = kernel.lanes("COUNTERS").and_then(|lanes| lanes.get(SYSCALL_ERRORS_UNPLACED).copied());
    if let Some(count) = unplaced.filter(|count| *count > 0) {
        *named.entry(["other"; 2]).or_default() += count;
    }
    out.extend(named.into_iter().map(|(labels, count)| Sample {
        metric: &ERRORS,
        labels: labels.map(Cow::Borrowed).to_vec(),
        value: Value::Count(count),
    }));
}

fn workload_samples(lanes: &[u64], out: &mut Vec<Sample>) {
    for (metric, lane) in [(&WORKLOAD_CALLS, SYSCALL_CALLS), (&WORKLOAD_FAILURES, SYSCALL_FAILURES)] {
        if let Some(count) = lanes.get(lane).copied().filter(|count| *count > 0) {
            out.push(Sample { metric, labels: Vec::new(), value: Value::Count(count) });
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use seismo_common::counter::COUNTERS;
    use seismo_common::syscall::failure;

    use super::*;

    struct Kernel(BTreeMap<u64, u64>, u64);

    impl KernelCounts for Kernel {
        fn lanes(&self, map: &str) -> Option<Vec<u64>> {
            let mut lanes = vec![0; COUNTERS];
            lanes[SYSCALL_ERRORS_UNPLACED] = self.1;
            (map == "COUNTERS").then_some(lanes)
        }
        fn row(&self, _: &str, _: u32) -> Option<Vec<u64>> {
            None
        }
        fn keyed(&self, _: &str) -> BTreeMap<u64, u64> {
            self.0.clone()
        }
        fn constants(&self, _: &str) -> &[(String, u32)] {
            &[]
        }
        fn file(&self, _: &str) -> Option<String> {
            None
        }
        fn iterate(&self, _: &str) {}
    }

    fn shown(kernel: &Kernel) -> Vec<String> {
        let mut out = Vec::new();
        errors(kernel, &mut out);
        out.iter().map(|sample| format!("{} {:?}", sample.labels.join(" "), sample.value)).collect()
    }

    #[test]
    fn failures_have_the_names_of_call_and_error_and_what_has_none_is_other() {
        let kinds = [((39, 1), 3), ((39, 38), 4), ((400, 22), 5), ((401, 22), 6), ((0, 600), 7)];
        let counts = kinds.map(|((call, error), count)| (failure(call, error), count));
        assert_eq!(
            shown(&Kernel(counts.into(), 8)),
            [
                "getpid ENOSYS Count(4)",
                "getpid EPERM Count(3)",
                "other EINVAL Count(11)",
                "other other Count(8)",
                "read other Count(7)"
            ]
        );
        assert!(shown(&Kernel(BTreeMap::new(), 0)).is_empty());
    }
}
