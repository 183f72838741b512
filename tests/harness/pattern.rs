//! Bytes whose value tells their place in a stream, so that a captured piece proves its position.

/// The byte at `position`. The period is a prime, so that no power of two repeats it.
pub const fn byte(position: usize) -> u8 {
    (position % 251) as u8
}

/// `length` bytes from `position` on.
pub fn bytes(position: usize, length: usize) -> Vec<u8> {
    (position..position + length).map(byte).collect()
}
