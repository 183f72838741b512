//! Tasks of language runtimes: which one begins which, which one lets which go on, and for which one a pooled connection
//! sends next.
//!
//! Hooks: probes in the processes themselves (uprobes; 1 to 5 µs for each task that begins or wakes another, see docs/cost.md), only in
//! executables and libraries of processes in scope and only where userspace found the place: `PyContext_CopyCurrent` of
//! CPython (every task and callback of asyncio begins with a copy of the context), `runtime.newproc1` of Go and its call of
//! `casgstatus`, `net/http.(*persistConn).roundTrip` of Go, which hands a request to the connection's own goroutine;
//! `OwnedTasks::bind_inner` of tokio, by which a task is begun, and both functions of its wakers, by which a task hands work
//! to another one. No return probe in Go: its stacks move. Processes whose runtime is not known cost the probe and a look-up.

use aya_ebpf::macros::{uprobe, uretprobe};
use aya_ebpf::programs::{ProbeContext, RetProbeContext};
use core::ffi::c_void;

use seismo_common::config::THREAD_SLOTS;
use seismo_common::counter::TASKS_UNREAD;
use seismo_common::record::TASK;
use seismo_common::task::{BORN, LENT, Runtime, TaskRecord, WOKEN, WOKEN_TOO};

use crate::access::{Access as _, Probed};
use crate::emit;
use crate::kernel::{File, S_IFSOCK, Task, current_ids, offset};
use crate::maps::{TASK_STARTS, TaskStart};
use crate::sock::Sock;
use crate::task;

const SLOT: u32 = THREAD_SLOTS as u32 - 1;
/// Of a connection's descriptor in `internal/poll.FD`, with which `net.netFD` begins: behind its lock.
const GO_DESCRIPTOR: u64 = 16;

/// Of the table of functions and offsets in tokio's `task::Header`, behind its state and a pointer;
const TOKIO_TABLE: u64 = 16;
/// of a task's number's offset in that table (`Vtable::id_offset`);
const TOKIO_NUMBER: u64 = 72;
/// which lies behind the header and a pointer to the scheduler, and before the future.
const TOKIO_NUMBERS: core::ops::Range<u64> = 32..4096;

/// How the tasks of the running process are read, if that is known.
#[inline(always)]
fn known() -> Option<&'static Runtime> {
    task::runtime(current_ids().1)
}

/// `PyContext_CopyCurrent() -> context`.
#[uretprobe]
pub fn task_copied(ctx: RetProbeContext) -> u32 {
    let Some(runtime) = known() else { return 0 };
    let made = ctx.ret::<u64>();
    let parent = task::read(runtime, Task::current());
    if made == 0 {
        // Out of memory.
        return 0;
    }
    if parent == 0 || !task::is_task(runtime, made) {
        emit::add(TASKS_UNREAD, 1);
        return 0;
    }
    tell(BORN, made, parent);
    0
}

/// `runtime.newproc1(fn, callergp, callerpc)` near its beginning: registers of Go's own convention, AX and BX first (1.17+).
#[uprobe]
pub fn task_begins(ctx: ProbeContext) -> u32 {
    if known().is_none() {
        return 0;
    }
    let tid = current_ids().0;
    if let Some(start) = TASK_STARTS.get_ptr_mut(tid & SLOT) {
        // SAFETY: a map value, and the saved registers; the thread runs on the scheduler's stack until it is over.
        unsafe { *start = TaskStart { tid: u64::from(tid), task: (*ctx.regs).rbx } };
    }
    0
}

/// Where `runtime.newproc1` calls `runtime.casgstatus(newg, old, new)` for the goroutine that it has made or found.
#[uprobe]
pub fn task_begun(ctx: ProbeContext) -> u32 {
    /// One that is over, or was never begun, and is begun now (`_Gdead`).
    const DEAD: u64 = 6;
    if known().is_none() {
        return 0;
    }
    // SAFETY: the saved registers.
    let (made, before) = unsafe { ((*ctx.regs).rax, (*ctx.regs).rbx & 0xffff_ffff) };
    let tid = current_ids().0;
    let Some(start) = TASK_STARTS.get_ptr_mut(tid & SLOT) else { return 0 };
    if before != DEAD {
        // Memory for a new one; it comes by again.
        return 0;
    }
    // SAFETY: a map value; another thread that shares the slot stands there with its own id.
    let start = unsafe { start.read() };
    if start.tid != u64::from(tid) || made == 0 || start.task == 0 {
        emit::add(TASKS_UNREAD, 1);
    } else {
        tell(BORN, made, start.task);
    }
    0
}

