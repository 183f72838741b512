//! Kernel time to wall time: `CLOCK_MONOTONIC` nanoseconds, as every record carries them, to Unix time.
//!
//! The difference of the two clocks is read once and again on request; a step of the wall clock moves
//! later spans, never the order or the duration of any.

use std::sync::atomic::{AtomicI64, Ordering};

/// Difference between the wall clock and the monotonic clock.
#[derive(Debug)]
pub struct Clock {
    offset_ns: AtomicI64,
}

impl Clock {
    /// Reads both clocks.
    pub fn new() -> Self {
        Self { offset_ns: AtomicI64::new(measure()) }
    }

    /// A clock with a fixed difference, for tests and replays.
    pub const fn fixed(offset_ns: i64) -> Self {
        Self { offset_ns: AtomicI64::new(offset_ns) }
    }

    /// Reads both clocks again.
    pub fn refresh(&self) {
        self.offset_ns.store(measure(), Ordering::Relaxed);
    }

    /// Unix time in ns of a kernel time in ns.
    pub fn wall_ns(&self, ktime_ns: u64) -> u64 {
        ktime_ns.saturating_add_signed(self.offset_ns.load(Ordering::Relaxed))
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// `CLOCK_MONOTONIC` now, ns: the kernel programs' clock.
pub fn monotonic_ns() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// Unix time now, ns.
pub fn wall_ns() -> u64 {
    read(libc::CLOCK_REALTIME)
}

/// Length of a tick of the kernel's timer, ns: the coarse clocks advance by it (`clock_getres(2)`).
pub fn tick_ns() -> u32 {
    resolution(libc::CLOCK_MONOTONIC_COARSE)
}

fn measure() -> i64 {
    // The wall clock is read between two monotonic reads: the error is half of what lies between them.
    let before = monotonic_ns();
    let wall = wall_ns();
    let after = monotonic_ns();
    wall as i64 - (before + (after - before) / 2) as i64
}

#[allow(unsafe_code)]
fn resolution(clock: libc::clockid_t) -> u32 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec for the call to fill; the clock id exists on every Linux.
    unsafe { libc::clock_getres(clock, &raw mut time) };
    u32::try_from(time.tv_nsec).unwrap_or(u32::MAX)
}

#[allow(unsafe_code)]
fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec for the call to fill; both clock ids exist on every Linux.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
