//! One direction of a connection: segments in any order in, pieces in stream order out.
//!
//! Segments are ordered by 64-bit position (whose low 32 bits are the TCP sequence number). What was moved but not
//! captured comes out as [`Content::Missing`] with its exact size; what no record told of, once the wait for it is
//! over, as [`Content::Gap`], also at the end: operations of the other direction tell how far this one had come. Bytes
//! that came before are dropped and counted. Holds at most what its owner lets it: the owner asks for
//! [`Stream::held`] and decides when a hole has lasted long enough.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

use crate::model::payload::Moment;

/// Positions begin here, so that what lies before the first segment has a position too, terabytes back.
const ORIGIN: u64 = 1 << 48;

/// One send or receive at its place.
#[derive(Clone, Debug)]
pub struct Segment {
    pub position: u64,
    /// Bytes moved; `data` is what was captured of them, from the first on.
    pub length: u64,
    pub data: Bytes,
    pub moment: Moment,
    /// How far the other stream had come, as a position of that stream.
    pub other: u64,
    /// Its first byte is the first of the operation.
    pub whole: bool,
}

impl Segment {
    fn end(&self) -> u64 {
        self.position.saturating_add(self.length)
    }

    fn drop_front(&mut self, bytes: u64) {
        let bytes = bytes.min(self.length);
        self.position += bytes;
        self.length -= bytes;
        self.data.advance(usize::try_from(bytes).unwrap_or(usize::MAX).min(self.data.len()));
        self.whole &= bytes == 0;
    }
}

#[derive(Clone, Debug)]
pub enum Content {
    Bytes(Bytes),
    /// Moved by the operation and not captured: its size and time are known.
    Missing,
    /// Between two operations: its size is known.
    Gap,
}

/// The next bytes of a stream.
#[derive(Clone, Debug)]
pub struct Piece {
    pub content: Content,
    pub position: u64,
    pub length: u64,
    /// Of the operation that moved it; for a gap, of the one before.
    pub moment: Moment,
    /// How far the other stream had come when this was moved; for a gap, before it was.
    pub other: u64,
    /// Begins an operation.
    pub starts: bool,
}

impl Piece {
    pub fn end(&self) -> u64 {
        self.position.saturating_add(self.length)
    }
}

/// How a piece lies to the other stream.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// It begins where its stream was when the other one was moved last.
    pub begins: bool,
    /// Bytes that were moved the other way before it have not been read yet.
    pub waits: bool,
}

#[derive(Debug, Default)]
pub struct Stream {
    /// By position; no two overlap the bytes already taken.
    held: VecDeque<Segment>,
    held_bytes: usize,
    /// Position of the next byte to hand out; `None` until one was.
    next: Option<u64>,
    /// Position of the first byte handed out.
    start: u64,
    /// End of what is known to have been moved: what sequence numbers are read relative to.
    furthest: Option<u64>,
    /// When that became known.
    furthest_ns: u64,
    overlap_bytes: u64,
    /// Of the operation whose bytes were handed out last.
    last: Last,
}

#[derive(Clone, Copy, Debug, Default)]
struct Last {
    moment: Moment,
    /// `None`: nothing was handed out yet.
    other: Option<u64>,
}

impl Stream {
    /// The position of a sequence number, the nearest to what was seen so far.
    pub fn place(&self, sequence: u32) -> u64 {
        match self.furthest {
            None => ORIGIN | u64::from(sequence),
            Some(furthest) => {
                let distance = sequence.wrapping_sub(furthest as u32).cast_signed();
                furthest.saturating_add_signed(i64::from(distance))
            }
        }
    }

    /// Bytes up to this sequence number have been moved, whether their records come or not. Returns its position.
    pub fn reached(&mut self, sequence: u32, ktime_ns: u64) -> u64 {
        let position = self.place(sequence);
        if self.furthest.is_none_or(|furthest| furthest < position) {
            (self.furthest, self.furthest_ns) = (Some(position), ktime_ns);
        }
        position
    }

