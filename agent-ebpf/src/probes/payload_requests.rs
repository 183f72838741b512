//! Socket payload, tier L0a, io_uring: which request a send or receive belongs to, and so where its bytes are.
//!
//! Hooks: `tp_btf/io_uring_submit_req`, `io_uring_file_get`, `io_uring_poll_arm`, `io_uring_queue_async_work` (6.16+).
//! The first two say what a thread is about to do, the others what a socket waits for. When `sock_recv_length` runs,
//! the request is looked up by thread, else by socket, and its iterator says where the bytes went: plain and provided
//! buffers, multishot, worker threads, SQPOLL. Registered buffers are pages, not addresses. Where more than one request
//! may be meant there are no bytes, never a guess.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use core::ffi::c_void;

use seismo_common::config::THREAD_SLOTS;
use seismo_common::payload::SEND;

use crate::access::{Access, Probed, Typed};
use crate::kernel::{current_ids, offset};
use crate::maps::{REQUESTS, Request, THREAD_REQUESTS};
use crate::operation::Operation;
use crate::user::{BYTES, KERNEL_VECTORS, NOWHERE, Place};

const READV: u8 = 1;
const WRITEV: u8 = 2;
const SENDMSG: u8 = 9;
const RECVMSG: u8 = 10;
const READ: u8 = 22;
const WRITE: u8 = 23;
const SEND_CODE: u8 = 26;
const RECV: u8 = 27;
const SEND_ZC: u8 = 47;
const SENDMSG_ZC: u8 = 48;
const READ_MULTISHOT: u8 = 49;

const ITER_UBUF: u8 = 0;
const ITER_IOVEC: u8 = 1;
const VECTOR_BYTES: u64 = 16;

/// `io_uring_submit_req(req)`: its thread tries it next.
#[btf_tracepoint(function = "io_uring_submit_req")]
pub fn payload_submit(ctx: BtfTracePointContext) -> i32 {
    note_thread(ctx.arg::<*const c_void>(0));
    0
}

/// `io_uring_file_get(req, fd)`: also where a worker begins with a request that nobody tried before.
#[btf_tracepoint(function = "io_uring_file_get")]
pub fn payload_file_get(ctx: BtfTracePointContext) -> i32 {
    note_thread(ctx.arg::<*const c_void>(0));
    0
}

/// `io_uring_poll_arm(req, mask, events)`: it waits for its socket.
#[btf_tracepoint(function = "io_uring_poll_arm")]
pub fn payload_poll_arm(ctx: BtfTracePointContext) -> i32 {
    note_socket(ctx.arg::<*const c_void>(0));
    0
}

/// `io_uring_queue_async_work(req, rw)`: a worker does it.
#[btf_tracepoint(function = "io_uring_queue_async_work")]
pub fn payload_async(ctx: BtfTracePointContext) -> i32 {
    note_socket(ctx.arg::<*const c_void>(0));
    0
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// `io_sr_msg`: the iterator has moved on when the hook runs.
    Message,
    /// `io_rw`: it has not.
    ReadWrite,
}

/// Direction and shape of what a request does to a socket.
#[inline(always)]
fn shape(code: u8) -> Option<(bool, Shape)> {
    match code {
        SENDMSG | SEND_CODE | SEND_ZC | SENDMSG_ZC => Some((true, Shape::Message)),
        RECVMSG | RECV => Some((false, Shape::Message)),
        WRITE | WRITEV => Some((true, Shape::ReadWrite)),
        READ | READV | READ_MULTISHOT => Some((false, Shape::ReadWrite)),
        _ => None,
    }
}

#[inline(always)]
fn note_thread(request: *const c_void) {
    // SAFETY: an io_kiocb to the verifier.
    let code: u8 = unsafe { Typed::load(request, offset!(request_code)) };
    if shape(code).is_some()
        && let Some(slot) = THREAD_REQUESTS.get_ptr_mut(current_ids().0 & (THREAD_SLOTS as u32 - 1))
    {
        // SAFETY: one word; whose it is is checked where it is used.
        unsafe { *slot = request as u64 };
    }
}

#[inline(always)]
fn note_socket(request: *const c_void) {
    // SAFETY: an io_kiocb to the verifier.
    let code: u8 = unsafe { Typed::load(request, offset!(request_code)) };
    let Some((sends, _)) = shape(code) else { return };
    let sock = socket_of(request as u64);
    if sock == 0 {
        return;
    }
    let (key, request) = (key(sock, sends), request as u64);
    match REQUESTS.get_ptr_mut(key) {
        // SAFETY: a value of the map; two requests at once leave more than one pending, which is all that matters.
        Some(known) => unsafe {
            if (*known).request != request {
                (*known).pending += 1;
            } else if (*known).pending == 0 {
                (*known).pending = 1;
            }
            (*known).request = request;
        },
        None => {
            // Full is not an error: the map forgets what was used longest ago.
            let _ = REQUESTS.insert(key, Request { request, pending: 1 }, 0);
        }
    }
}

