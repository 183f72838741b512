//! Tells the kernel programs of which processes wake-ups are wanted; may be changed while they run.
//!
//! One system call per change. A place for each process ([`WAKING_PROCESSES`]): one that finds its place taken is not told,
//! and its requests are linked by what else is known.

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::maps::{Array, MapData};
use seismo_common::handover::WAKING_PROCESSES;

/// The map of those processes. No process has the id 0.
pub struct WakingMap(Array<MapData, u32>);

impl WakingMap {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self> {
        let map = ebpf.take_map("WAKING").context("the object has no map WAKING")?;
        Ok(Self(Array::try_from(map)?))
    }

    /// Wants the wake-ups of a process, or not any more. False where another one has its place.
    pub fn set(&mut self, pid: u32, wanted: bool) -> Result<bool> {
        let place = pid & (WAKING_PROCESSES as u32 - 1);
        let holder = self.0.get(&place, 0).context("reading who wakes")?;
        if holder != 0 && holder != pid {
            return Ok(false);
        }
        self.0.set(place, if wanted { pid } else { 0 }, 0).context("writing who wakes")?;
        Ok(true)
    }
}