    /// As [`Stream::reached`], where an operation of the other stream tells. A FIN takes a sequence number too, and one byte
    /// more than is known may be that: a byte shows itself by its own record or the one behind it.
    pub fn reached_or_ended(&mut self, sequence: u32, ktime_ns: u64) -> u64 {
        let last = sequence.wrapping_sub(1);
        match self.furthest {
            Some(furthest) if furthest as u32 == last => furthest,
            _ => self.reached(sequence, ktime_ns),
        }
    }

    /// The next byte that matters has this sequence number; does nothing to a stream that has begun.
    pub fn begin(&mut self, sequence: u32) {
        if self.next.is_none() && self.held.is_empty() {
            let position = self.reached(sequence, 0);
            (self.next, self.start) = (Some(position), position);
        }
    }

    /// Bytes that were moved and whose records did not come, at the end of what is here.
    fn missing_end(&self) -> u64 {
        match (self.next, self.furthest) {
            (Some(next), Some(furthest)) if self.held.is_empty() => furthest.saturating_sub(next),
            _ => 0,
        }
    }

    /// Takes a segment. `Err`: it begins before the first byte that was ever handed out, so the order in which
    /// messages were read is not the order in which they were sent.
    #[expect(clippy::result_large_err, reason = "what is refused is rare, and the caller had it before")]
    pub fn push(&mut self, mut segment: Segment) -> Result<(), Segment> {
        if segment.length == 0 {
            return Ok(());
        }
        if self.furthest.is_none_or(|furthest| furthest < segment.end()) {
            (self.furthest, self.furthest_ns) = (Some(segment.end()), segment.moment.ktime_ns);
        }
        if let Some(mut next) = self.next {
            if segment.position < self.start {
                if next != self.start {
                    return Err(segment);
                }
                // Nothing was handed out yet: where the stream was to begin was read in the middle of an operation.
                next = segment.position;
                (self.start, self.next) = (next, Some(next));
            }
            let old = next.saturating_sub(segment.position).min(segment.length);
            self.overlap_bytes += old;
            segment.drop_front(old);
            if segment.length == 0 {
                return Ok(());
            }
        }
        self.held_bytes += segment.data.len();
        let behind = self.held.iter().rev().take_while(|held| held.position > segment.position).count();
        self.held.insert(self.held.len() - behind, segment);
        self.untangle();
        Ok(())
    }

    /// Two threads sent at once and the first read the position only after the second had sent: its segment lies
    /// too far on by exactly the second's length. Then the hole in front, the overlap and the second are one size.
    fn untangle(&mut self) {
        let (Some(next), Some(first), Some(second)) = (self.next, self.held.front(), self.held.get(1)) else { return };
        let hole = first.position.saturating_sub(next);
        let crossed = second.length == hole && second.end() == first.end() && first.length > hole;
        if hole > 0
            && crossed
            && let Some(first) = self.held.front_mut()
        {
            first.position -= hole;
        }
    }

    /// The next piece. A hole is waited for unless `expired`.
    pub fn peek(&self, expired: bool) -> Option<Piece> {
        let Some(front) = self.held.front() else {
            return if expired { self.gap(self.missing_end()) } else { None };
        };
        let next = self.next.unwrap_or(front.position);
        if front.position > next {
            return if expired { self.gap(front.position - next) } else { None };
        }
        let (content, length) = if front.data.is_empty() {
            (Content::Missing, front.length)
        } else {
            (Content::Bytes(front.data.clone()), front.data.len() as u64)
        };
        Some(Piece {
            content,
            position: front.position,
            length: length.min(front.length),
            moment: front.moment,
            other: front.other,
            starts: front.whole,
        })
    }

    /// How far the other stream had come at the operation that ended at `position`, if it is here or was the last.
    fn turn_at(&self, position: u64) -> Option<u64> {
        if self.next == Some(position) && self.last.other.is_some() {
            return self.last.other;
        }
        self.held.iter().find(|segment| segment.end() == position).map(|segment| segment.other)
    }

    /// How a piece of the other stream lies to this one.
    pub fn turn(&self, piece: &Piece) -> Turn {
        Turn {
            begins: piece.starts && self.turn_at(piece.other) == Some(piece.position),
            waits: self.next.is_none_or(|next| next < piece.other),
        }
    }