/// Sockets are aligned, so the lowest bit is free to tell the direction.
#[inline(always)]
fn key(sock: u64, sends: bool) -> u64 {
    sock | u64::from(sends)
}

/// The socket that a request is about, 0 if it is about none.
#[inline(always)]
fn socket_of(request: u64) -> u64 {
    const S_IFMT: u16 = 0xf000;
    const S_IFSOCK: u16 = 0xc000;
    // SAFETY: read by probe; what is no request any more reads as anything, which the caller compares with a socket.
    unsafe {
        let file: *const c_void = Probed::load(request as *const c_void, offset!(request_file));
        if file.is_null() {
            return 0;
        }
        let inode: *const c_void = Probed::load(file, offset!(file_inode));
        let mode: u16 = Probed::load(inode, offset!(inode_mode));
        if mode & S_IFMT != S_IFSOCK {
            return 0;
        }
        let socket: *const c_void = Probed::load(file, offset!(file_private));
        Probed::load(socket, offset!(socket_sock))
    }
}

/// Where the bytes of an operation are that io_uring does for its owner.
#[inline(always)]
pub fn place(operation: &Operation<Typed>) -> Place {
    let (sock, sends) = (Typed::number(operation.sock.0), operation.direction == SEND);
    let waiting = REQUESTS.get_ptr_mut(key(sock, sends));
    let mut pending = 0;
    let mut request = 0;
    if let Some(waiting) = waiting {
        // SAFETY: a value of the map, as in `note_socket`.
        unsafe {
            pending = (*waiting).pending;
            if pending > 0 {
                (*waiting).pending = pending - 1;
                request = (*waiting).request;
            }
        }
    }
    let own = match THREAD_REQUESTS.get_ptr_mut(current_ids().0 & (THREAD_SLOTS as u32 - 1)) {
        // SAFETY: one word.
        Some(slot) => unsafe { *slot },
        None => 0,
    };
    // What the thread has just begun; its requests on other sockets do not matter.
    let own_fits = own != 0 && socket_of(own) == sock;
    if pending == 0 || request == 0 {
        return if own_fits { place_in(own, sock, operation, true) } else { Place::NOWHERE };
    }
    let place = place_in(request, sock, operation, pending == 1 && (!own_fits || own == request));
    if place.kind == NOWHERE && own_fits && own != request { place_in(own, sock, operation, false) } else { place }
}

/// From a request's iterator. `alone`: no other request can be meant.
#[inline(always)]
fn place_in(request: u64, sock: u64, operation: &Operation<Typed>, alone: bool) -> Place {
    let length = u64::from(operation.length);
    let request = request as *const c_void;
    // SAFETY: read by probe, and compared with what the operation was before it is believed.
    unsafe {
        let code: u8 = Probed::load(request, offset!(request_code));
        let Some((sends, shape)) = shape(code) else { return Place::NOWHERE };
        if sends != (operation.direction == SEND) || socket_of(request as u64) != sock {
            return Place::NOWHERE;
        }
        let state: *const c_void = Probed::load(request, offset!(request_state));
        if state.is_null() {
            return Place::NOWHERE;
        }
        let at = if shape == Shape::Message { offset!(network_iterator) } else { offset!(rw_iterator) };
        let kind: u8 = Probed::load(state, at + offset!(iterator_kind));
        let base: u64 = Probed::load(state, at + offset!(iterator_base));
        let moved: u64 = Probed::load(state, at + offset!(iterator_offset));
        let left: u64 = Probed::load(state, at + offset!(iterator_count));
        let segments: u64 = Probed::load(state, at + offset!(iterator_segments));
        match (shape, kind) {
            // The operation's own bytes are the last that it moved.
            (Shape::Message, ITER_UBUF) if moved >= length => {
                Place { kind: BYTES, pointer: base, count: length, offset: moved - length }
            }
            (Shape::Message, ITER_IOVEC) if alone => {
                let first: u64 = Probed::load(state, offset!(network_vectors));
                let done: u32 = Probed::load(request, offset!(request_done));
                if first == 0 || base < first || done != 0 || base + moved == first {
                    return Place::NOWHERE;
                }
                let passed = (base - first) / VECTOR_BYTES;
                Place { kind: KERNEL_VECTORS, pointer: first, count: passed + segments, offset: 0 }
            }
            (Shape::ReadWrite, ITER_UBUF) if alone && left >= length => {
                Place { kind: BYTES, pointer: base, count: left, offset: moved }
            }
            (Shape::ReadWrite, ITER_IOVEC) if alone && left >= length => {
                Place { kind: KERNEL_VECTORS, pointer: base, count: segments, offset: moved }
            }
            _ => Place::NOWHERE,
        }
    }
}
