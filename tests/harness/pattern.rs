//! Bytes whose value tells their place in a stream, so that a captured piece proves its position; and the marks that end
//! the steps of a client which plays several.

/// The byte at `position`. The period is a prime, so that no power of two repeats it.
pub const fn byte(position: usize) -> u8 {
    (position % PERIOD) as u8
}

/// `length` bytes from `position` on.
pub fn bytes(position: usize, length: usize) -> Vec<u8> {
    let mut cycle = [0; PERIOD];
    cycle.iter_mut().enumerate().for_each(|(index, place)| *place = byte(position + index));
    let mut bytes = cycle.repeat(length.div_ceil(PERIOD));
    bytes.truncate(length);
    bytes
}

const PERIOD: usize = 251;

/// What a client sends when the step of this number is over. No piece of the pattern looks like it.
pub fn mark(step: usize) -> Vec<u8> {
    format!("<step {step:04}>").into_bytes()
}

/// Bytes of a mark.
pub const MARK_BYTES: u64 = 11;
/// Times that a mark is sent: kernels from 7 on can miss any operation.
pub const MARKS: u64 = 3;

/// Bytes of each message of a crowd.
pub const CROWD_BYTES: usize = 512;

/// The number of a step, if these are the bytes of its mark.
pub fn marked(bytes: &[u8]) -> Option<usize> {
    std::str::from_utf8(bytes).ok()?.strip_prefix("<step ")?.strip_suffix('>')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_tells_its_place() {
        for (position, length) in [(0, 0), (7, 1), (250, 3), (1000, 600)] {
            assert_eq!(bytes(position, length), (position..position + length).map(byte).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_mark_is_read_back_and_nothing_else_is_one() {
        assert_eq!(marked(&mark(17)), Some(17));
        assert_eq!(mark(9999).len() as u64, MARK_BYTES);
        assert_eq!(marked(&bytes(0, 11)), None);
        assert_eq!(marked(&bytes(60, 11)), None);
    }
}
