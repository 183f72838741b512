//! One send or receive on a tracked connection, with the bytes that were captured of it.

use bytes::Bytes;

use super::connection::{Connection, Direction};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayloadChunk {
    pub connection: Connection,
    pub direction: Direction,
    /// `CLOCK_MONOTONIC` when the operation had moved the bytes, ns.
    pub ktime_ns: u64,
    /// When its first byte began to move, as far as that is known; at most `ktime_ns`. For a send this is when the
    /// kernel handed it to the network: the sender itself may come back from the call later than the answer.
    pub began_ns: u64,
    pub tgid: u32,
    pub tid: u32,
    /// TCP sequence number of the first byte (wraps at 2^32).
    pub sequence: u32,
    /// Bytes the kernel moved; `data.len()` of them, from the first on, were captured.
    pub length: u32,
    pub data: Bytes,
}
