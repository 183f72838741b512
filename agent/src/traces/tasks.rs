//! Tasks of language runtimes as they come and go: names that are given again to ids that are not, and from each task to
//! those that it came from: the one that began it, and the one that woke it up for what it does.
//!
//! In: what the kernel programs tell, in the order of time. A task is known from its beginning, or from the first
//! thing that it does; what is older than the agent has no ancestors. A wake-up stands for one request: of what a task
//! sends after it, only the first is known to be for the one that woke it (who adds to a queue that is not empty wakes
//! nobody), and where two tasks woke it before it ran, nothing is. A task with a connection to itself that wakes another one
//! after it has read did so for that one: it is who waited for the answer. Where that one waits for something of its own, such
//! a wake-up is a permit or a lock that was given back. Bounded by [`Config::tasks`](super::link::Config): the one that was
//! begun longest ago is forgotten first, counted; a process takes its tasks with it.

use std::collections::{BTreeMap, VecDeque};

use crate::model::connection::{Cookie, Direction};
use crate::model::hashing::Map;
use crate::model::task::{TaskEvent, TaskEventKind, TaskName, Wake};

/// Steps from a task to those that it came from.
const GENERATIONS: usize = 8;

/// A task that another one came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ancestor {
    pub task: u64,
    /// When it began the task that leads down from it, or woke it up, ns.
    pub born_ns: u64,
}

/// A task that sends for others over a connection of its own has read, and wakes who waited for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    pub pid: u32,
    pub socket: Cookie,
    /// When it had read last, ns.
    pub end_ns: u64,
    /// The one that it woke, with the time at which it did, and those that began that one, the nearest first.
    pub steps: Vec<Ancestor>,
    /// It has woken one with an answer that had woken it to send: it sends for whoever does.
    pub drives: bool,
}

/// That another task let one go on.
#[derive(Clone, Copy, Debug)]
struct Woken {
    wake: Wake,
    /// Something was sent since,
    sent: bool,
    /// or another task woken.
    passed_on: bool,
}

#[derive(Debug)]
struct Task {
    name: TaskName,
    /// `None`: it is older than what was told, or nobody's.
    from: Option<Ancestor>,
    /// It has read a request.
    serves: bool,
    /// Where it is told which task wakes which, and this one was woken or moved bytes.
    doings: Option<Box<Doings>>,
}

#[derive(Debug, Default)]
struct Doings {
    woken: Option<Woken>,
    /// When it was woken for the latest request of which that is known, ns.
    taken_ns: u64,
    /// The only socket that it has moved bytes on; `None` before the first, or after several.
    socket: Option<Cookie>,
    /// It has moved bytes on some socket,
    moved: bool,
    /// and sent some,
    sent: bool,
    /// and received some,
    received: bool,
    /// and sent after that.
    again: bool,
    /// It received last, and was not woken since.
    has_read: bool,
    /// When it received last, ns, where it has done nothing for another task since.
    read_ns: Option<u64>,
    /// Whom it woke after it had received had woken it to send.
    drives: bool,
}

impl Task {
    fn doings(&mut self) -> &mut Doings {
        self.doings.get_or_insert_default()
    }

    /// What it did where it asks, over a connection that may be its own, and does not serve.
    fn asks(&self) -> Option<&Doings> {
        self.doings.as_deref().filter(|doings| !self.serves && doings.socket.is_some())
    }
}

/// Of one process.
#[derive(Debug, Default)]
struct Process {
    by_name: Map<TaskName, u64>,
    by_id: Map<u64, Task>,
    /// Its tasks wake each other.
    wakes: bool,
}

impl Process {
    fn ancestors(&self, task: u64) -> impl Iterator<Item = Ancestor> {
        let step = |task: u64| self.by_id.get(&task)?.from;
        std::iter::successors(step(task), move |ancestor| step(ancestor.task)).take(GENERATIONS)
    }

    /// A task that has its answer wakes another one that waits for the same: it has given back what both need, a permit or
    /// a lock. That is no request and no answer.
    fn gives_way(&self, by: u64, woken: u64) -> bool {
        let task = |task: u64| self.by_id.get(&task);
        let asks = |id: u64| task(id).and_then(Task::asks);
        let woken_by = |id: u64| task(id)?.doings.as_ref()?.woken.map(|before| before.wake.by);
        // Both ask over connections of their own, and what the one has read is not for the other one.
        if asks(woken).is_some() && asks(by).is_some_and(|by| by.has_read) && woken_by(by) != Some(woken) {
            return true;
        }
        // The one was woken by a task that it had woken; the other one by a third, for something that it has not begun.
        let answered = woken_by(by).filter(|third| *third != woken && woken_by(*third) == Some(by));
        let waiting = task(woken).filter(|task| !task.serves).and_then(|task| task.doings.as_ref()?.woken);
        answered.is_some() && waiting.is_some_and(|before| !before.sent && !before.passed_on && before.wake.by != by)
    }
}

