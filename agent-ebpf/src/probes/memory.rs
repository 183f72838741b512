//! Memory: page faults by workload, time that threads had to reclaim memory themselves, processes killed for lack of it.
//!
//! No program runs at a fault: the kernel counts them in each thread, and that count is taken over when the thread ends
//! (`tp_btf/sched_process_exit`) and whenever a page of metrics is made (`iter/task`, 5.8+). What was taken over of a
//! thread is remembered by the thread's address until it ends, so each fault counts once, for the cgroup that the thread
//! is in then. Reclaim: `tp_btf/mm_vmscan_{direct,memcg}_reclaim_{begin,end}`; kills: `tp_btf/mark_victim` (6.8+, where
//! it gives the process). All run in process context, some with preemption on: adds are atomic. About 0.8 µs at the end of
//! a thread and 0.3 µs for each thread of an iteration over an empty program (busy machine); nothing at a fault.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use core::ffi::c_void;

use seismo_common::config::RECLAIM_SLOTS;
use seismo_common::counter::{FAULTS_UNTRACKED, RECLAIM_UNKNOWN};
use seismo_common::histogram::{BUCKETS, bucket};
use seismo_common::workload::{MAJOR_FAULTS, MINOR_FAULTS, OOM_KILLS, RECLAIM_NS};

use crate::access::{Access as _, Typed};
use crate::emit;
use crate::kernel::{Task, offset, setting};
use crate::maps::{FAULTS, FAULTS_SINCE, RECLAIM, RECLAIM_STARTS};
use crate::workload::{Workload, compare_exchange};

/// Member of `struct bpf_iter__task`, which is kernel API.
const TASK: usize = 8;
/// Places in the histograms of reclaim.
const HOST: u32 = 0;
const CGROUP: u32 = 1;

/// `task`: `(meta, task)`; null after the last one.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub extern "C" fn memory_tasks(ctx: *mut c_void) -> i32 {
    // SAFETY: the context of this kind of program is a struct of two words; the verifier knows each one's type.
    let task = unsafe { *ctx.byte_add(TASK).cast::<*const c_void>() };
    if task.is_null() {
        return 0;
    }
    let task = Task(task);
    let now = faults(task);
    if now[0] | now[1] == 0 {
        return 0;
    }
    let key = Typed::number(task.0);
    let seen = match FAULTS.get_ptr_mut(key) {
        Some(seen) => seen,
        None => {
            let first = if is_older(task) { now } else { [0; 2] };
            if FAULTS.insert(key, first, u64::from(BPF_NOEXIST)).is_err() {
                // Counted when it ends.
                emit::add(FAULTS_UNTRACKED, 1);
                return 0;
            }
            if task.is_exiting() {
                // Its end may have been before the entry was there, and counts everything then.
                let _ = FAULTS.remove(key);
                return 0;
            }
            let Some(seen) = FAULTS.get_ptr_mut(key) else { return 0 };
            seen
        }
    };
    // SAFETY: a value of the map.
    unsafe { take_over(task, seen.cast(), now) };
    0
}

/// `sched_process_exit(task, …)`, for every thread.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn memory_exit(ctx: BtfTracePointContext) -> i32 {
    let task = Task(ctx.arg::<*const c_void>(0));
    let now = faults(task);
    let key = Typed::number(task.0);
    match FAULTS.get_ptr_mut(key) {
        Some(seen) => {
            // SAFETY: a value of the map. The second time for what an iteration took over in the middle of the first.
            unsafe {
                take_over(task, seen.cast(), now);
                take_over(task, seen.cast(), now);
            }
            let _ = FAULTS.remove(key);
        }
        // How much of an older thread's was before the agent, nobody knows.
        None if !is_older(task) => count(task, now),
        None => {}
    }
    0
}

/// `mm_vmscan_direct_reclaim_begin(order, gfp_flags)`: the host is short of memory.
#[btf_tracepoint(function = "mm_vmscan_direct_reclaim_begin")]
pub fn memory_reclaim(_: BtfTracePointContext) -> i32 {
    reclaim_begins()
}

/// `mm_vmscan_direct_reclaim_end(pages)`.
#[btf_tracepoint(function = "mm_vmscan_direct_reclaim_end")]
pub fn memory_reclaimed(_: BtfTracePointContext) -> i32 {
    reclaim_ends(HOST)
}

