//! Block I/O: what each device did and how long it took; what each workload asked for.
//!
//! Kernel programs: `agent-ebpf/src/probes/block.rs`. No records: a row of lanes per device, and lanes of the workloads'
//! rows. Requests that are under way are the kernel's own count, from `/proc/diskstats`, which also has the names.

use std::borrow::Cow;

use seismo_common::block::{
    BYTES, DIRECTION_LANES, ERRORS, OPERATIONS, SINCE_ISSUE, SINCE_START, SIZE_BUCKETS, SIZES, numbers,
};
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
    description: "Bytes that block devices have moved, as in the kernel's own account",
    labels: &[SYSTEM_DEVICE, DISK_IO_DIRECTION],
};
static DEVICE_OPERATIONS: Metric = Metric {
    name: "system.disk.operations",
    unit: "{operation}",
    kind: Kind::Counter,
    description: "Requests that block devices have ended, as in the kernel's own account",
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
static IN_FLIGHT: Metric = Metric {
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
    metrics: &[
        &DEVICE_IO,
        &DEVICE_OPERATIONS,
        &DURATION,
        &SIZE,
        &FAILED,
        &IN_FLIGHT,
        &WORKLOAD_IO,
        &WORKLOAD_OPERATIONS,
    ],
    samples,
    workload_samples,
};

/// In the order of [`seismo_common::block`].
const DIRECTION_NAMES: [&str; 3] = ["read", "write", "discard"];
/// Devices that found no place of their own.
const OTHERS: &str = "other";
const DISKSTATS: &str = "/proc/diskstats";

fn samples(kernel: &dyn KernelCounts, out: &mut Vec<Sample>) {
    let Some(devices) = kernel.row("BLOCK_DEVICES", 0) else { return };
    let diskstats = kernel.file(DISKSTATS).unwrap_or_default();
    for (place, entry) in (0..).zip(devices) {
        let (name, active) = match numbers(entry) {
            None if place == 0 => (OTHERS.to_owned(), None),
            None => continue,
            Some((major, minor)) => match disk(&diskstats, major, minor) {
                Some((name, active)) => (name.to_owned(), active),
                None => (format!("{major}:{minor}"), None),
            },
        };
        let Some(row) = kernel.row("BLOCK", place).filter(|row| row.iter().any(|lane| *lane > 0)) else { continue };
        if let Some(active) = active {
            let labels = vec![Cow::Owned(name.clone())];
            out.push(Sample { metric: &IN_FLIGHT, labels, value: Value::Count(active) });
        }
        for (direction, lanes) in DIRECTION_NAMES.iter().zip(row.chunks_exact(DIRECTION_LANES)) {
            of_device(&name, direction, lanes, out);
        }
    }
}

/// Name and requests under way of a device: its line of `/proc/diskstats`.
fn disk(diskstats: &str, major: u32, minor: u32) -> Option<(&str, Option<u64>)> {
    diskstats.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let mut number = || words.next()?.parse::<u32>().ok();
        if (number()?, number()?) != (major, minor) {
            return None;
        }
        let name = words.next()?;
        Some((name, words.nth(8).and_then(|word| word.parse().ok())))
    })
}

fn of_device(device: &str, direction: &'static str, lanes: &[u64], out: &mut Vec<Sample>) {
    let lane = |at: usize| lanes.get(at).copied().unwrap_or_default();
    if lanes.iter().all(|lane| *lane == 0) {
        return;
    }
    let labels = vec![Cow::Owned(device.to_owned()), Cow::Borrowed(direction)];
    for (metric, at) in [(&DEVICE_IO, BYTES), (&DEVICE_OPERATIONS, OPERATIONS), (&FAILED, ERRORS)] {
        out.push(Sample { metric, labels: labels.clone(), value: Value::Count(lane(at)) });
    }
    for (phase, at) in [("total", SINCE_START), ("device", SINCE_ISSUE)] {
        let histogram = lanes.get(at..=at + BUCKETS).and_then(|lanes| seconds(lanes, 1));
        if let Some(histogram) = histogram.filter(|histogram| histogram.counts.iter().any(|count| *count > 0)) {
            let labels = labels.iter().cloned().chain([Cow::Borrowed(phase)]).collect();
            out.push(Sample { metric: &DURATION, labels, value: Value::Histogram(histogram) });
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
    use super::disk;

    const DISKSTATS: &str = "   7       0 loop0 1 0 8 1 0 0 0 0 3 1 1 0 0 0 0 0 0\n 254       0 vda 9 0 72 1 0 0\n";

    #[test]
    fn a_device_is_found_by_its_numbers_and_a_short_line_has_no_count_under_way() {
        assert_eq!(disk(DISKSTATS, 7, 0), Some(("loop0", Some(3))));
        assert_eq!(disk(DISKSTATS, 254, 0), Some(("vda", None)));
        assert_eq!(disk(DISKSTATS, 7, 1), None);
    }
}
