//! Interrupts: how often devices' handlers and soft interrupts ran, and for how long.
//!
//! Hooks: `tp_btf/irq_handler_{entry,exit}` and `tp_btf/softirq_{entry,exit}` (5.5+): two clocks for each run, so the
//! family is off unless asked for. A handler that interrupts a soft interrupt is not counted in that one's time.
//! About 160 ns for both ends of a soft interrupt over two empty programs (busy machine).
//! Interrupts without a handler of a device (the local timer, calls between CPUs) do not come by here.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

use seismo_common::interrupt::{HARD_NS, HARD_RUNS, HARD_START, LANES, SOFT_NS, SOFT_RUNS, SOFT_START, VECTORS};

use crate::emit;
use crate::maps::INTERRUPTS;

/// `irq_handler_entry(irq, action)`.
#[btf_tracepoint(function = "irq_handler_entry")]
pub fn interrupt_enter(_: BtfTracePointContext) -> i32 {
    if let Some(lanes) = lanes() {
        // SAFETY: inside the value, which is this CPU's.
        unsafe { *lanes.add(HARD_START) = emit::now() };
    }
    0
}

/// `irq_handler_exit(irq, action, ret)`.
#[btf_tracepoint(function = "irq_handler_exit")]
pub fn interrupt_exit(_: BtfTracePointContext) -> i32 {
    let Some(lanes) = lanes() else { return 0 };
    // SAFETY: all inside the value, which is this CPU's; handlers do not interrupt each other.
    unsafe {
        let started = *lanes.add(HARD_START);
        if started == 0 {
            return 0;
        }
        *lanes.add(HARD_START) = 0;
        let ns = emit::now().saturating_sub(started);
        *lanes.add(HARD_RUNS) += 1;
        *lanes.add(HARD_NS) += ns;
        if *lanes.add(SOFT_START) != 0 {
            *lanes.add(SOFT_START) += ns;
        }
    }
    0
}

/// `softirq_entry(vector)`.
#[btf_tracepoint(function = "softirq_entry")]
pub fn interrupt_soft_enter(_: BtfTracePointContext) -> i32 {
    if let Some(lanes) = lanes() {
        // SAFETY: as above.
        unsafe { *lanes.add(SOFT_START) = emit::now() };
    }
    0
}

/// `softirq_exit(vector)`.
#[btf_tracepoint(function = "softirq_exit")]
pub fn interrupt_soft_exit(ctx: BtfTracePointContext) -> i32 {
    let vector = ctx.arg::<u32>(0) as usize;
    let Some(lanes) = lanes() else { return 0 };
    if vector >= VECTORS {
        return 0;
    }
    // SAFETY: as above; soft interrupts do not interrupt each other.
    unsafe {
        let started = *lanes.add(SOFT_START);
        if started == 0 {
            return 0;
        }
        *lanes.add(SOFT_START) = 0;
        *lanes.add(SOFT_RUNS + vector) += 1;
        *lanes.add(SOFT_NS + vector) += emit::now().saturating_sub(started);
    }
    0
}

#[inline(always)]
fn lanes() -> Option<*mut u64> {
    INTERRUPTS.get_ptr_mut(0).map(|lanes: *mut [u64; LANES]| lanes.cast())
}