    /// What lies before a position has not been handed out yet.
    pub fn is_behind(&self, position: u64) -> bool {
        self.next.is_some_and(|next| next < position)
    }

    /// A hole of so many bytes at the next position.
    fn gap(&self, length: u64) -> Option<Piece> {
        let Last { moment, other } = self.last;
        let piece = |position| Piece {
            content: Content::Gap,
            position,
            length,
            moment: Moment { began_ns: moment.ktime_ns, ..moment },
            other: other.unwrap_or(0),
            starts: false,
        };
        self.next.filter(|_| length > 0).map(piece)
    }

    /// Hands out `bytes` of the piece that `peek` showed.
    pub fn take(&mut self, bytes: u64) {
        let Some(front) = self.held.front_mut() else {
            let missing = self.missing_end();
            self.next = self.next.map(|next| next + bytes.min(missing));
            return;
        };
        let next = *self.next.get_or_insert_with(|| {
            self.start = front.position;
            front.position
        });
        if front.position > next {
            self.next = Some(next + bytes.min(front.position - next));
            return;
        }
        let before = front.data.len();
        front.drop_front(bytes);
        self.held_bytes -= before - front.data.len();
        self.last = Last { moment: front.moment, other: Some(front.other) };
        let next = front.position;
        self.next = Some(next);
        // Later segments may begin with bytes that were handed out now.
        while let Some(front) = self.held.front_mut() {
            let old = next.saturating_sub(front.position).min(front.length);
            let before = front.data.len();
            front.drop_front(old);
            self.held_bytes -= before - front.data.len();
            self.overlap_bytes += old;
            if front.length > 0 {
                break;
            }
            self.held.pop_front();
        }
    }

    /// Captured bytes from the next position on, as far as they lie in one piece, at most `limit`.
    pub fn prefix(&self, limit: usize) -> Vec<u8> {
        let mut prefix = Vec::new();
        let mut end = self.held.front().map_or(0, |front| self.next.unwrap_or(front.position));
        for segment in &self.held {
            if segment.position > end || prefix.len() >= limit {
                break;
            }
            let seen = usize::try_from(end - segment.position).unwrap_or(usize::MAX);
            let new = segment.data.get(seen..).unwrap_or_default();
            let room = limit - prefix.len();
            prefix.extend_from_slice(new.get(..room).unwrap_or(new));
            if (segment.data.len() as u64) < segment.length {
                break;
            }
            end = end.max(segment.end());
        }
        prefix
    }

    /// Segments and captured bytes that wait.
    pub fn held(&self) -> (usize, usize) {
        (self.held.len(), self.held_bytes)
    }

    /// Since when what comes next is here, or is known to be missing; `None`: neither.
    pub fn since_ns(&self) -> Option<u64> {
        let here = self.held.front().map(|front| front.moment.ktime_ns);
        here.or_else(|| (self.missing_end() > 0).then_some(self.furthest_ns))
    }

    /// Whether a byte was ever handed out, or given up.
    pub fn is_begun(&self) -> bool {
        self.next.is_some_and(|next| next != self.start)
    }

    pub fn position(&self) -> Option<u64> {
        self.next
    }

    /// Position of the first byte that was handed out, or is to be.
    pub fn start(&self) -> Option<u64> {
        self.next.map(|_| self.start)
    }

    /// Position behind everything that is known to have been moved.
    pub fn furthest(&self) -> u64 {
        self.furthest.unwrap_or(0)
    }

