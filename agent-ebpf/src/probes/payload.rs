//! Socket payload, tier L0: a record per successful send or receive on a TCP socket in scope, with its stream position
//! and the bytes themselves; byte counts by transport for the whole host.
//!
//! Hooks: `tp_btf/sock_send_length`, `tp_btf/sock_recv_length` (6.3+). Both run after the copy, so the length is exact
//! and the pages are resident. The buffer is found through the thread's saved registers: whoever moved the bytes
//! without a buffer in user memory (sendfile, splice, io_uring) gives length and position, and says `CUT_NO_BUFFER`.
//! About 0.25 µs out of the box with 128 bytes; one load and one add for sockets out of scope.

use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_probe_read_user};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use core::ffi::c_void;

use seismo_common::config::{MAX_CAPTURE, MAX_IOVECS};
use seismo_common::counter::{
    OTHER_RECEIVED_BYTES, OTHER_SENT_BYTES, PAYLOAD_DROPPED_BYTES, PAYLOAD_OUT_OF_SCOPE, PAYLOAD_PEEKS,
    RECORDS_OBSERVED, TCP_RECEIVED_BYTES, TCP_SENT_BYTES, UDP_RECEIVED_BYTES, UDP_SENT_BYTES, UNIX_RECEIVED_BYTES,
    UNIX_SENT_BYTES,
};
use seismo_common::drops::{INJECTED, NO_SCRATCH, NOT_TCP_SOCK};
use seismo_common::payload::{
    AF_INET, AF_INET6, CUT_COMPAT, CUT_FAULT, CUT_IOVECS, CUT_LIMIT, CUT_NO_BUFFER, PayloadRecord, RECEIVE, SEND,
};
use seismo_common::record::PAYLOAD;

use crate::emit;
use crate::filter;
use crate::kernel::{Sock, Task, opaque, setting};
use crate::maps::{COUNTERS, SCRATCH, Scratch};

const AF_UNIX: u16 = 1;
const IPPROTO_TCP: u16 = 6;
const IPPROTO_UDP: u16 = 17;
const MSG_PEEK: i32 = 2;

/// `sock_send_length(sk, ret, flags)`.
#[btf_tracepoint(function = "sock_send_length")]
pub fn payload_send(ctx: BtfTracePointContext) -> i32 {
    let moved = ctx.arg::<i32>(1);
    if moved > 0 {
        emit::log!(&ctx, "sent {} bytes", moved);
        operation(Sock(ctx.arg::<*const c_void>(0)), moved as u32, SEND);
    }
    0
}

/// `sock_recv_length(sk, ret, flags)`.
#[btf_tracepoint(function = "sock_recv_length")]
pub fn payload_receive(ctx: BtfTracePointContext) -> i32 {
    let moved = ctx.arg::<i32>(1);
    if ctx.arg::<i32>(2) & MSG_PEEK != 0 {
        emit::add(PAYLOAD_PEEKS, 1);
    } else if moved > 0 {
        emit::log!(&ctx, "received {} bytes", moved);
        operation(Sock(ctx.arg::<*const c_void>(0)), moved as u32, RECEIVE);
    }
    0
}

#[inline(always)]
fn operation(sock: Sock, length: u32, direction: u8) {
    let family = sock.family();
    let inet = family == AF_INET || family == AF_INET6;
    let protocol = sock.protocol();
    let tcp = inet && protocol == IPPROTO_TCP;
    let lane = if tcp {
        [TCP_SENT_BYTES, TCP_RECEIVED_BYTES]
    } else if inet && protocol == IPPROTO_UDP {
        [UDP_SENT_BYTES, UDP_RECEIVED_BYTES]
    } else if family == AF_UNIX {
        [UNIX_SENT_BYTES, UNIX_RECEIVED_BYTES]
    } else {
        [OTHER_SENT_BYTES, OTHER_RECEIVED_BYTES]
    };
    emit::add(if direction == SEND { lane[0] } else { lane[1] }, u64::from(length));
    if !tcp {
        return;
    }
    let task = Task::current();
    if task.is_kernel_thread() || !filter::in_scope(task, sock) {
        emit::add(PAYLOAD_OUT_OF_SCOPE, 1);
        return;
    }
    emit::observed();
    if let Err(reason) = record(task, sock, length, direction) {
        emit::dropped(reason);
        emit::add(PAYLOAD_DROPPED_BYTES, u64::from(length));
    }
}

/// Builds and submits the record; `Err` is the drop reason (a full ring counts itself).
#[inline(always)]
fn record(task: Task, sock: Sock, length: u32, direction: u8) -> Result<(), usize> {
    if setting!(drop_every) != 0 && injected() {
        return Err(INJECTED);
    }
    let tcp = sock.tcp().ok_or(NOT_TCP_SOCK)?;
    let (end, sent_ns) =
        if direction == SEND { (tcp.write_sequence(), tcp.sent_ns()) } else { (tcp.copied_sequence(), 0) };
    let scratch = SCRATCH.get_ptr_mut(0).ok_or(NO_SCRATCH)?;
    let registers = task.registers();
    let syscall = registers.syscall();
    let (captured, cut) = if task.is_compat() {
        (0, CUT_COMPAT)
    } else {
        // An io worker's registers are not those of the operation, nor are those of a call that is over.
        let own = registers.in_syscall() && !task.is_io_worker();
        let buffer = if own { Buffer::of(syscall) } else { Buffer::None };
        capture(scratch, buffer, registers.argument_1(), registers.argument_2(), length)
    };
    let captured = captured & (2 * MAX_CAPTURE as u64 - 1);
    let tuple = sock.tuple();
    let total = size_of::<PayloadRecord>() as u64 + captured;
    // SAFETY: the scratch is this CPU's, and preemption is off; every field is written.
    unsafe {
        (*scratch).record = PayloadRecord {
            header: emit::header(PAYLOAD, cut, total as u32),
            sent_ns,
            // The helper gives the socket a cookie if it has none, which marks it as tracked for the tcp programs.
            cookie: bpf_get_socket_cookie(sock.0.cast_mut()),
            sequence: end.wrapping_sub(length),
            length,
            captured: captured as u32,
            tgid: task.tgid(),
            tid: task.tid(),
            syscall: syscall as i32,
            direction,
            reserved: 0,
            family: tuple.family,
            local_port: tuple.local_port,
            peer_port: tuple.peer_port,
            local_address: core::mem::transmute::<[u64; 2], [u8; 16]>(tuple.local),
            peer_address: core::mem::transmute::<[u64; 2], [u8; 16]>(tuple.peer),
        };
        if !emit::submit(scratch.cast(), total, false) {
            emit::add(PAYLOAD_DROPPED_BYTES, u64::from(length));
        }
    }
    Ok(())
}

