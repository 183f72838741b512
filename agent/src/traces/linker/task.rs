//! Tier B: the same task of the runtime, a goroutine or a coroutine, and exactly one request open on it.
//!
//! Says nothing where no task is known.

use super::{Scene, Tier};

pub(super) fn decide(tier: &Tier, scene: &mut Scene<'_>) {
    scene.decide_each(tier, |scene, child| {
        let task = child.facts.task?;
        scene.only(child, |parent| parent.task == Some(task))
    });
}
