//! Where the registers of a thread are that it had when it entered the kernel: how far above the beginning of its stack.
//!
//! The kernel calculates that from the size of a stack and what it keeps free at its end (`task_pt_regs`, x86), and so do the
//! programs where they can read any address: a helper that does it for them takes 10 ns. Its numbers depend on how the
//! kernel was built and are not in its type information, so the helper is asked once, for the thread that loads the programs.

use std::io;

use aya_obj::generated::{bpf_func_id, bpf_insn};

use super::raw;

/// Codes of instructions (`linux/bpf.h`, `bpf_common.h`): moves of a register and of a number, addition of a number, subtraction
/// of a register, store and load of eight bytes.
const MOVE: u8 = 0xbf;
const NUMBER: u8 = 0xb7;
const ADD: u8 = 0x07;
const SUBTRACT: u8 = 0x1f;
const STORE: u8 = 0x7b;
const LOAD: u8 = 0x79;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const FRAME: u8 = 10;
/// Stacks are smaller than that.
const MAX: u32 = 1 << 20;

/// Bytes between the beginning of a thread's stack and its registers; `stack` is the offset of `task_struct.stack`. An error
/// where the kernel does not run such a program, or what it says cannot be.
pub(super) fn place(stack: u32) -> io::Result<u32> {
    let at = i16::try_from(stack).map_err(io::Error::other)?;
    let call = |function: bpf_func_id| instruction(CALL, 0, 0, 0, function as i32);
    let program = [
        call(bpf_func_id::BPF_FUNC_get_current_task_btf),
        instruction(MOVE, 6, 0, 0, 0),
        instruction(MOVE, 1, 0, 0, 0),
        call(bpf_func_id::BPF_FUNC_task_pt_regs),
        // A pointer is a number only where it is read as one.
        instruction(STORE, FRAME, 0, -8, 0),
        instruction(MOVE, 1, FRAME, 0, 0),
        instruction(ADD, 1, 0, 0, -16),
        instruction(NUMBER, 2, 0, 0, 8),
        instruction(MOVE, 3, FRAME, 0, 0),
        instruction(ADD, 3, 0, 0, -8),
        call(bpf_func_id::BPF_FUNC_probe_read_kernel),
        instruction(LOAD, 0, FRAME, -16, 0),
        instruction(LOAD, 1, 6, at, 0),
        instruction(SUBTRACT, 0, 1, 0, 0),
        instruction(EXIT, 0, 0, 0, 0),
    ];
    match raw::run(&program)? {
        place @ 1..MAX if place % 8 == 0 => Ok(place),
        place => Err(io::Error::other(format!("{place} bytes above the beginning of the stack"))),
    }
}

fn instruction(code: u8, to: u8, from: u8, offset: i16, number: i32) -> bpf_insn {
    bpf_insn { code, _bitfield_align_1: [], _bitfield_1: bpf_insn::new_bitfield_1(to, from), off: offset, imm: number }
}
