//! The framing of PostgreSQL's protocol 3: pieces of a stream to single messages, or as much of one as matters.
//!
//! A message is a type byte, a length that counts itself, and contents; the first one of a client has no type. Of a
//! message at most the asked bytes are kept, the rest is left to be skipped by its length. Lengths are hostile:
//! beyond [`MAX_LENGTH`], or other than a type allows, they are no message. Copies only what comes in pieces.

/// Type byte and length.
pub(super) const HEADER: usize = 5;
/// Length and code of a message without a type.
pub(super) const UNTYPED_HEADER: usize = 8;
/// `MaxAllocSize` of the server: no longer message is accepted by either side.
pub(super) const MAX_LENGTH: u32 = 0x3fff_ffff;
/// `MAX_STARTUP_PACKET_LENGTH`.
pub(super) const MAX_STARTUP_LENGTH: u32 = 10_000;

pub(super) const SSL_REQUEST: u32 = 80_877_103;
pub(super) const GSSENC_REQUEST: u32 = 80_877_104;
pub(super) const CANCEL_REQUEST: u32 = 80_877_102;
/// Longest key of a cancellation: 256 bytes in protocol 3.2.
const MAX_CANCEL_LENGTH: u32 = 4 + 4 + 4 + 256;

/// A message, or its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    /// 0 where it has none.
    pub(super) tag: u8,
    /// Behind the length (and behind the code of one without a type): all of it, or what was asked for.
    pub(super) contents: &'a [u8],
    /// Of a message without a type.
    pub(super) code: u32,
    /// Bytes behind `contents`.
    pub(super) rest: u64,
}

/// How long a message is, from its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// Too few bytes to tell; so many are needed.
    Needs(usize),
    /// Header and contents.
    Is { header: usize, total: u64 },
}

pub(super) fn be32(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes))
}

pub(super) fn be16(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk::<2>().map(|bytes| u16::from_be_bytes(*bytes))
}

/// A string and what is behind its end. `None`: it does not end here.
pub(super) fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

/// Size of a message with a type. `Err`: not a message.
pub(super) fn typed(bytes: &[u8]) -> Result<Size, &'static str> {
    let Some(length) = bytes.get(1..).and_then(be32) else { return Ok(Size::Needs(HEADER)) };
    if !(4..=MAX_LENGTH).contains(&length) {
        return Err("message_length");
    }
    Ok(Size::Is { header: HEADER, total: u64::from(length) + 1 })
}

/// Size of a client's first message, by what its code allows.
pub(super) fn untyped(bytes: &[u8]) -> Result<Size, &'static str> {
    let (Some(length), Some(code)) = (be32(bytes), bytes.get(4..).and_then(be32)) else {
        return Ok(Size::Needs(UNTYPED_HEADER));
    };
    let right = match code {
        SSL_REQUEST | GSSENC_REQUEST => length == 8,
        CANCEL_REQUEST => (16..=MAX_CANCEL_LENGTH).contains(&length),
        // Minor versions are negotiated: a server answers with the one it knows.
        _ => code >> 16 == 3 && (9..=MAX_STARTUP_LENGTH).contains(&length),
    };
    if right { Ok(Size::Is { header: UNTYPED_HEADER, total: u64::from(length) }) } else { Err("startup") }
}

/// The message that is being collected on one side.
#[derive(Debug, Default)]
pub(super) struct Frame {
    /// Of a message in pieces, its beginning.
    kept: Vec<u8>,
}

/// Room that an idle connection keeps for messages in pieces, per side.
const KEPT_ROOM_BYTES: usize = 256;

impl Frame {
    /// Bytes of a message that is not whole.
    pub(super) fn kept(&self) -> usize {
        self.kept.len()
    }

    pub(super) fn is_untyped(&self) -> bool {
        self.kept.first() == Some(&0)
    }

    /// Contents of a message with this tag, as far as they came.
    pub(super) fn beginning_of(&self, tag: u8) -> Option<&[u8]> {
        self.kept.get(HEADER..).filter(|_| self.kept.first() == Some(&tag))
    }

    pub(super) fn clear(&mut self) {
        self.kept = Vec::new();
    }

