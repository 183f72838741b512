//! Recent spans in a ring: one writer, any number of readers and followers.
//!
//! Holds a stated number of spans, the oldest goes first; each is counted as stored and, later, as evicted.
//! Readers hold the lock for at most `CHUNK` spans at a time. A follower that is slower than the spans
//! come loses the oldest it has not read and is told how many.

use std::collections::VecDeque;
use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{broadcast, mpsc};

use crate::model::span::{Span, StatusCode, TraceId};

/// Spans looked at under one lock: a few µs.
const CHUNK: usize = 256;
/// Spans that a follower may be behind.
const FOLLOW_CAPACITY: usize = 4096;

/// Which spans are wanted. Absent means any.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SpanFilter {
    pub service: Option<String>,
    pub status: Option<StatusCode>,
    pub min_duration_ns: u64,
    pub name: Option<String>,
    pub trace: Option<TraceId>,
}

impl SpanFilter {
    pub fn matches(&self, span: &Span) -> bool {
        self.service.as_ref().is_none_or(|service| *service == span.resource.service_name)
            && self.status.is_none_or(|status| status == span.status)
            && self.trace.is_none_or(|trace| trace == span.trace_id)
            && span.duration_ns() >= self.min_duration_ns
            && self.name.as_ref().is_none_or(|name| *name == span.name)
    }
}

#[derive(Debug)]
struct Ring {
    spans: VecDeque<Arc<Span>>,
    /// Number of the span that comes next; the first ever is 0.
    next: u64,
}

/// The store.
#[derive(Debug)]
pub struct Spans {
    capacity: usize,
    ring: Mutex<Ring>,
    followers: broadcast::Sender<Arc<Span>>,
    /// Where every span is handed on to, with what there was no room for.
    tap: Option<mpsc::Sender<Arc<Span>>>,
    refused_by_tap: Arc<AtomicU64>,
    evicted: AtomicU64,
    lost_by_followers: AtomicU64,
}

impl Spans {
    /// `capacity` below 1 counts as 1.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            ring: Mutex::new(Ring { spans: VecDeque::new(), next: 0 }),
            followers: broadcast::Sender::new(FOLLOW_CAPACITY),
            tap: None,
            refused_by_tap: Arc::default(),
            evicted: AtomicU64::new(0),
            lost_by_followers: AtomicU64::new(0),
        }
    }

    /// Hands every span on from now on, each once and in order, at most `capacity` ahead of who takes them. What there is
    /// no room for is counted in the second value. The queue ends when the store is gone.
    pub fn tap(&mut self, capacity: usize) -> (mpsc::Receiver<Arc<Span>>, Arc<AtomicU64>) {
        let (tap, spans) = mpsc::channel(capacity.max(1));
        self.tap = Some(tap);
        (spans, Arc::clone(&self.refused_by_tap))
    }

    /// Keeps a span; never waits for a follower.
    pub fn push(&self, span: Span) {
        let span = Arc::new(span);
        if let Some(tap) = &self.tap
            && tap.try_send(Arc::clone(&span)).is_err()
        {
            self.refused_by_tap.fetch_add(1, Ordering::Relaxed);
        }
        let mut ring = self.lock();
        ring.next += 1;
        // Dropped after the lock is given back: freeing a span is not the readers' time.
        let oldest = if ring.spans.len() >= self.capacity { ring.spans.pop_front() } else { None };
        ring.spans.push_back(Arc::clone(&span));
        // Under the lock, so that a follower that begins now sees each span exactly once.
        let _nobody_follows = self.followers.send(span);
        drop(ring);
        if oldest.is_some() {
            self.evicted.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The newest spans that match, newest first, at most `limit`.
    pub fn recent(&self, filter: &SpanFilter, limit: usize) -> Vec<Arc<Span>> {
        self.recent_before(u64::MAX, filter, limit)
    }

    fn recent_before(&self, end: u64, filter: &SpanFilter, limit: usize) -> Vec<Arc<Span>> {
        let mut found = Vec::new();
        if limit > 0 {
            self.visit_before(end, |span| {
                if filter.matches(&span) {
                    found.push(span);
                }
                if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
        }
        found
    }

    /// Shows every span, newest first, until told to stop. Spans that come meanwhile are not shown. Cost: one look at each
    /// span of the ring; there is no index.
    pub fn visit(&self, look: impl FnMut(Arc<Span>) -> ControlFlow<()>) {
        self.visit_before(u64::MAX, look);
    }

    fn visit_before(&self, end: u64, mut look: impl FnMut(Arc<Span>) -> ControlFlow<()>) {
        let mut end = end;
        loop {
            let chunk: Vec<_> = {
                let ring = self.lock();
                let first = ring.next - ring.spans.len() as u64;
                end = end.min(ring.next);
                let upto = usize::try_from(end.saturating_sub(first)).unwrap_or(ring.spans.len());
                let from = upto.saturating_sub(CHUNK);
                end = first + from as u64;
                ring.spans.range(from..upto).rev().cloned().collect()
            };
            if chunk.is_empty() || chunk.into_iter().any(|span| look(span).is_break()) {
                return;
            }
        }
    }

    /// The newest spans that match, oldest first, and all that come after them.
    pub fn follow(self: &Arc<Self>, filter: SpanFilter, limit: usize) -> (Vec<Arc<Span>>, Follower) {
        let (begin, incoming) = {
            let ring = self.lock();
            (ring.next, self.followers.subscribe())
        };
        let mut recent = self.recent_before(begin, &filter, limit);
        recent.reverse();
        (recent, Follower { spans: Arc::clone(self), incoming, filter })
    }

    /// Spans ever stored.
    pub fn stored(&self) -> u64 {
        self.lock().next
    }

    /// Numbers of the spans that it holds; the first ever stored has 0.
    pub fn held(&self) -> Range<u64> {
        let ring = self.lock();
        ring.next - ring.spans.len() as u64..ring.next
    }

    /// Spans that made room for newer ones.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Spans that followers were too slow for.
    pub fn lost_by_followers(&self) -> u64 {
        self.lost_by_followers.load(Ordering::Relaxed)
    }

    pub fn len(&self) -> usize {
        self.lock().spans.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a follower gets next.
#[derive(Clone, Debug, PartialEq)]
pub enum Followed {
    Span(Arc<Span>),
    /// So many spans (of any kind) went by unread.
    Lost(u64),
}

/// One follower's place in the stream of spans.
#[derive(Debug)]
pub struct Follower {
    spans: Arc<Spans>,
    incoming: broadcast::Receiver<Arc<Span>>,
    filter: SpanFilter,
}

impl Follower {
    /// Waits for the next matching span.
    pub async fn next(&mut self) -> Followed {
        loop {
            match self.incoming.recv().await {
                Ok(span) if self.filter.matches(&span) => return Followed::Span(span),
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(count)) => {
                    self.spans.lost_by_followers.fetch_add(count, Ordering::Relaxed);
                    return Followed::Lost(count);
                }
                // We hold the store, so the sender lives: this cannot come.
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

#[cfg(test)]
mod tests;
