//! Counters that the kernel programs keep per workload (cgroup) and CPU: one row of `u64` lanes for each.
//!
//! Both tables are mapped into the agent: reading them is no system call. Rows of a CPU lie together; row 0 is that of
//! every cgroup that has no place of its own.

use crate::counter::lanes;

/// Places for cgroups, a power of two; place 0 belongs to whoever found none.
pub const WORKLOADS: usize = 1024;
/// Places that are looked at for a cgroup, from the one that its id names.
pub const WORKLOAD_PROBES: usize = 4;
/// Lanes of a row.
pub const WORKLOAD_LANES: usize = 96;

const _: () = assert!(WORKLOADS.is_power_of_two());
const _: () = assert!(NAMED <= WORKLOAD_LANES);

/// First of the places that a cgroup may have.
#[inline(always)]
pub const fn place(cgroup_id: u64) -> u32 {
    // Ids are given out in sequence.
    (cgroup_id ^ cgroup_id >> 32) as u32 & (WORKLOADS as u32 - 1)
}

lanes! { NAMED:
    /// Cgroups that found no place (row 0 only).
    WORKLOAD_UNPLACED,
}
