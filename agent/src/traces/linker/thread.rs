//! Tier C: the same thread, and exactly one request open on it.
//!
//! Holds where a thread serves one request at a time. Two ways to tell: the thread that read the request sends (a thread
//! for each request), or the thread that will write the answer sends (a queue and a pool). What a process does not do
//! is seen from its own spans ([`Threads`]): threads with two requests open at once, or answers by other threads than
//! those that read, mean an event loop or tasks that move, and then only a request that is open alone is certain.

use std::collections::BTreeMap;

use super::facts::Facts;
use super::{Child, Missed, Scene, Tier};

/// Share of exceptions below which a habit holds.
const TOLERATED: f64 = 0.005;
/// Counts are halved above this: what a process does may change.
const MEMORY: f64 = 20_000.0;
/// Spans sent while nothing was open after which an operation is one that the process does on its own, and their share.
const BACKGROUND_LEAST: f64 = 3.0;
const BACKGROUND_SHARE: f64 = 0.02;
const MAX_ALONE: usize = 1_024;

/// How a process uses its threads, as far as its spans have shown.
#[derive(Clone, Debug, Default)]
pub struct Threads {
    served: f64,
    /// Requests read by a thread that had another one open, from another connection.
    interleaved: f64,
    answers: f64,
    /// Answers by another thread than the one that read the request.
    handed_over: f64,
    sent: f64,
    /// Requests sent by a thread that waited for another answer, on another connection.
    overlapping: f64,
    /// Answers read by another thread than the one that sent the request.
    moved: f64,
    /// By thread and operation: spans sent, and those of them while nothing was open; only where there are such.
    alone: BTreeMap<(u32, u64), (f64, f64)>,
    seen_ns: u64,
}

impl Threads {
    /// Takes spans that are new since the last time; both lists by their beginning.
    pub(super) fn observe(&mut self, parents: &[Facts], children: &[Child]) {
        let seen_ns = self.seen_ns;
        let mut busy: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        for parent in parents {
            let new = parent.start_ns > seen_ns || seen_ns == 0;
            let interleaved = occupy(&mut busy, parent);
            if !new {
                continue;
            }
            self.seen_ns = self.seen_ns.max(parent.start_ns);
            self.served += 1.0;
            self.interleaved += f64::from(u8::from(interleaved));
            if parent.end_tid != 0 && parent.is_over() {
                self.answers += 1.0;
                self.handed_over += f64::from(u8::from(parent.end_tid != parent.tid));
            }
        }
        busy.clear();
        for child in children {
            let new = child.facts.start_ns > seen_ns || seen_ns == 0;
            let overlaps = occupy(&mut busy, &child.facts);
            if !new {
                continue;
            }
            self.seen_ns = self.seen_ns.max(child.facts.start_ns);
            self.sent += 1.0;
            self.overlapping += f64::from(u8::from(overlaps));
            self.moved += f64::from(u8::from(child.facts.end_tid != 0 && child.facts.end_tid != child.facts.tid));
            let (key, alone) = ((child.facts.tid, child.facts.operation), child.missed == Missed::NoneOpen);
            if self.alone.contains_key(&key) || (alone && self.alone.len() < MAX_ALONE) {
                let (sent, others) = self.alone.entry(key).or_default();
                (*sent, *others) = (*sent + 1.0, *others + f64::from(u8::from(alone)));
            }
        }
        if self.served.max(self.sent) > MEMORY {
            self.fade();
        }
    }

    fn fade(&mut self) {
        let sums = [
            &mut self.served,
            &mut self.interleaved,
            &mut self.answers,
            &mut self.handed_over,
            &mut self.sent,
            &mut self.overlapping,
            &mut self.moved,
        ];
        sums.into_iter().for_each(|sum| *sum /= 2.0);
        self.alone.values_mut().for_each(|(sent, alone)| (*sent, *alone) = (*sent / 2.0, *alone / 2.0));
        self.alone.retain(|_, (sent, _)| *sent >= 1.0);
    }

    /// A thread that has a request works on that one, whoever read it.
    pub(super) fn keep_to_their_requests(&self) -> bool {
        self.one_at_a_time() || self.pool()
    }

    /// A thread serves one request at a time, from its first byte to its answer.
    fn one_at_a_time(&self) -> bool {
        self.interleaved <= TOLERATED * self.served && self.handed_over <= TOLERATED * self.answers
    }

    /// A thread that sends waits for the answer, and another one has read the request.
    fn pool(&self) -> bool {
        let blocking = self.overlapping <= TOLERATED * self.sent && self.moved <= TOLERATED * self.sent;
        blocking && self.handed_over > TOLERATED * self.answers
    }

    /// The thread sends it on its own as well.
    fn is_background(&self, sent: &Facts) -> bool {
        self.alone
            .get(&(sent.tid, sent.operation))
            .is_some_and(|(sent, alone)| *alone >= BACKGROUND_LEAST && *alone > BACKGROUND_SHARE * sent)
    }
}

/// Takes note that a span's thread is at work; whether it was before, for another connection.
fn occupy(busy: &mut BTreeMap<u32, (u64, u64)>, span: &Facts) -> bool {
    let (until_ns, socket) = busy.get(&span.tid).copied().unwrap_or_default();
    let was_busy = until_ns > span.start_ns;
    if span.end_ns >= until_ns {
        busy.insert(span.tid, (span.end_ns, span.socket));
    }
    was_busy && (socket != span.socket || socket == 0)
}

pub(super) fn decide(tier: &Tier, scene: &mut Scene<'_>) {
    let (one_at_a_time, pool) = (scene.model.threads.one_at_a_time(), scene.model.threads.pool());
    scene.decide_each(tier, |scene, child| {
        let tid = child.facts.tid;
        if scene.model.threads.is_background(&child.facts) {
            return None;
        }
        if one_at_a_time {
            return scene.only(child, |parent| parent.tid == tid);
        }
        if pool && let Some(parent) = answered_next(scene, child) {
            return Some(parent);
        }
        scene.only(child, |_| true).filter(|parent| scene.parents.get(*parent).is_some_and(|parent| parent.tid == tid))
    });
}

/// The request that the sending thread answers next.
fn answered_next(scene: &Scene<'_>, child: &Child) -> Option<usize> {
    // One that is open may be answered by the same thread before the others.
    if !child.ready {
        return None;
    }
    let of_thread = scene.open_at(child).filter_map(|parent| Some((parent, scene.parents.get(parent)?)));
    let mut answered: Vec<(u64, usize)> = of_thread
        .filter(|(_, parent)| parent.end_tid == child.facts.tid && parent.is_over())
        .map(|(place, parent)| (parent.end_ns, place))
        .collect();
    answered.sort_unstable();
    let (end_ns, parent) = *answered.first()?;
    (child.facts.end_ns <= end_ns).then_some(parent)
}
