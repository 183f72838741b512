//! Process life: fork, exec and exit records to [`ProcessEvent`]; counts by workload to metrics.
//!
//! Kernel programs: `agent-ebpf/src/probes/process.rs`. What a process is called is not decided here.

use std::borrow::Cow;

use seismo_common::process::{ENDS, End, IN_SCOPE, ProcessRecord};
use seismo_common::record::{PROCESS_EXEC, PROCESS_EXIT, PROCESS_FORK};
use seismo_common::workload::{PROCESS_ENDS, PROCESS_EXECS, PROCESS_STARTS};

use crate::model::display;
use crate::model::metric::{Kind, Metric, Sample, Value};
use crate::model::probe::{FamilySpec, Hook, ProgramSpec};
use crate::model::process::{ProcessEvent, ProcessEventKind};
use crate::semconv::PROCESS_EXIT_CODE;
use crate::workload_labels;

static STARTS: Metric = Metric {
    name: "seismo.process.starts",
    unit: "{process}",
    kind: Kind::Counter,
    description: "Processes created",
    labels: workload_labels!(),
};
static EXECS: Metric = Metric {
    name: "seismo.process.execs",
    unit: "{exec}",
    kind: Kind::Counter,
    description: "Programs executed",
    labels: workload_labels!(),
};
static EXITS: Metric = Metric {
    name: "seismo.process.exits",
    unit: "{process}",
    kind: Kind::Counter,
    description: "Processes ended, by exit code (0, 1, 2, 126, 127, other) or by the signal that ended them",
    labels: workload_labels!(PROCESS_EXIT_CODE, "signal"),
};

pub static FAMILY: FamilySpec = FamilySpec {
    name: "process",
    gives: "process starts and exits; names of short-lived processes",
    programs: &[
        ProgramSpec {
            name: "process_fork",
            hook: Hook::TpBtf("sched_process_fork"),
            structs: &["task_struct"],
            fields: &[],
            without: Some("starts are not counted"),
            tiers: &[],
        },
        ProgramSpec {
            name: "process_exec",
            hook: Hook::TpBtf("sched_process_exec"),
            structs: &["task_struct"],
            fields: &[],
            without: Some("a process keeps the name it had before exec"),
            tiers: &[],
        },
        ProgramSpec {
            name: "process_exit",
            hook: Hook::TpBtf("sched_process_exit"),
            structs: &["task_struct", "signal_struct"],
            fields: &[],
            without: Some("exits are not counted"),
            tiers: &[],
        },
    ],
    tiers: &[],
    restart: &[],
    beside: &[],
    metrics: &[&STARTS, &EXECS, &EXITS],
    samples: |_, _| {},
    workload_samples,
};

/// A record as an event; `None` for a kind that is not this family's.
pub fn event(record: &ProcessRecord) -> Option<ProcessEvent> {
    let kind = match record.header.kind {
        PROCESS_FORK => ProcessEventKind::Fork { parent_pid: record.parent_tgid },
        PROCESS_EXEC => ProcessEventKind::Exec,
        PROCESS_EXIT => ProcessEventKind::Exit { status: record.exit_code },
        _ => return None,
    };
    let in_scope = record.header.flags & IN_SCOPE != 0;
    let command = command(&record.comm);
    Some(ProcessEvent { pid: record.tgid, command, ktime_ns: record.header.ktime_ns, kind, in_scope })
}

/// Up to the first zero byte; a thread may call itself anything.
fn command(comm: &[u8]) -> String {
    display::escaped(comm.split(|byte| *byte == 0).next().unwrap_or_default(), display::MAX_NAME)
}

fn workload_samples(lanes: &[u64], out: &mut Vec<Sample>) {
    let mut count = |metric, labels, lane: usize| {
        if let Some(count) = lanes.get(lane).filter(|count| **count > 0) {
            out.push(Sample { metric, labels, value: Value::Count(*count) });
        }
    };
    count(&STARTS, Vec::new(), PROCESS_STARTS);
    count(&EXECS, Vec::new(), PROCESS_EXECS);
    for (lane, end) in (PROCESS_ENDS..).zip(ENDS) {
        let (code, signal) = match end {
            End::Code(code) => (code, ""),
            End::Signal(signal) => ("", signal),
        };
        count(&EXITS, vec![Cow::Borrowed(code), Cow::Borrowed(signal)], lane);
    }
}
