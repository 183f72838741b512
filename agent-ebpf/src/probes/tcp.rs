//! TCP connections: host-wide counts of opens, closes, failures, retransmits and resets; a record for each state change
//! that begins or ends a connection in scope.
//!
//! Hooks: `tp_btf/inet_sock_set_state` (4.16+), `tcp_destroy_sock`, `tcp_retransmit_skb`, `tcp_send_reset`,
//! `tcp_receive_reset` (all 4.16+). A socket is
//! in scope when its cookie has been asked for: by the connecting thread's scope here, or by the payload programs. So a
//! closed socket out of scope costs one load and no record. Where sockets are named by address (kernels without the
//! helper), nothing marks them, and every TCP socket's changes are told.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use core::ffi::c_void;

use seismo_common::counter::{
    TCP_ACTIVE_OPENS, TCP_CLOSES, TCP_CONNECT_OTHER, TCP_CONNECT_REFUSED, TCP_CONNECT_TIMEOUT, TCP_PASSIVE_OPENS,
    TCP_RESETS_RECEIVED, TCP_RESETS_SENT, TCP_RETRANSMITS,
};
use seismo_common::record::TCP_STATE;
use seismo_common::tcp::{CLOSE, DESTROYED, ESTABLISHED, LISTEN, SYN_RECV, SYN_SENT, TcpStateRecord};

use crate::access::Typed;
use crate::emit;
use crate::filter;
use crate::kernel::Task;
use crate::sock::{Checked as _, Sock};

const ECONNREFUSED: u32 = 111;
const ETIMEDOUT: u32 = 110;

/// `inet_sock_set_state(sk, oldstate, newstate)`.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn tcp_set_state(ctx: BtfTracePointContext) -> i32 {
    let sock = Sock::<Typed>::new(ctx.arg::<*const c_void>(0));
    let old_state = ctx.arg::<i32>(1) as u8;
    let new_state = ctx.arg::<i32>(2) as u8;
    if !sock.is_tcp() {
        return 0;
    }
    match (old_state, new_state) {
        (CLOSE, SYN_SENT) => {
            // In the connecting thread: the only place where a client's scope can be told before it sends.
            let task = Task::current();
            if !task.is_kernel_thread() && filter::in_scope(task, sock) {
                // Naming it marks it as tracked.
                write(sock, sock.identity(), old_state, new_state, Some(task));
            }
            return 0;
        }
        (SYN_SENT, ESTABLISHED) => emit::add(TCP_ACTIVE_OPENS, 1),
        (SYN_RECV, ESTABLISHED) => emit::add(TCP_PASSIVE_OPENS, 1),
        (SYN_SENT, CLOSE) => emit::add(
            match sock.error() {
                ECONNREFUSED => TCP_CONNECT_REFUSED,
                ETIMEDOUT => TCP_CONNECT_TIMEOUT,
                _ => TCP_CONNECT_OTHER,
            },
            1,
        ),
        (CLOSE | LISTEN, CLOSE) => return 0,
        (SYN_RECV, CLOSE) => {}
        (_, CLOSE) => emit::add(TCP_CLOSES, 1),
        _ => return 0,
    }
    let cookie = sock.known_identity();
    // A socket that its owner has closed is destroyed next, which says the same.
    if cookie != 0 && !(new_state == CLOSE && sock.is_dead()) {
        emit::log!(&ctx, "socket {} goes from state {} to {}", cookie, old_state, new_state);
        write(sock, cookie, old_state, new_state, None);
    }
    0
}

/// `tcp_destroy_sock(sk)`: closed by its owner as well as by the protocol.
#[btf_tracepoint(function = "tcp_destroy_sock")]
pub fn tcp_destroy(ctx: BtfTracePointContext) -> i32 {
    let sock = Sock::<Typed>::new(ctx.arg::<*const c_void>(0));
    let cookie = sock.known_identity();
    if cookie != 0 {
        write(sock, cookie, CLOSE, DESTROYED, None);
    }
    0
}

/// `tcp_retransmit_skb(sk, skb, …)`.
#[btf_tracepoint(function = "tcp_retransmit_skb")]
pub fn tcp_retransmit(_: BtfTracePointContext) -> i32 {
    emit::add(TCP_RETRANSMITS, 1);
    0
}

/// `tcp_send_reset(sk, skb, …)`.
#[btf_tracepoint(function = "tcp_send_reset")]
pub fn tcp_reset_sent(_: BtfTracePointContext) -> i32 {
    emit::add(TCP_RESETS_SENT, 1);
    0
}

/// `tcp_receive_reset(sk)`.
#[btf_tracepoint(function = "tcp_receive_reset")]
pub fn tcp_reset_received(_: BtfTracePointContext) -> i32 {
    emit::add(TCP_RESETS_RECEIVED, 1);
    0
}

#[inline(always)]
fn write(sock: Sock, cookie: u64, old_state: u8, new_state: u8, task: Option<Task>) {
    emit::observed();
    let len = size_of::<TcpStateRecord>();
    let tuple = sock.tuple();
    let tcp = sock.tcp();
    let record = TcpStateRecord {
        header: emit::header(TCP_STATE, 0, len as u32),
        cookie,
        tgid: task.map_or(0, Task::tgid),
        tid: task.map_or(0, Task::tid),
        retransmits: tcp.map_or(0, |tcp| tcp.retransmits()),
        error: sock.error(),
        send_sequence: tcp.map_or(0, |tcp| tcp.write_sequence()),
        receive_sequence: tcp.map_or(0, |tcp| tcp.copied_sequence()),
        old_state,
        new_state,
        family: tuple.family,
        local_port: tuple.local_port,
        peer_port: tuple.peer_port,
        // SAFETY: two words have the layout of 16 bytes.
        local_address: unsafe { core::mem::transmute::<[u64; 2], [u8; 16]>(tuple.local) },
        // SAFETY: as above.
        peer_address: unsafe { core::mem::transmute::<[u64; 2], [u8; 16]>(tuple.peer) },
    };
    // SAFETY: the record is on the stack, whole.
    unsafe { emit::submit((&raw const record).cast(), len as u64, false) };
}