/// `net/http.(*persistConn).roundTrip(req)` near its beginning: AX is the connection, R14 the goroutine that asks.
#[uprobe]
pub fn task_asks(ctx: ProbeContext) -> u32 {
    let Some(runtime) = known() else { return 0 };
    // SAFETY: the saved registers.
    let (connection, asks) = unsafe { ((*ctx.regs).rax, (*ctx.regs).r14) };
    // The second word of an interface is what it holds: a `*net.TCPConn`, or a `*tls.Conn` that begins with another one.
    let held = task::word(connection.wrapping_add(runtime.connection_offset + 8));
    let named = match socket(task::word(held)) {
        0 => socket(task::word(task::word(held.wrapping_add(8)))),
        named => named,
    };
    if asks == 0 || named == 0 {
        emit::add(TASKS_UNREAD, 1);
    } else {
        tell(LENT, asks, named);
    }
    0
}

/// `OwnedTasks::bind_inner(&self, task, notified)` of tokio: the running task begins this one.
#[uprobe]
pub fn task_bound(ctx: ProbeContext) -> u32 {
    let Some(runtime) = known() else { return 0 };
    let begins = task::read(runtime, Task::current());
    if begins == 0 {
        // Not by a task: by the main function, or a thread of its own.
        return 0;
    }
    // SAFETY: the saved registers.
    match number(unsafe { (*ctx.regs).rsi }) {
        0 => emit::add(TASKS_UNREAD, 1),
        made => tell(BORN, made, begins),
    }
    0
}

/// `wake_by_val(header)` and `wake_by_ref(header)` of tokio: the running task lets another one go on.
#[uprobe]
pub fn task_woken(ctx: ProbeContext) -> u32 {
    // `runtime::task::state`.
    const COMPLETE: u64 = 2;
    const NOTIFIED: u64 = 4;
    let Some(runtime) = known() else { return 0 };
    let wakes = task::read(runtime, Task::current());
    if wakes == 0 {
        // Not by a task: by a timer, or by what a socket waited for.
        return 0;
    }
    // SAFETY: the saved registers.
    let header = unsafe { (*ctx.regs).rdi };
    let state = task::word(header);
    if state & COMPLETE != 0 {
        return 0;
    }
    match number(header) {
        0 => emit::add(TASKS_UNREAD, 1),
        woken if woken == wakes => {}
        woken => tell(if state & NOTIFIED == 0 { WOKEN } else { WOKEN_TOO }, woken, wakes),
    }
    0
}

/// The number of a task of tokio; 0 where it is not found.
#[inline(always)]
fn number(header: u64) -> u64 {
    let table = task::word(header.wrapping_add(TOKIO_TABLE));
    let offset = task::word(table.wrapping_add(TOKIO_NUMBER));
    if TOKIO_NUMBERS.contains(&offset) { task::word(header.wrapping_add(offset)) } else { 0 }
}

/// The socket behind a `net.netFD`; 0 where there is none, or none with a name.
#[inline(always)]
fn socket(descriptor: u64) -> u64 {
    let number = task::word(descriptor.wrapping_add(GO_DESCRIPTOR)) & 0xffff_ffff;
    let Some(file) = File::of(Task::current(), number) else { return 0 };
    if file.kind() != S_IFSOCK {
        return 0;
    }
    // SAFETY: everything is read by probe.
    let sock: *const c_void = unsafe { Probed::load(file.private(), offset!(socket_sock)) };
    if sock.is_null() { 0 } else { Sock::<Probed>::new(sock).known_identity() }
}

#[inline(always)]
fn tell(what: u32, task: u64, other: u64) {
    emit::observed();
    let len = size_of::<TaskRecord>();
    let header = emit::header(TASK, 0, len as u32);
    let record = TaskRecord { header, tgid: current_ids().1, what, task, other };
    // SAFETY: the record is on the stack, whole.
    unsafe { emit::submit((&raw const record).cast(), len as u64, false) };
}
