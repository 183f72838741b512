//! Process life: a record per fork, exec and exit of a thread group; counts by workload; a record per thread that a process
//! in scope makes.
//!
//! Hooks: `tp_btf/sched_process_{fork,exec,exit}` (5.5+). The end of a thread is not reported. About 0.2 µs per event, which
//! the fork itself dwarfs.

use aya_ebpf::helpers::generated::bpf_get_current_cgroup_id;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use core::ffi::c_void;

use seismo_common::handover::MADE;
use seismo_common::process::{IN_SCOPE, ProcessRecord, end};
use seismo_common::record::{PROCESS_EXEC, PROCESS_EXIT, PROCESS_FORK};
use seismo_common::workload::{PROCESS_ENDS, PROCESS_EXECS, PROCESS_STARTS};

use crate::emit;
use crate::filter;
use crate::kernel::{Task, offset};
use crate::workload::Workload;

/// `sched_process_fork(parent, child)`.
#[btf_tracepoint(function = "sched_process_fork")]
pub fn process_fork(ctx: BtfTracePointContext) -> i32 {
    let parent = Task(ctx.arg::<*const c_void>(0));
    let child = Task(ctx.arg::<*const c_void>(1));
    if child.tid() == child.tgid() {
        // It may begin in another cgroup than its parent's (`CLONE_INTO_CGROUP`).
        count(child, PROCESS_STARTS);
        write(PROCESS_FORK, child, parent.tgid(), 0);
    } else if filter::process_in_scope(Task::current()) {
        emit::handover(child.tgid(), parent.tid(), child.tid(), MADE);
    }
    0
}

/// `sched_process_exec(task, old_pid, binprm)`.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn process_exec(ctx: BtfTracePointContext) -> i32 {
    let task = Task(ctx.arg::<*const c_void>(0));
    count(task, PROCESS_EXECS);
    write(PROCESS_EXEC, task, 0, 0);
    0
}

/// `sched_process_exit(task, …)`: the last thread of the group has `signal->live == 0` here.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn process_exit(ctx: BtfTracePointContext) -> i32 {
    let task = Task(ctx.arg::<*const c_void>(0));
    // SAFETY: task_struct and signal_struct to the verifier; the offsets are `signal`, `live` and `exit_code`.
    let (live, status): (u32, u32) = unsafe {
        let signal: *const c_void = Task::load(task.0, offset!(task_signal));
        (Task::load(signal, offset!(signal_live)), Task::load(task.0, offset!(task_exit_code)))
    };
    if live == 0 {
        write(PROCESS_EXIT, task, 0, status);
        // Last, and the end after the row: the verifier walks what follows once for each end.
        if let Some(workload) = Workload::of_task(task) {
            workload.add(PROCESS_ENDS + end(status), 1);
        }
    }
    0
}

/// All three hooks run in process context.
#[inline(always)]
fn count(task: Task, lane: usize) {
    if let Some(workload) = Workload::of_task(task) {
        workload.add(lane, 1);
    }
}

#[inline(always)]
fn write(kind: u16, task: Task, parent_tgid: u32, exit_code: u32) {
    emit::observed();
    let len = size_of::<ProcessRecord>();
    let comm = task.comm();
    // A child starts in its parent's cgroup, so the running task answers for it.
    let flags = if filter::process_in_scope(Task::current()) { IN_SCOPE } else { 0 };
    let record = ProcessRecord {
        header: emit::header(kind, flags, len as u32),
        tgid: task.tgid(),
        parent_tgid,
        exit_code,
        reserved: 0,
        // SAFETY: no arguments.
        cgroup_id: unsafe { bpf_get_current_cgroup_id() },
        // SAFETY: two words have the layout of 16 bytes.
        comm: unsafe { core::mem::transmute::<[u64; 2], [u8; 16]>(comm) },
    };
    // Who a new program is can only be looked up while it lives.
    let urgent = kind == PROCESS_EXEC && flags != 0;
    // SAFETY: the record is on the stack, whole.
    unsafe { emit::submit((&raw const record).cast(), len as u64, urgent) };
}