/// One record in `drop_every` is dropped, by this CPU's count of observed ones.
#[inline(always)]
fn injected() -> bool {
    let every = u64::from(setting!(drop_every));
    // SAFETY: the lane is inside the value.
    let observed = COUNTERS.get_ptr(0).map_or(0, |lanes| unsafe { *lanes.cast::<u64>().add(RECORDS_OBSERVED) });
    every != 0 && observed.is_multiple_of(every)
}

/// What the second argument of a system call points to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Buffer {
    /// The bytes.
    Bytes,
    /// An array of I/O vectors; the third argument is its length.
    Vectors,
    /// A `msghdr`.
    Message,
    /// Nothing that holds this operation's bytes.
    None,
}

impl Buffer {
    /// By x86-64 system call number.
    #[inline(always)]
    fn of(syscall: i64) -> Self {
        match syscall {
            // read, write, sendto, recvfrom
            0 | 1 | 44 | 45 => Self::Bytes,
            // readv, writev, preadv2, pwritev2
            19 | 20 | 327 | 328 => Self::Vectors,
            // sendmsg, recvmsg
            46 | 47 => Self::Message,
            _ => Self::None,
        }
    }
}

/// Copies up to the limit into the scratch; returns the bytes copied and why it is not all of `length`.
#[inline(always)]
fn capture(scratch: *mut Scratch, buffer: Buffer, pointer: u64, count: u64, length: u32) -> (u64, u16) {
    let limit = u64::from(setting!(capture_bytes)).min(MAX_CAPTURE as u64);
    let want = u64::from(length).min(limit);
    let short = if u64::from(length) > want { CUT_LIMIT } else { 0 };
    // SAFETY: the scratch is a map value; only the address of its tail is taken.
    let out = unsafe { (&raw mut (*scratch).bytes).cast::<u8>() };
    match buffer {
        Buffer::None => (0, CUT_NO_BUFFER),
        Buffer::Bytes => match copy(out, 0, pointer, want) {
            Some(copied) => (copied, short),
            None => (0, CUT_FAULT),
        },
        Buffer::Vectors => {
            let (copied, cut) = copy_vectors(out, pointer, count, want);
            (copied, cut | short)
        }
        Buffer::Message => match read_message(pointer) {
            Some((vectors, count)) => {
                let (copied, cut) = copy_vectors(out, vectors, count, want);
                (copied, cut | short)
            }
            None => (0, CUT_FAULT),
        },
    }
}

/// `msg_iov` and `msg_iovlen` of a `user_msghdr` (offsets 16 and 24 on 64-bit).
#[inline(always)]
fn read_message(pointer: u64) -> Option<(u64, u64)> {
    let mut words = [0u64; 2];
    // SAFETY: reads 16 bytes of user memory into the stack; a bad pointer is an error, not a fault.
    let failed = unsafe { bpf_probe_read_user((&raw mut words).cast(), 16, (pointer + 16) as *const c_void) };
    if failed == 0 { Some((words[0], words[1])) } else { None }
}

#[inline(always)]
fn copy_vectors(out: *mut u8, vectors: u64, count: u64, want: u64) -> (u64, u16) {
    let mut copied = 0u64;
    for index in 0..MAX_IOVECS as u64 {
        if index >= count || copied >= want {
            return (copied, 0);
        }
        let mut vector = [0u64; 2];
        // SAFETY: as in read_message.
        let failed =
            unsafe { bpf_probe_read_user((&raw mut vector).cast(), 16, (vectors + index * 16) as *const c_void) };
        if failed != 0 {
            return (copied, CUT_FAULT);
        }
        let part = vector[1].min(want - copied);
        if part != 0 {
            match copy(out, copied, vector[0], part) {
                Some(length) => copied += length,
                None => return (copied, CUT_FAULT),
            }
        }
    }
    (copied, if copied < want { CUT_IOVECS } else { 0 })
}

/// Copies `length` bytes of user memory to `out + at`. Both are bounded again by mask: up to 6.1 the verifier forgets a
/// bound that was only compared.
#[inline(always)]
fn copy(out: *mut u8, at: u64, from: u64, length: u64) -> Option<u64> {
    const MASK: u64 = MAX_CAPTURE as u64 - 1;
    if length == 0 {
        return Some(0);
    }
    let at = opaque(at) & MASK;
    let length = (opaque(length - 1) & MASK) + 1;
    // SAFETY: at ≤ 4095 and length ≤ 4096: inside the 8192 bytes of the scratch.
    let failed = unsafe { bpf_probe_read_user(out.add(at as usize).cast(), length as u32, from as *const c_void) };
    if failed == 0 { Some(length) } else { None }
}
