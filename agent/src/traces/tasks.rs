//! Tasks of language runtimes as they come and go: names that are given again to ids that are not, and from each task to
//! those that it came from: the one that began it, and the one that woke it up for what it does.
//!
//! In: what the kernel programs tell, in the order of time. A task is known from its beginning, or from the first
//! thing that it does; what is older than the agent has no ancestors. A wake-up stands for one request: of what a task
//! sends after it, only the first is known to be for the one that woke it (who adds to a queue that is not empty wakes
//! nobody), and where two tasks woke it before it ran, nothing is. A task with a connection to itself that wakes another one
//! after it has read did so for that one: it is who waited for the answer. Bounded by
//! [`Config::tasks`](super::link::Config): the one that was begun longest ago is forgotten first, counted; a process takes
//! its tasks with it.

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
    /// Something was sent since.
    sent: bool,
}

#[derive(Debug)]
struct Task {
    name: TaskName,
    /// `None`: it is older than what was told, or nobody's.
    from: Option<Ancestor>,
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
    /// When it received last, ns, where it has done nothing for another task since.
    read_ns: Option<u64>,
    /// Whom it woke after it had received had woken it to send.
    drives: bool,
}

impl Task {
    fn doings(&mut self) -> &mut Doings {
        self.doings.get_or_insert_default()
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
                self.processes.entry(event.pid).or_default().wakes = true;
                if let Some(task) = self.task(event.pid, task) {
                    let task = task.doings();
                    // Woken by two for two reasons: what it does first is for either.
                    let is_either = too && task.woken.is_some_and(|before| !before.sent && before.wake.by != wake.by);
                    task.woken = (!is_either).then_some(Woken { wake, sent: false });
                    // What it does from now on may be for its waker.
                    task.read_ns = None;
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
        process.by_id.insert(id, Task { name, from, doings: None });
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
mod tests {
    use super::{Ancestor, Answered, Tasks};
    use crate::model::connection::{Cookie, Direction};
    use crate::model::task::{TaskEvent, TaskEventKind, TaskName};

    fn born(tasks: &mut Tasks, task: u64, parent: u64, ktime_ns: u64) {
        let kind = TaskEventKind::Born { parent: TaskName(parent) };
        tasks.event(&TaskEvent { pid: 1, task: TaskName(task), ktime_ns, kind });
    }

    fn of(tasks: &mut Tasks, name: u64) -> Option<u64> {
        tasks.of(1, TaskName(name), Cookie(9), Direction::Send, 0).0
    }

    fn woken(tasks: &mut Tasks, task: u64, by: u64, ktime_ns: u64, too: bool) -> Option<Answered> {
        let kind = TaskEventKind::Woken { by: TaskName(by), too };
        tasks.event(&TaskEvent { pid: 1, task: TaskName(task), ktime_ns, kind })
    }

    /// 9 asks over 5 and reads the answer, whoever woke it.
    fn asks(tasks: &mut Tasks, at_ns: u64) {
        tasks.of(1, TaskName(9), Cookie(5), Direction::Send, at_ns);
        tasks.of(1, TaskName(9), Cookie(5), Direction::Receive, at_ns + 1);
    }

    /// Whom an answer is for, by names, when it was read, and whether its reader sends for whoever wakes it.
    type Told = (Vec<(u64, u64)>, u64, bool);

    /// 9 wakes a task.
    fn wakes(tasks: &mut Tasks, task: u64, at_ns: u64) -> Option<Told> {
        let Answered { pid, socket, end_ns, steps, drives } = woken(tasks, task, 9, at_ns, false)?;
        assert_eq!((pid, socket), (1, Cookie(5)));
        let name = |id: u64| tasks.processes[&1].by_id[&id].name.0;
        Some((steps.into_iter().map(|step| (name(step.task), step.born_ns)).collect(), end_ns, drives))
    }

    /// Whom a task sends its next request for, by their names, and when they began or woke the next one.
    fn sends(tasks: &mut Tasks, name: u64) -> Vec<(u64, u64)> {
        let (task, wake) = tasks.of(1, TaskName(name), Cookie(name), Direction::Send, 0);
        let wakers = wake.map(|wake| tasks.wakers(1, task.unwrap(), wake)).unwrap_or_default();
        let name = |id: u64| tasks.processes[&1].by_id[&id].name.0;
        wakers.into_iter().map(|step| (name(step.task), step.born_ns)).collect()
    }

    #[test]
    fn a_name_that_is_given_again_is_another_task_and_its_children_keep_their_parent() {
        let mut tasks = Tasks::new(100);
        let old = of(&mut tasks, 50).unwrap();
        born(&mut tasks, 60, 50, 10);
        let child = of(&mut tasks, 60).unwrap();
        born(&mut tasks, 50, 70, 20);
        let new = of(&mut tasks, 50).unwrap();
        assert_ne!(old, new);
        assert_eq!(tasks.ancestors(1, child), [Ancestor { task: old, born_ns: 10 }]);
        born(&mut tasks, 80, 50, 30);
        let grandchild = of(&mut tasks, 80).unwrap();
        let root = of(&mut tasks, 70).unwrap();
        let line = [Ancestor { task: new, born_ns: 30 }, Ancestor { task: root, born_ns: 20 }];
        assert_eq!(tasks.ancestors(1, grandchild), line);
        assert_eq!(of(&mut tasks, 0), None);
        assert_eq!(tasks.ancestors(2, grandchild), []);
    }

    #[test]
    fn a_lent_socket_sends_for_the_task_that_asked_last_and_reads_for_nobody_else() {
        let mut tasks = Tasks::new(100);
        let lend = |task: u64| TaskEvent {
            pid: 1,
            task: TaskName(task),
            ktime_ns: 0,
            kind: TaskEventKind::Lent { socket: Cookie(9) },
        };
        tasks.event(&lend(5));
        tasks.event(&lend(6));
        let asking = tasks.of(1, TaskName(6), Cookie(8), Direction::Send, 0).0;
        assert_eq!(of(&mut tasks, 7), asking);
        assert_ne!(tasks.of(1, TaskName(7), Cookie(9), Direction::Receive, 0).0, asking);
        tasks.closed(Cookie(9));
        assert_ne!(of(&mut tasks, 7), asking);
    }

    #[test]
    fn a_wake_up_is_for_one_request_and_leads_to_who_began_or_woke_its_waker() {
        let mut tasks = Tasks::new(100);
        // 1 serves a request, begins 2 for a part of it, which asks over the connection of 9.
        born(&mut tasks, 2, 1, 10);
        woken(&mut tasks, 9, 2, 20, false);
        assert_eq!(sends(&mut tasks, 9), [(2, 20), (1, 10)]);
        // The rest of it, or what was queued behind: nobody woke it for that.
        assert_eq!(sends(&mut tasks, 9), []);
        // Over a queue: 3 hands to 4, which asks over 9; then for something that was in the queue already.
        woken(&mut tasks, 4, 3, 30, false);
        woken(&mut tasks, 9, 4, 40, false);
        assert_eq!(sends(&mut tasks, 9), [(4, 40), (3, 30)]);
        woken(&mut tasks, 9, 4, 50, false);
        assert_eq!(sends(&mut tasks, 9), [(4, 50)]);
        // What wakes the waker later is not why it woke 9.
        woken(&mut tasks, 9, 4, 60, false);
        woken(&mut tasks, 4, 5, 70, false);
        assert_eq!(sends(&mut tasks, 9), [(4, 60)]);
    }

    #[test]
    fn a_request_sent_in_one_piece_with_another_takes_no_wake_up_of_its() {
        let mut tasks = Tasks::new(100);
        woken(&mut tasks, 9, 1, 10, false);
        let (task, wake) = tasks.of(1, TaskName(9), Cookie(9), Direction::Send, 0);
        // The connection's task is woken for the next one before the answers come.
        woken(&mut tasks, 9, 2, 20, false);
        assert_eq!(tasks.wakers(1, task.unwrap(), wake.unwrap()).len(), 1);
        assert_eq!(tasks.wakers(1, task.unwrap(), wake.unwrap()), []);
        assert_eq!(sends(&mut tasks, 9), [(2, 20)]);
    }

    #[test]
    fn what_two_tasks_woke_it_for_before_it_ran_is_for_either() {
        let mut tasks = Tasks::new(100);
        woken(&mut tasks, 9, 1, 10, false);
        woken(&mut tasks, 9, 2, 20, true);
        assert_eq!(sends(&mut tasks, 9), []);
        // Not where it ran in between, nor where both are one.
        woken(&mut tasks, 9, 1, 30, false);
        woken(&mut tasks, 9, 2, 40, false);
        assert_eq!(sends(&mut tasks, 9), [(2, 40)]);
        woken(&mut tasks, 9, 1, 50, false);
        woken(&mut tasks, 9, 1, 60, true);
        assert_eq!(sends(&mut tasks, 9), [(1, 60)]);
        // A read, which nobody is woken for by a task, leaves it for the send.
        woken(&mut tasks, 9, 1, 70, false);
        assert_eq!(tasks.of(1, TaskName(9), Cookie(9), Direction::Receive, 0).1, None);
        assert_eq!(sends(&mut tasks, 9), [(1, 70)]);
    }

    #[test]
    fn a_task_drives_a_connection_that_it_has_to_itself_and_has_sent_over() {
        let mut tasks = Tasks::new(100);
        let send = |tasks: &mut Tasks, name: u64, socket: u64, at: u64| {
            woken(tasks, name, 1, at, false);
            tasks.of(1, TaskName(name), Cookie(socket), Direction::Send, 0).1.unwrap().drives
        };
        assert_eq!([send(&mut tasks, 9, 5, 10), send(&mut tasks, 9, 5, 20)], [false, true]);
        // Another task moves bytes on it.
        assert_eq!([send(&mut tasks, 8, 5, 30), send(&mut tasks, 9, 5, 40)], [false, false]);
        // It has another connection, too.
        assert_eq!([send(&mut tasks, 7, 6, 50), send(&mut tasks, 7, 6, 60)], [false, true]);
        assert_eq!([send(&mut tasks, 7, 4, 70), send(&mut tasks, 7, 6, 80)], [false, false]);
        tasks.closed(Cookie(5));
        assert_eq!(tasks.movers.len(), 2);
    }

    #[test]
    fn an_answer_is_for_the_first_that_is_woken_once_it_is_read() {
        let mut tasks = Tasks::new(100);
        born(&mut tasks, 2, 1, 5);
        woken(&mut tasks, 9, 3, 10, false);
        asks(&mut tasks, 11);
        // It may have been begun for this request alone, and let others have what it had for it.
        assert_eq!(wakes(&mut tasks, 4, 13), None);
        asks(&mut tasks, 20);
        assert_eq!(wakes(&mut tasks, 2, 22), Some((vec![(2, 22), (1, 5)], 21, false)));
        assert_eq!(wakes(&mut tasks, 3, 23), None);
        woken(&mut tasks, 9, 3, 30, false);
        asks(&mut tasks, 31);
        tasks.of(1, TaskName(9), Cookie(5), Direction::Receive, 33);
        assert_eq!(wakes(&mut tasks, 3, 34), Some((vec![(3, 34)], 33, true)), "who had woken it, after the last read");
        asks(&mut tasks, 40);
        assert_eq!(wakes(&mut tasks, 2, 42), Some((vec![(2, 42), (1, 5)], 41, true)));
    }

    #[test]
    fn a_send_or_a_wake_up_after_an_answer_ends_what_it_tells() {
        let mut tasks = Tasks::new(100);
        woken(&mut tasks, 9, 3, 1, false);
        asks(&mut tasks, 10);
        asks(&mut tasks, 20);
        tasks.of(1, TaskName(9), Cookie(5), Direction::Send, 22);
        assert_eq!(wakes(&mut tasks, 3, 23), None);
        asks(&mut tasks, 30);
        woken(&mut tasks, 9, 3, 32, false);
        assert_eq!(wakes(&mut tasks, 3, 33), None);
        asks(&mut tasks, 40);
        assert!(wakes(&mut tasks, 3, 42).is_some());
    }

    #[test]
    fn what_a_task_reads_tells_nothing_where_its_connection_is_not_its_own_or_not_its_only_one() {
        let before = || {
            let mut tasks = Tasks::new(100);
            woken(&mut tasks, 9, 3, 1, false);
            asks(&mut tasks, 10);
            asks(&mut tasks, 20);
            tasks
        };
        assert!(wakes(&mut before(), 3, 24).is_some());
        let mut another_socket = before();
        another_socket.of(1, TaskName(9), Cookie(6), Direction::Receive, 22);
        asks(&mut another_socket, 23);
        assert_eq!(wakes(&mut another_socket, 3, 25), None);
        let mut another_mover = before();
        another_mover.of(1, TaskName(8), Cookie(5), Direction::Receive, 22);
        assert_eq!(wakes(&mut another_mover, 3, 24), None);
        let mut closed = before();
        closed.closed(Cookie(5));
        assert_eq!(wakes(&mut closed, 3, 24), None);
        // Nobody has told which task wakes which.
        let mut untold = Tasks::new(100);
        asks(&mut untold, 10);
        asks(&mut untold, 20);
        assert_eq!(wakes(&mut untold, 3, 24), None);
    }

    #[test]
    fn wakers_in_a_circle_end() {
        let mut tasks = Tasks::new(100);
        for turn in 0..100 {
            woken(&mut tasks, 1 + turn % 2, 1 + (turn + 1) % 2, turn + 1, false);
        }
        let steps = sends(&mut tasks, 1);
        assert!((1..=8).contains(&steps.len()), "{steps:?}");
    }

    #[test]
    fn what_is_known_is_bounded_and_goes_with_its_process() {
        let mut tasks = Tasks::new(10);
        for name in 1..1_000 {
            born(&mut tasks, name, 5_000, name);
        }
        assert_eq!(tasks.size(), (10, 10));
        assert!(tasks.evicted() >= 989, "{}", tasks.evicted());
        assert!(tasks.order.len() <= 20);
        // A line that leads in a circle through names that came back ends.
        (0..100).for_each(|turn| born(&mut tasks, 1 + turn % 2, 1 + (turn + 1) % 2, turn));
        let last = of(&mut tasks, 1).unwrap();
        assert!(tasks.ancestors(1, last).len() <= 8);
        tasks.ended(1);
        assert_eq!((tasks.size().0, tasks.order.len()), (0, 0));
    }
}
