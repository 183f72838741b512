//! Header of every record in the ring, and the kinds of record.
//!
//! A record is a header followed by the struct of its kind; `PAYLOAD` records carry captured bytes behind
//! the struct. `len` counts the whole record, so a reader can skip a kind that it does not know.

use crate::wire;

/// Version of everything in this crate. The agent refuses an object with another one.
pub const ABI_VERSION: u32 = 7;

/// A process was created (`sched_process_fork`): [`crate::process::ProcessRecord`].
pub const PROCESS_FORK: u16 = 1;
/// A process replaced its program (`sched_process_exec`): [`crate::process::ProcessRecord`].
pub const PROCESS_EXEC: u16 = 2;
/// The last thread of a process ended (`sched_process_exit`): [`crate::process::ProcessRecord`].
pub const PROCESS_EXIT: u16 = 3;
/// A TCP socket whose payload is in scope changed state (`inet_sock_set_state`): [`crate::tcp::TcpStateRecord`].
pub const TCP_STATE: u16 = 16;
/// Bytes moved through a socket in scope: [`crate::payload::PayloadRecord`] and the captured bytes.
pub const PAYLOAD: u16 = 32;
/// A task of a language runtime came from another one, or lends its connection: [`crate::task::TaskRecord`].
pub const TASK: u16 = 48;
/// A thread made or woke another one of its process: [`crate::handover::HandoverRecord`].
pub const HANDOVER: u16 = 49;
/// Written to measure the ring and what is behind it, means nothing: [`FillerRecord`].
pub const FILLER: u16 = 64;

/// First argument of a `getppid` that asks for fillers, which has none by itself; the second is how many.
pub const FILLERS_ASKED: u64 = 0x6f6d_7369_6573;
/// Fillers for one call at most.
pub const FILLERS: u64 = 64;

wire! {
    /// First 24 bytes of every record.
    pub struct RecordHeader {
        /// One of the kinds above.
        pub kind: u16,
        /// Meaning depends on the kind; 0 where none is stated.
        pub flags: u16,
        /// Bytes of the whole record, header included.
        pub len: u32,
        /// CPU that wrote the record.
        pub cpu: u32,
        /// Zero.
        pub reserved: u32,
        /// `CLOCK_MONOTONIC` in nanoseconds, taken in the hook (`bpf_ktime_get_ns`).
        pub ktime_ns: u64,
    }
}

wire! {
    /// Record of `FILLER`, as long as one of a process.
    pub struct FillerRecord {
        pub header: RecordHeader,
        pub words: [u64; 5],
    }
}

const _: () = assert!(core::mem::size_of::<FillerRecord>() == 64);
