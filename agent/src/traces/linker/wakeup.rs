//! Tier E: who woke the sending thread; only where statistics leans the same way.
//!
//! A wake-up comes from anybody that shares a lock or a queue, so it is no evidence alone. It needs a thread with exactly
//! one request open, and that request must be the one that statistics found most likely, though not likely enough.

use super::{Scene, Tier};

pub(super) fn decide(tier: &Tier, scene: &mut Scene<'_>) {
    scene.decide_each(tier, |scene, child| {
        let waker = child.facts.origin.waker_tid;
        let leaning = child.leaning.filter(|_| waker != 0)?;
        scene.only(child, |parent| parent.tid == waker).filter(|parent| *parent == leaning)
    });
}
