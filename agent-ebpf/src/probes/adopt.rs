//! Connections that are older than the agent: one pass over every open file of every process, a record per TCP socket
//! that is a listener or in scope.
//!
//! Hook: `iter/task_file` with `bpf_sock_from_file` (5.11+) and `bpf_get_socket_cookie` for tracing programs (5.12+). Runs
//! when userspace reads the iterator, never by itself; about 50 ns a file. Asking for the cookie marks a socket as
//! tracked, so its later state changes are told: first the cookie, then everything else, so that no change is missed.

use aya_ebpf::bindings::{file, seq_file};
use aya_ebpf::helpers::generated::{bpf_seq_write, bpf_sock_from_file};
use core::ffi::c_void;

use seismo_common::adopt::SocketRecord;
use seismo_common::payload::{AF_INET, AF_INET6};
use seismo_common::tcp::{CLOSE, LISTEN, SYN_RECV, SYN_SENT};

use crate::access::{Access as _, Typed};
use crate::emit;
use crate::filter;
use crate::kernel::{Task, offset};
use crate::sock::{Checked as _, Sock, Tuple};

/// Members of `struct bpf_iter__task_file` and of `struct bpf_iter_meta`, which are kernel API.
const META: usize = 0;
const TASK: usize = 8;
const FILE: usize = 24;

/// `task_file`: `(meta, task, fd, file)`; both are null after the last file.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub extern "C" fn adopt_files(ctx: *mut c_void) -> i32 {
    // SAFETY: the context of this kind of program is a struct of four words; the verifier knows each one's type.
    let (meta, task, opened) = unsafe {
        let word = |at: usize| *ctx.byte_add(at).cast::<*const c_void>();
        (word(META), word(TASK), word(FILE))
    };
    if task.is_null() || opened.is_null() {
        return 0;
    }
    // SAFETY: a file to the verifier; null where it is no socket.
    let socket = unsafe { bpf_sock_from_file(opened.cast_mut().cast::<file>()) }.cast::<c_void>();
    if socket.is_null() {
        return 0;
    }
    // SAFETY: a socket to the verifier.
    let sock = Sock::<Typed>::new(unsafe { Typed::load(socket, offset!(socket_sock)) });
    if sock.0.is_null() || !sock.is_tcp() || !matches!(sock.family(), AF_INET | AF_INET6) {
        return 0;
    }
    let task = Task(task);
    let listener = sock.state() == LISTEN;
    if !listener && !filter::open_socket_in_scope(task.tgid(), sock) {
        return 0;
    }
    let cookie = if listener { 0 } else { sock.identity() };
    let state = sock.state();
    // What is not open yet will be told when it is; what is closed is over.
    if !listener && matches!(state, CLOSE | SYN_SENT | SYN_RECV) {
        return 0;
    }
    let Some(tcp) = sock.tcp() else { return 0 };
    let [(send_sequence, send_position), (receive_sequence, receive_position)] = tcp.places();
    let Tuple { family, local_port, peer_port, local, peer } = sock.tuple();
    let record = SocketRecord {
        cookie,
        ktime_ns: emit::now(),
        send_position,
        receive_position,
        send_sequence,
        receive_sequence,
        tgid: task.tgid(),
        netns: sock.netns(),
        state,
        reserved: 0,
        family,
        local_port,
        peer_port,
        // SAFETY: two words have the layout of 16 bytes.
        local_address: unsafe { core::mem::transmute::<[u64; 2], [u8; 16]>(local) },
        // SAFETY: as above.
        peer_address: unsafe { core::mem::transmute::<[u64; 2], [u8; 16]>(peer) },
    };
    // SAFETY: the record is on the stack, whole; `seq` is the first member of the meta struct. When the buffer is full the
    // kernel hands it to the reader and runs the program for this file again.
    unsafe {
        let seq: *const c_void = Typed::load(meta, 0);
        bpf_seq_write(seq.cast_mut().cast::<seq_file>(), (&raw const record).cast(), size_of::<SocketRecord>() as u32);
    }
    0
}
