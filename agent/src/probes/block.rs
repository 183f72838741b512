//! Block I/O: what each device did and how long it took; what each workload asked for.
//!
//! Kernel programs: `agent-ebpf/src/probes/block.rs`. No records: a row of lanes per device, and lanes of the workloads'
//! rows. A device's totals are the kernel's own, from `/proc/diskstats`, which also has the names.

use std::borrow::Cow;

use seismo_common::block::{BYTES, DIRECTION_LANES, ERRORS, SINCE_ISSUE, SINCE_START, SIZE_BUCKETS, SIZES, numbers};
use seismo_common::histogram::BUCKETS;
use seismo_common::workload::{BLOCK_READ_BYTES, BLOCK_READS};

use super::seconds;
use crate::model::metric::{Histogram, Kind, Metric, Sample, Value};
use crate::model::probe::{FamilySpec, Hook, KernelCounts, ProgramSpec};
use crate::semconv::{DISK_IO_DIRECTION, SYSTEM_DEVICE};
use crate::workload_labels;

static DEVICE_IO: Metric = Metric {
    name: "system.disk.io",
    unit: "By",
    kind: Kind::Counter,
    description: "Bytes that block devices have moved, by the kernel's own account since they are there",
    labels: &[SYSTEM_DEVICE, DISK_IO_DIRECTION],
};
static DEVICE_OPERATIONS: Metric = Metric {
    name: "system.disk.operations",
    unit: "{operation}",
    kind: Kind::Counter,
    description: "Requests that block devices have ended, by the kernel's own account since they are there",
    labels: &[SYSTEM_DEVICE, DISK_IO_DIRECTION],
};
static DURATION: Metric = Metric {
    name: "seismo.block.request.duration",
    unit: "s",
    kind: Kind::Histogram,
    description: "Duration of block requests: 'total' since they were made, 'device' since the driver had them \
                  (where the kernel takes that time: with write-back throttling, as is the default)",
    labels: &[SYSTEM_DEVICE, DISK_IO_DIRECTION, "phase"],
};
static SIZE: Metric = Metric {
    name: "seismo.block.request.size",
    unit: "By",
    kind: Kind::Histogram,
    description: "Sizes of block requests",
    labels: &[SYSTEM_DEVICE, DISK_IO_DIRECTION],
};
static FAILED: Metric = Metric {
    name: "seismo.block.request.errors",
    unit: "{error}",
    kind: Kind::Counter,
    description: "Block requests, or parts of one, that ended with an error",
    labels: &[SYSTEM_DEVICE, DISK_IO_DIRECTION],
};
static ACTIVE: Metric = Metric {
    name: "seismo.block.requests.active",
    unit: "{request}",
    kind: Kind::Gauge,
    description: "Block requests that have begun and not ended",
    labels: &[SYSTEM_DEVICE],
};
static WORKLOAD_IO: Metric = Metric {
    name: "seismo.block.io",
    unit: "By",
    kind: Kind::Counter,
    description: "Bytes of block I/O that workloads asked for. What is written back later is its workload's where the \
                  kernel's I/O controller is in the version 2 hierarchy, else the kernel's",
    labels: workload_labels!(DISK_IO_DIRECTION),
};
static WORKLOAD_OPERATIONS: Metric = Metric {
    name: "seismo.block.operations",
    unit: "{operation}",
    kind: Kind::Counter,
    description: "Block requests that were made for workloads",
    labels: workload_labels!(DISK_IO_DIRECTION),
};

const FIELDS: &[&str] = &[
    "request.q",
    "request.cmd_flags",
    "request.rq_flags",
    "request.__data_len",
    "request.start_time_ns",
    "request.io_start_time_ns",
    "request_queue.disk",
    "gendisk.major",
    "gendisk.first_minor",
    "bio.bi_bdev",
];
const BIO_FIELDS: &[&str] = &["bio.bi_bdev", "bio.bi_opf", "bio.bi_iter.bi_size"];

