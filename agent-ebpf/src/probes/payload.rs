//! Socket payload, tier L0: a record per successful send or receive on a TCP socket in scope, with its stream position
//! and the bytes themselves; byte counts by transport for the whole host.
//!
//! Hooks: `tp_btf/sock_send_length`, `tp_btf/sock_recv_length` (6.3+). Both run after the copy, so the length is exact
//! and the pages are resident. The buffer is found through the thread's saved registers: whoever moved the bytes
//! without a buffer in user memory (sendfile, splice, io_uring) gives length and position, and says `CUT_NO_BUFFER`.
//! About 0.25 µs out of the box with 128 bytes; one load and one add for sockets out of scope.

use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_get_socket_cookie, bpf_probe_read_user};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use core::ffi::c_void;

use seismo_common::config::{BUDGET_WINDOW_SHIFT, MAX_CAPTURE, MAX_IOVECS};
use seismo_common::counter::{
    OTHER_RECEIVED_BYTES, OTHER_SENT_BYTES, PAYLOAD_DROPPED_BYTES, PAYLOAD_OBSERVED, PAYLOAD_OUT_OF_SCOPE,
    PAYLOAD_PEEKS, PAYLOAD_SUBMITTED, TCP_RECEIVED_BYTES, TCP_SENT_BYTES, UDP_RECEIVED_BYTES, UDP_SENT_BYTES,
    UNIX_RECEIVED_BYTES, UNIX_SENT_BYTES,
};
use seismo_common::drops::{INJECTED, NO_SCRATCH, NOT_TCP_SOCK, RING_FULL};
use seismo_common::payload::{
    AF_INET, AF_INET6, AF_UNIX, CUT_BUDGET, CUT_COMPAT, CUT_FAULT, CUT_IOVECS, CUT_LIMIT, CUT_NO_BUFFER, CUT_SKIP,
    PayloadRecord, RECEIVE, SEND, TCP,
};
use seismo_common::record::PAYLOAD;

use crate::emit;
use crate::filter;
use crate::kernel::{Sock, Task, opaque, setting};
use crate::maps::{BUDGET, Budget, FLOW_CONTROL, SCRATCH, Scratch};

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
        emit::add_in_process(PAYLOAD_PEEKS, 1);
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
    emit::add_in_process(if direction == SEND { lane[0] } else { lane[1] }, u64::from(length));
    if !tcp {
        return;
    }
    let task = Task::current();
    if task.is_kernel_thread() || !filter::in_scope(task, sock) {
        emit::add_in_process(PAYLOAD_OUT_OF_SCOPE, 1);
        return;
    }
    let number = emit::add_in_process(PAYLOAD_OBSERVED, 1);
    if let Err(reason) = record(task, sock, length, direction, number) {
        emit::dropped(reason);
        emit::add(PAYLOAD_DROPPED_BYTES, u64::from(length));
    }
}

