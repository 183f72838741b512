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

use crate::emit;
use crate::kernel::{File, S_IFSOCK, Task, offset, opaque, setting};
use crate::maps::{SYSCALL_COUNTS, SYSCALLS_TOLD, THREAD_RUNS, ThreadLeft};
use crate::workload::{Workload, cgroup_of_task, find};

/// `sched_switch(preempt, prev, next, prev_state)`.
#[btf_tracepoint(function = "sched_switch")]
pub fn scheduler_switch(ctx: BtfTracePointContext) -> i32 {
    let known = offset!(task_run_delay) != ABSENT
        && offset!(task_run_count) != ABSENT
        && offset!(task_arrived) != ABSENT
        && offset!(task_run_ns) != ABSENT
        && offset!(task_migrations) != ABSENT
        && offset!(task_state) != ABSENT
        && offset!(task_cgroups) != ABSENT;
    if !known {
        return 0;
    }
    let preempted = ctx.arg::<u64>(0) & 1 != 0;
    let task = Task(ctx.arg::<*const c_void>(1));
    let tid = task.tid();
    if tid == 0 {
        return 0;
    }
    // SAFETY: task_struct to the verifier; the offsets are those of its members.
    let (run_delay_ns, runs, arrived_ns, run_ns, migrations): (u64, u64, u64, u64, u32) = unsafe {
        (
            Task::load(task.0, offset!(task_run_delay)),
            Task::load(task.0, offset!(task_run_count)),
            Task::load(task.0, offset!(task_arrived)),
            Task::load(task.0, offset!(task_run_ns)),
            // The lower half of it is enough.
            Task::load(task.0, offset!(task_migrations)),
        )
    };
    // SAFETY: as above; a state that is not 0 is one of waiting, also where somebody wakes the thread at this moment.
    let waits = !preempted && unsafe { Task::load::<u32>(task.0, offset!(task_state)) } != 0;
    // SAFETY: as above; only compared.
    let cgroups = unsafe { Task::load::<*const c_void>(task.0, offset!(task_cgroups)) } as u64;
    let Some(slot) = THREAD_RUNS.get_ptr_mut(tid & (THREAD_SLOTS as u32 - 1)) else { return 0 };
    // SAFETY: threads that share a slot may run on two CPUs; a slot that is not ours is not used.
    let before = unsafe { (*slot).left };
    let own = before.tid == tid && run_delay_ns >= before.run_delay_ns && run_ns >= before.run_ns;
    // A css_set that was freed and made again for another cgroup between two switches of one thread is not noticed.
    let cached = own && before.cgroups == cgroups && before.place != 0;
    let place = if cached { before.place } else { find(cgroup_of_task(task)) };
    let reason = if waits { reason(task) } else { held_back(task) };
    // A new thread has all it ever did behind it.
    let (ran_ns, waited_ns) =
        if own { (run_ns - before.run_ns, run_delay_ns - before.run_delay_ns) } else { (run_ns, run_delay_ns) };
    let whole = own || runs <= 1;
    let left_ns = if whole { arrived_ns + ran_ns } else { 0 };
    let (user_ns, system_ns) = ticks(task);
    let runs = runs as u32;
    let continued = own && before.left_ns != 0 && before.runs.wrapping_add(1) == runs;
    let throttled = continued && before.reason == OFF_CPU_THROTTLED as u32;
    // To the kernel the whole of being held back was a wait for a CPU.
    let away_ns =
        if throttled { waited_ns } else { arrived_ns.saturating_sub(before.left_ns).saturating_sub(waited_ns) };
    let epoch = if continued { before.epoch } else { before.epoch.wrapping_add(1).max(1) };
    let reason = reason as u32;
    // SAFETY: as above.
    unsafe {
        if !continued {
            (*slot).off_cpu_ns = [0; OFF_CPU.len()];
        } else if before.reason != 0 {
            let at = opaque(u64::from(before.reason) - OFF_CPU_OTHER as u64) as usize;
            if at < OFF_CPU.len() {
                *(&raw mut (*slot).off_cpu_ns).cast::<u64>().add(at) += away_ns;
            }
        }
        (*slot).left = ThreadLeft {
            run_delay_ns,
            run_ns,
            left_ns,
            cgroups,
            user_ns,
            system_ns,
            place,
            tid,
            migrations,
            reason,
            runs,
            epoch,
        };
    }
    let Some(workload) = Workload::at(place) else { return 0 };
    workload.add(if waits { SWITCHES_VOLUNTARY } else { SWITCHES_INVOLUNTARY }, 1);
    let calls = calls();
    if calls != 0 {
        workload.add(SYSCALL_CALLS, calls);
    }
    if !whole {
        emit::add(RUNQUEUE_UNKNOWN, 1);
        workload.add(CPU_UNTOLD_NS, last_run(task, run_ns));
        return 0;
    }
    let (user_ns, system_ns) = if own {
        (user_ns.wrapping_sub(before.user_ns), system_ns.wrapping_sub(before.system_ns))
    } else {
        (user_ns, system_ns)
    };
    count_run(workload, ran_ns, user_ns, system_ns);
    if own {
        workload.add(MIGRATIONS, u64::from(migrations.wrapping_sub(before.migrations)));
        if before.reason != 0 && continued {
            workload.add_at(before.reason as usize, away_ns);
        }
    }
    if !throttled {
        workload.add(RUNQUEUE_NS, waited_ns);
        workload.add_at(RUNQUEUE_WAITS + octave(waited_ns, RUNQUEUE_EXPONENT, RUNQUEUE_BUCKETS), 1);
    }
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

/// A run is user or system time in the measure of the ticks that it saw. What saw none waits for the next run that does.
#[inline(always)]
fn count_run(workload: Workload, ran_ns: u64, user_ns: u64, system_ns: u64) {
    let ticks_ns = user_ns + system_ns;
    if ticks_ns == 0 {
        workload.add(CPU_UNTOLD_NS, ran_ns);
        return;
    }
    let all_ns = workload.take(CPU_UNTOLD_NS) + ran_ns;
    let user_ns = if system_ns == 0 {
        all_ns
    } else if user_ns == 0 {
        0
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
    match registers.syscall() {
        // futex, futex_waitv, futex_wait
        202 | 449 | 455 => OFF_CPU_FUTEX,
        // nanosleep, clock_nanosleep
        35 | 230 => OFF_CPU_SLEEP,
        // poll, select, connect, accept, sendto, recvfrom, sendmsg, recvmsg, epoll_wait, pselect6, ppoll, epoll_pwait,
        // accept4, recvmmsg, sendmmsg, io_uring_enter, epoll_pwait2
        7 | 23 | 42..=47 | 232 | 270 | 271 | 281 | 288 | 299 | 307 | 426 | 441 => OFF_CPU_NETWORK,
        // read, write, readv, writev, sendfile, splice: of a socket?
        0 | 1 | 19 | 20 | 40 | 275 => match File::of(task, registers.argument_0()) {
            Some(file) if file.kind() == S_IFSOCK => OFF_CPU_NETWORK,
            _ => OFF_CPU_OTHER,
        },
        _ => OFF_CPU_OTHER,
    }
}
