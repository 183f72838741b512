//! Socket payload, tier L2: the same records from the end of each system call, for kernels that have nothing better.
//!
//! Hook: `tp_btf/sys_exit` (5.5+; used from 5.10). The socket is found as the kernel finds it, through the thread's file
//! table, by address: about twenty-five reads by probe a record (not measured). System calls that move no bytes through a
//! descriptor cost a load and two comparisons. `sendmmsg` and `recvmmsg` give one record with the bytes of the first
//! messages; io_uring is not seen. Several threads on one socket may be told in the wrong order.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use core::ffi::c_void;

use seismo_common::counter::{PAYLOAD_MESSAGES_UNSEEN, PAYLOAD_PEEKS};
use seismo_common::payload::{RECEIVE, SEND};

use crate::access::{Access as _, Probed};
use crate::emit;
use crate::kernel::{File, Registers, S_IFSOCK, Task, offset};
use crate::operation::{ASIDE, Operation, Tier, observe};
use crate::sock::Sock;
use crate::user::{MESSAGES, Place, message_lengths};

/// Numbers of the 64-bit system calls that can move bytes through a socket.
const READ: u64 = 0;
const WRITE: u64 = 1;
const READV: u64 = 19;
const WRITEV: u64 = 20;
const SENDFILE: u64 = 40;
const SENDTO: u64 = 44;
const RECVFROM: u64 = 45;
const SENDMSG: u64 = 46;
const RECVMSG: u64 = 47;
const SPLICE: u64 = 275;
const RECVMMSG: u64 = 299;
const SENDMMSG: u64 = 307;
const PREADV2: u64 = 327;
const PWRITEV2: u64 = 328;
/// Those below 64 as a set, and read and write of 32-bit processes: as 64-bit calls, `close` and `stat` return 0.
const LOW: u64 = 1 << 3
    | 1 << 4
    | 1 << READ
    | 1 << WRITE
    | 1 << READV
    | 1 << WRITEV
    | 1 << SENDFILE
    | 1 << SENDTO
    | 1 << RECVFROM
    | 1 << SENDMSG
    | 1 << RECVMSG;

/// `sys_exit(regs, ret)`.
#[btf_tracepoint(function = "sys_exit")]
pub fn payload_syscall(ctx: BtfTracePointContext) -> i32 {
    let result = ctx.arg::<i64>(1);
    if result <= 0 || result > i64::from(i32::MAX) {
        return 0;
    }
    let registers = Registers(ctx.arg::<*const c_void>(0));
    let number = registers.syscall() as u64;
    let known = if number < 64 {
        LOW >> number & 1 != 0
    } else {
        matches!(number, SPLICE | RECVMMSG | SENDMMSG | PREADV2 | PWRITEV2)
            // Numbers of 32-bit calls, told apart below: readv, writev, sendmsg, sendto, recvfrom, recvmsg.
            || matches!(number, 145 | 146 | 369..=372)
    };
    if known {
        call(number, registers, result as u32);
    }
    0
}

#[inline(always)]
fn call(number: u64, registers: Registers, result: u32) {
    let task = Task::current();
    if task.is_compat() {
        // read, write and the calls above; `socketcall` hides its arguments in memory.
        let direction = match number {
            3 | 145 | 371 | 372 => RECEIVE,
            4 | 146 | 369 | 370 => SEND,
            _ => return,
        };
        if let Some(sock) = socket(task, registers.compat_argument_0()) {
            let operation = Operation { sock, length: result, direction, flags: 0 };
            observe(&operation, |_| Some(Call(registers, number)));
        }
        return;
    }
    let (direction, flags) = match number {
        READ | READV | PREADV2 => (RECEIVE, 0),
        RECVFROM | RECVMMSG => (RECEIVE, registers.argument_3() as i32),
        RECVMSG => (RECEIVE, registers.argument_2() as i32),
        3 | 4 | 145 | 146 | 369..=372 => return,
        _ => (SEND, 0),
    };
    let descriptor = if number == SPLICE { registers.argument_2() } else { registers.argument_0() };
    let (sock, direction) = match socket(task, descriptor) {
        Some(sock) => (sock, direction),
        None if number == SPLICE => match socket(task, registers.argument_0()) {
            Some(sock) => (sock, RECEIVE),
            None => return,
        },
        None => return,
    };
    if direction == RECEIVE && flags & ASIDE != 0 {
        emit::add_in_process(PAYLOAD_PEEKS, 1);
        return;
    }
    let mut length = result;
    if number == SENDMMSG || number == RECVMMSG {
        let (seen, unseen) = message_lengths(registers.argument_1(), u64::from(result));
        length = seen;
        if unseen != 0 {
            emit::add_in_process(PAYLOAD_MESSAGES_UNSEEN, unseen);
        }
        if length == 0 {
            return;
        }
    }
    observe(&Operation { sock, length, direction, flags }, |_| Some(Call(registers, number)));
}

/// The socket behind a descriptor of the running thread, if it is one.
#[inline(always)]
fn socket(task: Task, descriptor: u64) -> Option<Sock<Probed>> {
    let file = File::of(task, descriptor)?;
    if file.kind() != S_IFSOCK {
        return None;
    }
    // SAFETY: everything is read by probe.
    let sock: *const c_void = unsafe { Probed::load(file.private(), offset!(socket_sock)) };
    if sock.is_null() { None } else { Some(Sock::new(sock)) }
}

struct Call(Registers, u64);

impl Tier for Call {
    type Access = Probed;
    const PROGRAM: u32 = 0;
    const MESSAGES: bool = true;

    #[inline(always)]
    fn registers(&self, _: Task) -> Registers {
        self.0
    }

    #[inline(always)]
    fn place(&self, _: Task, registers: Registers, _: &Operation<Probed>) -> Place {
        let (pointer, count) = (registers.argument_1(), registers.argument_2());
        match self.1 {
            SENDMMSG | RECVMMSG => Place::new(MESSAGES, pointer, count),
            number => Place::of_syscall(number.cast_signed(), pointer, count),
        }
    }
}
