//! Tasks of language runtimes: where a process keeps the one that a thread runs, and records of how tasks come from each
//! other. A task is a word that names it in its process: the address of a goroutine or of a Python context, which is given
//! again when the task is over, or the number of a task of tokio.

use crate::record::RecordHeader;
use crate::wire;

/// Processes whose tasks can be read at once, each in the place that its id names.
pub const RUNTIMES: usize = 4096;

/// `TaskRecord::what`: `task` was begun by `other`.
pub const BORN: u32 = 0;
/// What the socket `other` sends next, it sends for `task`.
pub const LENT: u32 = 1;
/// `task` is to run because of `other`, which it waited for.
pub const WOKEN: u32 = 2;
/// The same, but it was to run anyway: somebody else woke it before and it has not run since.
pub const WOKEN_TOO: u32 = 3;

wire! {
    /// Where a thread of a process finds its task: a word in its own storage points to a structure, which is the task or
    /// knows it. All zero: nobody's place.
    pub struct Runtime {
        pub tgid: u32,
        /// 1: the structure is the task; 0: a word of it points to the task, whose kind is checked.
        pub is_structure: u32,
        /// Of the pointer to the structure, from the thread pointer (`fsbase` on x86-64).
        pub thread_offset: i64,
        /// Of that word in the structure.
        pub task_offset: u64,
        /// The second word of each task (`ob_type` in CPython).
        pub kind: u64,
        /// Of a connection's address in the structure that asks over it (`net/http.persistConn` in Go).
        pub connection_offset: u64,
    }
}

impl Runtime {
    /// A place that nobody has.
    pub const NOBODY: Self =
        Self { tgid: 0, is_structure: 0, thread_offset: 0, task_offset: 0, kind: 0, connection_offset: 0 };
}

wire! {
    /// Record of `TASK`.
    pub struct TaskRecord {
        pub header: RecordHeader,
        pub tgid: u32,
        /// [`BORN`], [`LENT`], [`WOKEN`] or [`WOKEN_TOO`].
        pub what: u32,
        pub task: u64,
        /// A task, or a socket as in [`crate::payload::PayloadRecord::cookie`].
        pub other: u64,
    }
}

const _: () = assert!(RUNTIMES.is_power_of_two());