/// Builds and submits the record of this CPU's `number`th operation; `Err` is the drop reason.
#[inline(always)]
fn record(task: Task, sock: Sock, length: u32, direction: u8, number: u64) -> Result<(), usize> {
    let one_in = setting!(drop_every);
    // SAFETY: no arguments.
    if one_in != 0 && unsafe { bpf_get_prandom_u32() }.is_multiple_of(one_in) {
        return Err(INJECTED);
    }
    let tcp = sock.tcp().ok_or(NOT_TCP_SOCK)?;
    let (written, read) = (tcp.write_sequence(), tcp.copied_sequence());
    let (end, other_sequence) = if direction == SEND { (written, read) } else { (read, written) };
    let sequence = end.wrapping_sub(length);
    let position = if direction == SEND { tcp.written_position(sequence) } else { tcp.read_position(sequence) };
    // The helper gives the socket a cookie if it has none, which marks it as tracked for the tcp programs.
    let cookie = match sock.known_cookie() {
        // SAFETY: a sock to the verifier.
        0 => unsafe { bpf_get_socket_cookie(sock.0.cast_mut()) },
        known => known,
    };
    let ktime_ns = emit::now();
    let sent_before_ns = match if direction == SEND { tcp.sent_ns() } else { 0 } {
        0 => u32::MAX,
        // The kernel's stamp is in µs: it rounds down.
        sent_ns => ktime_ns.saturating_sub(sent_ns).min(u64::from(u32::MAX)) as u32,
    };
    let scratch = SCRATCH.get_ptr_mut(0).ok_or(NO_SCRATCH)?;
    let registers = task.registers();
    let syscall = registers.syscall();
    let want = Want::of(cookie, sequence, length, direction);
    let (captured, cut) = if want.length == 0 {
        (0, want.cut)
    } else if task.is_compat() {
        (0, CUT_COMPAT)
    } else if over_budget(ktime_ns, want.length) {
        (0, CUT_BUDGET)
    } else {
        // An io worker's registers are not those of the operation, nor are those of a call that is over.
        let own = registers.in_syscall() && !task.is_io_worker();
        let buffer = if own { Buffer::of(syscall) } else { Buffer::None };
        let (captured, cut) = capture(scratch, buffer, registers.argument_1(), registers.argument_2(), &want);
        (captured, cut | want.cut)
    };
    let captured = captured & (2 * MAX_CAPTURE as u64 - 1);
    let tuple = sock.tuple();
    let total = size_of::<PayloadRecord>() as u64 + captured;
    // SAFETY: the scratch is this CPU's, and preemption is off; every field is written.
    unsafe {
        (*scratch).record = PayloadRecord {
            header: emit::header_at(PAYLOAD, cut, total as u32, ktime_ns),
            cookie,
            position,
            sequence,
            other_sequence,
            length,
            skipped: if captured == 0 { 0 } else { want.skip as u32 },
            captured: captured as u32,
            tgid: task.tgid(),
            tid: task.tid(),
            syscall: syscall as i32,
            sent_before_ns,
            retransmits: tcp.retransmits(),
            direction,
            transport: TCP,
            family: tuple.family,
            local_port: tuple.local_port,
            peer_port: tuple.peer_port,
            local_address: core::mem::transmute::<[u64; 2], [u8; 16]>(tuple.local),
            peer_address: core::mem::transmute::<[u64; 2], [u8; 16]>(tuple.peer),
        };
        // One look at the ring's fill in sixteen records, and so at most one wake-up in sixteen.
        let wake = number & 15 == 0 && emit::ring_fills();
        if !emit::output(scratch.cast(), total, wake) {
            return Err(RING_FULL);
        }
    }
    emit::add_in_process(PAYLOAD_SUBMITTED, 1);
    Ok(())
}

/// Which bytes of an operation are wanted.
struct Want {
    /// Bytes before them.
    skip: u64,
    length: u64,
    /// Why it is not all.
    cut: u16,
}

impl Want {
    /// What userspace asked of the connection, else everything up to the limit.
    #[inline(always)]
    fn of(cookie: u64, sequence: u32, length: u32, direction: u8) -> Self {
        let mut limit = setting!(capture_bytes).min(MAX_CAPTURE as u32);
        let mut skip = 0;
        // SAFETY: userspace replaces a value as a whole; one that is half old only captures more or less.
        if let Some(control) = unsafe { FLOW_CONTROL.get(cookie) } {
            let (capture_bytes, until) = if direction == SEND {
                (control.capture_bytes[0], control.skip_until[0])
            } else {
                (control.capture_bytes[1], control.skip_until[1])
            };
            if capture_bytes != u32::MAX {
                limit = capture_bytes.min(MAX_CAPTURE as u32);
            }
            let ahead = until.wrapping_sub(sequence);
            if control.skips & (1 << direction) != 0 && ahead.cast_signed() > 0 {
                skip = ahead.min(length);
            }
        }
        let rest = length - skip;
        let wanted = rest.min(limit);
        let cut = if skip > 0 { CUT_SKIP } else { 0 } | if rest > wanted { CUT_LIMIT } else { 0 };
        Self { skip: u64::from(skip), length: u64::from(wanted), cut }
    }
}

