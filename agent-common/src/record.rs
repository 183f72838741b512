//! Header of every record in the ring, and the kinds of record.
//!
//! A record is a header followed by the struct of its kind; `PAYLOAD` records carry captured bytes behind
//! the struct. `len` counts the whole record, so a reader can skip a kind that it does not know.

use crate::wire;

/// Version of everything in this crate. The agent refuses an object with another one.
pub const ABI_VERSION: u32 = 4;

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