/// `mm_vmscan_memcg_reclaim_begin(order, gfp_flags)`: a cgroup has reached its limit.
#[btf_tracepoint(function = "mm_vmscan_memcg_reclaim_begin")]
pub fn memory_group_reclaim(_: BtfTracePointContext) -> i32 {
    reclaim_begins()
}

/// `mm_vmscan_memcg_reclaim_end(pages)`.
#[btf_tracepoint(function = "mm_vmscan_memcg_reclaim_end")]
pub fn memory_group_reclaimed(_: BtfTracePointContext) -> i32 {
    reclaim_ends(CGROUP)
}

/// `mark_victim(task, uid)`.
#[btf_tracepoint(function = "mark_victim")]
pub fn memory_kill(ctx: BtfTracePointContext) -> i32 {
    if let Some(workload) = Workload::of_task(Task(ctx.arg::<*const c_void>(0))) {
        workload.add_shared(OOM_KILLS, 1);
    }
    0
}

/// Minor and major faults of a thread since it began.
#[inline(always)]
fn faults(task: Task) -> [u64; 2] {
    // SAFETY: a task_struct to the verifier; the offsets are `min_flt` and `maj_flt`.
    unsafe { [Typed::load(task.0, offset!(task_minor_faults)), Typed::load(task.0, offset!(task_major_faults))] }
}

/// Is the thread older than the agent's programs, or than the last time that they were attached?
#[inline(always)]
fn is_older(task: Task) -> bool {
    // SAFETY: a task_struct to the verifier; the offset is `start_time`, ns of the monotonic clock.
    let started: u64 = unsafe { Typed::load(task.0, offset!(task_start_time)) };
    let since = FAULTS_SINCE.get(0).copied().unwrap_or(0);
    started < u64::from(setting!(began_s)) * 1_000_000_000 || started < since
}

/// Counts what is new since `seen`, unless somebody else does at this moment.
///
/// # Safety
/// `seen` points to two aligned words of a map's value.
#[inline(always)]
unsafe fn take_over(task: Task, seen: *mut u64, now: [u64; 2]) {
    let mut new = [0; 2];
    // SAFETY: by contract.
    unsafe {
        let (minor, major) = (*seen, *seen.add(1));
        if now[0] > minor && compare_exchange(seen, minor, now[0]) == minor {
            new[0] = now[0] - minor;
        }
        if now[1] > major && compare_exchange(seen.add(1), major, now[1]) == major {
            new[1] = now[1] - major;
        }
    }
    if new[0] | new[1] != 0 {
        count(task, new);
    }
}

#[inline(always)]
fn count(task: Task, new: [u64; 2]) {
    if let Some(workload) = Workload::of_task(task) {
        workload.add_shared(MINOR_FAULTS, new[0]);
        workload.add_shared(MAJOR_FAULTS, new[1]);
    }
}

#[inline(always)]
fn reclaim_begins() -> i32 {
    let tid = Task::current().tid();
    if let Some(slot) = RECLAIM_STARTS.get_ptr_mut(tid & (RECLAIM_SLOTS as u32 - 1)) {
        // SAFETY: threads that share a slot may run on two CPUs; the end looks whose it is.
        unsafe {
            (*slot).ktime_ns = emit::now();
            (*slot).tid = tid;
        }
    }
    0
}

#[inline(always)]
fn reclaim_ends(place: u32) -> i32 {
    let task = Task::current();
    let tid = task.tid();
    let Some(slot) = RECLAIM_STARTS.get_ptr_mut(tid & (RECLAIM_SLOTS as u32 - 1)) else { return 0 };
    // SAFETY: as above.
    let (owner, started) = unsafe { ((*slot).tid, (*slot).ktime_ns) };
    if owner != tid {
        emit::add(RECLAIM_UNKNOWN, 1);
        return 0;
    }
    // SAFETY: as above.
    unsafe { (*slot).tid = 0 };
    let ns = emit::now().saturating_sub(started);
    if let Some(workload) = Workload::of_task(task) {
        workload.add_shared(RECLAIM_NS, ns);
    }
    let index = bucket(ns);
    if index < BUCKETS
        && let Some(histogram) = RECLAIM.get_ptr_mut(place)
    {
        // SAFETY: index < BUCKETS and the sum's place is BUCKETS: both inside the value.
        unsafe {
            let lanes = histogram.cast::<u64>();
            emit::atomic_add(lanes.add(index), 1);
            emit::atomic_add(lanes.add(BUCKETS), ns);
        }
    }
    0
}
