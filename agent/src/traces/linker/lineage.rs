//! Tier D: the sending thread was made, or its connection opened, by a thread while it had exactly one request open.
//!
//! Only where threads keep to their requests: one that runs tasks may do it for another one's. A thread that was made for
//! a request and sends for later ones as well is told by its wake-ups, or by what it has moved since: then nothing is said
//! here. Needs to know who made it, or who opened the connection for this request, and when. Two answers are none.

use super::{Child, Scene, Tier, origin};
use crate::model::handover::How;

pub(super) fn decide(tier: &Tier, scene: &mut Scene<'_>) {
    if !scene.model.threads.keep_to_their_requests() {
        return;
    }
    scene.decide_each(tier, |scene, child| {
        if origin::serves(scene, child) {
            return None;
        }
        match (made(scene, child), connected(scene, child)) {
            (Some(one), Some(other)) if one != other => None,
            (one, other) => one.or(other),
        }
    });
}

/// Made by a thread with a request, or by one that such a thread made.
fn made(scene: &Scene<'_>, child: &Child) -> Option<usize> {
    let steps = &child.facts.origin.before;
    let made = steps.iter().take_while(|step| step.how == How::Made).count();
    origin::nearest(scene, child, steps.get(..made).unwrap_or_default()).map(|(parent, _)| parent)
}

fn connected(scene: &Scene<'_>, child: &Child) -> Option<usize> {
    let opened = child.facts.origin.connected.get(..1).unwrap_or_default();
    origin::nearest(scene, child, opened).map(|(parent, _)| parent)
}
