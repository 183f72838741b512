//! Scheduling by workload: time on CPU, how long threads that could run waited for one, how long they were off CPU and for
//! what, switches and migrations; and whose system calls those were that a CPU served meanwhile.
//!
//! Hook: `tp_btf/sched_switch`. No clock: the kernel itself adds each wait to `task->sched_info.run_delay` and notes when
//! the thread got its CPU (`kernel/sched/stats.h`, CONFIG_SCHED_INFO), and how long it ran (`se.sum_exec_runtime`). All are
//! read when the thread is switched out and compared with what they were the time before. So a wait is recorded at the end
//! of the run that followed it. When a thread left is its arrival plus its run: time in interrupts, or that a hypervisor
//! took, counts as off CPU with the wait that follows. Runs with interrupts off: plain adds are exact. Waits after idle
//! (about 1 µs) are the kernel's to leave out.
//! What is waited for is told by the kernel's `in_iowait` and by the system call that the thread is in (5.15+); that a CPU
//! limit holds it back by `task->throttled` (6.18+) or its run queue's `throttle_count`, which the kernel counts as a wait
//! for a CPU and we do not. User and system time are told apart as the kernel does it: by the timer's ticks.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use core::ffi::c_void;

use seismo_common::config::{SYSCALLS, THREAD_SLOTS};
use seismo_common::counter::RUNQUEUE_UNKNOWN;
use seismo_common::histogram::octave;
use seismo_common::offsets::ABSENT;
use seismo_common::workload::{
    CPU_SYSTEM_NS, CPU_UNTOLD_NS, CPU_USER_NS, MIGRATIONS, OFF_CPU, OFF_CPU_DISK, OFF_CPU_FUTEX, OFF_CPU_NETWORK,
    OFF_CPU_OTHER, OFF_CPU_SLEEP, OFF_CPU_THROTTLED, RUNQUEUE_BUCKETS, RUNQUEUE_EXPONENT, RUNQUEUE_NS, RUNQUEUE_WAITS,
    SWITCHES_INVOLUNTARY, SWITCHES_VOLUNTARY, SYSCALL_CALLS,
};

use crate::access::{Access, Typed};
use crate::emit;
use crate::kernel::{File, S_IFSOCK, Task, offset, opaque, setting};
use crate::maps::{SYSCALL_COUNTS, SYSCALLS_TOLD, THREAD_RUNS, ThreadRun};
use crate::workload::{Workload, cgroup_of_task, find};

/// Later than any thread got its CPU: it was never off it.
const NEVER: u64 = u64::MAX;

/// `sched_switch(preempt, prev, next, prev_state)`.
#[btf_tracepoint(function = "sched_switch")]
pub fn scheduler_switch(ctx: BtfTracePointContext) -> i32 {
    let preempted = ctx.arg::<u64>(0) & 1 != 0;
    let task = Task(ctx.arg::<*const c_void>(1));
    let tid = task.tid();
    if tid == 0 {
        return 0;
    }
    // SAFETY: task_struct to the verifier; the offsets are those of its members. A state that is not 0 is one of waiting, also
    // where somebody wakes the thread at this moment.
    let waits = !preempted && unsafe { Typed::load::<u32>(task.0, offset!(task_state)) } != 0;
    let reason = if waits { reason(task) } else { held_back(task) };
    // SAFETY: as above; the lower half of how often it ran is enough, the css_set is only compared.
    let (runs, cgroups) = unsafe {
        (
            Typed::load::<u64>(task.0, offset!(task_run_count)) as u32,
            Typed::load::<*const c_void>(task.0, offset!(task_cgroups)) as u64,
        )
    };
    let Some(slot) = THREAD_RUNS.get_ptr_mut(tid & (THREAD_SLOTS as u32 - 1)) else { return 0 };
    // SAFETY: threads that share a slot may run on two CPUs; a slot that is not ours is not used.
    let slot = unsafe { &mut *slot };
    let left = &mut slot.left;
    // A css_set that was freed and made again for another cgroup between two switches of one thread is not noticed.
    let known = left.tid == tid && left.runs.wrapping_add(1) == runs && left.cgroups == cgroups;
    let whole = known || prepare(task, slot, runs) != 0;
    let left = &mut slot.left;
    // SAFETY: as above.
    let (run_ns, run_delay_ns, arrived_ns): (u64, u64, u64) = unsafe {
        (
            Typed::load(task.0, offset!(task_run_ns)),
            Typed::load(task.0, offset!(task_run_delay)),
            Typed::load(task.0, offset!(task_arrived)),
        )
    };
    let ran_ns = run_ns.wrapping_sub(left.run_ns);
    left.run_ns = run_ns;
    let waited_ns = run_delay_ns.wrapping_sub(left.run_delay_ns);
    left.run_delay_ns = run_delay_ns;
    let waited_for = left.reason as usize;
    let throttled = waited_for == OFF_CPU_THROTTLED;
    // To the kernel the whole of being held back was a wait for a CPU.
    let away_ns = if throttled { waited_ns } else { arrived_ns.saturating_sub(left.left_ns).saturating_sub(waited_ns) };
    left.left_ns = if whole { arrived_ns.wrapping_add(ran_ns) } else { 0 };
    left.reason = reason as u32;
    left.runs = runs;
    let place = left.place;
    if waited_for != 0 {
        let at = opaque((waited_for - OFF_CPU_OTHER) as u64) as usize;
        if at < OFF_CPU.len() {
            // SAFETY: inside the value.
            unsafe { *(&raw mut slot.off_cpu_ns).cast::<u64>().add(at) += away_ns };
        }
    }
    let Some(workload) = Workload::at(place) else { return 0 };
    if waited_for != 0 {
        workload.add_at(waited_for, away_ns);
    }
    workload.add(if waits { SWITCHES_VOLUNTARY } else { SWITCHES_INVOLUNTARY }, 1);
    if whole && !throttled {
        workload.add(RUNQUEUE_NS, waited_ns);
        workload.add_at(RUNQUEUE_WAITS + octave(waited_ns, RUNQUEUE_EXPONENT, RUNQUEUE_BUCKETS), 1);
    }
    let calls = calls();
    if calls != 0 {
        workload.add(SYSCALL_CALLS, calls);
    }
    let left = &mut slot.left;
    // SAFETY: as above; the lower half of it is enough.
    let migrations: u32 = unsafe { Typed::load(task.0, offset!(task_migrations)) };
    if migrations != left.migrations {
        workload.add(MIGRATIONS, u64::from(migrations.wrapping_sub(left.migrations)));
        left.migrations = migrations;
    }
    let (user_ns, system_ns) = ticks(task);
    let ticks_ns = user_ns + system_ns;
    if ticks_ns == left.ticks_ns {
        workload.add(CPU_UNTOLD_NS, ran_ns);
    } else {
        tell(workload, ran_ns, user_ns.wrapping_sub(slot.user_ns), ticks_ns.wrapping_sub(left.ticks_ns));
        left.ticks_ns = ticks_ns;
        slot.user_ns = user_ns;
    }
    0
}