#[derive(Debug)]
pub struct Tasks {
    processes: BTreeMap<u32, Process>,
    /// The oldest first; holds some that are gone.
    order: VecDeque<(u32, u64)>,
    /// Sockets that send for a task.
    lent: Map<Cookie, u64>,
    /// Sockets of processes whose tasks wake each other, and the only task that has moved bytes on it; `None` after several.
    movers: Map<Cookie, Option<u64>>,
    capacity: usize,
    next: u64,
    count: usize,
    evicted: u64,
}

impl Tasks {
    pub fn new(capacity: usize) -> Self {
        Self {
            processes: BTreeMap::new(),
            order: VecDeque::new(),
            lent: Map::default(),
            movers: Map::default(),
            capacity: capacity.max(1),
            next: 0,
            count: 0,
            evicted: 0,
        }
    }

    /// Learns where a task comes from, or for which one a socket sends; says whom an answer was for, where it is told by that.
    pub fn event(&mut self, event: &TaskEvent) -> Option<Answered> {
        match event.kind {
            TaskEventKind::Born { parent } => {
                let from = Ancestor { task: self.id(event.pid, parent), born_ns: event.ktime_ns };
                self.begin(event.pid, event.task, Some(from));
            }
            TaskEventKind::Lent { socket } => {
                let task = self.id(event.pid, event.task);
                if self.lent.len() < self.capacity || self.lent.contains_key(&socket) {
                    self.lent.insert(socket, task);
                } else {
                    self.evicted += 1;
                }
            }
            TaskEventKind::Woken { by, too } => {
                let (task, by) = (self.id(event.pid, event.task), self.id(event.pid, by));
                let wake = Wake { by, ktime_ns: event.ktime_ns, drives: false };
                let process = self.processes.entry(event.pid).or_default();
                process.wakes = true;
                let gives_way = process.gives_way(by, task);
                if let Some(by) = process.by_id.get_mut(&by).and_then(|by| by.doings.as_mut()?.woken.as_mut()) {
                    by.passed_on = true;
                }
                if gives_way {
                    return None;
                }
                if let Some(task) = self.task(event.pid, task) {
                    let task = task.doings();
                    // Woken by two for two reasons: what it does first is for either.
                    let is_either = too && task.woken.is_some_and(|before| !before.sent && before.wake.by != wake.by);
                    task.woken = (!is_either).then_some(Woken { wake, sent: false, passed_on: false });
                    // What it does from now on may be for its waker.
                    (task.read_ns, task.has_read) = (None, false);
                }
                return self.answered(event.pid, wake, task);
            }
        }
        None
    }

    /// Whom a task wakes first after it has read, if it sends for others over a connection that it has to itself.
    fn answered(&mut self, pid: u32, wake: Wake, woken: u64) -> Option<Answered> {
        let movers = &self.movers;
        let process = self.processes.get_mut(&pid)?;
        let doings = process.by_id.get_mut(&wake.by)?.doings.as_mut()?;
        let (end_ns, socket) = (doings.read_ns.take()?, doings.socket?);
        if movers.get(&socket) != Some(&Some(wake.by)) {
            return None;
        }
        doings.drives |= doings.woken.is_some_and(|before| before.sent && before.wake.by == woken);
        let drives = doings.drives;
        let asker = Ancestor { task: woken, born_ns: wake.ktime_ns };
        let steps = std::iter::once(asker).chain(process.ancestors(woken)).take(GENERATIONS).collect();
        Some(Answered { pid, socket, end_ns, steps, drives })
    }

    /// The task that an operation on a socket is done for, and for a send the wake-up that it may be for; `None` where
    /// nothing tells. It was done at `ktime_ns`.
    pub fn of(
        &mut self,
        pid: u32,
        name: TaskName,
        socket: Cookie,
        direction: Direction,
        ktime_ns: u64,
    ) -> (Option<u64>, Option<Wake>) {
        let sends = direction == Direction::Send;
        if sends && let Some(task) = self.lent.get(&socket) {
            return (Some(*task), None);
        }
        if name.0 == 0 {
            return (None, None);
        }
        let id = self.id(pid, name);
        (Some(id), self.moved((pid, id), socket, sends, ktime_ns))
    }

