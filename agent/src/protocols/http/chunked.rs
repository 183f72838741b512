//! Chunked bodies (RFC 9112 §7.1): finds the end of a message between chunk sizes, keeps a few bytes of state.
//!
//! Sizes, extensions and trailers are walked byte by byte, chunk contents are announced and never looked at.
//! Lines that servers read differently (a bare LF, a size that overflows, a sign) are refused, not guessed.
//! Extensions and trailers together are bounded by [`MAX_FRAMING_BYTES`]. Their values are not kept.

use super::super::Broken;
use crate::model::exchange::Incomplete;

/// Bytes of one chunk's extensions, or of all trailers. Servers allow 4 to 16 KiB.
const MAX_FRAMING_BYTES: u32 = 16 * 1024;
/// Sizes up to 2^60 - 1: far beyond any body, far below an overflow.
const MAX_SIZE_DIGITS: u8 = 15;

/// Where in the framing the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size {
        value: u64,
        digits: u8,
    },
    /// After the size: white space, then an extension or the end of the line.
    Padding {
        value: u64,
    },
    Extension {
        value: u64,
    },
    SizeLineFeed {
        value: u64,
    },
    /// The contents were announced; CR follows them.
    DataReturn,
    DataLineFeed,
    TrailerStart,
    Trailer,
    TrailerLineFeed,
    LastLineFeed,
}

/// What the framing says next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Framing {
    NeedMore,
    /// So many bytes of contents follow.
    Chunk(u64),
    /// The message is over.
    End,
    Broken(Broken),
}

/// The framing of one message.
#[derive(Debug)]
pub(super) struct Chunked {
    state: State,
    /// Bytes of extension since the last chunk, or of trailers.
    framing_bytes: u32,
}

impl Chunked {
    pub(super) fn new() -> Self {
        Self { state: State::Size { value: 0, digits: 0 }, framing_bytes: 0 }
    }

    /// Walks the framing up to the next event; says how many bytes that took.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> (usize, Framing) {
        for (index, byte) in bytes.iter().enumerate() {
            match self.step(*byte) {
                Framing::NeedMore => {}
                event => return (index + 1, event),
            }
        }
        (bytes.len(), Framing::NeedMore)
    }

    fn step(&mut self, byte: u8) -> Framing {
        self.state = match (self.state, byte) {
            (State::Size { value, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                if digits == MAX_SIZE_DIGITS {
                    return broken("chunk_size_overflow");
                }
                let digit = (byte as char).to_digit(16).unwrap_or_default();
                State::Size { value: value * 16 + u64::from(digit), digits: digits + 1 }
            }
            (State::Size { digits: 0, .. }, _) => return broken("chunk_size"),
            (State::Size { value, .. } | State::Padding { value } | State::Extension { value }, b'\r') => {
                State::SizeLineFeed { value }
            }
            (State::Size { value, .. } | State::Padding { value }, b';') => State::Extension { value },
            (State::Size { value, .. } | State::Padding { value }, b' ' | b'\t') => {
                return self.lengthen(State::Padding { value });
            }
            (State::Size { .. } | State::Padding { .. }, _) => return broken("chunk_size"),
            (State::Extension { .. } | State::Trailer, b'\n' | b'\0') => return broken("chunk_line_end"),
            (State::Extension { value }, _) => return self.lengthen(State::Extension { value }),
            (State::SizeLineFeed { value: 0 }, b'\n') => State::TrailerStart,
            (State::SizeLineFeed { value }, b'\n') => {
                self.state = State::DataReturn;
                self.framing_bytes = 0;
                return Framing::Chunk(value);
            }
            (State::DataReturn, b'\r') => State::DataLineFeed,
            (State::DataLineFeed, b'\n') => State::Size { value: 0, digits: 0 },
            (State::TrailerStart, b'\r') => State::LastLineFeed,
            (State::TrailerStart, b'\n' | b' ' | b'\t' | b'\0') => return broken("chunk_trailer"),
            (State::TrailerStart, _) => return self.lengthen(State::Trailer),
            (State::Trailer, b'\r') => State::TrailerLineFeed,
            (State::Trailer, _) => return self.lengthen(State::Trailer),
            (State::TrailerLineFeed, b'\n') => State::TrailerStart,
            (State::LastLineFeed, b'\n') => return Framing::End,
            (
                State::SizeLineFeed { .. }
                | State::DataReturn
                | State::DataLineFeed
                | State::TrailerLineFeed
                | State::LastLineFeed,
                _,
            ) => return broken("chunk_line_end"),
        };
        Framing::NeedMore
    }

    fn lengthen(&mut self, state: State) -> Framing {
        self.state = state;
        self.framing_bytes += 1;
        if self.framing_bytes > MAX_FRAMING_BYTES { broken("chunk_line_too_long") } else { Framing::NeedMore }
    }
}

fn broken(reason: &'static str) -> Framing {
    Framing::Broken(Broken { reason, incomplete: Incomplete::Malformed })
}

#[cfg(test)]
mod tests {
    use super::{Chunked, Framing};

    /// Walks a whole body, jumping over contents; the sizes seen and how it ended.
    fn walk(mut bytes: &[u8]) -> (Vec<u64>, Framing, usize) {
        let mut chunked = Chunked::new();
        let mut sizes = Vec::new();
        loop {
            let (taken, event) = chunked.feed(bytes);
            bytes = &bytes[taken..];
            match event {
                Framing::Chunk(size) => {
                    sizes.push(size);
                    bytes = &bytes[usize::try_from(size).unwrap().min(bytes.len())..];
                }
                event => return (sizes, event, bytes.len()),
            }
        }
    }

    #[test]
    fn sizes_extensions_and_trailers_end_where_the_message_ends() {
        let body =
            b"5\r\nhello\r\n1F ; name=\"v\"\r\n0123456789012345678901234567890\r\n00\r\nA: b\r\nC: d\r\n\r\nNEXT";
        assert_eq!(walk(body), (vec![5, 31], Framing::End, 4));
    }

    #[test]
    fn every_prefix_of_a_body_needs_more() {
        let body = b"3\r\nabc\r\n0\r\nT: v\r\n\r\n";
        for cut in 0..body.len() {
            assert_eq!(walk(&body[..cut]).1, Framing::NeedMore, "{cut} bytes");
        }
    }

    #[test]
    fn lines_that_servers_read_differently_are_refused() {
        for (body, reason) in [
            (&b"5\nhello"[..], "chunk_size"),
            (b"-5\r\n", "chunk_size"),
            (b"0x5\r\n", "chunk_size"),
            (b"\r\n", "chunk_size"),
            (b"5 5\r\n", "chunk_size"),
            (b"1000000000000000\r\n", "chunk_size_overflow"),
            (b"5;a\nhello", "chunk_line_end"),
            (b"5\rhello", "chunk_line_end"),
            (b"2\r\nabX", "chunk_line_end"),
            (b"0\r\n\n", "chunk_trailer"),
            (b"0\r\nA: b\n\r\n", "chunk_line_end"),
            (b"0\r\n folded\r\n\r\n", "chunk_trailer"),
        ] {
            match walk(body).1 {
                Framing::Broken(broken) => assert_eq!(broken.reason, reason, "{:?}", String::from_utf8_lossy(body)),
                other => panic!("{:?}: {other:?}", String::from_utf8_lossy(body)),
            }
        }
    }

    #[test]
    fn an_endless_extension_is_refused() {
        let mut body = b"5;".to_vec();
        body.resize(100_000, b'x');
        assert!(matches!(walk(&body).1, Framing::Broken(broken) if broken.reason == "chunk_line_too_long"));
    }
}
