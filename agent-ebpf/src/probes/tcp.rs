//! TCP by workload: connections opened, closed and failed, how long it took to open them, round trips, segments sent
//! again, resets; a record for each state change that begins or ends a connection in scope; sockets by state and queues
//! of listeners when a page is made.
//!
//! Hooks: `tp_btf/inet_sock_set_state`, `tcp_destroy_sock`, `tcp_retransmit_skb`, `tcp_retransmit_synack`,
//! `tcp_send_reset`, `tcp_receive_reset` (all 4.16+), `iter/tcp` (5.9+; the agent's network alone). A
//! workload is the cgroup that the socket was made in, for an accepted one its listener's; before 5.16 nobody's. No clock:
//! an opened connection's time is its first round trip, which the kernel has measured just then; where the SYN was sent
//! again, the time of the first is noted then, in a slot. Round trips are looked at by the payload programs (`operation.rs`),
//! at one receive in sixteen: busy connections weigh more. Where other work wants the CPUs, about one segment in 150 that
//! was sent again was told by no tracepoint, to nobody; the socket's own count brings it back at the next one, or at the
//! socket's end, but for the first of a connection. Before 6.17 a segment that could not be sent again is not told, and
//! before 6.10 not a reset without a socket. In soft interrupts too: adds are atomic. Over an empty program, on a busy
//! machine where that read 68 ns (idle: 30): a state change 90 ns, the end of a socket 26, a reset
//! 90. A socket is in scope when its cookie has been asked for: by the connecting thread's scope here, or by the payload
//! programs. Where sockets are named by address (no such helper), every one's changes are told.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use core::ffi::c_void;

use seismo_common::counter::TCP_CONNECT_UNKNOWN;
use seismo_common::histogram::octave;
use seismo_common::offsets::ABSENT;
use seismo_common::record::TCP_STATE;
use seismo_common::tcp::{
    CLOSE, DESTROYED, ESTABLISHED, LISTEN, LISTENERS, PASS_FIRST, PASS_LISTENERS, PASS_STATES, PASS_WORDS, SOCK_SLOTS,
    SYN_RECV, SYN_SENT, TcpStateRecord, listener,
};
use seismo_common::workload::{
    TCP_ACTIVE_OPENS, TCP_CLOSES, TCP_CONNECT_BUCKETS, TCP_CONNECT_EXPONENT, TCP_CONNECT_US, TCP_CONNECTS,
    TCP_FAILURES, TCP_PASSIVE_OPENS, TCP_RESETS_RECEIVED, TCP_RESETS_SENT, TCP_RETRANSMITS,
};

use crate::access::{Access as _, Typed};
use crate::emit;
use crate::filter;
use crate::kernel::{Task, offset, opaque, setting};
use crate::maps::{CONNECT_STARTS, RESENT, SockSlot, TCP_PASS};
use crate::sock::{Checked as _, Sock};
use crate::workload::Workload;

/// Errors of a socket (`errno.h`).
const EAGAIN: i32 = 11;
const ENOMEM: i32 = 12;
const EBUSY: i32 = 16;
const EINVAL: i32 = 22;
const NO_ROUTE: i32 = EHOSTUNREACH.cast_signed();
const ENETUNREACH: u32 = 101;
const ECONNRESET: u32 = 104;
const ETIMEDOUT: u32 = 110;
const ECONNREFUSED: u32 = 111;
const EHOSTUNREACH: u32 = 113;
/// Members of `struct bpf_iter__tcp` and of `struct bpf_iter_meta`, which are kernel API.
const META: usize = 0;
const SOCK: usize = 8;
const NUMBER: u32 = 16;

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
        (SYN_SENT, ESTABLISHED) => opened(sock),
        (SYN_RECV, ESTABLISHED) => count(sock, TCP_PASSIVE_OPENS),
        (SYN_SENT, CLOSE) => {
            if let Some(workload) = Workload::of_sock(sock) {
                workload.add_shared_at(TCP_FAILURES + failure(sock), 1);
            }
        }
        (CLOSE | LISTEN, CLOSE) => return 0,
        (SYN_RECV, CLOSE) => {}
        (_, CLOSE) => count(sock, TCP_CLOSES),
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
    if let Some(tcp) = sock.tcp()
        && tcp.retransmits() != 0
    {
        let key = Typed::number(sock.0);
        if let Some(slot) = RESENT.get_ptr_mut(slot(key)) {
            // SAFETY: as where it is written.
            unsafe {
                let before = *slot;
                if before.sock == key {
                    (*slot).sock = 0;
                    add(sock, TCP_RETRANSMITS, u64::from(tcp.retransmits()).saturating_sub(before.value));
                }
            }
        }
    }
    let cookie = sock.known_identity();
    if cookie != 0 {
        write(sock, cookie, CLOSE, DESTROYED, None);
    }
    0
}

