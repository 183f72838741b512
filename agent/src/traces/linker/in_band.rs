//! Tier A: the same id in and out.
//!
//! A proxy or an instrumented application passes on what came with a request: the span that carries it out belongs to
//! the only open request that it came in with. Where several carry it, only they are left for the tiers behind; ids
//! that nobody open came in with say nothing. An id given to a thousand requests is therefore harmless.

use super::facts::InBandId;
use super::{Scene, Tier};

pub(super) fn decide(tier: &Tier, scene: &mut Scene<'_>) {
    for place in 0..scene.children.len() {
        let Some(child) = scene.children.get(place) else { continue };
        if !child.is_undecided() || child.facts.ids.is_empty() {
            continue;
        }
        let mut ids: Vec<InBandId> = child.facts.ids.clone();
        ids.sort_unstable();
        for id in ids {
            let Some(child) = scene.children.get(place) else { break };
            let mut carriers = scene
                .open_at(child)
                .filter(|parent| scene.parents.get(*parent).is_some_and(|parent| parent.has_id(id)));
            let (first, second) = (carriers.next(), carriers.next());
            drop(carriers);
            match (first, second) {
                (Some(parent), None) if !child.crowded => {
                    let link = super::Link { parent, method: tier.method, confidence: tier.confidence };
                    scene.give(place, link);
                    break;
                }
                (Some(_), Some(_)) => {
                    if let Some(child) = scene.children.get_mut(place)
                        && child.narrowed.is_none()
                    {
                        child.narrowed = Some(id);
                    }
                }
                _ => {}
            }
        }
    }
}
