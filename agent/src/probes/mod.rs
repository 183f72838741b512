//! Probe families as the agent sees them: what each attaches, which metrics it fills, how its records become signals.
//!
//! One file per family, same stem as the kernel programs; one row per family in [`FAMILIES`]. Families know the wire
//! contract and nothing of each other, of aya or of the stages behind them.

use crate::model::exponential::Exponential;
use crate::model::metric::Value;
use crate::model::probe::FamilySpec;

pub mod adopt;
pub mod block;
pub mod drop;
pub mod floor;
pub mod interrupt;
pub mod memory;
pub mod payload;
pub mod process;
pub mod records;
pub mod scheduler;
pub mod syscall;
pub mod task;
pub mod tcp;
pub mod udp;
pub mod wakeup;
pub mod workload;

/// Every family, in the order in which they are attached: what names processes first, what reads bytes late, and what
/// looks at open sockets after that (`floor` and `records` are for measuring).
pub const FAMILIES: &[&FamilySpec] = &[
    &workload::FAMILY,
    &process::FAMILY,
    &scheduler::FAMILY,
    &syscall::FAMILY,
    &tcp::FAMILY,
    &udp::FAMILY,
    &block::FAMILY,
    &memory::FAMILY,
    &drop::FAMILY,
    &interrupt::FAMILY,
    &payload::FAMILY,
    &adopt::FAMILY,
    &task::FAMILY,
    &wakeup::FAMILY,
    &floor::FAMILY,
    &records::FAMILY,
];

/// Lowest and highest binary exponent (of seconds) that a kernel histogram shows as a classic bucket: 1 µs to 16 s.
const CLASSIC_EXPONENTS: std::ops::RangeInclusive<i32> = -20..=4;

/// A kernel histogram lane (buckets of [`seismo_common::histogram`], then the sum in ns) as seconds, with one classic bucket
/// for so many octaves; none while nothing is counted. Classic bounds are exact powers of two, which are bounds of the fine
/// buckets too: nothing is interpolated.
fn seconds(lane: &[u64], octaves_per_bucket: usize) -> Option<Value> {
    use seismo_common::histogram::{BUCKETS, MIN_EXPONENT, PER_OCTAVE};
    let (sum_ns, fine) = lane.split_last()?;
    if fine.len() != BUCKETS || fine.iter().all(|count| *count == 0) {
        return None;
    }
    let fine = Exponential::of_lanes(fine, PER_OCTAVE.ilog2() as i32, MIN_EXPONENT);
    let classic = fine.classic(CLASSIC_EXPONENTS, octaves_per_bucket, *sum_ns as f64 * 1e-9);
    Some(Value::Exponential(fine, classic))
}

/// A workload's lanes of durations as seconds. The first ends at 2^`exponent` s, each other so many octaves later than the
/// one before (a power of 2, of which `exponent` is a multiple), the last has no end; so many of them are one classic bucket.
fn octaves(lanes: &[u64], exponent: i32, octaves: usize, lanes_per_bucket: usize, sum_s: f64) -> Value {
    let width = octaves.max(1);
    let fine = Exponential::of_lanes(lanes, -(width.ilog2() as i32), exponent);
    let last = exponent + (width * lanes.len().saturating_sub(2)) as i32;
    let classic = fine.classic(exponent..=last, width * lanes_per_bucket.max(1), sum_s);
    Value::Exponential(fine, classic)
}

