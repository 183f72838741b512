//! Tasks of language runtimes: records to [`TaskEvent`]; which task began which or let it go on, so that a request that a
//! goroutine, a coroutine or a task of tokio sends has the request that it was made for as its parent.
//!
//! Kernel programs: `agent-ebpf/src/probes/task.rs`, in the executables of processes in scope (`host::runtime` says where).
//! Off: which task a thread runs is not read either, and requests are linked by what else is known.

use seismo_common::counter::TASKS_UNREAD;
use seismo_common::task::{BORN, LENT, TaskRecord, WOKEN, WOKEN_TOO};

use crate::model::connection::Cookie;
use crate::model::metric::{Kind, Metric, Sample, Value};
use crate::model::probe::{FamilySpec, Hook, KernelCounts, ProgramSpec};
use crate::model::task::{TaskEvent, TaskEventKind, TaskName};

static UNREAD: Metric = Metric {
    name: "seismo.task.unread",
    unit: "{task}",
    kind: Kind::Counter,
    description: "Goroutines, Python contexts and tasks of tokio that began or were woken and could not be read",
    labels: &[],
};

const fn program(name: &'static str, function: &'static str, end: bool, without: Option<&'static str>) -> ProgramSpec {
    let (structs, fields): (&[_], &[_]) = (
        &["task_struct", "files_struct", "fdtable", "file", "inode", "socket", "sock"],
        &["task_struct.thread.fsbase"],
    );
    ProgramSpec { name, hook: Hook::User { function, end }, structs, fields, without, tiers: &[] }
}

const GO: Option<&str> = Some("which goroutine began which is not known");
/// The kernel object's names of the programs, for `host::runtime`.
pub const COPIED: &str = "task_copied";
pub const BEGINS: &str = "task_begins";
pub const BEGUN: &str = "task_begun";
pub const ASKS: &str = "task_asks";
pub const BOUND: &str = "task_bound";
pub const WOKEN_BY: &str = "task_woken";

pub static FAMILY: FamilySpec = FamilySpec {
    name: "task",
    gives: "goroutines, Python contexts, tasks of tokio: which request a task sends for",
    programs: &[
        program(COPIED, "PyContext_CopyCurrent", true, Some("which Python context was copied from which is not known")),
        program(BEGINS, "runtime.newproc1", false, GO),
        program(BEGUN, "runtime.casgstatus", false, GO),
        program(
            ASKS,
            "net/http.(*persistConn).roundTrip",
            false,
            Some("who uses Go's pooled connections is not known"),
        ),
        program(BOUND, "OwnedTasks::bind_inner", false, Some("which task of tokio began which is not known")),
        program(WOKEN_BY, "wake_by_val", false, Some("which task of tokio woke which is not known")),
    ],
    tiers: &[],
    restart: &[],
    beside: &[],
    metrics: &[&UNREAD],
    samples,
    workload_samples: |_, _| {},
};

fn samples(kernel: &dyn KernelCounts, out: &mut Vec<Sample>) {
    let Some(lanes) = kernel.lanes("COUNTERS") else { return };
    out.push(Sample { metric: &UNREAD, labels: Vec::new(), value: Value::Count(lanes[TASKS_UNREAD]) });
}

/// `None`: of a kind that this agent does not know.
pub fn event(record: &TaskRecord) -> Option<TaskEvent> {
    let kind = match record.what {
        BORN => TaskEventKind::Born { parent: TaskName(record.other) },
        LENT => TaskEventKind::Lent { socket: Cookie(record.other) },
        WOKEN | WOKEN_TOO => TaskEventKind::Woken { by: TaskName(record.other), too: record.what == WOKEN_TOO },
        _ => return None,
    };
    Some(TaskEvent { pid: record.tgid, task: TaskName(record.task), ktime_ns: record.header.ktime_ns, kind })
}
