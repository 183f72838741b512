//! Socket payload, tier L1: the same records from the ends of the functions that send and receive.
//!
//! Hooks: `fexit` of `tcp_sendmsg`, `tcp_recvmsg` and their like for UDP and UNIX sockets; needs a kernel from 5.15 that
//! lets functions be traced. `tcp_splice_read` shows what splice takes out of a socket, `tcp_sendpage` what sendfile
//! puts in (up to 6.4). The socket is not locked any more, so several threads may be told in the wrong order. Programs
//! here can be interrupted by each other: each has its own scratch.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::macros::fexit;
use aya_ebpf::programs::FExitContext;
use core::ffi::c_void;

use seismo_common::counter::PAYLOAD_PEEKS;
use seismo_common::payload::{RECEIVE, SEND};

use crate::access::{Access as _, Typed};
use crate::emit;
use crate::kernel::{Registers, Task, offset, setting};
use crate::operation::{ASIDE, Operation, Tier, observe};
use crate::sock::Sock;
use crate::user::Place;

/// `tcp_sendmsg(sk, msg, size)`.
#[fexit(function = "tcp_sendmsg")]
pub fn payload_tcp_send(ctx: FExitContext) -> i32 {
    sent::<0>(Sock::new(ctx.arg::<*const c_void>(0)), ctx.arg(3))
}

/// `tcp_sendpage(sk, page, offset, size, flags)`.
#[fexit(function = "tcp_sendpage")]
pub fn payload_tcp_page(ctx: FExitContext) -> i32 {
    sent::<1>(Sock::new(ctx.arg::<*const c_void>(0)), ctx.arg(5))
}

/// `tcp_recvmsg(sk, msg, len, [nonblock,] flags[, addr_len])`.
#[fexit(function = "tcp_recvmsg")]
pub fn payload_tcp_receive(ctx: FExitContext) -> i32 {
    let (parameters, flags) = (setting!(tcp_receive_parameters), setting!(tcp_receive_flags));
    received::<2>(Sock::new(ctx.arg::<*const c_void>(0)), argument(&ctx, parameters), argument(&ctx, flags))
}

/// `tcp_splice_read(sock, ppos, pipe, len, flags)`.
#[fexit(function = "tcp_splice_read")]
pub fn payload_tcp_splice(ctx: FExitContext) -> i32 {
    received::<3>(of_socket(ctx.arg::<*const c_void>(0)), ctx.arg(5), 0)
}

/// `udp_sendmsg(sk, msg, len)`.
#[fexit(function = "udp_sendmsg")]
pub fn payload_udp_send(ctx: FExitContext) -> i32 {
    sent::<4>(Sock::new(ctx.arg::<*const c_void>(0)), ctx.arg(3))
}

/// `udp_recvmsg(…)`, as `tcp_recvmsg`.
#[fexit(function = "udp_recvmsg")]
pub fn payload_udp_receive(ctx: FExitContext) -> i32 {
    let (parameters, flags) = (setting!(udp_receive_parameters), setting!(udp_receive_flags));
    received::<5>(Sock::new(ctx.arg::<*const c_void>(0)), argument(&ctx, parameters), argument(&ctx, flags))
}

/// `udpv6_sendmsg(sk, msg, len)`.
#[fexit(function = "udpv6_sendmsg")]
pub fn payload_udp6_send(ctx: FExitContext) -> i32 {
    sent::<6>(Sock::new(ctx.arg::<*const c_void>(0)), ctx.arg(3))
}

/// `udpv6_recvmsg(…)`, as `tcp_recvmsg`.
#[fexit(function = "udpv6_recvmsg")]
pub fn payload_udp6_receive(ctx: FExitContext) -> i32 {
    let (parameters, flags) = (setting!(udp_receive_parameters), setting!(udp_receive_flags));
    received::<7>(Sock::new(ctx.arg::<*const c_void>(0)), argument(&ctx, parameters), argument(&ctx, flags))
}

