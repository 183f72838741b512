//! Tasks of language runtimes, goroutines, contexts of Python, tasks of tokio: what the kernel programs tell of them, and what those
//! must be told about a process.

use std::path::PathBuf;

use super::connection::Cookie;

/// A task as its process names it: the address of a goroutine or of a context, which is given again, or the number of a
/// task of tokio.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskName(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskEventKind {
    /// It was begun by another one.
    Born { parent: TaskName },
    /// What the socket sends next, it sends for the task.
    Lent { socket: Cookie },
    /// Another one lets it go on. `too`: it was to do so anyway, and has not yet.
    Woken { by: TaskName, too: bool },
}

/// That another task let one go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wake {
    /// As [`crate::traces`] names it.
    pub by: u64,
    /// `CLOCK_MONOTONIC`, ns.
    pub ktime_ns: u64,
    /// The one that was woken has a connection to itself over which it sent before: it does so for whoever wakes it.
    pub drives: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskEvent {
    pub pid: u32,
    pub task: TaskName,
    /// `CLOCK_MONOTONIC`, ns.
    pub ktime_ns: u64,
    pub kind: TaskEventKind,
}

/// Where a thread finds the task that it works on, as in [`seismo_common::task::Runtime`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskReads {
    pub is_structure: bool,
    pub thread_offset: i64,
    pub task_offset: u64,
    pub kind: u64,
    pub connection_offset: u64,
}

/// What a probe in a process sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TaskPoint {
    /// A Python context was copied.
    Copied,
    /// A goroutine is going to be made.
    Begins,
    /// It is made.
    Begun,
    /// A goroutine hands a request to the one of a pooled connection.
    Asks,
    /// A task of tokio begins another one,
    Bound,
    /// or wakes it.
    Woken,
}

impl TaskPoint {
    pub const ALL: [Self; 6] = [Self::Copied, Self::Begins, Self::Begun, Self::Asks, Self::Bound, Self::Woken];
}

/// One probe: an instruction of a file, by its offset there, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskPlace {
    pub point: TaskPoint,
    pub offset: u64,
}

/// The runtime of a process: how its tasks are read, and where they begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRuntime {
    /// `go`, `python`, `tokio`.
    pub language: &'static str,
    pub reads: TaskReads,
    /// The file of the places, as this host can open it.
    pub file: PathBuf,
    pub places: Vec<TaskPlace>,
}