const fn of_bio(name: &'static str, tracepoint: &'static str, without: &'static str) -> ProgramSpec {
    let hook = Hook::TpBtf(tracepoint);
    ProgramSpec { name, hook, structs: &[], fields: BIO_FIELDS, without: Some(without), tiers: &[] }
}

pub static FAMILY: FamilySpec = FamilySpec {
    name: "block",
    gives: "block I/O by device and by workload",
    programs: &[
        ProgramSpec {
            name: "block_complete",
            hook: Hook::TpBtf("block_rq_complete"),
            structs: &[],
            fields: FIELDS,
            without: None,
            tiers: &[],
        },
        of_bio("block_begin", "block_getrq", "no workload's block I/O is counted"),
        of_bio("block_append", "block_bio_backmerge", "bytes that join a waiting request are not their workload's"),
        of_bio(
            "block_prepend",
            "block_bio_frontmerge",
            "bytes that precede a waiting request are not their workload's",
        ),
    ],
    tiers: &[],
    restart: &[],
    beside: &[],
    metrics: &[&DEVICE_IO, &DEVICE_OPERATIONS, &DURATION, &SIZE, &FAILED, &ACTIVE, &WORKLOAD_IO, &WORKLOAD_OPERATIONS],
    samples,
    workload_samples,
};

/// In the order of [`seismo_common::block`].
const DIRECTION_NAMES: [&str; 3] = ["read", "write", "discard"];
/// Devices that found no place of their own.
const OTHERS: &str = "other";
const DISKSTATS: &str = "/proc/diskstats";
const SECTOR_BYTES: u64 = 512;

fn samples(kernel: &dyn KernelCounts, out: &mut Vec<Sample>) {
    let Some(devices) = kernel.row("BLOCK_DEVICES", 0) else { return };
    let diskstats = kernel.file(DISKSTATS).unwrap_or_default();
    for (place, entry) in (0..).zip(devices) {
        let name = match numbers(entry) {
            None if place == 0 => OTHERS.to_owned(),
            None => continue,
            Some((major, minor)) => match disk(&diskstats, major, minor) {
                Some((name, account)) => {
                    of_account(name, &account, out);
                    name.to_owned()
                }
                None => format!("{major}:{minor}"),
            },
        };
        let row = kernel.row("BLOCK", place).unwrap_or_default();
        for (direction, lanes) in DIRECTION_NAMES.iter().zip(row.chunks_exact(DIRECTION_LANES)) {
            of_device(&name, direction, lanes, out);
        }
    }
}

/// Name and account of a device: its line of `/proc/diskstats` without the numbers.
fn disk(diskstats: &str, major: u32, minor: u32) -> Option<(&str, Vec<u64>)> {
    diskstats.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let mut number = || words.next()?.parse::<u32>().ok();
        if (number()?, number()?) != (major, minor) {
            return None;
        }
        let name = words.next()?;
        Some((name, words.map_while(|word| word.parse().ok()).collect()))
    })
}

/// `Documentation/admin-guide/iostats.rst`: for each direction operations, merges, sectors and time, and after those of
/// writes the requests under way.
fn of_account(device: &str, account: &[u64], out: &mut Vec<Sample>) {
    for (direction, first) in DIRECTION_NAMES.iter().zip([0, 4, 11]) {
        let labels = || vec![Cow::Owned(device.to_owned()), Cow::Borrowed(*direction)];
        if let Some([operations, _, sectors]) = account.get(first..first + 3)
            && *operations > 0
        {
            let bytes = Value::Count(sectors * SECTOR_BYTES);
            out.push(Sample { metric: &DEVICE_OPERATIONS, labels: labels(), value: Value::Count(*operations) });
            out.push(Sample { metric: &DEVICE_IO, labels: labels(), value: bytes });
        }
    }
    if let Some(active) = account.get(8) {
        out.push(Sample { metric: &ACTIVE, labels: vec![Cow::Owned(device.to_owned())], value: Value::Count(*active) });
    }
}

