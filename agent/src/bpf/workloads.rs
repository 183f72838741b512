//! The kernel's counters per cgroup: which place belongs to whom, and what was counted there.
//!
//! Whose which place is is mapped, so that only reading a row is a system call. Places are taken here for cgroups that are
//! older than the agent, by the kernel for younger ones; they are given back here alone.

use std::io;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, bail};
use aya::Ebpf;
use aya::maps::Map;
use seismo_common::workload::{WORKLOAD_LANES, WORKLOAD_PROBES, WORKLOADS, place};

use super::mapped::Mapped;
use super::rows::Rows;

/// Handles to both tables.
pub struct WorkloadCounts {
    ids: Mapped,
    rows: Rows<WORKLOAD_LANES>,
}

impl WorkloadCounts {
    /// Cgroups that have a row of their own at most.
    pub const CAPACITY: usize = WORKLOADS - 1;

    pub(super) fn take(ebpf: &mut Ebpf, cpus: usize) -> Result<Self> {
        let Some(Map::Array(ids)) = ebpf.take_map("WORKLOADS") else { bail!("the object has no array WORKLOADS") };
        let ids = Mapped::new(ids.fd(), WORKLOADS).context("mapping WORKLOADS")?;
        Ok(Self { ids, rows: Rows::take(ebpf, "WORKLOAD_COUNTS", cpus)? })
    }

    /// The places that are taken, with the id of the cgroup; place 0, which belongs to all others, comes first with id 0.
    pub fn taken(&self) -> Vec<(usize, u64)> {
        let ids = self.ids.words().iter().map(|id| id.load(Ordering::Relaxed));
        ids.enumerate().filter(|(place, id)| *place == 0 || *id != 0).collect()
    }

    /// Takes a place for a cgroup that has none; false if all of its places are taken.
    pub fn claim(&self, cgroup_id: u64) -> bool {
        if cgroup_id == 0 {
            return false;
        }
        let places = (0..WORKLOAD_PROBES).map(|step| (place(cgroup_id) as usize + step) % WORKLOADS);
        let mut words = places.filter(|place| *place != 0).filter_map(|place| self.ids.words().get(place));
        words.any(|word| match word.compare_exchange(0, cgroup_id, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => true,
            Err(holder) => holder == cgroup_id,
        })
    }

    /// What was counted at a place, added up over CPUs.
    pub fn row(&self, place: usize) -> io::Result<[u64; WORKLOAD_LANES]> {
        self.rows.sum(place)
    }

    /// Gives a place back. The cgroup must be gone: nothing runs in it that could still be counted.
    pub fn release(&self, place: usize, cgroup_id: u64) -> io::Result<()> {
        self.rows.clear(place)?;
        if let Some(word) = self.ids.words().get(place) {
            let held = word.compare_exchange(cgroup_id, 0, Ordering::Release, Ordering::Relaxed);
            debug_assert!(held.is_ok(), "the place was another's");
        }
        Ok(())
    }
}
