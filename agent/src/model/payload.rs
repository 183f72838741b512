//! One send or receive on a tracked connection, with the bytes that were captured of it.

use bytes::Bytes;

use super::connection::{Connection, Direction};
use super::task::Wake;
use super::thread::ThreadAccount;

/// When and by whom bytes were moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// `CLOCK_MONOTONIC` when the operation had moved the bytes, ns.
    pub ktime_ns: u64,
    /// When its first byte began to move, as far as that is known; at most `ktime_ns`. For a send this is when the
    /// kernel handed it to the network: the sender itself may come back from the call later than the answer.
    pub began_ns: u64,
    pub tgid: u32,
    pub tid: u32,
    /// Task of a language runtime that the thread worked on, as [`crate::traces`] names it; `None`: not known.
    pub task: Option<u64>,
    /// Of a send, that another task let this one go on; the first send since then alone.
    pub wake: Option<Wake>,
    /// What the thread's time had gone to at `ktime_ns`, where the kernel told.
    pub account: Option<ThreadAccount>,
    /// Of a receive, how long the bytes had been there, ns, where the kernel told.
    pub queued_ns: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayloadChunk {
    pub connection: Connection,
    pub direction: Direction,
    pub moment: Moment,
    /// Place of the first byte counted from the connection's beginning; for the side that opened it, its SYN counts as a
    /// byte. Tells where a stream began; `sequence` is what orders.
    pub position: u64,
    /// TCP sequence number of the first byte (wraps at 2^32).
    pub sequence: u32,
    /// Sequence number behind the last byte moved the other way at that time.
    pub other_sequence: u32,
    /// Bytes the kernel moved; `data.len()` of them were captured.
    pub length: u32,
    /// Bytes before `data` that were not captured because nobody needs them.
    pub skipped: u32,
    /// Segments that this end has sent again on the connection so far.
    pub retransmits: u32,
    pub data: Bytes,
}

/// Most bytes that can be captured of one operation.
pub const MAX_CAPTURE: u32 = 8192;

/// What the kernel is to capture of a connection, by [`Direction`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaptureDemand {
    /// Most bytes of one operation; `None`: as of any other connection.
    pub bytes: [Option<u32>; 2],
    /// Nothing before this sequence number.
    pub from: [Option<u32>; 2],
}
