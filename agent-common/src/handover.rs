//! Threads that hand work to another thread of their process: by making it, or by waking it up.
//!
//! A record is 40 bytes. Threads that are made are told of every process in scope; wake-ups only of the processes that
//! userspace names, of each CPU at most [`WAKES_PER_WINDOW`] in a window.

use crate::record::RecordHeader;
use crate::wire;

/// Processes whose wake-ups can be told at once, each in the place that its id names.
pub const WAKING_PROCESSES: usize = 4096;
/// Wake-ups told by one CPU in 2^[`WAKE_WINDOW_SHIFT`] ns (67 ms).
pub const WAKES_PER_WINDOW: u64 = 2048;
pub const WAKE_WINDOW_SHIFT: u32 = 26;

/// `HandoverRecord::how`: `from` made the thread `to`.
pub const MADE: u32 = 0;
/// `from` woke the thread `to`, by a system call of its own.
pub const WOKE: u32 = 1;

wire! {
    /// Record of `HANDOVER`.
    pub struct HandoverRecord {
        pub header: RecordHeader,
        pub tgid: u32,
        /// Thread ids.
        pub from: u32,
        pub to: u32,
        /// [`MADE`] or [`WOKE`].
        pub how: u32,
    }
}

const _: () = assert!(core::mem::size_of::<HandoverRecord>() == 40 && WAKING_PROCESSES.is_power_of_two());