/// A value out of the kernel's tables of its protocols (`/proc/net/snmp`, `netstat`), which have a line of names and a line
/// of values for each protocol.
fn account(table: &str, protocol: &str, name: &str) -> Option<u64> {
    let mut lines = table.lines().filter_map(|line| line.strip_prefix(protocol)?.strip_prefix(": "));
    let (names, values) = lines.next().zip(lines.next())?;
    let at = names.split_ascii_whitespace().position(|each| each == name)?;
    values.split_ascii_whitespace().nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use seismo_common::histogram::{BUCKETS, bucket};

    use super::{FAMILIES, Value, account, octaves, seconds};

    #[test]
    fn every_wait_is_in_the_first_bucket_that_is_not_shorter() {
        let mut waits = [0; 26];
        (waits[0], waits[1], waits[2], waits[24], waits[25]) = (1, 10, 100, 1000, 10_000);
        let value = octaves(&waits, -20, 1, 2, 2.5);
        let histogram = value.histogram().unwrap();
        assert_eq!(histogram.bounds.len(), 13);
        assert_eq!((histogram.bounds[0], histogram.bounds[12]), (2f64.powi(-20), 16.0));
        assert_eq!((histogram.counts[0], histogram.counts[1], histogram.counts[2]), (1, 110, 0));
        assert_eq!((histogram.counts[12], histogram.counts[13], histogram.sum), (1000, 10_000, 2.5));
        let Value::Exponential(fine, histogram) = octaves(&[1, 2, 3], -14, 2, 1, 0.0) else { panic!("no histogram") };
        assert_eq!(
            (histogram.bounds.to_vec(), histogram.counts),
            (vec![2f64.powi(-14), 2f64.powi(-12)], vec![1, 2, 3])
        );
        // Bounds are powers of 4 there: the one that ends at 2^-12 is number -6.
        assert_eq!((fine.schema, fine.zero, fine.first, fine.counts), (-1, 1, -6, vec![2, 3]));
    }

    #[test]
    fn a_value_is_found_by_its_name_and_none_where_the_table_has_not() {
        let table = "TcpExt: A ListenOverflows B\nTcpExt: 1 22 3\nIpExt: A\nIpExt: 9\nUdp: X\n";
        let of = |protocol, name| account(table, protocol, name);
        assert_eq!(
            [of("TcpExt", "ListenOverflows"), of("TcpExt", "B"), of("IpExt", "A")],
            [Some(22), Some(3), Some(9)]
        );
        assert_eq!([of("TcpExt", "C"), of("Tcp", "A"), of("Udp", "X"), account("", "Tcp", "A")], [None; 4]);
    }

    #[test]
    fn every_family_file_is_a_row() {
        let mut files: Vec<String> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/probes"))
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
            .filter(|stem| stem != "mod")
            .collect();
        files.sort();
        let mut rows: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
        rows.sort_unstable();
        assert_eq!(files, rows);
    }

    #[test]
    fn a_kernel_histogram_keeps_every_observation_on_the_right_side_of_each_bound() {
        let durations = [1u64, 900, 1_100, 50_000, 1_000_000, 1_000_000_000, 20_000_000_000, 500_000_000_000];
        let mut lane = vec![0u64; BUCKETS + 1];
        for ns in durations {
            lane[bucket(ns)] += 1;
            lane[BUCKETS] += ns;
        }
        for octaves in [1, 2, 3] {
            let Some(Value::Exponential(fine, histogram)) = seconds(&lane, octaves) else { panic!("no histogram") };
            assert_eq!(fine.count(), durations.len() as u64);
            assert_eq!((fine.zero, fine.counts.last()), (0, Some(&1)));
            assert_eq!(histogram.counts.iter().sum::<u64>(), durations.len() as u64);
            let mut cumulative = 0;
            for (bound, count) in histogram.bounds.iter().zip(&histogram.counts) {
                cumulative += count;
                let expected = durations.iter().filter(|ns| **ns as f64 * 1e-9 <= *bound).count() as u64;
                assert_eq!(cumulative, expected, "le {bound}");
            }
            assert!((histogram.sum - durations.iter().sum::<u64>() as f64 * 1e-9).abs() < 1e-6);
        }
        assert_eq!(seconds(&lane[1..], 1), None);
        assert_eq!(seconds(&[0; BUCKETS + 1], 1), None);
    }
}
