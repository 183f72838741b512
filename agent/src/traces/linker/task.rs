//! Tier B: the same task of the runtime, a goroutine or a coroutine, or one that it began or woke up for it or that waited
//! for its answer, and exactly one request open on it.
//!
//! A request's tasks are the one that read it and the one that answers it. From the sending task the way leads up to those
//! that it came from, as far as each step down was made while the request was open: a task that an earlier request left
//! behind on the same connection is not this one's. The nearest task with a request decides; with two, nothing is said,
//! nor where those that began the task, those that woke it and the one that it woke with the answer lead to different ones: a
//! task may be woken for what it waited for, a lock for one, and not for what it does then. One that has a connection to
//! itself and has sent over it before does not do so for who began it, but for those who wake it then, or, where nobody is
//! known to have, for those whom it wakes with the answer; of another one the answer alone tells nothing. Who waited for an
//! answer is told before the request that waited for it is over, and not asked before. Says nothing where no task is known.

use super::{Child, Scene, Tier};
use crate::traces::tasks::Ancestor;

pub(super) fn decide(tier: &Tier, scene: &mut Scene<'_>) {
    scene.decide_each(tier, |scene, child| {
        let own = Ancestor { task: child.facts.task?, born_ns: child.facts.start_ns };
        if let Some(decided) = only(scene, child, own) {
            return decided;
        }
        // Who answers a request is not known before it is over.
        if !child.ready {
            return None;
        }
        let by = |steps: &[Ancestor]| steps.iter().find_map(|step| only(scene, child, *step));
        let (woken, answered) = (child.facts.wakers.as_deref().and_then(by), by(&child.facts.asker));
        let drives = child.facts.drives;
        let begun = if drives { None } else { by(&child.facts.ancestors) };
        let first = begun.or(woken).or(answered.filter(|_| drives))?;
        first.filter(|_| woken.into_iter().chain(answered).all(|other| other == first))
    });
}

/// The request that was open on a task at a step down from it: `Some(None)` where there are several.
fn only(scene: &Scene<'_>, child: &Child, step: Ancestor) -> Option<Option<usize>> {
    let mut matching = scene.open_at(child).filter(|place| {
        scene.parents.get(*place).is_some_and(|parent| {
            parent.is_of(step.task) && parent.start_ns <= step.born_ns && step.born_ns <= parent.end_ns
        })
    });
    let first = matching.next()?;
    Some(matching.next().is_none().then_some(first))
}
