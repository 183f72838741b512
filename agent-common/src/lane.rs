//! Lanes: memory that one program fills with its records on one CPU, and that userspace has mapped.
//!
//! A record is built where it is read: no lock, no copy, and nothing waits for memory that another CPU had last. Two
//! positions count bytes since the beginning, each in a cache line of its own: `head` behind the last whole record, moved by
//! the program alone, and `tail` behind the last one that was read, moved by userspace alone. A record begins at its position
//! modulo [`LANE_BYTES`] and is never in two pieces: the last one of a lap may go on behind the end, and the next one then
//! begins a lap. What finds no room in its lane goes to the ring.

use crate::config::MAX_CAPTURE;
use crate::payload::PayloadRecord;

/// Bytes of a lap, a power of two.
pub const LANE_BYTES: usize = 256 * 1024;
/// Room behind the end: a record as long as the verifier takes it for.
pub const LANE_REST: usize = (size_of::<PayloadRecord>() + 2 * MAX_CAPTURE).next_multiple_of(LINE);
/// Bytes in front of the records.
pub const LANE_FRONT: usize = 2 * LINE;
/// Place of `tail`; `head` is at the beginning.
pub const LANE_TAIL: usize = LINE;
/// Bytes of a lane.
pub const LANE_SIZE: usize = LANE_FRONT + LANE_BYTES + LANE_REST;
/// Programs that have lanes, and so lanes of a CPU.
pub const LANES_PER_CPU: u32 = 2;

const LINE: usize = 64;
const _: () = assert!(LANE_BYTES.is_power_of_two());

/// Position behind a record of `length` bytes at `position`, which is a multiple of eight.
#[inline(always)]
pub const fn behind(position: u64, length: u64) -> u64 {
    let lap = LANE_BYTES as u64 - 1;
    let end = (position & !7) + ((length + 7) & !7);
    if (position ^ end) & !lap == 0 { end } else { end & !lap }
}

#[cfg(test)]
mod tests {
    use super::{LANE_BYTES, behind};

    #[test]
    fn records_begin_at_multiples_of_eight_and_a_lap_begins_behind_one_that_reached_the_end() {
        let lap = LANE_BYTES as u64;
        assert_eq!([behind(0, 1), behind(8, 16), behind(8, 17)], [8, 24, 32]);
        assert_eq!([behind(lap - 8, 8), behind(lap - 8, 9), behind(lap - 16, 8)], [lap, lap, lap - 8]);
        assert_eq!([behind(5 * lap - 8, 8_000), behind(5 * lap, 24)], [5 * lap, 5 * lap + 24]);
    }
}