/// `tcp_retransmit_skb(sk, skb, error)`: also the probe of the last segment of a flight.
#[btf_tracepoint(function = "tcp_retransmit_skb")]
pub fn tcp_retransmit(ctx: BtfTracePointContext) -> i32 {
    let sock = Sock::<Typed>::new(ctx.arg::<*const c_void>(0));
    if setting!(retransmit_errors) != 0 && !was_sent(ctx.arg::<i32>(2)) {
        return 0;
    }
    let mut segments = 1;
    if offset!(packet_control) != ABSENT && offset!(control_segments) != ABSENT {
        let packet = ctx.arg::<*const c_void>(1);
        // SAFETY: an sk_buff to the verifier; TCP keeps its own account of it in `cb`.
        segments = unsafe { Typed::load::<u16>(packet, offset!(packet_control) + offset!(control_segments)) };
    }
    let Some(tcp) = sock.tcp() else { return 0 };
    let (key, total) = (Typed::number(sock.0), tcp.retransmits());
    // The socket's own count shows what no tracepoint told since the last time.
    if let Some(slot) = RESENT.get_ptr_mut(slot(key)) {
        // SAFETY: sockets that share a slot may write at once; who looks compares the address.
        unsafe {
            let before = *slot;
            let total = u64::from(total);
            let known = before.sock == key && before.value < total;
            *slot = SockSlot { sock: key, value: total };
            add(sock, TCP_RETRANSMITS, if known { total - before.value } else { u64::from(segments) });
        }
    }
    if sock.state() == SYN_SENT
        && let Some(first_us) = tcp.first_syn_us()
        && let Some(slot) = CONNECT_STARTS.get_ptr_mut(slot(key))
    {
        // SAFETY: as above.
        unsafe { *slot = SockSlot { sock: key, value: first_us } };
    }
    0
}

/// `tcp_retransmit_synack(sk, request)`: of a listener.
#[btf_tracepoint(function = "tcp_retransmit_synack")]
pub fn tcp_retransmit_answer(ctx: BtfTracePointContext) -> i32 {
    count(Sock::<Typed>::new(ctx.arg::<*const c_void>(0)), TCP_RETRANSMITS);
    0
}

/// `tcp_send_reset(sk, skb, …)`: null where nobody listens.
#[btf_tracepoint(function = "tcp_send_reset")]
pub fn tcp_reset_sent(ctx: BtfTracePointContext) -> i32 {
    let sock = Sock::<Typed>::new(ctx.arg::<*const c_void>(0));
    if !sock.0.is_null() && sock.is_full() {
        count(sock, TCP_RESETS_SENT);
    } else if let Some(nobody) = Workload::of_id(0) {
        nobody.add_shared(TCP_RESETS_SENT, 1);
    }
    0
}

/// `tcp_receive_reset(sk)`.
#[btf_tracepoint(function = "tcp_receive_reset")]
pub fn tcp_reset_received(ctx: BtfTracePointContext) -> i32 {
    count(Sock::<Typed>::new(ctx.arg::<*const c_void>(0)), TCP_RESETS_RECEIVED);
    0
}

