//! The thread that empties the ring: copies records into batches and hands them on, and never blocks.
//!
//! Woken by a timer, not by the kernel: records cost no wake-up (80–110 ns each). When the pipeline is behind and the
//! queue is full, the newest batch is dropped and counted. Bound: [`QUEUE_BATCHES`] × [`BATCH_BYTES`] (16 MiB).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use bytes::Bytes;

use super::decode::{Batch, align};
use crate::health::{Health, Stage};

/// Batches that may wait for the pipeline.
pub const QUEUE_BATCHES: usize = 64;
/// A batch is handed on when it reaches this size, or when the ring is empty.
pub const BATCH_BYTES: usize = 256 * 1024;

/// Drains until `stop` is set, then until the ring is empty, and returns.
pub fn run(
    mut ring: RingBuf<MapData>,
    interval: Duration,
    health: &Arc<Health>,
    queue: &SyncSender<Batch>,
    stop: &AtomicBool,
) {
    let mut buffer = Vec::new();
    loop {
        let stopping = stop.load(Ordering::Acquire);
        while drain_once(&mut ring, &mut buffer, health, queue) {}
        if stopping {
            return;
        }
        std::thread::sleep(interval);
    }
}

/// Fills and hands on one batch; true if the ring may hold more.
fn drain_once(ring: &mut RingBuf<MapData>, buffer: &mut Vec<u8>, health: &Health, queue: &SyncSender<Batch>) -> bool {
    let mut records = 0;
    let mut more = false;
    while let Some(record) = ring.next() {
        buffer.extend_from_slice(&record);
        buffer.resize(align(buffer.len()), 0);
        records += 1;
        if buffer.len() >= BATCH_BYTES {
            more = true;
            break;
        }
    }
    if records == 0 {
        return false;
    }
    health.enter(Stage::Collected, records);
    // The buffer is copied to its exact size: what waits in the queue holds no slack.
    let batch = Batch { bytes: Bytes::copy_from_slice(buffer), records };
    buffer.clear();
    match queue.try_send(batch) {
        Ok(()) => health.pass(Stage::Collected, records),
        Err(TrySendError::Full(_)) => health.lose(Stage::Collected, "queue_full", records),
        Err(TrySendError::Disconnected(_)) => health.lose(Stage::Collected, "pipeline_gone", records),
    }
    more
}
