//! System calls: every call counted, every failed one by call and error, one in `2^sample_shift` of each timed.
//!
//! Hooks: `tp_btf/sys_enter`, `tp_btf/sys_exit` (5.5+). Both run never in an interrupt, and before 7.0 with preemption
//! off, so a plain add on this CPU's lane is exact there. The first call of each number on each CPU is timed, then every sixteenth.
//! Calls that do not return where they began (`exit`, `exit_group`, `rt_sigreturn`) are counted, not timed; 32-bit
//! calls have other numbers and are counted in the last lane. Errors cost a comparison where there is none: only a call that
//! failed is looked up, in a table of its CPU and in that of its workload. No other run of the same program can come in
//! between on that CPU, from 7.0 on the kernel sees to that.

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
const EXIT: u64 = 60;
const EXIT_GROUP: u64 = 231;

/// `sys_enter(regs, id)`.
#[btf_tracepoint(function = "sys_enter")]
pub fn syscall_enter(ctx: BtfTracePointContext) -> i32 {
    let task = Task::current();
    let number = ctx.arg::<u64>(1);
    let lane = lane(task, number);
    let Some(counts) = SYSCALL_COUNTS.get_ptr_mut(0) else { return 0 };
    // SAFETY: lane < SYSCALLS, and the sum is behind the lanes: both inside the value.
    let before = unsafe {
        let count = counts.cast::<u64>().add(lane as usize);
        let sum = counts.cast::<u64>().add(SYSCALLS);
        let before = *count;
        if setting!(preemptible) != 0 {
            emit::atomic_add(count, 1);
            emit::atomic_add(sum, 1);
        } else {
            *count = before + 1;
            *sum += 1;
        }
        before
    };
    let mask = (1u64 << (setting!(syscall_sample_shift) & 31)) - 1;
    if before & mask != 0 || lane == EXIT || lane == EXIT_GROUP || lane == RT_SIGRETURN {
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
    let result = ctx.arg::<u64>(1);
    if result > u64::MAX - MAX_ERRNO {
        failed(task, Registers(ctx.arg::<*const c_void>(0)), result.wrapping_neg() as u32);
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
    if self::lane(task, Registers(ctx.arg::<*const c_void>(0)).syscall().cast_unsigned()) != u64::from(lane) {
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
    if number >= SYSCALLS as u64 || task.is_compat() { OTHER as u64 } else { number }
}

/// Counts a call that failed. A function of its own: inlined, it would cost every other call the registers that it needs.
#[inline(never)]
fn failed(task: Task, registers: Registers, errno: u32) {
    if let Some(workload) = Workload::of_task(task) {
        workload.add(SYSCALL_FAILURES, 1);
    }
    let lane = lane(task, registers.syscall().cast_unsigned()) as u32;
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
