//! Who wakes whom inside a process: a record for each thread that another one of the same process wakes up, by a system
//! call.
//!
//! Hook: `tp_btf/sched_waking`, in the context of who wakes, with interrupts off; attached only while a process is there
//! whose wake-ups are wanted. Threads of two processes cost a comparison. A timer or a packet that comes while a thread
//! runs wakes others too: only a thread that is in a system call which wakes (a futex, a write to what is no socket, its
//! own end) counts, so Linux 5.15 is needed to see its registers. Each CPU tells so many in 67 ms at most. Beside a Java
//! service 0.6 µs more than an empty program, the record included, as the kernel counts it.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use core::ffi::c_void;

use seismo_common::counter::WAKES_UNTOLD;
use seismo_common::handover::{WAKE_WINDOW_SHIFT, WAKES_PER_WINDOW, WAKING_PROCESSES, WOKE};

use crate::emit;
use crate::kernel::{File, S_IFSOCK, Task, current_ids, setting};
use crate::maps::{Told, WAKES_TOLD, WAKING};

/// `sched_waking(task)`.
#[btf_tracepoint(function = "sched_waking")]
pub fn wakeup_waking(ctx: BtfTracePointContext) -> i32 {
    let woken = Task(ctx.arg::<*const c_void>(0));
    let (tid, tgid) = current_ids();
    if woken.tgid() != tgid || tgid == 0 {
        return 0;
    }
    if setting!(task_registers) == 0 || WAKING.get(tgid & (WAKING_PROCESSES as u32 - 1)) != Some(&tgid) {
        return 0;
    }
    let to = woken.tid();
    if to == tid || !calls(Task::current()) {
        return 0;
    }
    if may_tell() {
        emit::handover(tgid, tid, to, WOKE);
    } else {
        emit::add(WAKES_UNTOLD, 1);
    }
    0
}

/// Is the running thread in a system call that wakes others?
#[inline(always)]
fn calls(task: Task) -> bool {
    if task.is_exiting() {
        // Who waits for its end is woken by it.
        return true;
    }
    if task.is_compat() {
        return false;
    }
    let registers = task.registers();
    if !registers.in_syscall() {
        return false;
    }
    match registers.syscall() {
        // futex: FUTEX_WAKE, REQUEUE, CMP_REQUEUE, WAKE_OP, UNLOCK_PI, WAKE_BITSET
        202 => matches!(registers.argument_1() & 0x7f, 1 | 3 | 4 | 5 | 7 | 10),
        // futex_wake, futex_requeue
        454 | 456 => true,
        // write, writev: into a pipe or an event descriptor
        1 | 20 => File::of(task, registers.argument_0()).is_some_and(|file| file.kind() != S_IFSOCK),
        _ => false,
    }
}

/// Has this CPU told fewer in this window than it may?
#[inline(always)]
fn may_tell() -> bool {
    let Some(told) = WAKES_TOLD.get_ptr_mut(0) else { return false };
    let window = emit::now() >> WAKE_WINDOW_SHIFT;
    // SAFETY: this CPU's, and no other program writes it; interrupts are off.
    unsafe {
        let before = *told;
        let count = if before.window == window { before.count } else { 0 };
        *told = Told { window, count: count + 1 };
        count < WAKES_PER_WINDOW
    }
}
