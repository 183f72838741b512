//! Socket payload, tier L0: a record per successful send or receive in scope, with its stream position and the bytes
//! themselves; byte counts by transport and workload.
//!
//! Hooks: `tp_btf/sock_send_length`, `tp_btf/sock_recv_length` (6.3+), for every kind of socket. Both run after the copy,
//! so the length is exact and the pages are resident. The buffer is found through the thread's saved registers, and for
//! tier L0a through what `payload_locked` noted before; whoever moved the bytes without a buffer in user memory
//! (sendfile, splice) gives length and position, and says `CUT_NO_BUFFER`.
//! Out of scope: a look-up of the workload's row and two adds.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use core::ffi::c_void;

use seismo_common::counter::PAYLOAD_PEEKS;
use seismo_common::payload::{RECEIVE, SEND};

use super::{payload_locked as locked, payload_requests as requests};
use crate::access::Typed;
use crate::emit;
use crate::kernel::{Registers, Task, setting};
use crate::operation::{ASIDE, Operation, Tier, observe};
use crate::sock::Sock;
use crate::user::{NOWHERE, Place};

/// `sock_send_length(sk, ret, flags)`.
#[btf_tracepoint(function = "sock_send_length")]
#[inline(always)]
pub fn payload_send(ctx: BtfTracePointContext) -> i32 {
    let sock = Sock::new(ctx.arg::<*const c_void>(0));
    let moved = ctx.arg::<i32>(1);
    if moved > 0 {
        emit::log!(&ctx, "sent {} bytes", moved);
        let operation = Operation { sock, length: moved as u32, direction: SEND, flags: 0 };
        observe(&operation, |task| {
            let note = if setting!(iterators) != 0 { Some(locked::Note::of(task, sock)?) } else { None };
            Some(Lengths::<0>(note))
        });
    } else if setting!(iterators) != 0
        && let Some(note) = locked::Note::of(Task::current(), sock)
    {
        note.forget();
    }
    0
}

/// `sock_recv_length(sk, ret, flags)`.
#[btf_tracepoint(function = "sock_recv_length")]
#[inline(always)]
pub fn payload_receive(ctx: BtfTracePointContext) -> i32 {
    let sock = Sock::new(ctx.arg::<*const c_void>(0));
    let moved = ctx.arg::<i32>(1);
    let flags = ctx.arg::<i32>(2);
    if flags & ASIDE != 0 {
        emit::add_in_process(PAYLOAD_PEEKS, 1);
    } else if moved > 0 {
        emit::log!(&ctx, "received {} bytes", moved);
        let operation = Operation { sock, length: moved as u32, direction: RECEIVE, flags };
        observe(&operation, |_| Some(Lengths::<1>(None)));
    }
    0
}

/// With what `payload_locked` noted of the send.
struct Lengths<const PROGRAM: u32>(Option<locked::Note>);

impl<const PROGRAM: u32> Tier for Lengths<PROGRAM> {
    type Access = Typed;
    const PROGRAM: u32 = PROGRAM;
    const LANE: bool = true;

    #[inline(always)]
    fn registers(&self, task: Task) -> Registers {
        task.registers()
    }

    #[inline(always)]
    fn place(&self, task: Task, registers: Registers, operation: &Operation<Typed>) -> Place {
        if let Some(place) = self.0.and_then(|note| note.place(operation.length)) {
            return place;
        }
        // An io worker's registers are not those of the operation, nor are those of a call that is over.
        let place = if registers.in_syscall() && !task.is_io_worker() {
            Place::of_syscall(registers.syscall(), registers.argument_1(), registers.argument_2())
        } else {
            Place::NOWHERE
        };
        if setting!(iterators) != 0 && place.kind == NOWHERE {
            return requests::place(operation);
        }
        place
    }

    #[inline(always)]
    fn sequence(&self, operation: &Operation<Typed>) -> Option<u32> {
        self.0.and_then(|note| note.sequence(operation.length))
    }

    #[inline(always)]
    fn told(&self) -> u32 {
        self.0.map_or(0, locked::Note::told)
    }

    #[inline(always)]
    fn done(&self) {
        if let Some(note) = self.0 {
            note.forget();
        }
    }
}
