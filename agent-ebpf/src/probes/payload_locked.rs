//! Socket payload, tier L0a, sends: what a TCP send is about to take, noted while its socket is locked.
//!
//! Hook: `tp_btf/tcp_sendmsg_locked` (6.16+), once for each segment that a send begins. It gives the iterator, so the
//! bytes are found whoever sends (io_uring, each message of `sendmmsg`), and the sequence number of the first byte is
//! exact also where several threads write: `payload_send` uses both when the send is over. A send that waited for room
//! while another thread sent is told in two records. Slots by thread: two threads that share one fall back to L0.
//! 98 ns over an empty program on a machine where that takes 71 (nginx under wrk, lowest of three).

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use core::ffi::c_void;

use seismo_common::config::THREAD_SLOTS;
use seismo_common::counter::PAYLOAD_INTERRUPTED;
use seismo_common::payload::{SEND, TCP};

use crate::access::{Access as _, Typed};
use crate::emit;
use crate::filter;
use crate::kernel::{Registers, Task, current_ids, offset};
use crate::maps::{SCRATCH, SEND_STARTS, SendStart};
use crate::operation::{Operation, Tier, forgotten, tell};
use crate::sock::{Checked as _, Sock};
use crate::user::{BYTES, KERNEL_VECTORS, Place};

/// Kinds of iterator over user memory (`enum iter_type`): one piece, or vectors.
const ITER_UBUF: u32 = 0;
const ITER_IOVEC: u32 = 1;

/// `tcp_sendmsg_locked(sk, msg, skb, size_goal)`.
#[btf_tracepoint(function = "tcp_sendmsg_locked")]
pub fn payload_locked(ctx: BtfTracePointContext) -> i32 {
    let sock = Sock::<Typed>::new(ctx.arg::<*const c_void>(0));
    let message = ctx.arg::<*const c_void>(1);
    let (tid, _) = current_ids();
    let Some(slot) = slot_of(tid) else { return 0 };
    let Some(tcp) = sock.tcp() else { return 0 };
    let sequence = tcp.write_sequence();
    let at = offset!(message_iterator);
    // SAFETY: a msghdr to the verifier, and fields of the iterator in it; the slot is this thread's, see `slot_of`.
    unsafe {
        let present = SendStart {
            sock: sock.0 as u64,
            message: message as u64,
            tid,
            sequence,
            kind: u32::from(Typed::load::<u8>(message, at + offset!(iterator_kind))),
            told: 0,
            base: Typed::load(message, at + offset!(iterator_base)),
            offset: Typed::load(message, at + offset!(iterator_offset)),
            count: Typed::load(message, at + offset!(iterator_count)),
            segments: Typed::load(message, at + offset!(iterator_segments)),
        };
        let start = *slot;
        let goes_on = start.tid == tid
            && start.sock == present.sock
            && start.message == present.message
            && start.count >= present.count;
        // Noted in scope or not: a note costs less than to find that out.
        if !goes_on {
            *slot = present;
            return 0;
        }
        let moved = (start.count - present.count) as u32;
        if start.sequence.wrapping_add(moved) == sequence {
            return 0;
        }
        // It had to wait, and the lock was another's meanwhile: what was sent before is a record of its own.
        let task = Task::current();
        if task.is_kernel_thread() || !filter::in_scope(task, sock) {
            (*slot).tid = 0;
            return 0;
        }
        emit::add_in_process(PAYLOAD_INTERRUPTED, 1);
        if moved > 0 {
            let first = Operation { sock, length: moved, direction: SEND, flags: 0 };
            tell(&Part(start), &first, task, TCP);
        }
        *slot = SendStart { told: start.told + moved, ..present };
    }
    0
}

/// The part of a send that was moved before it was interrupted.
struct Part(SendStart);

impl Tier for Part {
    type Access = Typed;
    const PROGRAM: u32 = 2;

    #[inline(always)]
    fn registers(&self, task: Task) -> Registers {
        task.registers()
    }

    #[inline(always)]
    fn place(&self, _: Task, _: Registers, _: &Operation<Typed>) -> Place {
        place_in(&self.0)
    }

    #[inline(always)]
    fn sequence(&self, _: &Operation<Typed>) -> Option<u32> {
        Some(self.0.sequence)
    }
}

#[inline(always)]
fn place_in(start: &SendStart) -> Place {
    match start.kind {
        ITER_UBUF => Place { kind: BYTES, pointer: start.base, count: start.count, offset: start.offset },
        ITER_IOVEC => Place { kind: KERNEL_VECTORS, pointer: start.base, count: start.segments, offset: start.offset },
        _ => Place::NOWHERE,
    }
}

/// The slot of a thread; it writes there in process context only, so nothing but a thread that shares the slot, on
/// another CPU, interferes: then thread, socket or message differ.
#[inline(always)]
fn slot_of(tid: u32) -> Option<*mut SendStart> {
    SEND_STARTS.get_ptr_mut(tid & (THREAD_SLOTS as u32 - 1))
}

/// What may have been noted of a send of the running thread that is over now.
#[derive(Clone, Copy)]
pub struct Note {
    slot: *mut SendStart,
    /// 1 if it is this send's. The verifier must not know: it would walk all that follows twice.
    own: u64,
}

impl Note {
    #[inline(always)]
    pub fn of(task: Task, sock: Sock<Typed>) -> Option<Self> {
        let tid = task.tid();
        let slot = slot_of(tid)?;
        let scratch = SCRATCH.get_ptr_mut(0)?;
        // SAFETY: see `slot_of`; the scratch is this CPU's and this program's.
        let own = unsafe {
            let own = (*slot).tid == tid && (*slot).sock == sock.0 as u64;
            forgotten(&raw mut (*scratch).steps.noted, u64::from(own))
        };
        Some(Self { slot, own })
    }

    /// Its beginning, if its bytes are in user memory. A slot that was lost and taken again has seen less than was sent.
    #[inline(always)]
    fn start(self, length: u32) -> Option<SendStart> {
        // SAFETY: see `slot_of`.
        let start = unsafe { *self.slot };
        let known = self.own != 0 && start.kind <= ITER_IOVEC && start.count >= u64::from(length);
        if known { Some(start) } else { None }
    }

    /// Where the bytes were taken from.
    #[inline(always)]
    pub fn place(self, length: u32) -> Option<Place> {
        self.start(length).map(|start| place_in(&start))
    }

    /// Sequence number of the first byte that is not told yet.
    #[inline(always)]
    pub fn sequence(self, length: u32) -> Option<u32> {
        self.start(length).map(|start| start.sequence)
    }

    /// Bytes of the send that are told already.
    #[inline(always)]
    pub fn told(self) -> u32 {
        // SAFETY: see `slot_of`.
        unsafe { (*self.slot).told & (self.own as u32).wrapping_neg() }
    }

    /// The next send may begin with the same addresses.
    #[inline(always)]
    pub fn forget(self) {
        if self.own != 0 {
            // SAFETY: see `slot_of`.
            unsafe { (*self.slot).tid = 0 };
        }
    }
}
