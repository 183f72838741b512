//! System calls: every call counted, one in `2^sample_shift` of each timed.
//!
//! Hooks: `tp_btf/sys_enter`, `tp_btf/sys_exit` (5.5+). Both run never in an interrupt, and before 7.0 with preemption
//! off, so a plain add on this CPU's lane is exact there. The first call of each number on each CPU is timed, then every sixteenth.
//! Calls that do not return where they began (`exit`, `exit_group`, `rt_sigreturn`) are counted, not timed; 32-bit
//! calls have other numbers and are counted in the last lane.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use core::ffi::c_void;

use seismo_common::config::{SYSCALLS, THREAD_SLOTS};
use seismo_common::counter::SYSCALL_SAMPLE_LOST;
use seismo_common::histogram::{BUCKETS, bucket};

use crate::emit;
use crate::kernel::{Registers, Task, setting};
use crate::maps::{SYSCALL_COUNTS, SYSCALL_DURATIONS, SYSCALL_STARTS};

const RT_SIGRETURN: u64 = 15;
const EXIT: u64 = 60;
const EXIT_GROUP: u64 = 231;

/// `sys_enter(regs, id)`.
#[btf_tracepoint(function = "sys_enter")]
pub fn syscall_enter(ctx: BtfTracePointContext) -> i32 {
    let task = Task::current();
    let number = ctx.arg::<u64>(1);
    let lane = if number >= SYSCALLS as u64 || task.is_compat() { SYSCALLS as u64 - 1 } else { number };
    let Some(counts) = SYSCALL_COUNTS.get_ptr_mut(0) else { return 0 };
    // SAFETY: lane < SYSCALLS, the length of the value.
    let before = unsafe {
        let count = counts.cast::<u64>().add(lane as usize);
        let before = *count;
        if setting!(preemptible) != 0 {
            emit::atomic_add(count, 1);
        } else {
            *count = before + 1;
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
    let tid = task.tid();
    let Some(slot) = SYSCALL_STARTS.get_ptr_mut(tid & (THREAD_SLOTS as u32 - 1)) else { return 0 };
    // SAFETY: as in syscall_enter.
    let (owner, lane, start) = unsafe { ((*slot).tid, (*slot).syscall, (*slot).ktime_ns) };
    if owner != tid {
        return 0;
    }
    // SAFETY: as above.
    unsafe { (*slot).tid = 0 };
    let number = Registers(ctx.arg::<*const c_void>(0)).syscall() as u64;
    let number = if number >= SYSCALLS as u64 || task.is_compat() { SYSCALLS as u64 - 1 } else { number };
    if number != u64::from(lane) {
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
