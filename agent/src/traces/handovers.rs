//! Threads of one process that hand work to each other: from who sends back to who woke it, and from who read an answer on
//! to whom it woke.
//!
//! In: hand-overs and the times at which threads moved messages, about in the order of time; out: for a request that was
//! sent the [`Step`]s before it and after its answer. Which of the threads serves a request is not known here. Bounded:
//! [`CAPACITY`] of each for a process, the oldest go first, counted. A look costs a binary search per step.

use std::collections::VecDeque;

use crate::model::handover::{Handover, How};
use crate::model::hashing::Map;

/// Hand-overs, and messages, that are remembered of a process: about 3 MB each.
pub const CAPACITY: usize = 65_536;
/// Steps that are looked back, and on.
const BACK: usize = 4;
const ON: u8 = 3;
/// Threads that are looked at in one step on.
const WIDTH: usize = 8;

/// A thread that another one's work came from, or that it went to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub tid: u32,
    /// When it was handed over, ns.
    pub at_ns: u64,
    pub how: How,
    /// Hand-overs between this thread and the one that sent, or that read the answer.
    pub distance: u8,
}

#[derive(Clone, Copy, Debug)]
struct Turn {
    at_ns: u64,
    other: u32,
    how: How,
}

/// Of one process.
#[derive(Debug, Default)]
pub struct Handovers {
    /// By the thread that was made or woken, and by who did it.
    to: Map<u32, VecDeque<Turn>>,
    from: Map<u32, VecDeque<Turn>>,
    /// When a thread moved the first or the last byte of a message.
    moved: Map<u32, VecDeque<u64>>,
    order: VecDeque<(u32, u32)>,
    movers: VecDeque<u32>,
    evicted: u64,
}

/// Puts something in the order of time; it comes mostly at the end.
fn insert<T>(into: &mut VecDeque<T>, value: T, ns: impl Fn(&T) -> u64) {
    let at = into.iter().rposition(|other| ns(other) <= ns(&value)).map_or(0, |before| before + 1);
    into.insert(at, value);
}

fn drop_first<T>(of: &mut Map<u32, VecDeque<T>>, tid: u32) {
    if let Some(turns) = of.get_mut(&tid) {
        turns.pop_front();
        if turns.is_empty() {
            of.remove(&tid);
        }
    }
}

impl Handovers {
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Hand-overs that are remembered.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Forgotten for lack of room since this was asked last.
    pub fn take_evicted(&mut self) -> u64 {
        std::mem::take(&mut self.evicted)
    }

    pub fn handed(&mut self, Handover { from, to, how, ktime_ns: at_ns, .. }: Handover) {
        insert(self.to.entry(to).or_default(), Turn { at_ns, other: from, how }, |turn| turn.at_ns);
        insert(self.from.entry(from).or_default(), Turn { at_ns, other: to, how }, |turn| turn.at_ns);
        self.order.push_back((from, to));
        while self.order.len() > CAPACITY {
            let Some((from, to)) = self.order.pop_front() else { return };
            drop_first(&mut self.from, from);
            drop_first(&mut self.to, to);
            self.evicted += 1;
        }
    }

    /// A thread moved the first or the last byte of a message; of no account where nothing was handed over.
    pub fn moved(&mut self, tid: u32, at_ns: u64) {
        if self.is_empty() || tid == 0 {
            return;
        }
        insert(self.moved.entry(tid).or_default(), at_ns, |at_ns| *at_ns);
        self.movers.push_back(tid);
        while self.movers.len() > CAPACITY {
            let Some(tid) = self.movers.pop_front() else { return };
            drop_first(&mut self.moved, tid);
        }
    }

    /// Who woke or made a thread last before it sent, who that one, and so on. Nobody where it has moved a message since:
    /// that may be what it was woken for.
    pub fn before(&self, tid: u32, sent_ns: u64) -> Vec<Step> {
        let mut steps = Vec::new();
        let (mut to, mut until_ns) = (tid, sent_ns);
        while steps.len() < BACK {
            let Some(turns) = self.to.get(&to) else { break };
            let count = turns.partition_point(|turn| turn.at_ns <= until_ns);
            let Some(Turn { at_ns, other, how }) = count.checked_sub(1).and_then(|last| turns.get(last)).copied() else {
                break;
            };
            if steps.is_empty() && self.next_moved(tid, at_ns).is_some_and(|moved_ns| moved_ns < sent_ns) {
                break;
            }
            steps.push(Step { tid: other, at_ns, how, distance: steps.len() as u8 + 1 });
            (to, until_ns) = (other, at_ns);
        }
        steps
    }

    /// Whom a thread woke or made after it had read an answer, until it moved something else; whom those woke until they
    /// were woken again; and so on. The nearest first.
    pub fn after(&self, tid: u32, read_ns: u64) -> Vec<Step> {
        let mut steps: Vec<Step> = Vec::new();
        let mut level = vec![(tid, read_ns)];
        for distance in 1..=ON {
            let mut next = Vec::new();
            for (tid, from_ns) in level {
                let moved_ns = if distance == 1 { self.next_moved(tid, from_ns) } else { None };
                let woken_ns = self.next_woken(tid, from_ns);
                let until_ns = moved_ns.unwrap_or(u64::MAX).min(woken_ns.unwrap_or(u64::MAX));
                let Some(turns) = self.from.get(&tid) else { continue };
                let first = turns.partition_point(|turn| turn.at_ns <= from_ns);
                for Turn { at_ns, other, how } in turns.range(first..).take_while(|turn| turn.at_ns < until_ns) {
                    if next.len() < WIDTH {
                        next.push((*other, *at_ns));
                        steps.push(Step { tid: *other, at_ns: *at_ns, how: *how, distance });
                    }
                }
            }
            level = next;
        }
        steps
    }

    fn next_moved(&self, tid: u32, from_ns: u64) -> Option<u64> {
        let moved = self.moved.get(&tid)?;
        moved.get(moved.partition_point(|at_ns| *at_ns <= from_ns)).copied()
    }

    fn next_woken(&self, tid: u32, from_ns: u64) -> Option<u64> {
        let turns = self.to.get(&tid)?;
        turns.get(turns.partition_point(|turn| turn.at_ns <= from_ns)).map(|turn| turn.at_ns)
    }
}