fn of_device(device: &str, direction: &'static str, lanes: &[u64], out: &mut Vec<Sample>) {
    let lane = |at: usize| lanes.get(at).copied().unwrap_or_default();
    if lanes.iter().all(|lane| *lane == 0) {
        return;
    }
    let labels = vec![Cow::Owned(device.to_owned()), Cow::Borrowed(direction)];
    out.push(Sample { metric: &FAILED, labels: labels.clone(), value: Value::Count(lane(ERRORS)) });
    for (phase, at) in [("total", SINCE_START), ("device", SINCE_ISSUE)] {
        if let Some(value) = lanes.get(at..=at + BUCKETS).and_then(|lanes| seconds(lanes, 1)) {
            let labels = labels.iter().cloned().chain([Cow::Borrowed(phase)]).collect();
            out.push(Sample { metric: &DURATION, labels, value });
        }
    }
    if let Some(counts) = lanes.get(SIZES..SIZES + SIZE_BUCKETS).filter(|counts| counts.iter().any(|count| *count > 0))
    {
        let bounds: Vec<f64> = (9..).take(SIZE_BUCKETS - 1).map(|exponent| 2f64.powi(exponent)).collect();
        let histogram = Histogram { bounds: bounds.into(), counts: counts.to_vec(), sum: lane(BYTES) as f64 };
        out.push(Sample { metric: &SIZE, labels, value: Value::Histogram(histogram) });
    }
}

fn workload_samples(lanes: &[u64], out: &mut Vec<Sample>) {
    for (metric, first) in [(&WORKLOAD_IO, BLOCK_READ_BYTES), (&WORKLOAD_OPERATIONS, BLOCK_READS)] {
        for (direction, lane) in DIRECTION_NAMES.iter().zip(lanes.iter().skip(first)).filter(|(_, lane)| **lane > 0) {
            out.push(Sample { metric, labels: vec![Cow::Borrowed(*direction)], value: Value::Count(*lane) });
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const DISKSTATS: &str = "   7       0 loop0 1 0 8 1 0 0 0 0 3 1 1 2 0 16 0 0 0\n 254       0 vda 9 0 72 1\n";

    #[test]
    fn a_device_is_found_by_its_numbers_and_a_line_that_ends_early_has_a_shorter_account() {
        assert_eq!(disk(DISKSTATS, 7, 0), Some(("loop0", vec![1, 0, 8, 1, 0, 0, 0, 0, 3, 1, 1, 2, 0, 16, 0, 0, 0])));
        assert_eq!(disk(DISKSTATS, 254, 0), Some(("vda", vec![9, 0, 72, 1])));
        assert_eq!(disk(DISKSTATS, 7, 1), None);
    }

    #[test]
    fn an_account_is_told_as_far_as_it_goes() {
        let told = |major, minor| {
            let (name, account) = disk(DISKSTATS, major, minor).unwrap();
            let mut out = Vec::new();
            of_account(name, &account, &mut out);
            out.iter()
                .map(|sample| (sample.metric.name, sample.labels.join(" "), sample.value.clone()))
                .collect::<Vec<_>>()
        };
        let text = |rows: &[(&'static str, &str, u64)]| {
            rows.iter()
                .map(|(name, labels, count)| (*name, (*labels).to_owned(), Value::Count(*count)))
                .collect::<Vec<_>>()
        };
        let (operations, io, active) = (DEVICE_OPERATIONS.name, DEVICE_IO.name, ACTIVE.name);
        let read = [(operations, "loop0 read", 1), (io, "loop0 read", 4096)];
        let discard = [(operations, "loop0 discard", 2), (io, "loop0 discard", 8192), (active, "loop0", 3)];
        assert_eq!(told(7, 0), text(&[&read[..], &discard].concat()));
        assert_eq!(told(254, 0), text(&[(operations, "vda read", 9), (io, "vda read", 72 * 512)]));
    }
}
