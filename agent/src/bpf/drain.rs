//! The thread that empties the ring and the lanes: copies records into batches and hands them on, and never blocks.
//!
//! Woken by a timer: records cost no wake-up (80–110 ns each). The timer slows down while nothing comes, and the kernel
//! wakes the thread when the ring fills faster than the timer sees. When the pipeline is behind and the queue is full, the
//! newest batch is dropped and counted. Bound: [`QUEUE_BATCHES`] × [`BATCH_BYTES`] (32 MiB).

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;

use bytes::Bytes;

use super::decode::Batch;
use super::records::Records;
use super::ring::Ring;
use crate::clock::monotonic_ns;
use crate::health::{Health, Stage};

/// Batches that may wait for the pipeline.
pub const QUEUE_BATCHES: usize = 512;
/// A batch is handed on when it reaches this size, or when the ring is empty. Below the size from which the allocator
/// asks the kernel for pages each time.
pub const BATCH_BYTES: usize = 64 * 1024;

/// The timer is slower while the ring stays empty: twice each time, up to this.
const IDLE: Duration = Duration::from_millis(500);
/// Records from which on it is as quick as it can be again; less make it twice as quick.
const FEW: u64 = 16;

/// How far the drain has come: every record that the kernel wrote before this time (`CLOCK_MONOTONIC`, ns) is handed on.
/// Who waits for a record must not wait by the wall's clock: behind a backlog it comes later.
#[derive(Debug, Default)]
pub struct Progress(AtomicU64);

impl Progress {
    /// Read it before looking whether a batch waits: then what it promises is true of an empty queue.
    pub fn until_ns(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// Drains until `stop` is set, then until the ring is empty, and returns.
pub fn run(
    mut records: Records,
    wake: &WakeUp,
    interval: Duration,
    health: &Arc<Health>,
    queue: &SyncSender<Batch>,
    (progress, stop): (&Progress, &AtomicBool),
) {
    let mut buffer = Vec::new();
    let mut wait = interval;
    loop {
        let stopping = stop.load(Ordering::Acquire);
        let before = health.stage(Stage::Collected).entered.load(Ordering::Relaxed);
        let began_ns = monotonic_ns();
        // At the end nothing more is written that could come before what is there.
        let until_ns = if stopping { u64::MAX } else { began_ns };
        records.look();
        while drain_once(&mut records, until_ns, &mut buffer, health, queue) {}
        progress.0.store(began_ns, Ordering::Release);
        if stopping {
            return;
        }
        let came = health.stage(Stage::Collected).entered.load(Ordering::Relaxed) - before;
        wait = next_wait(wait, interval, came);
        let spent = Duration::from_nanos(monotonic_ns().saturating_sub(began_ns));
        if let Some(rest) = wait.checked_sub(spent) {
            wake.wait(rest);
        }
    }
}

/// How long to wait after `came` records.
fn next_wait(wait: Duration, interval: Duration, came: u64) -> Duration {
    let next = match came {
        0 => wait * 2,
        1..FEW => wait / 2,
        _ => interval,
    };
    next.clamp(interval, IDLE.max(interval))
}

/// Waits for the timer or for the kernel's wake-up. Edge-triggered: a level-triggered wait would return at once for
/// every record that is there, and undo the batching.
pub struct WakeUp(OwnedFd);

impl WakeUp {
    pub fn new(ring: &Ring) -> io::Result<Self> {
        // SAFETY: epoll_create1 takes flags and returns a new descriptor or -1.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor that was just made and that nobody else owns.
        let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
        let mut event = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET) as u32, u64: 0 };
        // SAFETY: both descriptors are open, and the event is valid for the call.
        let failed =
            unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, ring.as_raw_fd(), &raw mut event) } != 0;
        if failed { Err(io::Error::last_os_error()) } else { Ok(Self(epoll)) }
    }

    /// Returns at the latest after `time`; a signal may end the wait early, which only costs a look at the ring.
    fn wait(&self, time: Duration) {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        let millis = i32::try_from(time.as_millis().max(1)).unwrap_or(i32::MAX);
        // SAFETY: the descriptor is open and there is room for the one event that is asked for.
        unsafe { libc::epoll_wait(self.0.as_raw_fd(), &raw mut event, 1, millis) };
    }
}

/// Fills and hands on one batch of what was seen and is older than `until_ns`; true if there may be more.
fn drain_once(
    source: &mut Records,
    until_ns: u64,
    buffer: &mut Vec<u8>,
    health: &Health,
    queue: &SyncSender<Batch>,
) -> bool {
    let records = source.read(buffer, BATCH_BYTES, until_ns);
    let torn = source.take_torn();
    if torn > 0 {
        health.enter(Stage::Collected, torn);
        health.lose(Stage::Collected, "lane_torn", torn);
    }
    if records == 0 {
        return false;
    }
    let more = buffer.len() >= BATCH_BYTES;
    health.enter(Stage::Collected, records);
    let room = buffer.len();
    let batch = Batch { bytes: Bytes::from(std::mem::replace(buffer, Vec::with_capacity(room))), records };
    match queue.try_send(batch) {
        Ok(()) => health.pass(Stage::Collected, records),
        Err(TrySendError::Full(_)) => health.lose(Stage::Collected, "queue_full", records),
        Err(TrySendError::Disconnected(_)) => health.lose(Stage::Collected, "pipeline_gone", records),
    }
    more
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::next_wait;

    #[test]
    fn the_timer_slows_down_at_rest_and_is_quick_again_under_load() {
        let (mut wait, interval) = (Duration::from_millis(5), Duration::from_millis(5));
        let mut after = |came: u64| {
            wait = next_wait(wait, interval, came);
            wait.as_millis()
        };
        assert_eq!([after(0), after(0), after(1)], [10, 20, 10]);
        (0..10).for_each(|_| assert!(after(0) <= 500));
        assert_eq!([after(0), after(3), after(15), after(16), after(1)], [500, 250, 125, 5, 5]);
        let slow = Duration::from_secs(1);
        assert_eq!([next_wait(slow, slow, 0), next_wait(slow, slow, 1)], [slow, slow]);
    }
}
