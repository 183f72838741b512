//! What tasks came from, by what is told of them.

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

#[test]
fn who_gives_back_a_permit_asks_for_nobody_and_answers_nobody() {
    // 9 asks for 3 over 5, and 8 for 4 over 6, each once before, so that they are known.
    let before = || {
        let mut tasks = Tasks::new(100);
        for (name, socket, by) in [(9, 5, 3), (8, 6, 4)] {
            for turn in 0..2 {
                woken(&mut tasks, name, by, 1 + turn, false);
                tasks.of(1, TaskName(name), Cookie(socket), Direction::Send, 2 + turn);
                tasks.of(1, TaskName(name), Cookie(socket), Direction::Receive, 3 + turn);
            }
        }
        tasks
    };
    let sent_for = |tasks: &mut Tasks| {
        let (task, wake) = tasks.of(1, TaskName(8), Cookie(6), Direction::Send, 60);
        let steps = wake.map(|wake| tasks.wakers(1, task.unwrap(), wake)).unwrap_or_default();
        steps.iter().map(|step| tasks.processes[&1].by_id[&step.task].name.0).collect::<Vec<_>>()
    };
    // 8 was handed a request and waits; 9 lets it go on, before it hands on its answer or after.
    for is_before in [true, false] {
        let mut tasks = before();
        woken(&mut tasks, 9, 3, 20, false);
        asks(&mut tasks, 21);
        woken(&mut tasks, 8, 4, 30, false);
        if is_before {
            assert_eq!(wakes(&mut tasks, 8, 40), None);
        }
        assert_eq!(wakes(&mut tasks, 3, 41), Some((vec![(3, 41)], 22, true)));
        if !is_before {
            assert_eq!(wakes(&mut tasks, 8, 42), None);
        }
        assert_eq!(sent_for(&mut tasks), [4]);
    }
    // It found its request without being woken: nobody is known to have asked.
    let mut tasks = before();
    asks(&mut tasks, 21);
    assert_eq!(wakes(&mut tasks, 8, 40), None);
    assert_eq!(sent_for(&mut tasks), [0; 0]);
    // 9 has sent and not read: it asks, whatever it may still wait for.
    let mut tasks = before();
    tasks.of(1, TaskName(9), Cookie(5), Direction::Send, 20);
    woken(&mut tasks, 8, 9, 40, false);
    assert_eq!(sent_for(&mut tasks)[0], 9);
    // One that serves waits for an answer, whoever woke the other one.
    let mut tasks = before();
    let server = tasks.of(1, TaskName(7), Cookie(7), Direction::Receive, 10).0.unwrap();
    tasks.serves(1, server);
    asks(&mut tasks, 21);
    assert_eq!(wakes(&mut tasks, 7, 40).map(|(steps, ..)| steps), Some(vec![(7, 40)]));
}

#[test]
fn a_worker_that_waits_for_a_permit_works_for_who_handed_it_a_request() {
    // 4 and 8 are workers without a connection, 9 asks over 5 for them; 3 serves and hands 8 a request.
    let mut tasks = Tasks::new(100);
    let works = |tasks: &mut Tasks, at_ns: u64| {
        woken(tasks, 4, 2, at_ns, false);
        woken(tasks, 9, 4, at_ns + 1, false);
        asks(tasks, at_ns + 2);
        woken(tasks, 4, 9, at_ns + 4, false);
    };
    woken(&mut tasks, 8, 3, 20, false);
    works(&mut tasks, 21);
    // 4 gives its permit back, and 8 asks.
    woken(&mut tasks, 8, 4, 31, false);
    woken(&mut tasks, 9, 8, 32, false);
    assert_eq!(sends(&mut tasks, 9), [(8, 32), (3, 20)]);
    // The next one is handed on by 4, which 8 does not wait for: that has passed on what it was woken for.
    works(&mut tasks, 40);
    woken(&mut tasks, 8, 4, 45, false);
    woken(&mut tasks, 9, 8, 46, false);
    assert_eq!(sends(&mut tasks, 9)[..2], [(8, 46), (4, 45)]);
}
