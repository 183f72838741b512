//! Tier F: a rare word in the request that came in and in the one that went out.
//!
//! A token counts when exactly one request of the window came in with it, and only that one can then be the parent. A
//! name that comes back (a user who asks twice) is seen twice, and says nothing.

use std::collections::BTreeMap;

use super::{Scene, Tier};

pub(super) fn decide(tier: &Tier, scene: &mut Scene<'_>) {
    // `None`: more than one came in with it.
    let mut owners: BTreeMap<u64, Option<usize>> = BTreeMap::new();
    for (place, parent) in scene.parents.iter().enumerate() {
        for token in &parent.tokens {
            owners.entry(*token).and_modify(|owner| *owner = None).or_insert(Some(place));
        }
    }
    if owners.is_empty() {
        return;
    }
    scene.decide_each(tier, |scene, child| {
        let mut named = child.facts.tokens.iter().filter_map(|token| owners.get(token).copied().flatten());
        let parent = named.next()?;
        let agrees = named.all(|other| other == parent);
        (agrees && scene.open_at(child).any(|open| open == parent)).then_some(parent)
    });
}
