//! Whose work an event is: the row of counters of a cgroup on this CPU.
//!
//! A cgroup's id (`kernfs_node.id`) names its first place in the table; it has one of four, or shares row 0 with all
//! others that found none. Programs only look it up: places are taken when a cgroup is made (`probes/workload.rs`) and
//! when userspace walks the tree. About 10 ns for a task: five loads and no helper.

use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use core::ffi::c_void;

use seismo_common::counter::CPU_WITHOUT_ROWS;
use seismo_common::offsets::ABSENT;
use seismo_common::workload::{WORKLOAD_LANES, WORKLOAD_PROBES, WORKLOADS as PLACES, place};

use crate::access::{Access, Typed};
use crate::emit;
use crate::kernel::{Task, offset, opaque, setting};
use crate::maps::{WORKLOAD_COUNTS, WORKLOADS};
use crate::sock::Sock;

/// A row of [`seismo_common::workload`] lanes.
#[derive(Clone, Copy)]
pub struct Workload(*mut u64);

impl Workload {
    /// The row of the cgroup (version 2) that a task is in.
    #[inline(always)]
    pub fn of_task(task: Task) -> Option<Self> {
        Self::of_id(cgroup_of_task(task))
    }

    /// The row of the cgroup that a socket was made in; of nobody in particular before 5.16.
    #[inline(always)]
    pub fn of_sock(sock: Sock<Typed>) -> Option<Self> {
        let id = if offset!(sock_cgroup) == ABSENT || offset!(cgroup_node) == ABSENT || offset!(node_id) == ABSENT {
            0
        } else {
            // SAFETY: a sock to the verifier; its cgroup lives as long as it does.
            unsafe { id_of::<Typed>(Typed::load(sock.0, offset!(sock_cgroup))) }
        };
        Self::of_id(id)
    }

    #[inline(always)]
    pub fn of_id(cgroup_id: u64) -> Option<Self> {
        Self::at(find(cgroup_id))
    }

    #[inline(always)]
    pub fn at(place: u32) -> Option<Self> {
        WORKLOAD_COUNTS.get_ptr_mut(row(place)?).map(|row| Self(row.cast()))
    }

    /// Adds to a lane that only programs in process context, or only programs in soft interrupts, write.
    #[inline(always)]
    pub fn add(self, lane: usize, amount: u64) {
        if setting!(preemptible) != 0 {
            self.add_shared(lane, amount);
        } else if lane < WORKLOAD_LANES {
            // SAFETY: the lane is inside the row, which is this CPU's.
            unsafe { *self.0.add(lane) += amount };
        }
    }

    /// As [`Workload::add`], to a lane that is only known while the program runs.
    #[inline(always)]
    pub fn add_at(self, lane: usize, amount: u64) {
        // Else the bound is checked on a copy of the value.
        self.add(opaque(lane as u64) as usize, amount);
    }

    /// Adds 1 to a lane as [`Workload::add`] does; what it was before, or might have been where somebody adds meanwhile.
    #[inline(always)]
    pub fn next(self, lane: usize) -> u64 {
        // SAFETY: the lane is inside the row.
        let before = if lane < WORKLOAD_LANES { unsafe { *self.0.add(lane) } } else { 0 };
        self.add(lane, 1);
        before
    }

    /// What is in a lane that only one program writes, with interrupts off; 0 is there afterwards.
    #[inline(always)]
    pub fn take(self, lane: usize) -> u64 {
        if lane >= WORKLOAD_LANES {
            return 0;
        }
        // SAFETY: the lane is inside the row, which is this CPU's.
        unsafe { self.0.add(lane).replace(0) }
    }

    /// Adds to a lane that programs write which can interrupt each other.
    #[inline(always)]
    pub fn add_shared(self, lane: usize, amount: u64) {
        if lane < WORKLOAD_LANES {
            // SAFETY: as above.
            unsafe { emit::atomic_add(self.0.add(lane), amount) };
        }
    }

    /// As [`Workload::add_shared`], to a lane that is only known while the program runs.
    #[inline(always)]
    pub fn add_shared_at(self, lane: usize, amount: u64) {
        self.add_shared(opaque(lane as u64) as usize, amount);
    }
}

/// Where this CPU's row of a place is in a table with one for each CPU, those of a place together; none where the CPU came
/// after the table was made.
#[inline(always)]
pub fn row(place: u32) -> Option<u32> {
    let cpus = setting!(cpus);
    // SAFETY: no arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    if cpu >= cpus {
        emit::add(CPU_WITHOUT_ROWS, 1);
        return None;
    }
    Some(place * cpus + cpu)
}

/// Id of a task's cgroup in the version 2 hierarchy; 0 where that cannot be read.
#[inline(always)]
pub fn cgroup_of_task(task: Task) -> u64 {
    if offset!(task_cgroups) == ABSENT
        || offset!(cgroups_default) == ABSENT
        || offset!(cgroup_node) == ABSENT
        || offset!(node_id) == ABSENT
    {
        return 0;
    }
    // SAFETY: a task's css_set and its cgroups live while it is in them; the offsets are those of pointers.
    unsafe {
        let cgroups: *const c_void = Task::load(task.0, offset!(task_cgroups));
        let cgroup: *const c_void = Task::load(cgroups, offset!(cgroups_default));
        let node: *const c_void = Task::load(cgroup, offset!(cgroup_node));
        Task::load(node, offset!(node_id))
    }
}

/// # Safety
/// A `struct cgroup`, to the verifier where the access is typed; both offsets are known.
#[inline(always)]
pub unsafe fn id_of<A: Access>(cgroup: *const c_void) -> u64 {
    // SAFETY: by contract.
    unsafe {
        let node: *const c_void = A::load(cgroup, offset!(cgroup_node));
        A::load(node, offset!(node_id))
    }
}

/// The place of a cgroup; 0 if it has none.
#[inline(always)]
pub fn find(cgroup_id: u64) -> u32 {
    if cgroup_id == 0 {
        return 0;
    }
    let first = place(cgroup_id);
    for step in 0..WORKLOAD_PROBES as u32 {
        let at = (first + step) & (PLACES as u32 - 1);
        if WORKLOADS.get(at).is_some_and(|id| *id == cgroup_id) {
            return at;
        }
    }
    0
}

/// Takes a place for a cgroup that has none; false if all of its places are taken.
#[inline(always)]
pub fn claim(cgroup_id: u64) -> bool {
    let first = place(cgroup_id);
    for step in 0..WORKLOAD_PROBES as u32 {
        let at = (first + step) & (PLACES as u32 - 1);
        // Place 0 is nobody's.
        if at == 0 {
            continue;
        }
        if let Some(id) = WORKLOADS.get_ptr_mut(at) {
            // SAFETY: an aligned word of a map value.
            let before = unsafe { compare_exchange(id, 0, cgroup_id) };
            if before == 0 || before == cgroup_id {
                return true;
            }
        }
    }
    false
}

/// Stores `new` if the word is `old`; what it was. In assembler for the same reason as [`emit::atomic_add`]. 5.12+.
///
/// # Safety
/// `word` is an aligned word of a map value.
#[inline(always)]
pub unsafe fn compare_exchange(word: *mut u64, old: u64, new: u64) -> u64 {
    let mut before = old;
    // SAFETY: by contract.
    unsafe {
        core::arch::asm!(
            "r0 = cmpxchg_64({0} + 0, r0, {1})",
            in(reg) word, in(reg) new, inout("r0") before, options(nostack)
        );
    }
    before
}
