//! What a thread's time went to, up to now: its waits in the run queue and its time off CPU by reason.
//!
//! The kernel's own counts of the thread, and what `probes/scheduler.rs` wrote down when it last left its CPU; the wait that
//! is just over is not in there yet and is added here. No clock, no helper: about 15 loads.

use seismo_common::config::THREAD_SLOTS;
use seismo_common::offsets::ABSENT;
use seismo_common::payload::ACCOUNT;
use seismo_common::workload::{OFF_CPU_OTHER, OFF_CPU_THROTTLED};

use crate::kernel::{Task, offset};
use crate::maps::THREAD_RUNS;

/// As in [`seismo_common::payload::PayloadRecord`].
#[derive(Clone, Copy)]
pub struct Account {
    pub ns: [u64; ACCOUNT],
    pub epoch: u32,
}

impl Account {
    const UNKNOWN: Self = Self { ns: [0; ACCOUNT], epoch: 0 };

    /// Of the running thread.
    #[inline(always)]
    pub fn of(task: Task) -> Self {
        if offset!(task_run_delay) == ABSENT || offset!(task_run_count) == ABSENT || offset!(task_arrived) == ABSENT {
            return Self::UNKNOWN;
        }
        let tid = task.tid();
        let Some(slot) = THREAD_RUNS.get_ptr(tid & (THREAD_SLOTS as u32 - 1)) else { return Self::UNKNOWN };
        // SAFETY: task_struct; the offsets are those of its members. Nobody else writes the slot of a running thread but one
        // that shares it, whose id then stands there.
        let (run_delay_ns, runs, arrived_ns, left) = unsafe {
            (
                Task::load::<u64>(task.0, offset!(task_run_delay)),
                Task::load::<u64>(task.0, offset!(task_run_count)) as u32,
                Task::load::<u64>(task.0, offset!(task_arrived)),
                (*slot).left,
            )
        };
        // It left once since, else a switch was not seen.
        if left.tid != tid || left.left_ns == 0 || left.runs.wrapping_add(1) != runs {
            if runs > 1 {
                return Self::UNKNOWN;
            }
            // It never left: it has waited for nothing but its first run, and begins the slot's next epoch when it does.
            let mut ns = [0; ACCOUNT];
            ns[0] = run_delay_ns;
            return Self { ns, epoch: left.epoch.wrapping_add(1).max(1) };
        }
        let waited_ns = run_delay_ns.saturating_sub(left.run_delay_ns);
        let away_ns = arrived_ns.saturating_sub(left.left_ns).saturating_sub(waited_ns);
        // SAFETY: as above.
        let off_cpu_ns = unsafe { (*slot).off_cpu_ns };
        // What a CPU limit held back is a wait for a CPU to the kernel.
        let held_ns = waited_ns * u64::from(left.reason as usize == OFF_CPU_THROTTLED);
        let mut ns = [run_delay_ns - off_cpu_ns[OFF_CPU_THROTTLED - OFF_CPU_OTHER] - held_ns; ACCOUNT];
        for (reason, before_ns) in off_cpu_ns.into_iter().enumerate() {
            let last = left.reason as usize == OFF_CPU_OTHER + reason;
            // Without a branch: each would double the verifier's work.
            ns[1 + reason] = before_ns + away_ns * u64::from(last);
        }
        let throttled = 1 + OFF_CPU_THROTTLED - OFF_CPU_OTHER;
        ns[throttled] = off_cpu_ns[throttled - 1] + held_ns;
        Self { ns, epoch: left.epoch }
    }
}