    /// A task moves bytes; for a send, the wake-up that it may be for.
    fn moved(&mut self, (pid, id): (u32, u64), socket: Cookie, sends: bool, ktime_ns: u64) -> Option<Wake> {
        let process = self.processes.get_mut(&pid).filter(|process| process.wakes)?;
        let task = process.by_id.get_mut(&id)?.doings();
        let is_known = self.movers.len() < self.capacity || self.movers.contains_key(&socket);
        self.evicted += u64::from(!is_known);
        let mover = is_known.then(|| self.movers.entry(socket).or_insert(Some(id)));
        let is_alone = mover.is_some_and(|mover| {
            *mover = mover.filter(|mover| *mover == id);
            mover.is_some()
        });
        task.socket = if task.moved { task.socket.filter(|only| *only == socket) } else { Some(socket) };
        task.moved = true;
        task.has_read = !sends;
        if !sends {
            task.received = true;
            // Before it sends again it may serve one request, and wake others for what they wait for at its end.
            task.read_ns = task.again.then_some(ktime_ns);
            return None;
        }
        (task.again, task.read_ns) = (task.received, None);
        let drives = std::mem::replace(&mut task.sent, true) && is_alone && task.socket.is_some();
        let woken = task.woken.as_mut().filter(|woken| !woken.sent)?;
        woken.sent = true;
        Some(Wake { drives, ..woken.wake })
    }

    /// A task has read a request that its process serves.
    pub fn serves(&mut self, pid: u32, task: u64) {
        if let Some(task) = self.task(pid, task) {
            task.serves = true;
        }
    }

    /// Those that a task came from by being begun, the nearest first.
    pub fn ancestors(&self, pid: u32, task: u64) -> Vec<Ancestor> {
        self.processes.get(&pid).map(|process| process.ancestors(task).collect()).unwrap_or_default()
    }

    /// Those that a request came from that a task sent after a wake-up, the nearest first: who woke it, those that began
    /// that one, who woke that one, and so on. Asked once for each request: a wake-up is for one alone.
    pub fn wakers(&mut self, pid: u32, task: u64, wake: Wake) -> Vec<Ancestor> {
        let mut wakers = Vec::new();
        let Some(process) = self.processes.get_mut(&pid) else { return wakers };
        let mut next = Some((task, wake));
        while let Some((task, wake)) = next.take()
            && let Some(task) = process.by_id.get_mut(&task).map(Task::doings)
            && wake.ktime_ns > task.taken_ns
            && wakers.len() < GENERATIONS
        {
            task.taken_ns = wake.ktime_ns;
            wakers.push(Ancestor { task: wake.by, born_ns: wake.ktime_ns });
            wakers.extend(process.ancestors(wake.by));
            // One that was woken again since has done something else by now.
            let doings = process.by_id.get(&wake.by).and_then(|waker| waker.doings.as_ref());
            let before = doings.and_then(|doings| doings.woken.map(|woken| woken.wake));
            next = before.filter(|before| before.ktime_ns <= wake.ktime_ns).map(|before| (wake.by, before));
        }
        wakers.truncate(GENERATIONS);
        wakers
    }

    /// Whether it is told which task of a process wakes which.
    pub fn wake_each_other(&self, pid: u32) -> bool {
        self.processes.get(&pid).is_some_and(|process| process.wakes)
    }

    fn task(&mut self, pid: u32, id: u64) -> Option<&mut Task> {
        self.processes.get_mut(&pid)?.by_id.get_mut(&id)
    }

    /// The process is gone, or runs another program.
    pub fn ended(&mut self, pid: u32) {
        if let Some(process) = self.processes.remove(&pid) {
            self.count -= process.by_id.len();
        }
        if self.count == 0 {
            self.order.clear();
        }
    }

    /// The socket is gone.
    pub fn closed(&mut self, socket: Cookie) {
        self.lent.remove(&socket);
        self.movers.remove(&socket);
    }

    /// Tasks that are known, and how many can be.
    pub fn size(&self) -> (usize, usize) {
        (self.count, self.capacity)
    }

    /// Tasks that were forgotten, and moves on sockets that were not remembered, for lack of room.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    fn id(&mut self, pid: u32, name: TaskName) -> u64 {
        let known = self.processes.get(&pid).and_then(|process| process.by_name.get(&name));
        known.copied().unwrap_or_else(|| self.begin(pid, name, None))
    }

    fn begin(&mut self, pid: u32, name: TaskName, from: Option<Ancestor>) -> u64 {
        while self.count >= self.capacity {
            self.evict();
        }
        self.next += 1;
        let id = self.next;
        let process = self.processes.entry(pid).or_default();
        if let Some(before) = process.by_name.insert(name, id)
            && process.by_id.remove(&before).is_some()
        {
            self.count -= 1;
        }
        process.by_id.insert(id, Task { name, from, serves: false, doings: None });
        self.count += 1;
        self.order.push_back((pid, id));
        if self.order.len() > 2 * self.capacity {
            let processes = &self.processes;
            self.order.retain(|(pid, id)| processes.get(pid).is_some_and(|process| process.by_id.contains_key(id)));
        }
        id
    }

    fn evict(&mut self) {
        let Some((pid, id)) = self.order.pop_front() else { return };
        let Some(process) = self.processes.get_mut(&pid) else { return };
        let Some(task) = process.by_id.remove(&id) else { return };
        process.by_name.remove(&task.name);
        self.count -= 1;
        self.evicted += 1;
        if process.by_id.is_empty() {
            self.processes.remove(&pid);
        }
    }
}

#[cfg(test)]
mod tests;
