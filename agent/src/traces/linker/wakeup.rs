//! Tier E: whom the thread that read the answer woke, and who had woken the one that sent.
//!
//! A wake-up comes from anybody that shares a lock or a queue, so it is no evidence alone. There are two ways to ask that
//! know nothing of each other: on from who read the answer, and back from who sent. What they are worth in a process its
//! own spans show ([`Wakes`]), those that began while several requests were open: how often the two ways name the same,
//! and how often the answers of one request by the first way lie beside each other in time, which those of a thread that
//! waits for each do not. Until enough was seen, spans wait, as long as any do. The request must be over after the span.
//! What is not worth enough counts only where statistics leans the same way.

use std::collections::BTreeMap;

use super::{Child, Scene, Tier, origin};

/// Spans from which a share is taken.
const LEAST: f64 = 50.0;
/// Share in which both ways agree for the way back to be believed alone, where almost no answers overlap.
const ALIKE: f64 = 0.995;
/// The same for what both say, and for the way on alone, where almost none of its answers overlap.
const MOSTLY_ALIKE: f64 = 0.95;
const OVERLAPPING: f64 = 0.01;
/// Below it more spans would hardly change what is believed.
const HOPELESS: f64 = 0.8;
/// Spans that are waited with until it is known what the two ways are worth.
const WAITING: f64 = 500.0;
/// Counts are halved above this: what a process does may change.
const MEMORY: f64 = 20_000.0;
/// Ways back that are told apart: who woke the sender, and who woke that one. Where one is right, the other may be a lock.
const WAYS: usize = 2;

/// How often two answers could be compared, and were the same.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Agreement {
    both: f64,
    alike: f64,
}

impl Agreement {
    fn is(self, share: f64) -> bool {
        self.both >= LEAST && self.alike >= share * self.both
    }
}

/// How well wake-ups tell the requests of a process apart, as far as its spans have shown.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Wakes {
    ways: [Agreement; WAYS],
    /// Spans for which the way on names a request, and those that began before another one of the same request was over.
    on: f64,
    overlapping: f64,
}

impl Wakes {
    /// Takes what spans have shown that were not looked at before.
    pub(super) fn observe(&mut self, seen: Self) {
        self.on += seen.on;
        self.overlapping += seen.overlapping;
        for (way, more) in self.ways.iter_mut().zip(seen.ways) {
            way.both += more.both;
            way.alike += more.alike;
        }
        if self.on > MEMORY {
            self.on /= 2.0;
            self.overlapping /= 2.0;
            for way in &mut self.ways {
                (way.both, way.alike) = (way.both / 2.0, way.alike / 2.0);
            }
        }
    }

    fn way(&self, number: usize) -> Agreement {
        self.ways.get(number).copied().unwrap_or_default()
    }

    /// One way is believed alone. Of a pool whose threads take what they find, a test had more than one in a hundred wrong.
    fn trusts_one(&self) -> bool {
        let one_at_a_time = self.on >= LEAST && self.overlapping <= OVERLAPPING * self.on;
        one_at_a_time && self.ways.iter().any(|way| way.is(MOSTLY_ALIKE))
    }

    /// Whether more spans would not show more.
    fn is_settled(&self) -> bool {
        let hopeless = |way: &Agreement| way.both >= LEAST && way.alike < HOPELESS * way.both;
        self.on >= WAITING || self.trusts_one() || self.ways.iter().any(hopeless)
    }
}

/// What the spans show that are over and began while several requests were open, each once.
pub(super) fn seen(scene: &mut Scene<'_>) -> Wakes {
    let mut seen = Wakes::default();
    let mut until_ns: BTreeMap<usize, u64> = BTreeMap::new();
    for place in 0..scene.children.len() {
        let Some(child) = scene.children.get(place) else { continue };
        if child.seen || !child.ready || !child.is_undecided() || scene.open_at(child).nth(1).is_none() {
            continue;
        }
        let (on, back) = named(scene, child);
        let (start_ns, end_ns) = (child.facts.start_ns, child.facts.end_ns);
        if let Some(child) = scene.children.get_mut(place) {
            child.seen = true;
        }
        let Some(on) = on else { continue };
        seen.on += 1.0;
        let until_ns = until_ns.entry(on).or_default();
        seen.overlapping += f64::from(u8::from(start_ns < *until_ns));
        *until_ns = end_ns.max(*until_ns);
        if let Some((back, way)) = back
            && let Some(way) = seen.ways.get_mut(way)
        {
            way.both += 1.0;
            way.alike += f64::from(u8::from(on == back));
        }
    }
    seen
}

/// The request that wake-ups after the answer name; the one that those before the span do, and which way back that was.
fn named(scene: &Scene<'_>, child: &Child) -> (Option<usize>, Option<(usize, usize)>) {
    if !child.ready || child.crowded || origin::serves(scene, child) {
        return (None, None);
    }
    let known = &child.facts.origin;
    // Who opens a connection for a request is nearer to it than who wakes up when it is open.
    let before = if known.connected.is_empty() { &known.before } else { &known.connected };
    let over_after = |parent: usize| origin::contains(scene, child, parent);
    let on = origin::only_nearest(scene, child, &known.after).filter(|parent| over_after(*parent));
    (on, origin::nearest(scene, child, before).filter(|(parent, _)| over_after(*parent)))
}

pub(super) fn decide(tier: &Tier, scene: &mut Scene<'_>) {
    let wakes = scene.model.wakes;
    if !scene.model.threads.keep_to_their_requests() {
        return;
    }
    if !wakes.is_settled() {
        return wait(scene);
    }
    scene.decide_each(tier, |scene, child| {
        let (on, back) = named(scene, child);
        let back = back.map(|(parent, way)| (parent, wakes.way(way))).filter(|(_, way)| way.is(MOSTLY_ALIKE));
        match (on, back) {
            (Some(on), Some((back, _))) => Some(on).filter(|on| *on == back),
            (Some(on), None) => Some(on).filter(|_| wakes.trusts_one()),
            (None, back) => back.filter(|(_, way)| wakes.trusts_one() && way.is(ALIKE)).map(|(parent, _)| parent),
        }
    });
}

/// What wake-ups name a parent for waits until it is known what that is worth.
fn wait(scene: &mut Scene<'_>) {
    for place in 0..scene.children.len() {
        let Some(child) = scene.children.get(place) else { continue };
        if child.is_undecided()
            && !child.expired
            && named(scene, child).0.is_some()
            && scene.open_at(child).nth(1).is_some()
            && let Some(child) = scene.children.get_mut(place)
        {
            child.waits = true;
        }
    }
}

pub(super) fn lean(tier: &Tier, scene: &mut Scene<'_>) {
    scene.decide_each(tier, |scene, child| {
        let leaning = child.leaning?;
        let (on, back) = named(scene, child);
        match (on, back.map(|(parent, _)| parent)) {
            (Some(one), Some(other)) if one != other => None,
            (on, back) => on.or(back).filter(|parent| *parent == leaning),
        }
    });
}
