//! Reads the counts that kernel programs keep: one system call per table.

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::maps::{Array, MapData, PerCpuArray};
use seismo_common::config::SYSCALLS;
use seismo_common::counter::COUNTERS;
use seismo_common::histogram::BUCKETS;

use crate::model::probe::KernelCounts;

/// Handles to the maps that hold counts.
pub struct Counts {
    counters: PerCpuArray<MapData, [u64; COUNTERS]>,
    syscalls: PerCpuArray<MapData, [u64; SYSCALLS]>,
    syscall_durations: Array<MapData, [u64; BUCKETS + 1]>,
}

impl Counts {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self> {
        let mut map = |name: &str| ebpf.take_map(name).with_context(|| format!("the object has no map {name}"));
        Ok(Self {
            counters: PerCpuArray::try_from(map("COUNTERS")?)?,
            syscalls: PerCpuArray::try_from(map("SYSCALL_COUNTS")?)?,
            syscall_durations: Array::try_from(map("SYSCALL_DURATIONS")?)?,
        })
    }
}

impl KernelCounts for Counts {
    fn lanes(&self, map: &str) -> Option<Vec<u64>> {
        match map {
            "COUNTERS" => sum(&self.counters),
            "SYSCALL_COUNTS" => sum(&self.syscalls),
            _ => None,
        }
    }

    fn row(&self, map: &str, index: u32) -> Option<Vec<u64>> {
        match map {
            "SYSCALL_DURATIONS" => self.syscall_durations.get(&index, 0).ok().map(|row| row.to_vec()),
            _ => None,
        }
    }
}

fn sum<const N: usize>(map: &PerCpuArray<MapData, [u64; N]>) -> Option<Vec<u64>> {
    let per_cpu = map.get(&0, 0).ok()?;
    let mut total = vec![0u64; N];
    for lanes in per_cpu.iter() {
        for (sum, lane) in total.iter_mut().zip(lanes) {
            *sum += lane;
        }
    }
    Some(total)
}