/// `unix_stream_sendmsg(sock, msg, len)`.
#[fexit(function = "unix_stream_sendmsg")]
pub fn payload_unix_send(ctx: FExitContext) -> i32 {
    sent::<8>(of_socket(ctx.arg::<*const c_void>(0)), ctx.arg(3))
}

/// `unix_stream_recvmsg(sock, msg, size, flags)`.
#[fexit(function = "unix_stream_recvmsg")]
pub fn payload_unix_receive(ctx: FExitContext) -> i32 {
    received::<9>(of_socket(ctx.arg::<*const c_void>(0)), ctx.arg(4), ctx.arg(3))
}

/// `unix_dgram_sendmsg(sock, msg, len)`.
#[fexit(function = "unix_dgram_sendmsg")]
pub fn payload_unix_dgram_send(ctx: FExitContext) -> i32 {
    sent::<10>(of_socket(ctx.arg::<*const c_void>(0)), ctx.arg(3))
}

/// `unix_dgram_recvmsg(sock, msg, size, flags)`.
#[fexit(function = "unix_dgram_recvmsg")]
pub fn payload_unix_dgram_receive(ctx: FExitContext) -> i32 {
    received::<11>(of_socket(ctx.arg::<*const c_void>(0)), ctx.arg(4), ctx.arg(3))
}

/// The `index`th argument, where that differs by kernel; the place behind the last is the result's. In assembler: the
/// context is read at constant places only, and the compiler would make one read of four at a place that it calculates.
#[inline(always)]
fn argument(ctx: &FExitContext, index: u32) -> i32 {
    macro_rules! word {
        ($place:literal) => {{
            let value: u64;
            let ctx = ctx.as_ptr();
            // SAFETY: reads a word of the context; the verifier checks that there is one.
            unsafe {
                core::arch::asm!(concat!("{0} = *(u64 *)({1} + ", $place, ")"), out(reg) value, in(reg) ctx,
                    options(readonly, nostack));
            }
            value as i32
        }};
    }
    match index {
        3 => word!(24),
        4 => word!(32),
        5 => word!(40),
        _ => word!(48),
    }
}

#[inline(always)]
fn of_socket(socket: *const c_void) -> Sock<Typed> {
    // SAFETY: a socket to the verifier.
    Sock::new(unsafe { Typed::load(socket, offset!(socket_sock)) })
}

#[inline(always)]
fn sent<const PROGRAM: u32>(sock: Sock<Typed>, result: i32) -> i32 {
    if result > 0 {
        let operation = Operation { sock, length: result as u32, direction: SEND, flags: 0 };
        observe(&operation, |_| Some(Function::<PROGRAM>));
    }
    0
}

#[inline(always)]
fn received<const PROGRAM: u32>(sock: Sock<Typed>, result: i32, flags: i32) -> i32 {
    if flags & ASIDE != 0 {
        emit::add(PAYLOAD_PEEKS, 1);
    } else if result > 0 {
        let operation = Operation { sock, length: result as u32, direction: RECEIVE, flags };
        observe(&operation, |_| Some(Function::<PROGRAM>));
    }
    0
}

/// The end of a function, seen by the program of this number.
struct Function<const PROGRAM: u32>;

impl<const PROGRAM: u32> Tier for Function<PROGRAM> {
    type Access = Typed;
    const PROGRAM: u32 = PROGRAM;
    const INTERRUPTIBLE: bool = true;

    #[inline(always)]
    fn registers(&self, task: Task) -> Registers {
        task.registers()
    }

    #[inline(always)]
    fn place(&self, task: Task, registers: Registers, _: &Operation<Typed>) -> Place {
        // An io worker's registers are not those of the operation, nor are those of a call that is over.
        if registers.in_syscall() && !task.is_io_worker() {
            Place::of_syscall(registers.syscall(), registers.argument_1(), registers.argument_2())
        } else {
            Place::NOWHERE
        }
    }
}
