//! Tier D: the sending thread was created, or its connection opened, by the only thread that has a request open.
//!
//! Needs the thread that created the sending one, or the one that opened the connection for this request; says nothing
//! without, and nothing where that thread has more than one request open.

use super::{Scene, Tier};

pub(super) fn decide(tier: &Tier, scene: &mut Scene<'_>) {
    scene.decide_each(tier, |scene, child| {
        let origin = child.facts.origin;
        let of = |tid: u32| if tid == 0 { None } else { scene.only(child, |parent| parent.tid == tid) };
        match (of(origin.parent_tid), of(origin.connect_tid)) {
            // Two answers are none.
            (Some(one), Some(other)) if one != other => None,
            (one, other) => one.or(other),
        }
    });
}
