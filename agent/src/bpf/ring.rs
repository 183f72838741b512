//! The consumer's end of the kernel's ring (`BPF_MAP_TYPE_RINGBUF`, `kernel/bpf/ringbuf.c`).
//!
//! A page with our position, a page with the kernel's, then the records, each behind a header of eight bytes and padded to
//! eight. The kernel has its memory twice in a row, so that no record is in two pieces; that would also count twice as
//! resident, so it is mapped once and such a record is copied in two pieces. Our position is told once a batch: each time
//! costs the next record's program a line of memory that another CPU wrote.

use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::MapData;

use seismo_common::record::RecordHeader;

use super::decode::align;
use super::mapped::{Access, Mapped};
use super::records::Source;

/// In a record's header: its program still writes it.
const BUSY: u32 = 1 << 31;
/// In a record's header: there is nothing in it.
const DISCARDED: u32 = 1 << 30;
const HEADER: u64 = size_of::<u64>() as u64;

pub struct Ring {
    map: RawFd,
    /// Keeps the descriptor open.
    _data: Option<MapData>,
    ours: Mapped,
    theirs: Mapped,
    /// Words in front of the records in `theirs`.
    front: usize,
    /// Bytes of records less one, a power of two less one.
    mask: u64,
    position: u64,
    /// The kernel's position at the last look.
    end: u64,
}

impl Ring {
    /// Takes the ring of the map.
    pub fn new(data: MapData) -> io::Result<Self> {
        let size = data.info().map_err(io::Error::other)?.max_entries();
        let mut ring = Self::of(data.fd(), size as usize)?;
        ring._data = Some(data);
        Ok(ring)
    }

    fn of(map: &impl AsFd, size: usize) -> io::Result<Self> {
        // SAFETY: sysconf only answers.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).map_err(io::Error::other)?;
        if !size.is_power_of_two() || size < page {
            return Err(io::Error::other(format!("a ring of {size} bytes")));
        }
        let word = size_of::<u64>();
        let ours = Mapped::part(map, 0, page / word, Access::Write)?;
        let theirs = Mapped::part(map, page, (page + size) / word, Access::Read)?;
        let position = ours.get(0);
        Ok(Self {
            map: map.as_fd().as_raw_fd(),
            _data: None,
            ours,
            theirs,
            front: page / word,
            mask: size as u64 - 1,
            position,
            end: position,
        })
    }

    fn records(&self) -> &[AtomicU64] {
        self.theirs.words().get(self.front..).unwrap_or_default()
    }

    /// The word so many bytes behind our position.
    fn at(&self, bytes: u64) -> usize {
        ((self.position + bytes) & self.mask) as usize / size_of::<u64>()
    }

    /// The header of the next record.
    fn header(&self) -> u32 {
        // The length is the lower half on our byte order, and set by one exchange when the record is whole.
        self.records().get(self.at(0)).map_or(BUSY, |word| word.load(Ordering::Acquire) as u32)
    }

    fn pass(&mut self, header: u32) {
        self.position += HEADER + u64::from(header & !DISCARDED).next_multiple_of(HEADER);
    }
}

impl Source for Ring {
    fn look(&mut self) {
        self.end = self.theirs.words().first().map_or(self.end, |end| end.load(Ordering::Acquire));
    }

    fn next(&mut self) -> Option<u64> {
        while self.position != self.end {
            match self.header() {
                header if header & BUSY != 0 => return None,
                header if header & DISCARDED != 0 => self.pass(header),
                _ => return Some(time_of(self.records(), self.at(HEADER))),
            }
        }
        None
    }

    fn take(&mut self, out: &mut Vec<u8>) {
        let header = self.header();
        // SAFETY: what is written and not given back yet nobody changes.
        unsafe { append(self.records(), self.at(HEADER), header as usize, out) };
        self.pass(header);
    }

    fn give_back(&mut self) {
        if let [ours, ..] = self.ours.words() {
            ours.store(self.position, Ordering::Release);
        }
    }
}

/// When the record that begins with word `from` was written; the last word is followed by the first.
pub(super) fn time_of(words: &[AtomicU64], from: usize) -> u64 {
    let at = from + offset_of!(RecordHeader, ktime_ns) / size_of::<u64>();
    let word = words.get(at).or_else(|| words.get(at - words.len()));
    word.map_or(0, |word| word.load(Ordering::Relaxed))
}

/// Appends `length` bytes, padded to eight, that begin with word `from`; the last word is followed by the first.
///
/// # Safety
/// Nobody writes them meanwhile.
pub(super) unsafe fn append(records: &[AtomicU64], from: usize, length: usize, out: &mut Vec<u8>) {
    let words = align(length) / size_of::<u64>();
    let straight = words.min(records.len().saturating_sub(from));
    let pieces = [records.get(from..from + straight), records.get(..words - straight)];
    for piece in pieces.into_iter().flatten() {
        // SAFETY: inside the mapping, and by contract not written while it is read; a word is as good as eight bytes.
        out.extend_from_slice(unsafe { std::slice::from_raw_parts(piece.as_ptr().cast(), size_of_val(piece)) });
    }
}

impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> RawFd {
        self.map
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::File;
    use std::os::fd::FromRawFd as _;
    use std::os::unix::fs::FileExt as _;

    use super::{BUSY, DISCARDED, Ring};
    use crate::bpf::records::Source as _;

    const PAGE: u64 = 4096;
    const SIZE: u64 = PAGE;

    /// A ring in a file, laid out as the kernel does it but with its records once, and the kernel's position in it.
    struct Kernel(File, u64);

    impl Kernel {
        fn new(position: u64) -> Self {
            // SAFETY: makes a file in memory; the name is a string of C.
            let file = unsafe { File::from_raw_fd(libc::memfd_create(c"ring".as_ptr(), libc::MFD_CLOEXEC)) };
            file.set_len(2 * PAGE + SIZE).unwrap();
            file.write_all_at(&position.to_ne_bytes(), 0).unwrap();
            let kernel = Self(file, position);
            kernel.tell();
            kernel
        }

        fn tell(&self) {
            self.0.write_all_at(&self.1.to_ne_bytes(), PAGE).unwrap();
        }

        fn put(&self, at: u64, bytes: &[u8]) {
            for (offset, byte) in bytes.iter().enumerate() {
                self.0.write_all_at(&[*byte], 2 * PAGE + (at + offset as u64) % SIZE).unwrap();
            }
        }

        /// Writes a record with these bits in its header; where that is.
        fn write(&mut self, bytes: &[u8], bits: u32) -> u64 {
            let at = self.1;
            self.put(at, &(bytes.len() as u32 | bits).to_ne_bytes());
            self.put(at + 8, bytes);
            self.1 += 8 + (bytes.len() as u64).next_multiple_of(8);
            self.tell();
            at
        }

        fn position(&self) -> u64 {
            let mut word = [0; 8];
            self.0.read_exact_at(&mut word, 0).unwrap();
            u64::from_ne_bytes(word)
        }
    }

    /// Reads until `out` holds `limit` bytes; how many records.
    fn read(ring: &mut Ring, out: &mut Vec<u8>, limit: usize) -> usize {
        ring.look();
        let mut count = 0;
        while out.len() < limit && ring.next().is_some() {
            ring.take(out);
            count += 1;
        }
        ring.give_back();
        count
    }

    #[test]
    fn records_come_out_whole_in_order_also_across_the_end_and_their_room_is_given_back() {
        // Seven words before the end.
        let mut kernel = Kernel::new(3 * SIZE - 56);
        let mut ring = Ring::of(&kernel.0, SIZE as usize).unwrap();
        let mut out = Vec::new();
        assert_eq!((read(&mut ring, &mut out, usize::MAX), out.len()), (0, 0));
        let texts: [&[u8]; 3] = [b"eight by", b"this is a record that goes on where the ring begins", b"7 bytes"];
        texts.iter().for_each(|text| _ = kernel.write(text, 0));
        assert_eq!(read(&mut ring, &mut out, usize::MAX), 3);
        let padded = [8, 56, 8];
        let mut at = 0;
        for (text, length) in texts.iter().zip(padded) {
            assert_eq!(&out[at..at + text.len()], *text);
            at += length;
        }
        assert_eq!(out.len(), at);
        assert_eq!(kernel.position(), kernel.1);
    }

    #[test]
    fn what_is_being_written_is_waited_for_and_what_was_thrown_away_is_passed_over() {
        let mut kernel = Kernel::new(0);
        let mut ring = Ring::of(&kernel.0, SIZE as usize).unwrap();
        let mut out = Vec::new();
        kernel.write(b"first   ", 0);
        kernel.write(b"nothing ", DISCARDED);
        let busy = kernel.write(b"second  ", BUSY);
        kernel.write(b"third   ", 0);
        assert_eq!(read(&mut ring, &mut out, usize::MAX), 1);
        assert_eq!((out.as_slice(), kernel.position()), (&b"first   "[..], busy));
        kernel.put(busy, &8u32.to_ne_bytes());
        assert_eq!(read(&mut ring, &mut out, usize::MAX), 2);
        assert_eq!((out.as_slice(), kernel.position()), (&b"first   second  third   "[..], kernel.1));
    }

    #[test]
    fn a_batch_ends_with_the_record_that_reaches_its_size() {
        let mut kernel = Kernel::new(0);
        let mut ring = Ring::of(&kernel.0, SIZE as usize).unwrap();
        (0..4).for_each(|_| _ = kernel.write(b"sixteen bytes ..", 0));
        let mut out = Vec::new();
        assert_eq!((read(&mut ring, &mut out, 17), kernel.position()), (2, 48));
        out.clear();
        assert_eq!((read(&mut ring, &mut out, usize::MAX), out.len()), (2, 32));
    }

    #[test]
    fn a_size_that_is_no_rings_is_refused() {
        let kernel = Kernel::new(0);
        assert!(Ring::of(&kernel.0, 4097).is_err() && Ring::of(&kernel.0, 2048).is_err());
    }
}
