//! Userspace's end of the lanes ([`seismo_common::lane`]).
//!
//! Where a lane's records end is read at a look; how far they are read is told once a batch. A length that cannot be is
//! counted and what was seen of the lane is left: nothing is read beyond what was seen.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use seismo_common::lane::{LANE_BYTES, LANE_FRONT, LANE_SIZE, LANE_TAIL, behind};
use seismo_common::record::RecordHeader;

use super::mapped::{Access, Mapped};
use super::records::Source;
use super::ring::{append, time_of};

const WORD: usize = size_of::<u64>();

/// One lane.
pub struct Lane {
    memory: Arc<Mapped>,
    /// Its first word.
    base: usize,
    position: u64,
    end: u64,
    torn: u64,
}

/// All `count` of the map.
pub fn lanes(map: &impl AsFd, count: u32) -> io::Result<Vec<Lane>> {
    // Nothing at all cannot be mapped.
    if count == 0 {
        return Ok(Vec::new());
    }
    let words = LANE_SIZE / WORD;
    let memory = Arc::new(Mapped::part(map, 0, count as usize * words, Access::Write)?);
    let lane = |place: u32| {
        let base = place as usize * words;
        let position = memory.get(base + LANE_TAIL / WORD);
        Lane { memory: Arc::clone(&memory), base, position, end: position, torn: 0 }
    };
    Ok((0..count).map(lane).collect())
}

impl Lane {
    /// Word of the record at the position.
    fn at(&self) -> usize {
        self.base + (LANE_FRONT + self.position as usize % LANE_BYTES) / WORD
    }

    /// Bytes of the record there.
    fn length(&self) -> u64 {
        self.memory.get(self.at()) >> 32
    }
}

impl Source for Lane {
    fn look(&mut self) {
        self.end = self.memory.words().get(self.base).map_or(self.end, |head| head.load(Ordering::Acquire));
    }

    fn next(&mut self) -> Option<u64> {
        if self.position == self.end {
            return None;
        }
        let length = self.length();
        let fits = self.end.wrapping_sub(behind(self.position, length)) <= LANE_BYTES as u64;
        if length < size_of::<RecordHeader>() as u64 || !fits {
            self.torn += 1;
            self.position = self.end;
            self.give_back();
            return None;
        }
        Some(time_of(self.memory.words(), self.at()))
    }

    fn take(&mut self, out: &mut Vec<u8>) {
        let length = self.length();
        // SAFETY: what is written and not given back yet nobody changes.
        unsafe { append(self.memory.words(), self.at(), length as usize, out) };
        self.position = behind(self.position, length);
    }

    fn give_back(&mut self) {
        if let Some(tail) = self.memory.words().get(self.base + LANE_TAIL / WORD) {
            tail.store(self.position, Ordering::Release);
        }
    }

    fn take_torn(&mut self) -> u64 {
        std::mem::take(&mut self.torn)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::File;
    use std::os::fd::FromRawFd as _;
    use std::os::unix::fs::FileExt as _;

    use seismo_common::lane::{LANE_BYTES, LANE_FRONT, LANE_SIZE, LANE_TAIL, behind};

    use super::{Lane, lanes};
    use crate::bpf::records::Source as _;

    /// A program that writes to the second of two lanes.
    struct Program(File, u64);

    impl Program {
        fn new(position: u64) -> (Self, Lane) {
            // SAFETY: makes a file in memory; the name is a string of C.
            let file = unsafe { File::from_raw_fd(libc::memfd_create(c"lanes".as_ptr(), libc::MFD_CLOEXEC)) };
            file.set_len(2 * LANE_SIZE as u64).unwrap();
            let program = Self(file, position);
            program.put(0, position);
            program.put(LANE_TAIL as u64, position);
            let lane = lanes(&program.0, 2).unwrap().pop().unwrap();
            (program, lane)
        }

        fn put(&self, at: u64, word: u64) {
            self.0.write_all_at(&word.to_ne_bytes(), LANE_SIZE as u64 + at).unwrap();
        }

        fn tail(&self) -> u64 {
            let mut word = [0; 8];
            self.0.read_exact_at(&mut word, (LANE_SIZE + LANE_TAIL) as u64).unwrap();
            u64::from_ne_bytes(word)
        }

        fn has_room(&self, length: u64) -> bool {
            behind(self.1, length).wrapping_sub(self.tail()) <= LANE_BYTES as u64
        }

        /// A record of this length, all its words but the first its time.
        fn write(&mut self, length: u64, time: u64) {
            let at = LANE_FRONT as u64 + self.1 % LANE_BYTES as u64;
            self.put(at, length << 32);
            (1..length.div_ceil(8)).for_each(|word| self.put(at + 8 * word, time));
            self.1 = behind(self.1, length);
            self.put(0, self.1);
        }
    }

    #[test]
    fn what_was_seen_comes_out_whole_in_order_lap_after_lap_and_its_room_is_given_back() {
        let (mut program, mut lane) = Program::new(0);
        let (mut written, mut read, mut laps) = (0u64, 0u64, 0);
        while laps < 3 {
            let length = 24 + written * 531 % 8_000;
            if program.has_room(length) {
                program.write(length, written);
                written += 1;
                continue;
            }
            laps += 1;
            lane.look();
            // Not all of it.
            while read + 5 < written {
                assert_eq!(lane.next(), Some(read));
                let (mut out, length) = (Vec::new(), 24 + read * 531 % 8_000);
                lane.take(&mut out);
                assert_eq!(out.len() as u64, length.next_multiple_of(8));
                assert!(out[8..].chunks(8).all(|word| word == read.to_ne_bytes()));
                read += 1;
            }
            lane.give_back();
        }
        assert!(written > 100 && read + 5 == written && program.1 - program.tail() > 0);
    }

    #[test]
    fn what_came_after_the_look_is_not_seen() {
        let (mut program, mut lane) = Program::new(3 * LANE_BYTES as u64 - 24);
        program.write(100, 7);
        lane.look();
        program.write(24, 8);
        assert_eq!((lane.next(), program.1 % LANE_BYTES as u64), (Some(7), 24));
        lane.take(&mut Vec::new());
        assert_eq!(lane.next(), None);
        lane.look();
        assert_eq!(lane.next(), Some(8));
    }

    #[test]
    fn a_length_that_cannot_be_is_counted_and_passed_over() {
        for length in [0, 23, LANE_BYTES as u64, u64::from(u32::MAX)] {
            let (mut program, mut lane) = Program::new(64);
            program.write(24, 1);
            program.put(LANE_FRONT as u64 + 64, length << 32);
            lane.look();
            assert_eq!((lane.next(), lane.take_torn(), lane.take_torn()), (None, 1, 0));
            assert_eq!(program.tail(), program.1);
            program.write(24, 2);
            lane.look();
            assert_eq!((lane.next(), lane.take_torn()), (Some(2), 0));
        }
    }
}
