//! Which language runtime a process has, where its threads keep their task, and where tasks begin.
//!
//! Out of `/proc/PID`: the executable and the libraries that it has mapped, and for Python two words of its memory; once per
//! process, not on the way of records. What is not certain is refused with the reason: a wrong offset would give wrong
//! parents.

mod code;
mod elf;
mod go;
pub mod java;
mod python;
mod tokio;

use super::procfs::Procfs;
use crate::model::task::TaskRuntime;

/// Why the tasks of a process cannot be read, though it has a runtime of a language that could be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported(pub String);

/// `None`: it has no runtime with tasks that are known here.
pub fn find(proc: &Procfs, pid: u32) -> Result<Option<TaskRuntime>, Unsupported> {
    if let Some(found) = python::find(proc, pid)? {
        return Ok(Some(found));
    }
    if let Some(found) = go::find(proc, pid)? {
        return Ok(Some(found));
    }
    tokio::find(proc, pid)
}