/// `tcp`: `(meta, sk_common, uid)`; null after the last one.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
pub extern "C" fn tcp_sockets(ctx: *mut c_void) -> i32 {
    // SAFETY: the context of this kind of program is a struct of three words; the verifier knows the type of two.
    let (meta, sock) = unsafe {
        let word = |at: usize| *ctx.byte_add(at).cast::<*const c_void>();
        (word(META), word(SOCK))
    };
    let Some(pass) = TCP_PASS.get_ptr_mut(0) else { return 0 };
    let words = pass.cast::<u64>();
    // SAFETY: a bpf_iter_meta to the verifier.
    if unsafe { Typed::load::<u64>(meta, NUMBER) } == 0 {
        for at in 0..PASS_FIRST {
            // SAFETY: inside the value, which one reader at a time makes programs write.
            unsafe { *words.add(at) = 0 };
        }
    }
    if sock.is_null() {
        return 0;
    }
    let sock = Sock::<Typed>::new(sock);
    let state = sock.state();
    let lane = opaque(u64::from(state)) as usize;
    if lane < PASS_STATES {
        // SAFETY: as above.
        unsafe { *words.add(lane) += 1 };
    }
    if state == LISTEN
        && let Some(tcp) = sock.tcp()
    {
        let [waiting, limit, dropped] = tcp.accept_queue();
        // SAFETY: as above; the last word of a listener is the value's last.
        unsafe {
            let number = *words.add(PASS_LISTENERS);
            *words.add(PASS_LISTENERS) = number + 1;
            let at = PASS_FIRST + 2 * (opaque(number) as usize & (LISTENERS - 1));
            if number < LISTENERS as u64 && at + 1 < PASS_WORDS {
                *words.add(at) = listener(sock.local_port(), waiting, limit);
                *words.add(at + 1) = u64::from(dropped);
            }
        }
    }
    0
}

/// Did the kernel get as far as to count the segment? Before that it gives up because an earlier copy has not left the
/// host, or the window, the memory, the route or the sequence number are not right.
#[inline(always)]
fn was_sent(error: i32) -> bool {
    !matches!(-error, EAGAIN | ENOMEM | EBUSY | EINVAL | NO_ROUTE)
}

#[inline(always)]
fn count(sock: Sock, lane: usize) {
    add(sock, lane, 1);
}

#[inline(always)]
fn add(sock: Sock, lane: usize, amount: u64) {
    if let Some(workload) = Workload::of_sock(sock) {
        workload.add_shared(lane, amount);
    }
}

/// Counts a connection that was opened from here.
#[inline(always)]
fn opened(sock: Sock) {
    let Some(workload) = Workload::of_sock(sock) else { return };
    workload.add_shared(TCP_ACTIVE_OPENS, 1);
    let Some(us) = connect_us(sock) else {
        emit::add(TCP_CONNECT_UNKNOWN, 1);
        return;
    };
    workload.add_shared(TCP_CONNECT_US, us);
    let bucket = octave(us * 1000, TCP_CONNECT_EXPONENT, 2 * TCP_CONNECT_BUCKETS).div_ceil(2);
    workload.add_shared_at(TCP_CONNECTS + bucket.min(TCP_CONNECT_BUCKETS - 1), 1);
}

/// From the first SYN to now, when its answer was taken in.
#[inline(always)]
fn connect_us(sock: Sock) -> Option<u64> {
    let tcp = sock.tcp()?;
    if tcp.retransmits() == 0 {
        // The kernel has measured that round trip a moment ago.
        return tcp.round_trip_us();
    }
    let key = Typed::number(sock.0);
    // SAFETY: as where it is written.
    let start = unsafe { *CONNECT_STARTS.get_ptr_mut(slot(key))? };
    if start.sock == key { Some(tcp.now_us().saturating_sub(start.value)) } else { None }
}

#[inline(always)]
fn slot(key: u64) -> u32 {
    // Sockets are at least a cache line apart.
    (key >> 6 ^ key >> 18) as u32 & (SOCK_SLOTS as u32 - 1)
}

/// Why a connection could not be opened, in the order of [`seismo_common::tcp::FAILURES`].
#[inline(always)]
fn failure(sock: Sock) -> usize {
    match sock.error() {
        ECONNREFUSED => 0,
        ETIMEDOUT => 1,
        EHOSTUNREACH | ENETUNREACH => 2,
        ECONNRESET => 3,
        0 if sock.is_shut() => 4,
        _ => 5,
    }
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