    /// Bytes that came twice, since the last call.
    pub fn drain_overlap(&mut self) -> u64 {
        std::mem::take(&mut self.overlap_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::{Content, Moment, Segment, Stream};
    use bytes::Bytes;

    fn segment(stream: &Stream, sequence: u32, data: &'static [u8], length: u64) -> Segment {
        Segment {
            position: stream.place(sequence),
            length,
            data: Bytes::from_static(data),
            moment: Moment { tgid: 1, tid: 1, ..Moment::default() },
            other: 0,
            whole: true,
        }
    }

    fn push(stream: &mut Stream, sequence: u32, data: &'static [u8]) {
        let segment = segment(stream, sequence, data, data.len() as u64);
        stream.push(segment).unwrap();
    }

    /// Everything that can be handed out: captured bytes, `_` for a missing and `?` for a lost byte.
    fn read(stream: &mut Stream, expired: bool) -> String {
        let mut text = String::new();
        while let Some(piece) = stream.peek(expired) {
            match piece.content {
                Content::Bytes(bytes) => text.push_str(std::str::from_utf8(&bytes).unwrap()),
                Content::Missing => text.push_str(&"_".repeat(usize::try_from(piece.length).unwrap())),
                Content::Gap => text.push_str(&"?".repeat(usize::try_from(piece.length).unwrap())),
            }
            stream.take(piece.length);
        }
        text
    }

    #[test]
    fn swapped_segments_come_out_in_order_also_across_the_wrap() {
        let mut stream = Stream::default();
        push(&mut stream, u32::MAX - 1, b"abcd");
        assert_eq!(read(&mut stream, false), "abcd");
        push(&mut stream, 5, b"hi");
        assert_eq!(read(&mut stream, false), "");
        push(&mut stream, 2, b"efg");
        assert_eq!(read(&mut stream, false), "efghi");
        assert_eq!(stream.position().map(|position| position as u32), Some(7));
        assert_eq!(stream.held(), (0, 0));
    }

    #[test]
    fn a_fin_that_the_other_stream_tells_of_is_no_missing_byte() {
        let mut stream = Stream::default();
        push(&mut stream, 10, b"abcd");
        let end = stream.place(14);
        assert_eq!(read(&mut stream, false), "abcd");
        assert_eq!(stream.reached_or_ended(15, 1), end);
        assert!(stream.peek(true).is_none());
        // Two bytes are none.
        assert_eq!(stream.reached_or_ended(16, 2), end + 2);
        let gap = stream.peek(true).unwrap();
        assert!(matches!(gap.content, Content::Gap) && gap.length == 2);
    }

    #[test]
    fn before_anything_was_read_an_earlier_segment_is_the_beginning() {
        let mut stream = Stream::default();
        push(&mut stream, 0, b"world");
        push(&mut stream, 0u32.wrapping_sub(6), b"hello ");
        assert_eq!(read(&mut stream, false), "hello world");
    }

    #[test]
    fn after_that_an_earlier_segment_is_refused() {
        let mut stream = Stream::default();
        push(&mut stream, 100, b"b");
        assert_eq!(read(&mut stream, false), "b");
        let early = segment(&stream, 99, b"a", 1);
        assert!(stream.push(early).is_err());
    }

    #[test]
    fn overlapping_bytes_come_out_once_and_are_counted() {
        let mut stream = Stream::default();
        push(&mut stream, 10, b"abcd");
        push(&mut stream, 12, b"cdef");
        push(&mut stream, 13, b"d");
        assert_eq!(read(&mut stream, false), "abcdef");
        push(&mut stream, 10, b"abcdefgh");
        assert_eq!(read(&mut stream, false), "gh");
        assert_eq!(stream.drain_overlap(), 2 + 1 + 6);
    }

    #[test]
    fn two_senders_whose_positions_crossed_are_put_right() {
        for swapped in [false, true] {
            let mut stream = Stream::default();
            push(&mut stream, 0, b"-");
            assert_eq!(read(&mut stream, false), "-");
            // First sent six bytes, second three; the first read the position after both.
            let mut sends: [(u32, &'static [u8]); 2] = [(4, b"FIRST!"), (7, b"two")];
            if swapped {
                sends.reverse();
            }
            for (sequence, data) in sends {
                push(&mut stream, sequence, data);
            }
            assert_eq!(read(&mut stream, false), "FIRST!two");
            assert_eq!(stream.drain_overlap(), 0);
        }
    }

    #[test]
    fn missing_bytes_and_gaps_have_their_exact_size() {
        let mut stream = Stream::default();
        let cut = segment(&stream, 0, b"ab", 5);
        stream.push(cut).unwrap();
        push(&mut stream, 9, b"z");
        assert_eq!(read(&mut stream, false), "ab___");
        assert_eq!(read(&mut stream, true), "????z");
    }
}
