//! Block requests by device: a row of `u64` lanes for each device and CPU, one part of it for each direction.
//!
//! A device finds its row by its number; those that find none share row 0. What is kept by workload is among the lanes
//! of [`crate::workload`].

use crate::histogram::BUCKETS;

/// Places for devices, a power of two; place 0 belongs to all that found none.
pub const DEVICES: usize = 32;
/// Places that are looked at for a device, from the one that its number names.
pub const DEVICE_PROBES: usize = 8;
const _: () = assert!(DEVICES.is_power_of_two());

/// Directions, as the kernel's own account tells them apart (writing zeroes is a write).
pub const READ: usize = 0;
pub const WRITE: usize = 1;
pub const DISCARD: usize = 2;
pub const DIRECTIONS: usize = 3;

/// Lanes of a direction: errors, bytes,
pub const ERRORS: usize = 0;
pub const BYTES: usize = 1;
/// requests that ended by size: 512 bytes or less, up to twice as much, and so on,
pub const SIZES: usize = 2;
pub const SIZE_BUCKETS: usize = 16;
/// time since the request was made, and since the driver had it: buckets of [`crate::histogram`], then the sum in ns.
pub const SINCE_START: usize = SIZES + SIZE_BUCKETS;
pub const SINCE_ISSUE: usize = SINCE_START + BUCKETS + 1;
pub const DIRECTION_LANES: usize = SINCE_ISSUE + BUCKETS + 1;
/// Lanes of a device.
pub const DEVICE_LANES: usize = DIRECTIONS * DIRECTION_LANES;

/// Set in the table of devices beside the number, so that no device is 0.
const TAKEN: u64 = 1 << 63;

/// A device as the table holds it.
#[inline(always)]
pub const fn device(major: u32, minor: u32) -> u64 {
    TAKEN | (major as u64) << 32 | minor as u64
}

/// Major and minor number of a table's entry; `None` for a free place.
pub const fn numbers(device: u64) -> Option<(u32, u32)> {
    if device & TAKEN == 0 {
        return None;
    }
    Some((((device & !TAKEN) >> 32) as u32, device as u32))
}

/// First of the places that a device may have.
#[inline(always)]
pub const fn place(device: u64) -> u32 {
    // Disks of one driver are numbered in steps of one or sixteen.
    (device ^ device >> 4 ^ device >> 32) as u32 & (DEVICES as u32 - 1)
}

/// Bucket of a request's size.
#[inline(always)]
pub const fn size_bucket(bytes: u32) -> usize {
    let octave = 32 - bytes.saturating_sub(1).leading_zeros() as usize;
    let bucket = octave.saturating_sub(9);
    if bucket >= SIZE_BUCKETS { SIZE_BUCKETS - 1 } else { bucket }
}

#[cfg(test)]
mod tests {
    use super::{device, numbers, size_bucket};

    #[test]
    fn a_device_keeps_its_numbers_and_a_free_place_has_none() {
        assert_eq!(numbers(device(254, 0)), Some((254, 0)));
        assert_eq!(numbers(device(0, 0)), Some((0, 0)));
        assert_eq!(numbers(device(4095, 1 << 20)), Some((4095, 1 << 20)));
        assert_eq!(numbers(0), None);
    }

    #[test]
    fn sizes_take_the_bucket_that_ends_at_or_above_them() {
        for (bytes, bucket) in
            [(0, 0), (512, 0), (513, 1), (1024, 1), (4096, 3), (4097, 4), (16 << 20, 15), (u32::MAX, 15)]
        {
            assert_eq!(size_bucket(bytes), bucket, "{bytes}");
        }
    }
}