/// Makes the slot one that the thread left before this run, where it is not: of a new thread with nothing behind it, of one
/// that is seen for the first time when its last run began, or of one whose cgroup may be another. 0 if it is not known how
/// long this run was. A function of its own: what it needs, the others do not have to keep.
#[inline(never)]
fn prepare(task: Task, slot: &mut ThreadRun, runs: u32) -> u32 {
    let left = &mut slot.left;
    let tid = task.tid();
    let followed = left.tid == tid && left.runs.wrapping_add(1) == runs;
    let place = find(cgroup_of_task(task));
    left.place = place;
    // SAFETY: task_struct to the verifier; the offset is that of a pointer in it, which is only compared.
    let cgroups = unsafe { Task::load::<*const c_void>(task.0, offset!(task_cgroups)) } as u64;
    // One that has no place may get one.
    left.cgroups = if place == 0 { 0 } else { cgroups };
    if followed && left.left_ns != 0 {
        return 1;
    }
    left.left_ns = NEVER;
    left.reason = 0;
    left.epoch = left.epoch.wrapping_add(1).max(1);
    slot.off_cpu_ns = [0; OFF_CPU.len()];
    if followed {
        return 1;
    }
    left.tid = tid;
    // SAFETY: as above.
    left.migrations = unsafe { Task::load(task.0, offset!(task_migrations)) };
    if runs <= 1 {
        (left.run_ns, left.run_delay_ns, left.ticks_ns, slot.user_ns) = (0, 0, 0, 0);
        return 1;
    }
    emit::add(RUNQUEUE_UNKNOWN, 1);
    let (user_ns, system_ns) = ticks(task);
    (left.ticks_ns, slot.user_ns) = (user_ns + system_ns, user_ns);
    // SAFETY: as above.
    unsafe {
        let run_ns: u64 = Task::load(task.0, offset!(task_run_ns));
        left.run_ns = run_ns - last_run(task, run_ns);
        left.run_delay_ns = Task::load(task.0, offset!(task_run_delay));
    }
    // Comes here once more: of the wait that follows it is not known when it began.
    left.cgroups = 0;
    0
}

/// System calls that this CPU served for the thread that leaves it: all those since the switch before. None where that is
/// not known.
#[inline(always)]
fn calls() -> u64 {
    let (Some(counts), Some(told)) = (SYSCALL_COUNTS.get_ptr_mut(0), SYSCALLS_TOLD.get_ptr_mut(0)) else { return 0 };
    // SAFETY: the sum is behind the lanes, inside the value; both are this CPU's.
    unsafe {
        let sum = *counts.cast::<u64>().add(SYSCALLS);
        let before = *told;
        *told = sum;
        if before == 0 { 0 } else { sum - before }
    }
}

/// User and system time of a thread, as the kernel tells them apart.
#[inline(always)]
fn ticks(task: Task) -> (u64, u64) {
    if offset!(task_user_time) == ABSENT || offset!(task_system_time) == ABSENT {
        return (0, 0);
    }
    // SAFETY: task_struct to the verifier; the offsets are those of its members.
    unsafe { (Task::load(task.0, offset!(task_user_time)), Task::load(task.0, offset!(task_system_time))) }
}

