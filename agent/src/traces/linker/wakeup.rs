//! Tier E: whom the thread that read the answer woke, and who had woken the one that sent.
//!
//! A wake-up comes from anybody that shares a lock or a queue, so it is no evidence alone. There are two ways to ask that
//! know nothing of each other: on from who read the answer, and back from who sent. What they are worth in a process its
//! own spans show ([`Wakes`]), those that began while several requests were open: how often the two ways name the same,
//! and how often the answers of one request by the first way lie beside each other in time, which those of a thread that
//! waits for each do not. The request must be over after the span. What is not worth enough counts only where statistics
//! leans the same way.

use std::collections::BTreeMap;

use super::{Child, Scene, Tier, origin};

/// Spans from which a share is taken.
const LEAST: f64 = 50.0;
/// Share in which both ways agree: for one of them to be believed alone, whichever it is.
const ALIKE: f64 = 0.995;
/// The same for what both say, and for the way on where almost none of its answers overlap.
const MOSTLY_ALIKE: f64 = 0.95;
const OVERLAPPING: f64 = 0.005;
/// Counts are halved above this: what a process does may change.
const MEMORY: f64 = 20_000.0;

/// How well wake-ups tell the requests of a process apart, as far as its spans have shown.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Wakes {
    /// Spans for which both ways name a request, and those of them for which it is the same.
    both: f64,
    alike: f64,
    /// Spans for which the way on names one, and those that began before another one of the same request was over.
    on: f64,
    overlapping: f64,
}

impl Wakes {
    /// Takes spans that are decided now.
    pub(super) fn observe(&mut self, seen: Self) {
        let all = [
            (&mut self.both, seen.both),
            (&mut self.alike, seen.alike),
            (&mut self.on, seen.on),
            (&mut self.overlapping, seen.overlapping),
        ];
        let mut most = 0.0f64;
        for (sum, more) in all {
            *sum += more;
            most = most.max(*sum);
        }
        if most > MEMORY {
            let Self { both, alike, on, overlapping } = *self;
            *self = Self { both: both / 2.0, alike: alike / 2.0, on: on / 2.0, overlapping: overlapping / 2.0 };
        }
    }

    fn are_alike(&self, share: f64) -> bool {
        self.both >= LEAST && self.alike >= share * self.both
    }

    fn trusts_both(&self) -> bool {
        self.are_alike(MOSTLY_ALIKE)
    }

    fn trusts_on(&self) -> bool {
        let one_at_a_time = self.on >= LEAST && self.overlapping <= OVERLAPPING * self.on;
        self.are_alike(ALIKE) || (one_at_a_time && self.are_alike(MOSTLY_ALIKE))
    }

    fn trusts_back(&self) -> bool {
        self.are_alike(ALIKE)
    }
}

/// What the spans show that are decided now and began while several requests were open.
pub(super) fn seen(scene: &Scene<'_>) -> Wakes {
    let mut seen = Wakes::default();
    let mut until_ns: BTreeMap<usize, u64> = BTreeMap::new();
    for child in scene.children.iter().filter(|child| child.ready && child.is_undecided()) {
        if scene.open_at(child).nth(1).is_none() {
            continue;
        }
        let (on, back) = named(scene, child);
        let Some(on) = on else { continue };
        seen.on += 1.0;
        let until_ns = until_ns.entry(on).or_default();
        seen.overlapping += f64::from(u8::from(child.facts.start_ns < *until_ns));
        *until_ns = child.facts.end_ns.max(*until_ns);
        if let Some(back) = back {
            seen.both += 1.0;
            seen.alike += f64::from(u8::from(on == back));
        }
    }
    seen
}

/// The request that wake-ups after the answer name, and the one that those before the span do.
fn named(scene: &Scene<'_>, child: &Child) -> (Option<usize>, Option<usize>) {
    if !child.ready || child.crowded || origin::serves(scene, child) {
        return (None, None);
    }
    let known = &child.facts.origin;
    // Who opens a connection for a request is nearer to it than who wakes up when it is open.
    let before = if known.connected.is_empty() { &known.before } else { &known.connected };
    let over_after = |parent: &usize| origin::contains(scene, child, *parent);
    let on = origin::only_nearest(scene, child, &known.after).filter(over_after);
    (on, origin::nearest(scene, child, before).filter(over_after))
}

pub(super) fn decide(tier: &Tier, scene: &mut Scene<'_>) {
    let wakes = scene.model.wakes;
    if !wakes.trusts_both() {
        return;
    }
    scene.decide_each(tier, |scene, child| match named(scene, child) {
        (Some(on), Some(back)) => Some(on).filter(|on| *on == back),
        (on, back) => on.filter(|_| wakes.trusts_on()).or(back.filter(|_| wakes.trusts_back())),
    });
}

pub(super) fn lean(tier: &Tier, scene: &mut Scene<'_>) {
    scene.decide_each(tier, |scene, child| {
        let leaning = child.leaning?;
        match named(scene, child) {
            (Some(one), Some(other)) if one != other => None,
            (on, back) => on.or(back).filter(|parent| *parent == leaning),
        }
    });
}
