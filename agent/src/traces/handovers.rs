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
/// Steps that are looked back: longer ways were mostly wrong (`cargo xtask accuracy java`).
const BACK: usize = 2;
/// How often a thread may be woken again before it hands the answer on: locks wake it, too.
const ROUNDS: u8 = 3;
/// Hand-overs of a thread after it was woken of which each may still be for who woke it: one that goes on for longer has
/// found more to do than it was woken for.
const FRESH: usize = 2;
/// Threads that are looked at in one round.
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
            let Some(Turn { at_ns, other, how }) = count.checked_sub(1).and_then(|last| turns.get(last)).copied()
            else {
                break;
            };
            if steps.is_empty() && self.next_moved(tid, at_ns).is_some_and(|moved_ns| moved_ns < sent_ns) {
                break;
            }
            if !steps.is_empty() && self.count_between(to, at_ns, until_ns) >= FRESH {
                break;
            }
            steps.push(Step { tid: other, at_ns, how, distance: steps.len() as u8 + 1 });
            (to, until_ns) = (other, at_ns);
        }
        steps
    }

    /// Whom a thread woke or made first after it had read an answer, if before it moved something else: one step away. Whom
    /// that one woke or made until it was woken again: two steps; and from then until the next time: one more.
    pub fn after(&self, tid: u32, read_ns: u64) -> Vec<Step> {
        let step = |turn: &Turn, distance: u8| Step { tid: turn.other, at_ns: turn.at_ns, how: turn.how, distance };
        let Some(first) = self.since(tid, read_ns).next() else { return Vec::new() };
        if self.next_moved(tid, read_ns).is_some_and(|moved_ns| moved_ns <= first.at_ns) {
            return Vec::new();
        }
        let mut steps = vec![step(first, 1)];
        let mut from_ns = first.at_ns;
        for distance in 2..2 + ROUNDS {
            let until_ns = self.next_woken(first.other, from_ns).unwrap_or(u64::MAX);
            let woken = self.since(first.other, from_ns).take_while(|turn| turn.at_ns < until_ns);
            steps.extend(woken.take(WIDTH).map(|turn| step(turn, distance)));
            from_ns = until_ns;
        }
        steps
    }

    /// Hand-overs by a thread after a time.
    fn since(&self, tid: u32, from_ns: u64) -> impl Iterator<Item = &Turn> {
        let turns = self.from.get(&tid);
        turns.into_iter().flat_map(move |turns| turns.range(turns.partition_point(|turn| turn.at_ns <= from_ns)..))
    }

    /// Hand-overs by a thread between two times, without those at their ends.
    fn count_between(&self, tid: u32, from_ns: u64, until_ns: u64) -> usize {
        let Some(turns) = self.from.get(&tid) else { return 0 };
        let first = turns.partition_point(|turn| turn.at_ns <= from_ns);
        turns.partition_point(|turn| turn.at_ns < until_ns).saturating_sub(first)
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

#[cfg(test)]
mod tests {
    use super::{CAPACITY, Handovers, Step};
    use crate::model::handover::{Handover, How};

    fn woke(handovers: &mut Handovers, from: u32, to: u32, ktime_ns: u64) {
        handovers.handed(Handover { pid: 1, from, to, how: How::Woke, ktime_ns });
    }

    fn made(handovers: &mut Handovers, from: u32, to: u32, ktime_ns: u64) {
        handovers.handed(Handover { pid: 1, from, to, how: How::Made, ktime_ns });
    }

    fn told(steps: &[Step]) -> Vec<(u32, u64, u8)> {
        steps.iter().map(|step| (step.tid, step.at_ns, step.distance)).collect()
    }

    #[test]
    fn the_way_back_takes_the_last_hand_over_to_each_thread() {
        let mut handovers = Handovers::default();
        made(&mut handovers, 9, 3, 5);
        woke(&mut handovers, 1, 2, 10);
        // Comes late, and is before the others.
        woke(&mut handovers, 7, 2, 8);
        woke(&mut handovers, 2, 3, 20);
        woke(&mut handovers, 8, 2, 25);
        assert_eq!(told(&handovers.before(3, 30)), [(2, 20, 1), (1, 10, 2)]);
        assert_eq!(told(&handovers.before(3, 19)), [(9, 5, 1)]);
        assert_eq!(handovers.before(3, 19)[0].how, How::Made);
        assert_eq!(told(&handovers.before(3, 4)), []);
        assert_eq!(told(&handovers.before(1, 30)), []);
    }

    #[test]
    fn who_has_handed_over_much_since_it_was_woken_found_more_to_do_than_that() {
        let mut handovers = Handovers::default();
        woke(&mut handovers, 1, 2, 10);
        for (to, at_ns) in [(5, 20), (6, 21), (7, 22)] {
            woke(&mut handovers, 2, to, at_ns);
        }
        assert_eq!(told(&handovers.before(6, 30)), [(2, 21, 1), (1, 10, 2)]);
        assert_eq!(told(&handovers.before(7, 30)), [(2, 22, 1)]);
    }

    #[test]
    fn what_a_thread_was_woken_for_is_what_it_moves_first() {
        let mut handovers = Handovers::default();
        woke(&mut handovers, 1, 2, 10);
        handovers.moved(2, 15);
        assert_eq!(told(&handovers.before(2, 15)), [(1, 10, 1)]);
        assert_eq!(told(&handovers.before(2, 20)), []);
        woke(&mut handovers, 3, 2, 18);
        assert_eq!(told(&handovers.before(2, 20)), [(3, 18, 1)]);
    }

    #[test]
    fn the_way_on_ends_where_a_thread_goes_on_to_something_else() {
        let mut handovers = Handovers::default();
        woke(&mut handovers, 1, 2, 10);
        handovers.moved(1, 12);
        woke(&mut handovers, 1, 3, 14);
        woke(&mut handovers, 1, 9, 15);
        woke(&mut handovers, 2, 4, 20);
        woke(&mut handovers, 5, 2, 30);
        woke(&mut handovers, 2, 6, 40);
        woke(&mut handovers, 5, 2, 50);
        woke(&mut handovers, 5, 2, 60);
        woke(&mut handovers, 2, 8, 70);
        assert_eq!(told(&handovers.after(1, 9)), [(2, 10, 1), (4, 20, 2), (6, 40, 3)]);
        assert_eq!(told(&handovers.after(1, 12)), [(3, 14, 1)]);
        assert_eq!(told(&handovers.after(1, 15)), []);
    }

    #[test]
    fn what_is_known_is_bounded_and_the_oldest_goes_first() {
        let mut handovers = Handovers::default();
        for at_ns in 0..3 * CAPACITY as u64 {
            let thread = (at_ns % 1000) as u32 + 1;
            woke(&mut handovers, thread, thread + 1, at_ns);
            handovers.moved(thread, at_ns);
        }
        let sizes = (handovers.len(), handovers.movers.len(), handovers.take_evicted());
        assert_eq!(sizes, (CAPACITY, CAPACITY, 2 * CAPACITY as u64));
        let kept = handovers.to.values().chain(handovers.from.values()).map(|turns| turns.len()).sum::<usize>();
        assert_eq!(kept, 2 * CAPACITY);
        // Threads that wake each other in a circle.
        (0..10).for_each(|turn| woke(&mut handovers, 1 + turn % 2, 2 - turn % 2, 1 << 40 | u64::from(turn)));
        assert!(handovers.before(1, u64::MAX).len() <= 2 && handovers.after(1, 0).len() <= 25);
    }
}
