//! Records that mean nothing, as many as a process asks for: to measure the ring and what is behind it. Off by default.
//!
//! Hook: `tp_btf/sys_enter` (5.5+). A process asks by `getppid` with an argument that no other has; each filler is counted
//! and written like any record, with one clock for all of a call. When much waits, the last one wakes userspace, as
//! payload does.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use core::ffi::c_void;

use seismo_common::record::{FILLER, FILLERS, FILLERS_ASKED, FillerRecord};

use crate::emit;
use crate::kernel::{Registers, setting};

const GETPPID: i64 = 110;

/// `sys_enter(regs, id)`.
#[btf_tracepoint(function = "sys_enter")]
pub fn records_write(ctx: BtfTracePointContext) -> i32 {
    if ctx.arg::<i64>(1) != GETPPID {
        return 0;
    }
    let registers = Registers(ctx.arg::<*const c_void>(0));
    if registers.argument_0() != FILLERS_ASKED {
        return 0;
    }
    let wanted = registers.argument_1();
    let len = size_of::<FillerRecord>();
    let record = FillerRecord { header: emit::header(FILLER, 0, len as u32), words: [0; 5] };
    for number in 1..=FILLERS {
        if number > wanted {
            break;
        }
        let wake = number == wanted && emit::ring_waiting() >= u64::from(setting!(wake_bytes));
        emit::observed();
        // SAFETY: the record is on the stack, whole.
        unsafe { emit::submit((&raw const record).cast(), len as u64, wake) };
    }
    0
}
