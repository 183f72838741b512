//! For whom a task sent that has a connection to itself: it wakes first who waits for the answer that it has read.
//!
//! Only of a request that was alone on its connection: of several that are answered together, the first wake-up is for
//! the first of them and the last byte is another one's. One that turns out to have been open beside it takes back what
//! was found. Bounded by [`Config::remembered`](super::Config) connections; what finds no room is counted and tells nothing.

use crate::model::connection::Cookie;
use crate::model::hashing::Map;
use crate::traces::linker::Facts;
use crate::traces::linker::window::trim;
use crate::traces::tasks::Answered;

use super::Live;

/// The request that was over last on a connection.
#[derive(Debug)]
struct Last {
    span: u64,
    pid: u32,
    /// When it was over, or one before it if that was later, ns.
    end_ns: u64,
    /// None that is known of was open beside it.
    is_alone: bool,
    /// End of the last one of which it was found whom it was for, ns; 0: none was.
    found_ns: u64,
}

/// Connections of processes whose tasks are told to wake each other.
#[derive(Debug)]
pub struct Askers {
    last: Map<Cookie, Last>,
    capacity: usize,
}

impl Askers {
    pub fn new(capacity: usize) -> Self {
        Self { last: Map::default(), capacity }
    }

    fn has_room(&self, cookie: Cookie) -> bool {
        self.last.len() < self.capacity || self.last.contains_key(&cookie)
    }

    /// A request is over. Whether it was open beside one of which it was found whom it was for.
    fn over(&mut self, cookie: Cookie, span: u64, pid: u32, facts: &Facts) -> bool {
        let before = self.last.get(&cookie).map_or((0, 0), |last| (last.end_ns, last.found_ns));
        let (before_ns, found_ns) = before;
        let end_ns = facts.end_ns.max(before_ns);
        let is_alone = before_ns <= facts.start_ns;
        self.last.insert(cookie, Last { span, pid, end_ns, is_alone, found_ns });
        found_ns > facts.start_ns
    }

    /// The request that an answer ends.
    fn of(&mut self, answered: &Answered) -> Option<u64> {
        let last = self.last.get_mut(&answered.socket)?;
        if !last.is_alone || (last.pid, last.end_ns) != (answered.pid, answered.end_ns) {
            return None;
        }
        last.found_ns = last.end_ns;
        Some(last.span)
    }

    pub fn closed(&mut self, cookie: Cookie) {
        self.last.remove(&cookie);
    }

    /// Forgets what was over before; it is decided by now.
    pub fn forget_before(&mut self, ktime_ns: u64) {
        self.last.retain(|_, last| last.end_ns >= ktime_ns);
        trim(&mut self.last);
    }

    /// Name, entries and capacity of the table.
    pub fn size(&self) -> (&'static str, usize, usize) {
        ("link_askers", self.last.len(), self.capacity)
    }
}

impl Live {
    /// A task that sends for others has read an answer, and wakes who waited for it. Told in the order of time, so
    /// before that one has answered in its turn: a span is not decided while a request that may be its parent is open.
    pub fn asker(&mut self, answered: Answered) {
        if let Some(span) = self.askers.of(&answered)
            && self.held.contains_key(&span)
            && let Some(process) = self.processes.get_mut(&answered.pid)
            && let Some(facts) = process.process.undecided_of(span)
        {
            facts.asker = answered.steps;
            facts.drives |= answered.drives;
        }
    }

    /// A request that a process sent is over.
    pub(super) fn last_on(&mut self, cookie: Cookie, span: u64, pid: u32, facts: &Facts) {
        if facts.wakers.is_none() {
            return;
        }
        if !self.askers.has_room(cookie) {
            return self.count("link_no_room_for_asker");
        }
        if self.askers.over(cookie, span, pid, facts)
            && let Some(process) = self.processes.get_mut(&pid)
        {
            let beside = |other: &&mut Facts| other.socket == cookie.0 && other.end_ns > facts.start_ns;
            process.process.undecided().filter(beside).for_each(|other| other.asker.clear());
        }
    }
}
