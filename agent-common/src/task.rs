//! Tasks of language runtimes: where a process keeps the one that a thread runs, and records of how tasks come from each
//! other. A task is a word that names it in its process: a goroutine's number, the address of a Python context.

use crate::record::RecordHeader;
use crate::wire;

/// Processes whose tasks can be read at once, each in the place that its id names.
pub const RUNTIMES: usize = 4096;

/// `TaskRecord::what`: `task` was begun by `other`.
pub const BORN: u32 = 0;
/// What the socket `other` sends next, it sends for `task`.
pub const LENT: u32 = 1;

wire! {
    /// Where a thread of a process finds its task: a word in its own storage points to a structure, one of whose words
    /// names the task. All zero: nobody's place.
    pub struct Runtime {
        pub tgid: u32,
        /// 1: the word is the task's number; 0: it is the address of an object, whose kind is checked.
        pub is_number: u32,
        /// Of the pointer, from the thread pointer (`fsbase` on x86-64).
        pub thread_offset: i64,
        /// Of the task's word, in the structure.
        pub task_offset: u64,
        /// What the second word of the task's object is, if it is one (`ob_type` in CPython).
        pub kind: u64,
        /// Of a connection's address in the structure that asks over it (`net/http.persistConn` in Go).
        pub connection_offset: u64,
    }
}

impl Runtime {
    /// A place that nobody has.
    pub const NOBODY: Self =
        Self { tgid: 0, is_number: 0, thread_offset: 0, task_offset: 0, kind: 0, connection_offset: 0 };
}

wire! {
    /// Record of `TASK`.
    pub struct TaskRecord {
        pub header: RecordHeader,
        pub tgid: u32,
        /// [`BORN`] or [`LENT`].
        pub what: u32,
        pub task: u64,
        /// A task, or a socket as in [`crate::payload::PayloadRecord::cookie`].
        pub other: u64,
    }
}

const _: () = assert!(RUNTIMES.is_power_of_two());
