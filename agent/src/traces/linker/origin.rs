//! Threads that handed work to each other, and the requests that were open on them.
//!
//! A thread holds a request that it has read or answers, from its beginning to its end. A step to a thread with one open
//! request decides, one to a thread with several decides that nothing is known, and one to a thread with none leads on.

use super::{Child, Scene};
use crate::traces::handovers::Step;

/// The requests that were open on a thread at a step, of those that can be a span's parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    None,
    One(usize),
    Several,
}

pub(super) fn holds(scene: &Scene<'_>, child: &Child, step: Step) -> Holds {
    let mut matching = scene.open_at(child).filter(|place| {
        scene.parents.get(*place).is_some_and(|parent| {
            (parent.tid == step.tid || parent.end_tid == step.tid)
                && parent.start_ns <= step.at_ns
                && step.at_ns <= parent.end_ns
        })
    });
    match (matching.next(), matching.next()) {
        (None, _) => Holds::None,
        (Some(one), None) => Holds::One(one),
        (Some(_), Some(_)) => Holds::Several,
    }
}

/// The request of the nearest thread that has one, and the place of that thread; each is one step further.
pub(super) fn nearest(scene: &Scene<'_>, child: &Child, steps: &[Step]) -> Option<(usize, usize)> {
    let holds = |step: &Step| holds(scene, child, *step);
    let (place, held) = steps.iter().map(holds).enumerate().find(|(_, held)| *held != Holds::None)?;
    if let Holds::One(parent) = held { Some((parent, place)) } else { None }
}

/// The only request of the threads at the smallest distance at which one has any.
pub(super) fn only_nearest(scene: &Scene<'_>, child: &Child, steps: &[Step]) -> Option<usize> {
    let mut found: Option<(u8, usize)> = None;
    for step in steps {
        if found.is_some_and(|(distance, _)| distance < step.distance) {
            break;
        }
        match (holds(scene, child, *step), found) {
            (Holds::None, _) => {}
            (Holds::One(parent), None) => found = Some((step.distance, parent)),
            (Holds::One(parent), Some((_, other))) if parent == other => {}
            _ => return None,
        }
    }
    found.map(|(_, parent)| parent)
}

/// Whether a request was over only after the span.
pub(super) fn contains(scene: &Scene<'_>, child: &Child, parent: usize) -> bool {
    scene.parents.get(parent).is_some_and(|parent| parent.is_over() && child.facts.end_ns <= parent.end_ns)
}

/// Whether the sending thread has itself a request open: whose turn it is, it knows better than who woke it.
pub(super) fn serves(scene: &Scene<'_>, child: &Child) -> bool {
    scene
        .open_at(child)
        .filter_map(|parent| scene.parents.get(parent))
        .any(|parent| parent.tid == child.facts.tid || parent.end_tid == child.facts.tid)
}