/// Takes `bytes` out of this CPU's budget of the running window; true if they are not left.
#[inline(always)]
fn over_budget(ktime_ns: u64, bytes: u64) -> bool {
    let most = u64::from(setting!(budget_bytes));
    if most == 0 {
        return false;
    }
    let Some(budget) = BUDGET.get_ptr_mut(0) else { return false };
    let window = ktime_ns >> BUDGET_WINDOW_SHIFT;
    // SAFETY: this CPU's own value, and preemption is off.
    unsafe {
        if (*budget).window != window {
            *budget = Budget { window, bytes: 0 };
        }
        (*budget).bytes += bytes;
        (*budget).bytes > most
    }
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

/// Copies what is wanted into the scratch; returns the bytes copied and why it is not all.
#[inline(always)]
fn capture(scratch: *mut Scratch, buffer: Buffer, pointer: u64, count: u64, want: &Want) -> (u64, u16) {
    // SAFETY: the scratch is a map value; only the address of its tail is taken.
    let out = unsafe { (&raw mut (*scratch).bytes).cast::<u8>() };
    match buffer {
        Buffer::None => (0, CUT_NO_BUFFER),
        Buffer::Bytes => match copy(out, 0, pointer.wrapping_add(want.skip), want.length) {
            Some(copied) => (copied, 0),
            None => (0, CUT_FAULT),
        },
        Buffer::Vectors => copy_vectors(out, pointer, count, want),
        Buffer::Message => match read_message(pointer) {
            Some((vectors, count)) => copy_vectors(out, vectors, count, want),
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

/// `iovec` of a 64-bit process.
#[derive(Clone, Copy)]
#[repr(C)]
struct Vector {
    base: u64,
    length: u64,
}

#[inline(always)]
fn copy_vectors(out: *mut u8, vectors: u64, count: u64, want: &Want) -> (u64, u16) {
    let mut table = [Vector { base: 0, length: 0 }; MAX_IOVECS];
    let count = count.min(MAX_IOVECS as u64);
    let all = count == MAX_IOVECS as u64;
    // The whole table in one read: each costs more than the bytes it moves. Bounded again by mask, see `copy`.
    let bytes = opaque(count * 16) & (2 * size_of::<[Vector; MAX_IOVECS]>() as u64 - 1);
    let bytes = bytes.min(size_of::<[Vector; MAX_IOVECS]>() as u64);
    // SAFETY: as in read_message; the length is at most the table's.
    let failed = unsafe { bpf_probe_read_user((&raw mut table).cast(), bytes as u32, vectors as *const c_void) };
    if failed != 0 {
        return (0, CUT_FAULT);
    }
    let mut copied = 0u64;
    let mut skip = want.skip;
    for (index, vector) in table.iter().enumerate() {
        if index as u64 >= count || copied >= want.length {
            return (copied, 0);
        }
        let before = skip.min(vector.length);
        skip -= before;
        let part = (vector.length - before).min(want.length - copied);
        if part != 0 {
            match copy(out, copied, vector.base.wrapping_add(before), part) {
                Some(length) => copied += length,
                None => return (copied, CUT_FAULT),
            }
        }
    }
    (copied, if copied < want.length && all { CUT_IOVECS } else { 0 })
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
    // SAFETY: at < MAX_CAPTURE and length ≤ MAX_CAPTURE: inside the twice as many bytes of the scratch.
    let failed = unsafe { bpf_probe_read_user(out.add(at as usize).cast(), length as u32, from as *const c_void) };
    if failed == 0 { Some(length) } else { None }
}
