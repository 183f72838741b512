//! Tables with a row of counters for each place on each CPU, those of a place together: one system call reads a place.
//!
//! Not mapped: a table is a mebibyte for each CPU, mostly of places that nobody has, and all of it would count as the agent's
//! memory. Of arrays that the kernel makes for each CPU itself, it makes one also for those that are not there.

use std::io;

use anyhow::{Context, Result, bail, ensure};
use aya::Ebpf;
use aya::maps::{Map, MapData};

use super::raw;

/// A table whose rows have `N` lanes.
pub(super) struct Rows<const N: usize> {
    table: MapData,
    cpus: usize,
}

/// Rows of a table with `places` for so many CPUs.
pub(super) fn size(places: usize, cpus: usize) -> u32 {
    u32::try_from(places * cpus).unwrap_or(u32::MAX)
}

impl<const N: usize> Rows<N> {
    /// The table that was made for so many CPUs.
    pub fn take(ebpf: &mut Ebpf, name: &str, cpus: usize) -> Result<Self> {
        let Some(Map::Array(table)) = ebpf.take_map(name) else { bail!("the object has no array {name}") };
        ensure!(table.info()?.value_size() as usize == N * size_of::<u64>(), "rows of {name} are not of {N} lanes");
        let rows = Self { table, cpus };
        rows.sum(0).with_context(|| format!("reading {name}"))?;
        Ok(rows)
    }

    /// What was counted at a place, added up over CPUs.
    pub fn sum(&self, place: usize) -> io::Result<[u64; N]> {
        let mut words = vec![0; self.cpus * N];
        // SAFETY: `take` has looked how long a row is, and there is room for so many.
        unsafe { raw::read(&self.table, self.first(place), self.cpus, &mut words)? };
        let mut sum = [0; N];
        for row in words.chunks_exact(N) {
            for (sum, lane) in sum.iter_mut().zip(row) {
                *sum += lane;
            }
        }
        Ok(sum)
    }

    /// Counts from zero again at a place where nothing is counted now.
    pub fn clear(&self, place: usize) -> io::Result<()> {
        let first = self.first(place);
        // SAFETY: `take` has looked how long a row is.
        (first..).take(self.cpus).try_for_each(|row| unsafe { raw::write(&self.table, row, &[0; N]) })
    }

    fn first(&self, place: usize) -> u32 {
        size(place, self.cpus)
    }
}