    /// Takes bytes until `wanted` of a message's contents (or all of them) are there, and shows it to `see`. Returns how many
    /// bytes were taken, and what was seen of a message, if one was.
    pub(super) fn next<T>(
        &mut self,
        bytes: &[u8],
        size: fn(&[u8]) -> Result<Size, &'static str>,
        wanted: impl Fn(u8) -> usize,
        see: impl FnOnce(Message<'_>) -> T,
    ) -> Result<(usize, Option<T>), &'static str> {
        let mut taken = 0;
        loop {
            let have = if self.kept.is_empty() { bytes } else { self.kept.as_slice() };
            let (needs, whole) = match size(have)? {
                Size::Needs(needs) => (needs, None),
                Size::Is { header, total } => {
                    let tag = if header == HEADER { have.first().copied().unwrap_or(0) } else { 0 };
                    let keep = u64::try_from(header + wanted(tag)).unwrap_or(u64::MAX).min(total);
                    let needs = usize::try_from(keep).unwrap_or(usize::MAX);
                    (needs, Some((tag, header, total - keep)))
                }
            };
            if let (Some((tag, header, rest)), Some(head)) = (whole, have.get(..needs)) {
                let contents = head.get(header..).unwrap_or_default();
                let code = if tag == 0 { head.get(4..).and_then(be32).unwrap_or(0) } else { 0 };
                let seen = see(Message { tag, contents, code, rest });
                if self.kept.is_empty() {
                    taken = needs;
                }
                self.kept.clear();
                self.kept.shrink_to(KEPT_ROOM_BYTES);
                return Ok((taken, Some(seen)));
            }
            let new = bytes.get(taken..).unwrap_or_default();
            let new = new.get(..needs.saturating_sub(self.kept.len())).unwrap_or(new);
            if new.is_empty() {
                return Ok((taken, None));
            }
            self.kept.extend_from_slice(new);
            taken += new.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Frame, Message, Size, typed, untyped};

    #[test]
    fn a_message_in_pieces_of_any_size_is_the_same_message() {
        let bytes = b"Q\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I";
        for wanted in [0, 3, 100] {
            for size in 1..=bytes.len() {
                let mut frame = Frame::default();
                let mut seen = Vec::new();
                let mut skip = 0;
                for piece in bytes.chunks(size) {
                    let mut rest = piece;
                    while !rest.is_empty() {
                        let skipped = rest.len().min(skip);
                        skip -= skipped;
                        rest = &rest[skipped..];
                        if rest.is_empty() {
                            break;
                        }
                        let see = |message: Message<'_>| (message.tag, message.contents.to_vec(), message.rest);
                        let (taken, message) = frame.next(rest, typed, |_| wanted, see).unwrap();
                        assert!(taken > 0);
                        if let Some(message) = message {
                            skip = usize::try_from(message.2).unwrap();
                            seen.push(message);
                        }
                        rest = &rest[taken..];
                    }
                }
                let (first, second) = (9.min(wanted), 1.min(wanted));
                let expected = [
                    (b'Q', b"SELECT 1\0"[..first].to_vec(), 9 - first as u64),
                    (b'Z', b"I"[..second].to_vec(), 1 - second as u64),
                ];
                assert_eq!(seen, expected, "pieces of {size}, {wanted} wanted");
                assert_eq!(frame.kept(), 0);
            }
        }
    }

    #[test]
    fn lengths_that_cannot_be_are_refused() {
        for (bytes, size) in [
            (&b"Q\0\0\0"[..], Ok(Size::Needs(5))),
            (b"Q\0\0\0\x03", Err("message_length")),
            (b"Q\0\0\0\x04", Ok(Size::Is { header: 5, total: 5 })),
            (b"Q\x3f\xff\xff\xff", Ok(Size::Is { header: 5, total: 0x4000_0000 })),
            (b"Q\x40\0\0\0", Err("message_length")),
            (b"POST /", Err("message_length")),
        ] {
            assert_eq!(typed(bytes), size, "{bytes:?}");
        }
        for (bytes, right) in [
            (b"\0\0\0\x08\x04\xd2\x16\x2f", true),
            (b"\0\0\0\x09\x04\xd2\x16\x2f", false),
            (b"\0\0\0\x10\x04\xd2\x16\x2e", true),
            (b"\0\0\0\x20\0\x03\0\0", true),
            (b"\0\0\0\x20\0\x03\0\x02", true),
            (b"\0\0\x30\0\0\x03\0\0", false),
            (b"\0\0\0\x20\0\x02\0\0", false),
        ] {
            assert_eq!(untyped(bytes).is_ok(), right, "{bytes:?}");
        }
    }
}
