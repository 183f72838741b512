//! The task of a language runtime that the running thread works on: which goroutine, which Python context.
//!
//! Two reads of user memory where userspace knows the process's runtime, three where the task is an object whose kind is
//! checked; else an array look-up. Everything read is the process's own and may be anything: what does not look like a
//! task is none.

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use core::ffi::c_void;

use seismo_common::offsets::ABSENT;
use seismo_common::task::{RUNTIMES as PLACES, Runtime};

use crate::kernel::{Task, offset};
use crate::maps::RUNTIMES;

/// A word of user memory; 0 where it cannot be read.
#[inline(always)]
pub fn word(address: u64) -> u64 {
    let mut word = 0u64;
    // SAFETY: reads 8 bytes of user memory into the stack; a bad pointer is an error, not a fault, and leaves zero.
    unsafe { bpf_probe_read_user((&raw mut word).cast(), 8, address as *const c_void) };
    word
}

/// How the tasks of a process are read, if that is known.
#[inline(always)]
pub fn runtime(tgid: u32) -> Option<&'static Runtime> {
    RUNTIMES.get(tgid & (PLACES as u32 - 1)).filter(|runtime| runtime.tgid == tgid && tgid != 0)
}

/// The task of the running thread; 0: not known.
#[inline(always)]
pub fn of(task: Task) -> u64 {
    match runtime(task.tgid()) {
        Some(runtime) => read(runtime, task),
        None => 0,
    }
}

/// The same where the runtime is known.
#[inline(always)]
pub fn read(runtime: &Runtime, task: Task) -> u64 {
    if offset!(task_thread_pointer) == ABSENT {
        return 0;
    }
    // SAFETY: a task_struct, `thread.fsbase`. The kernel writes it whenever a thread sets its pointer by system call, which
    // is how libc and Go do it (`do_arch_prctl_64`).
    let pointer: u64 = unsafe { Task::load(task.0, offset!(task_thread_pointer)) };
    let structure = word(pointer.wrapping_add(runtime.thread_offset as u64));
    if structure == 0 {
        return 0;
    }
    let found = word(structure.wrapping_add(runtime.task_offset));
    if is_task(runtime, found) { found } else { 0 }
}

/// Does a word name a task?
#[inline(always)]
pub fn is_task(runtime: &Runtime, found: u64) -> bool {
    found != 0 && (runtime.is_number != 0 || word(found.wrapping_add(8)) == runtime.kind)
}
