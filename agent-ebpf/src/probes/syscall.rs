//! System calls: every call counted, every failed one by call and error, those that begin while `syscall_enter` is attached
//! timed.
//!
//! Hooks: `tp_btf/sys_exit`, and for a share of the time `sys_enter` (5.5+): a hook is half of the price of a call, so
//! counting is done with one. Both run never in an interrupt, and before 7.0 with preemption off, so a plain add on this CPU's
//! lane is exact there. A call is counted when it returns: `exit` and `exit_group` are not. 32-bit calls have other numbers
//! and are counted in the last lane. Errors cost a comparison where there is none: only a call that failed is looked up, in
//! a table of its CPU and in that of its workload. No other run of the same program can come in between on that CPU, from
//! 7.0 on the kernel sees to that.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use core::ffi::c_void;

use seismo_common::config::{SYSCALL_ERROR_PROBES, SYSCALL_ERRORS, SYSCALLS, THREAD_SLOTS};
use seismo_common::counter::{SYSCALL_ERRORS_UNPLACED, SYSCALL_SAMPLE_LOST};
use seismo_common::histogram::{BUCKETS, bucket};
use seismo_common::syscall::{MAX_ERRNO, OTHER, failure};
use seismo_common::workload::SYSCALL_FAILURES;

use crate::emit;
use crate::kernel::{Registers, Task, opaque, setting};
use crate::maps::{SYSCALL_COUNTS, SYSCALL_DURATIONS, SYSCALL_FAILED, SYSCALL_STARTS};
use crate::workload::Workload;

const RT_SIGRETURN: u64 = 15;
const CLONE: u64 = 56;
const FORK: u64 = 57;
const VFORK: u64 = 58;
const EXIT: u64 = 60;
const EXIT_GROUP: u64 = 231;
const CLONE3: u64 = 435;
/// What `rt_sigreturn` leaves in place of its number.
const NONE: u64 = u64::MAX;

/// `sys_enter(regs, id)`.
#[btf_tracepoint(function = "sys_enter")]
pub fn syscall_enter(ctx: BtfTracePointContext) -> i32 {
    let task = Task::current();
    let lane = lane(task, ctx.arg::<u64>(1));
    if lane == EXIT || lane == EXIT_GROUP || lane == RT_SIGRETURN {
        return 0;
    }
    let tid = task.tid();
    let Some(slot) = SYSCALL_STARTS.get_ptr_mut(tid & (THREAD_SLOTS as u32 - 1)) else { return 0 };
    // SAFETY: a slot is written by the threads that share it; a torn one fails the comparison at the exit.
    unsafe {
        if (*slot).tid != 0 && (*slot).tid != tid {
            emit::add(SYSCALL_SAMPLE_LOST, 1);
        }
        (*slot).tid = tid;
        (*slot).syscall = lane as u32;
        (*slot).ktime_ns = emit::now();
    }
    0
}

/// `sys_exit(regs, ret)`.
#[btf_tracepoint(function = "sys_exit")]
pub fn syscall_exit(ctx: BtfTracePointContext) -> i32 {
    let task = Task::current();
    let (number, result) = (Registers(ctx.arg::<*const c_void>(0)).syscall().cast_unsigned(), ctx.arg::<u64>(1));
    let called = lane(task, number);
    if result == 0 && is_birth(called) {
        return 0;
    }
    count(called);
    if result > u64::MAX - MAX_ERRNO {
        failed(task, called as u32, result.wrapping_neg() as u32);
    }
    let tid = task.tid();
    let Some(slot) = SYSCALL_STARTS.get_ptr_mut(tid & (THREAD_SLOTS as u32 - 1)) else { return 0 };
    // SAFETY: as in syscall_enter.
    let (owner, lane, start) = unsafe { ((*slot).tid, (*slot).syscall, (*slot).ktime_ns) };
    if owner != tid {
        return 0;
    }
    // SAFETY: as above.
    unsafe { (*slot).tid = 0 };
    if called != u64::from(lane) {
        return 0;
    }
    let duration = emit::now() - start;
    let Some(histogram) = SYSCALL_DURATIONS.get_ptr_mut(lane) else { return 0 };
    let index = bucket(duration);
    if index < BUCKETS {
        // SAFETY: index < BUCKETS and the sum's place is BUCKETS: both inside the value.
        unsafe {
            let lanes = histogram.cast::<u64>();
            emit::atomic_add(lanes.add(index), 1);
            emit::atomic_add(lanes.add(BUCKETS), duration);
        }
    }
    0
}

/// Lane of a call by its number.
#[inline(always)]
fn lane(task: Task, number: u64) -> u64 {
    if task.is_compat() {
        OTHER as u64
    } else if number == NONE {
        RT_SIGRETURN
    } else if number >= SYSCALLS as u64 {
        OTHER as u64
    } else {
        number
    }
}

/// The new thread comes out of its parent's call with 0: one call, not two.
#[inline(always)]
fn is_birth(lane: u64) -> bool {
    lane == CLONE || lane == FORK || lane == VFORK || lane == CLONE3
}

#[inline(always)]
fn count(lane: u64) {
    let Some(counts) = SYSCALL_COUNTS.get_ptr_mut(0) else { return };
    // SAFETY: lane < SYSCALLS, and the sum is behind the lanes: both inside the value.
    unsafe {
        let count = counts.cast::<u64>().add(lane as usize);
        let sum = counts.cast::<u64>().add(SYSCALLS);
        if setting!(preemptible) != 0 {
            emit::atomic_add(count, 1);
            emit::atomic_add(sum, 1);
        } else {
            *count += 1;
            *sum += 1;
        }
    }
}

/// Counts a call that failed. A function of its own: inlined, it would cost every other call the registers that it needs.
#[inline(never)]
fn failed(task: Task, lane: u32, errno: u32) {
    if let Some(workload) = Workload::of_task(task) {
        workload.add(SYSCALL_FAILURES, 1);
    }
    let kind = failure(lane, errno);
    let Some(table) = SYSCALL_FAILED.get_ptr_mut(0) else { return };
    let first = u64::from(lane.wrapping_mul(61).wrapping_add(errno));
    for step in 0..SYSCALL_ERROR_PROBES as u64 {
        let place = opaque(first + step) & (SYSCALL_ERRORS as u64 - 1);
        // SAFETY: place < SYSCALL_ERRORS, the length of the value, which is this CPU's.
        unsafe {
            let entry = table.cast::<[u64; 2]>().add(place as usize).cast::<u64>();
            let holder = *entry;
            if holder == 0 {
                *entry = kind;
            }
            if holder == 0 || holder == kind {
                *entry.add(1) += 1;
                return;
            }
        }
    }
    emit::add(SYSCALL_ERRORS_UNPLACED, 1);
}
