//! How a record gets into the ring ([`crate::lane`] is the way past it), and the one way anything is counted.
//!
//! `observed = submitted + Σ dropped(reason)` holds at every moment between two operations of a CPU. The ring is
//! written with `BPF_RB_NO_WAKEUP`, which saves 80–110 ns a record: userspace drains on a timer, and is woken when what
//! waits for it has passed a mark.

use aya_ebpf::helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_ns, bpf_ringbuf_output, bpf_ringbuf_query};
use core::ffi::c_void;

use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use seismo_common::counter::{COUNTERS as LANES, DROPS, EVENTS_OBSERVED, EVENTS_SUBMITTED};
use seismo_common::drops::RING_FULL;
use seismo_common::handover::HandoverRecord;
use seismo_common::record::{HANDOVER, RecordHeader};

use crate::kernel::setting;
use crate::maps::{COUNTERS, RING};

/// Adds to a counter lane of this CPU. Atomic: a soft interrupt on the same CPU may count in the middle.
#[inline(always)]
pub fn add(lane: usize, amount: u64) {
    if lane < LANES
        && let Some(lanes) = COUNTERS.get_ptr_mut(0)
    {
        // SAFETY: the lane is inside the value.
        unsafe { atomic_add(lanes.cast::<u64>().add(lane), amount) };
    }
}

/// Adds to a word that other CPUs or soft interrupts may add to: 5–8 ns, a plain add 1. In assembler because the
/// target has no compare-and-swap in Rust's eyes, so `core` offers no atomic addition.
///
/// # Safety
/// `word` is an aligned word of a map value.
#[inline(always)]
pub unsafe fn atomic_add(word: *mut u64, amount: u64) {
    // SAFETY: by contract.
    unsafe { core::arch::asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) word, in(reg) amount, options(nostack)) };
}

/// Counts a record that will not be written.
#[inline(always)]
pub fn dropped(reason: usize) {
    add(DROPS + reason, 1);
}

/// Adds to a counter lane of this CPU that only programs in process context write: before 7.0 those are not interrupted by
/// each other (preemption is off in them), so a plain add is exact. Returns the lane's value before, or 0.
#[inline(always)]
pub fn add_in_process(lane: usize, amount: u64) -> u64 {
    if setting!(preemptible) != 0 {
        add(lane, amount);
        return 0;
    }
    if lane < LANES
        && let Some(lanes) = COUNTERS.get_ptr_mut(0)
    {
        // SAFETY: the lane is inside the value.
        unsafe {
            let lane = lanes.cast::<u64>().add(lane);
            let before = *lane;
            *lane = before + amount;
            before
        }
    } else {
        0
    }
}

/// Counts an event that wants a record; call once, before anything can drop it.
#[inline(always)]
pub fn observed() {
    add(EVENTS_OBSERVED, 1);
}

/// Nanoseconds of `CLOCK_MONOTONIC`; 28 ns.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_ns() }
}

#[inline(always)]
pub fn header(kind: u16, flags: u16, len: u32) -> RecordHeader {
    header_at(kind, flags, len, now())
}

#[inline(always)]
pub fn header_at(kind: u16, flags: u16, len: u32, ktime_ns: u64) -> RecordHeader {
    // SAFETY: no arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    RecordHeader { kind, flags, len, cpu, reserved: 0, ktime_ns }
}

/// Tells that a thread made or woke another one.
#[inline(always)]
pub fn handover(tgid: u32, from: u32, to: u32, how: u32) {
    observed();
    let len = size_of::<HandoverRecord>();
    let record = HandoverRecord { header: header(HANDOVER, 0, len as u32), tgid, from, to, how };
    // SAFETY: the record is on the stack, whole.
    unsafe { submit((&raw const record).cast(), len as u64, false) };
}

/// Writes an event's record; counted either way. `urgent` wakes userspace at once (0.8 µs).
///
/// # Safety
/// As for [`output`].
#[inline(always)]
pub unsafe fn submit(record: *const c_void, len: u64, urgent: bool) {
    // SAFETY: by contract.
    if unsafe { output(record, len, urgent) } {
        add(EVENTS_SUBMITTED, 1);
    } else {
        dropped(RING_FULL);
    }
}

/// Hands `len` bytes at `record` to the ring; false if it was full.
///
/// # Safety
/// `record` points to at least `len` initialised bytes on the stack or in a map value.
#[inline(always)]
pub unsafe fn output(record: *const c_void, len: u64, wake: bool) -> bool {
    let flags = if wake { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP };
    // SAFETY: by contract, and the verifier checks the length against the memory.
    let refused =
        unsafe { bpf_ringbuf_output((&raw const RING).cast_mut().cast(), record.cast_mut(), len, u64::from(flags)) };
    refused == 0
}

/// Bytes that wait in the ring.
#[inline(always)]
pub fn ring_waiting() -> u64 {
    // SAFETY: the map is a ring.
    unsafe { bpf_ringbuf_query((&raw const RING).cast_mut().cast(), u64::from(BPF_RB_AVAIL_DATA)) }
}

/// A debug message on the agent's log; nothing at all unless built with the feature `kernel-log`.
macro_rules! log {
    ($ctx:expr, $($message:tt)*) => {{
        #[cfg(feature = "kernel-log")]
        aya_log_ebpf::debug!($ctx, $($message)*);
        #[cfg(not(feature = "kernel-log"))]
        let _ = &$ctx;
    }};
}
pub(crate) use log;
