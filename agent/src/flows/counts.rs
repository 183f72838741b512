//! What became of everything that entered `flows`: outcomes by reason, and bytes by how far they could be read.
//!
//! Two small tables, no clock. Bytes are counted once, when they leave a stream; those moved twice (an overlap)
//! count as `overlap_bytes` instead. So visible bytes = bytes received − overlap + gaps.

use crate::model::hashing::Map;
/// How far the bytes of a workload could be read. Label value of `seismo_workload_bytes_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Visibility {
    /// Part of a message that was understood, or of a body that is skipped by its length.
    Parsed,
    /// A protocol in which nothing can be read, or a tunnel.
    Opaque,
    UnknownProtocol,
    /// Never seen, or seen and not attributable to a message.
    Lost,
}

impl Visibility {
    pub const ALL: [Self; 4] = [Self::Parsed, Self::Opaque, Self::UnknownProtocol, Self::Lost];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Parsed => "parsed",
            Self::Opaque => "opaque",
            Self::UnknownProtocol => "unknown_protocol",
            Self::Lost => "lost",
        }
    }
}

/// Outcomes by reason. The reasons are fixed words of the code, so the table is small.
#[derive(Clone, Debug, Default)]
pub struct Counts(Vec<(&'static str, u64)>);

impl Counts {
    pub fn add(&mut self, reason: &'static str, count: u64) {
        if count == 0 {
            return;
        }
        match self.0.iter_mut().find(|(name, _)| *name == reason) {
            Some((_, sum)) => *sum += count,
            None => self.0.push((reason, count)),
        }
    }

    /// 0 for a reason that never happened.
    pub fn get(&self, reason: &str) -> u64 {
        self.0.iter().find(|(name, _)| *name == reason).map_or(0, |(_, count)| *count)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().copied()
    }
}

/// Processes told apart between two drains; any further one is counted as process 0.
const MAX_PROCESSES: usize = 4096;

/// Bytes by process and visibility since the last drain.
#[derive(Debug, Default)]
pub struct Ledger {
    processes: Map<u32, [u64; 4]>,
    /// The process that came last, not yet in the table: bytes come in runs.
    recent: Option<(u32, [u64; 4])>,
}

impl Ledger {
    pub fn add(&mut self, pid: u32, visibility: Visibility, bytes: u64) {
        match &mut self.recent {
            Some((recent, bytes_by)) if *recent == pid => bytes_by[visibility as usize] += bytes,
            _ => {
                self.settle();
                let mut bytes_by = [0; 4];
                bytes_by[visibility as usize] = bytes;
                self.recent = Some((pid, bytes_by));
            }
        }
    }

    pub fn drain(&mut self, mut each: impl FnMut(u32, Visibility, u64)) {
        self.settle();
        for (pid, bytes_by) in self.processes.drain() {
            for (visibility, bytes) in Visibility::ALL.into_iter().zip(bytes_by) {
                if bytes > 0 {
                    each(pid, visibility, bytes);
                }
            }
        }
    }

    fn settle(&mut self) {
        let Some((pid, bytes_by)) = self.recent.take() else { return };
        let full = self.processes.len() >= MAX_PROCESSES && !self.processes.contains_key(&pid);
        let sums = self.processes.entry(if full { 0 } else { pid }).or_default();
        for (sum, bytes) in sums.iter_mut().zip(bytes_by) {
            *sum += bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Ledger, Visibility};

    #[test]
    fn a_drain_returns_everything_once_whatever_the_order() {
        let mut ledger = Ledger::default();
        for pid in [7, 8, 7, 7, 9, 8] {
            ledger.add(pid, Visibility::Parsed, 10);
        }
        ledger.add(8, Visibility::Lost, 5);
        let mut seen = Vec::new();
        ledger.drain(|pid, visibility, bytes| seen.push((pid, visibility, bytes)));
        seen.sort();
        let expected = [
            (7, Visibility::Parsed, 30),
            (8, Visibility::Parsed, 20),
            (8, Visibility::Lost, 5),
            (9, Visibility::Parsed, 10),
        ];
        assert_eq!(seen, expected);
        ledger.drain(|_, _, _| panic!("drained twice"));
    }

    #[test]
    fn processes_beyond_the_bound_share_one_row() {
        let mut ledger = Ledger::default();
        for pid in 1..=10_000 {
            ledger.add(pid, Visibility::Opaque, 1);
        }
        let (mut rows, mut total) = (0, 0);
        ledger.drain(|_, _, bytes| (rows, total) = (rows + 1, total + bytes));
        assert_eq!((rows, total), (super::MAX_PROCESSES + 1, 10_000));
    }
}
