//! Run-queue latency: how long threads that could run waited for a CPU.
//!
//! Hook: `tp_btf/sched_switch`. No clock: the kernel itself adds each wait to `task->sched_info.run_delay`
//! (`kernel/sched/stats.h`, CONFIG_SCHED_INFO), which is read when the thread is switched out and compared with its
//! value at the time before. The wait before the current run is thus recorded at the end of that run. Runs with
//! interrupts off: plain adds are exact. Waits after idle (about 1 µs) are the kernel's to leave out.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use core::ffi::c_void;

use seismo_common::config::THREAD_SLOTS;
use seismo_common::counter::RUNQUEUE_UNKNOWN;
use seismo_common::histogram::{BUCKETS, bucket};
use seismo_common::offsets::ABSENT;

use crate::emit;
use crate::kernel::{Task, offset};
use crate::maps::{RUN_DELAYS, RUNQUEUE, RunDelay};

/// `sched_switch(preempt, prev, next, prev_state)`.
#[btf_tracepoint(function = "sched_switch")]
pub fn scheduler_switch(ctx: BtfTracePointContext) -> i32 {
    if offset!(task_run_delay) == ABSENT || offset!(task_run_count) == ABSENT {
        return 0;
    }
    let task = Task(ctx.arg::<*const c_void>(1));
    let tid = task.tid();
    if tid == 0 {
        return 0;
    }
    // SAFETY: task_struct to the verifier; the offsets are those of `sched_info`'s members.
    let (run_delay_ns, runs): (u64, u64) =
        unsafe { (Task::load(task.0, offset!(task_run_delay)), Task::load(task.0, offset!(task_run_count))) };
    let Some(slot) = RUN_DELAYS.get_ptr_mut(tid & (THREAD_SLOTS as u32 - 1)) else { return 0 };
    // SAFETY: threads that share a slot may run on two CPUs; a slot that is not ours is not used.
    let before = unsafe {
        let before = *slot;
        *slot = RunDelay { run_delay_ns, tid, reserved: 0 };
        before
    };
    let wait = if before.tid == tid && run_delay_ns >= before.run_delay_ns {
        run_delay_ns - before.run_delay_ns
    } else if runs <= 1 {
        // A new thread: all its waiting was before this, its first run.
        run_delay_ns
    } else {
        emit::add(RUNQUEUE_UNKNOWN, 1);
        return 0;
    };
    let Some(histogram) = RUNQUEUE.get_ptr_mut(0) else { return 0 };
    let index = bucket(wait);
    if index < BUCKETS {
        // SAFETY: index < BUCKETS and the sum's place is BUCKETS: both inside the value.
        unsafe {
            let lanes = histogram.cast::<u64>();
            *lanes.add(index) += 1;
            *lanes.add(BUCKETS) += wait;
        }
    }
    0
}