/// How long a thread ran this time, by the scheduler's own note; 0 where it makes none (real time classes).
#[inline(always)]
fn last_run(task: Task, run_ns: u64) -> u64 {
    if offset!(task_run_before) == ABSENT {
        return 0;
    }
    // SAFETY: as in `ticks`.
    let before: u64 = unsafe { Task::load(task.0, offset!(task_run_before)) };
    if before == 0 { 0 } else { run_ns.saturating_sub(before) }
}

/// A run that saw ticks is user or system time in the measure of these, and so is what saw none before it.
#[inline(never)]
fn tell(workload: Workload, ran_ns: u64, user_ns: u64, ticks_ns: u64) {
    let all_ns = workload.take(CPU_UNTOLD_NS) + ran_ns;
    let user_ns = if user_ns >= ticks_ns {
        all_ns
    } else {
        // In 1024ths: the product stays inside 64 bits.
        (all_ns >> 10) * (user_ns * 1024 / ticks_ns)
    };
    workload.add(CPU_USER_NS, user_ns);
    workload.add(CPU_SYSTEM_NS, all_ns - user_ns);
}

/// A thread that could go on, but whose cgroup has used up its CPU limit.
#[inline(always)]
fn held_back(task: Task) -> usize {
    let held = if offset!(task_throttled) != ABSENT {
        // SAFETY: as in `ticks`; one byte.
        unsafe { Task::load::<u8>(task.0, offset!(task_throttled)) != 0 }
    } else if offset!(task_queue) != ABSENT && offset!(queue_throttled) != ABSENT {
        // SAFETY: the run queue of a thread, which every thread has; the offset is that of a counter in it.
        unsafe {
            let queue: *const c_void = Task::load(task.0, offset!(task_queue));
            Task::load::<u32>(queue, offset!(queue_throttled)) != 0
        }
    } else {
        false
    };
    if held { OFF_CPU_THROTTLED } else { 0 }
}

/// What a thread is about to wait for, as a lane of its workload.
#[inline(always)]
fn reason(task: Task) -> usize {
    if offset!(task_iowait) != ABSENT {
        // SAFETY: the byte of task_struct that holds the bit.
        let byte: u8 = unsafe { Task::load(task.0, offset!(task_iowait) / 8) };
        if byte >> (offset!(task_iowait) % 8) & 1 != 0 {
            return OFF_CPU_DISK;
        }
    }
    if setting!(task_registers) == 0 || task.is_kernel_thread() || task.is_compat() {
        return OFF_CPU_OTHER;
    }
    let registers = task.registers();
    let call = registers.syscall().cast_unsigned();
    // One test for those of a word that are none of these, and one for each other word.
    let lane = match call / 64 {
        0 => waits_in::<0>(call),
        3 => waits_in::<3>(call),
        4 => waits_in::<4>(call),
        6 => waits_in::<6>(call),
        7 => waits_in::<7>(call),
        _ => OFF_CPU_OTHER,
    };
    if lane != OF_FILE {
        return lane;
    }
    match File::of(task, registers.argument_0()) {
        Some(file) if file.kind() == S_IFSOCK => OFF_CPU_NETWORK,
        _ => OFF_CPU_OTHER,
    }
}

/// poll, select, connect, accept, sendto, recvfrom, sendmsg, recvmsg, epoll_wait, pselect6, ppoll, epoll_pwait, accept4,
/// recvmmsg, sendmmsg, io_uring_enter, epoll_pwait2.
const NETWORK: &[u64] = &[7, 23, 42, 43, 44, 45, 46, 47, 232, 270, 271, 281, 288, 299, 307, 426, 441];
/// futex, futex_waitv, futex_wait.
const FUTEX: &[u64] = &[202, 449, 455];
/// nanosleep, clock_nanosleep.
const SLEEP: &[u64] = &[35, 230];
/// read, write, readv, writev, sendfile, splice: of a socket?
const FILE: &[u64] = &[0, 1, 19, 20, 40, 275];
/// In place of a lane: the file tells.
const OF_FILE: usize = 0;

/// What is waited for in a system call whose number is in that word of 64; no table, which would be one more line of memory.
#[inline(always)]
fn waits_in<const WORD: u64>(call: u64) -> usize {
    let bit = 1 << (call % 64);
    let is = |calls: u64| calls & bit != 0;
    if is(const { bits(WORD, NETWORK) }) {
        OFF_CPU_NETWORK
    } else if is(const { bits(WORD, FUTEX) }) {
        OFF_CPU_FUTEX
    } else if is(const { bits(WORD, SLEEP) }) {
        OFF_CPU_SLEEP
    } else if is(const { bits(WORD, FILE) }) {
        OF_FILE
    } else {
        OFF_CPU_OTHER
    }
}

const fn bits(word: u64, calls: &[u64]) -> u64 {
    let (mut bits, mut at) = (0, 0);
    while at < calls.len() {
        if calls[at] / 64 == word {
            bits |= 1 << (calls[at] % 64);
        }
        at += 1;
    }
    bits
}
