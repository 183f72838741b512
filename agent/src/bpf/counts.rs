//! Reads the counts that kernel programs keep: one system call per table, or per row of a table with many.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::maps::{Array, MapData, PerCpuArray};
use seismo_common::block::{DEVICE_LANES, DEVICES};
use seismo_common::config::{SKB_REASONS, SYSCALL_ERRORS, SYSCALL_WORDS};
use seismo_common::counter::COUNTERS;
use seismo_common::histogram::BUCKETS;
use seismo_common::interrupt::LANES as INTERRUPT_LANES;
use seismo_common::tcp::PASS_WORDS;

use super::iterate::Iterator;
use super::missed::Missed;
use super::rows::Rows;
use super::support::Constants;
use crate::model::probe::KernelCounts;

/// The programs that go over all threads and over all TCP sockets.
const TASKS: &str = "memory_tasks";
const SOCKETS: &str = "tcp_sockets";

/// The program that goes over all TCP sockets, and what it counts in.
struct Sockets {
    iterator: Option<Iterator>,
    counted: Array<MapData, [u64; PASS_WORDS]>,
    /// What the last pass counted, and when that was.
    last: Option<(Instant, Vec<u64>)>,
}

/// Handles to the maps that hold counts.
pub struct Counts {
    counters: PerCpuArray<MapData, [u64; COUNTERS]>,
    syscalls: PerCpuArray<MapData, [u64; SYSCALL_WORDS]>,
    syscalls_failed: PerCpuArray<MapData, [[u64; 2]; SYSCALL_ERRORS]>,
    syscall_durations: Array<MapData, [u64; BUCKETS + 1]>,
    block_devices: Array<MapData, [u64; DEVICES]>,
    block: Rows<DEVICE_LANES>,
    reclaim: PerCpuArray<MapData, [u64; BUCKETS + 1]>,
    skb_drops: PerCpuArray<MapData, [u64; SKB_REASONS]>,
    interrupts: PerCpuArray<MapData, [u64; INTERRUPT_LANES]>,
    tasks: Option<Iterator>,
    /// One pass at a time: each begins by clearing what it counts in.
    sockets: Mutex<Sockets>,
    /// Least time between two passes over all TCP sockets.
    pub pause: Duration,
    pub missed: Missed,
    constants: Constants,
}

impl Counts {
    pub(super) fn take(ebpf: &mut Ebpf, cpus: usize, constants: Constants) -> Result<Self> {
        let block = Rows::take(ebpf, "BLOCK", cpus)?;
        let mut map = |name: &str| ebpf.take_map(name).with_context(|| format!("the object has no map {name}"));
        let counted = Array::try_from(map("TCP_PASS")?)?;
        Ok(Self {
            counters: PerCpuArray::try_from(map("COUNTERS")?)?,
            syscalls: PerCpuArray::try_from(map("SYSCALL_COUNTS")?)?,
            syscalls_failed: PerCpuArray::try_from(map("SYSCALL_FAILED")?)?,
            syscall_durations: Array::try_from(map("SYSCALL_DURATIONS")?)?,
            block_devices: Array::try_from(map("BLOCK_DEVICES")?)?,
            block,
            reclaim: PerCpuArray::try_from(map("RECLAIM")?)?,
            skb_drops: PerCpuArray::try_from(map("SKB_DROPS")?)?,
            interrupts: PerCpuArray::try_from(map("INTERRUPTS")?)?,
            sockets: Mutex::new(Sockets { iterator: Iterator::take(ebpf, SOCKETS)?, counted, last: None }),
            pause: Duration::ZERO,
            tasks: Iterator::take(ebpf, TASKS)?,
            missed: Missed::take(ebpf),
            constants,
        })
    }
}

impl KernelCounts for Counts {
    fn lanes(&self, map: &str) -> Option<Vec<u64>> {
        match map {
            "COUNTERS" => sum(&self.counters, 0),
            "SYSCALL_COUNTS" => sum(&self.syscalls, 0),
            "SKB_DROPS" => sum(&self.skb_drops, 0),
            "INTERRUPTS" => sum(&self.interrupts, 0),
            _ => None,
        }
    }

    fn row(&self, map: &str, index: u32) -> Option<Vec<u64>> {
        match map {
            "SYSCALL_DURATIONS" => self.syscall_durations.get(&index, 0).ok().map(|row| row.to_vec()),
            "BLOCK_DEVICES" => self.block_devices.get(&index, 0).ok().map(|row| row.to_vec()),
            "BLOCK" => self.block.sum(index as usize).ok().map(|row| row.to_vec()),
            "RECLAIM" => sum(&self.reclaim, index),
            _ => None,
        }
    }

    fn keyed(&self, map: &str) -> BTreeMap<u64, u64> {
        let mut total = BTreeMap::new();
        if map == "SYSCALL_FAILED"
            && let Ok(per_cpu) = self.syscalls_failed.get(&0, 0)
        {
            for [key, count] in per_cpu.iter().flatten().filter(|[key, _]| *key != 0) {
                *total.entry(*key).or_default() += count;
            }
        }
        total
    }

    fn constants(&self, enumeration: &str) -> &[(String, u32)] {
        self.constants.get(enumeration).map_or(&[], Vec::as_slice)
    }

    fn file(&self, path: &str) -> Option<String> {
        fs::read_to_string(path).ok()
    }

    fn iterate(&self, program: &str) {
        if program == TASKS
            && let Some(tasks) = &self.tasks
            && let Err(error) = tasks.run()
        {
            log::warn!("{program}: {error:#}");
        }
    }

    fn pass(&self, program: &str) -> Option<Vec<u64>> {
        if program != SOCKETS {
            return None;
        }
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, words)) = sockets.last.as_ref().filter(|(at, _)| at.elapsed() < self.pause) {
            return Some(words.clone());
        }
        if let Err(error) = sockets.iterator.as_ref()?.run() {
            log::warn!("{program}: {error:#}");
            return None;
        }
        let words = sockets.counted.get(&0, 0).ok()?.to_vec();
        sockets.last = Some((Instant::now(), words.clone()));
        Some(words)
    }
}

fn sum<const N: usize>(map: &PerCpuArray<MapData, [u64; N]>, index: u32) -> Option<Vec<u64>> {
    let per_cpu = map.get(&index, 0).ok()?;
    let mut total = vec![0u64; N];
    for lanes in per_cpu.iter() {
        for (sum, lane) in total.iter_mut().zip(lanes) {
            *sum += lane;
        }
    }
    Some(total)
}
