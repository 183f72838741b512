//! Lines of the protocol, collected over as many pieces as they come in, and the numbers in them.
//!
//! In: bytes. Out: the line's beginning (as much as the caller wants), and its exact length. Keeps at most what it is
//! told to keep. Does not know what a line means.

/// A line whose end may not have come yet.
#[derive(Debug, Default)]
pub(super) struct Line {
    kept: Vec<u8>,
    /// Bytes so far, its end not counted.
    length: usize,
    /// The last byte so far is a CR.
    returned: bool,
}

/// What a header counts: bytes of a string, elements of an aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    /// `-1`: there is nothing.
    Null,
    /// `?`: its end is marked.
    Streamed,
    Of(u64),
}

impl Line {
    /// Takes bytes to the end of the line, of which `keep` are kept. Returns how many that were, and whether it ended.
    pub(super) fn feed(&mut self, bytes: &[u8], keep: usize) -> (usize, bool) {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let part = end.and_then(|end| bytes.get(..end)).unwrap_or(bytes);
        let room = keep.saturating_sub(self.kept.len());
        self.kept.extend_from_slice(part.get(..room).unwrap_or(part));
        self.length += part.len();
        if let Some(last) = part.last() {
            self.returned = *last == b'\r';
        }
        (end.map_or(bytes.len(), |end| end + 1), end.is_some())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The line ended as the protocol wants it, with CR and LF.
    pub(super) fn is_proper(&self) -> bool {
        self.returned
    }

    /// All of it was kept.
    pub(super) fn is_whole(&self) -> bool {
        self.kept.len() == self.length
    }

    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// What was kept, without its end.
    pub(super) fn text(&self) -> &[u8] {
        match self.kept.strip_suffix(b"\r") {
            Some(text) if self.returned && self.is_whole() => text,
            _ => &self.kept,
        }
    }

    /// The first byte and the rest of what was kept.
    pub(super) fn split(&self) -> Option<(u8, &[u8])> {
        self.text().split_first().map(|(first, rest)| (*first, rest))
    }

    pub(super) fn clear(&mut self) {
        self.kept.clear();
        self.length = 0;
        self.returned = false;
    }

    pub(super) fn kept_bytes(&self) -> usize {
        self.kept.len()
    }
}

/// Digits and nothing else, up to 10^18.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 18 {
        return None;
    }
    text.iter().try_fold(0_u64, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0')))
}

/// What stands behind the type of a string or an aggregate.
pub(super) fn count(text: &[u8]) -> Option<Count> {
    match text {
        b"-1" => Some(Count::Null),
        b"?" => Some(Count::Streamed),
        _ => number(text).map(Count::Of),
    }
}

#[cfg(test)]
mod tests {
    use super::{Count, Line, count, number};

    #[test]
    fn a_line_is_the_same_in_whatever_pieces_it_comes() {
        let bytes = b"-ERR no such key\r\nrest";
        for size in 1..bytes.len() {
            let mut line = Line::default();
            let mut taken = 0;
            for piece in bytes.chunks(size) {
                let (here, ended) = line.feed(piece, 64);
                taken += here;
                if ended {
                    break;
                }
            }
            assert_eq!(
                (taken, line.text(), line.is_proper()),
                (18, &b"-ERR no such key"[..], true),
                "pieces of {size}"
            );
        }
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_length_exact() {
        let mut line = Line::default();
        assert_eq!(line.feed(b"abcdef", 4), (6, false));
        assert_eq!(line.feed(b"ghi\r\n", 4), (5, true));
        assert_eq!((line.text(), line.length(), line.is_whole()), (&b"abcd"[..], 10, false));
        line.clear();
        assert!(line.is_empty() && line.kept_bytes() == 0);
    }

    #[test]
    fn numbers_are_digits_alone() {
        for (text, expected) in
            [("0", Some(0)), ("12", Some(12)), ("", None), ("-2", None), ("1 ", None), ("1e3", None)]
        {
            assert_eq!(number(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(number(b"999999999999999999999"), None);
        assert_eq!(
            [count(b"-1"), count(b"?"), count(b"7")],
            [Some(Count::Null), Some(Count::Streamed), Some(Count::Of(7))]
        );
    }
}
