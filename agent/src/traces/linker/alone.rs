//! The only request that the process served when the span began, and that was over after it.
//!
//! Whatever threads and tasks do, nothing else was there to send it but the process itself: what it was seen to send while
//! it served nothing gets no parent here. Nor does a span that outlives the request: work that nobody waits for may have
//! been begun by an earlier one.

use super::{Scene, Tier};

pub(super) fn decide(tier: &Tier, scene: &mut Scene<'_>) {
    scene.decide_each(tier, |scene, child| {
        if !child.ready || scene.model.sends_on_its_own(child.facts.operation) {
            return None;
        }
        let only = scene.only(child, |_| true)?;
        let contains =
            scene.parents.get(only).is_some_and(|parent| parent.is_over() && child.facts.end_ns <= parent.end_ns);
        contains.then_some(only)
    });
}
