//! Empty programs on the busiest hooks: what a hook costs before a program does anything.
//!
//! Off unless asked for. Costs of the real programs are stated over these, measured in the same minute (an empty program
//! reads about 30 ns, nearly all of it the two clock reads of the kernel's run statistics).

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

/// `sys_enter(regs, id)`.
#[btf_tracepoint(function = "sys_enter")]
pub fn floor_enter(_: BtfTracePointContext) -> i32 {
    0
}

/// `sys_exit(regs, ret)`.
#[btf_tracepoint(function = "sys_exit")]
pub fn floor_exit(_: BtfTracePointContext) -> i32 {
    0
}

/// `sched_switch(preempt, prev, next, prev_state)`.
#[btf_tracepoint(function = "sched_switch")]
pub fn floor_switch(_: BtfTracePointContext) -> i32 {
    0
}

/// `sock_send_length(sk, ret, flags)`.
#[btf_tracepoint(function = "sock_send_length")]
pub fn floor_send(_: BtfTracePointContext) -> i32 {
    0
}

/// `sock_recv_length(sk, ret, flags)`.
#[btf_tracepoint(function = "sock_recv_length")]
pub fn floor_receive(_: BtfTracePointContext) -> i32 {
    0
}
