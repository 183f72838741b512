//! Tier E: who woke the sending thread, and whom the thread that read the answer woke.
//!
//! A wake-up comes from anybody that shares a lock or a queue, so it is no evidence alone. There are two ways to ask that
//! know nothing of each other: back from who sent, and on from who read the answer. Of a process in which they mostly say
//! the same, several requests being open ([`Wakes`]), a parent is right that both name; where they say the same nearly
//! always, one that a single way names. The request must be over after the span. Else it counts only where statistics
//! leans the same way.

use super::{Child, Scene, Tier, origin};

/// Spans for which both ways were asked before anything is believed, and before one of them is.
const BOTH_LEAST: f64 = 30.0;
const ONE_LEAST: f64 = 200.0;
/// Share of them that must agree.
const BOTH_SHARE: f64 = 0.9;
const ONE_SHARE: f64 = 0.995;
/// Counts are halved above this: what a process does may change.
const MEMORY: f64 = 20_000.0;

/// How well wake-ups tell the requests of a process apart, as far as its spans have shown.
#[derive(Clone, Debug, Default)]
pub struct Wakes {
    both: f64,
    agreed: f64,
}

impl Wakes {
    /// Takes spans that are decided now.
    pub(super) fn observe(&mut self, agreements: &[bool]) {
        for agree in agreements {
            self.both += 1.0;
            self.agreed += f64::from(u8::from(*agree));
        }
        if self.both > MEMORY {
            (self.both, self.agreed) = (self.both / 2.0, self.agreed / 2.0);
        }
    }

    fn trusts_both(&self) -> bool {
        self.both >= BOTH_LEAST && self.agreed >= BOTH_SHARE * self.both
    }

    fn trusts_one(&self) -> bool {
        self.both >= ONE_LEAST && self.agreed >= ONE_SHARE * self.both
    }
}

/// Of each span that is decided now and began while several requests were open: whether both ways name the same request.
pub(super) fn seen(scene: &Scene<'_>) -> Vec<bool> {
    let asked = scene.children.iter().filter(|child| child.ready && child.is_undecided());
    asked
        .filter(|child| scene.open_at(child).nth(1).is_some())
        .filter_map(|child| {
            let (back, on) = named(scene, child);
            Some(back? == on?)
        })
        .collect()
}

/// The request that wake-ups before the span name, and the one that those after its answer name.
fn named(scene: &Scene<'_>, child: &Child) -> (Option<usize>, Option<usize>) {
    if !child.ready || origin::serves(scene, child) {
        return (None, None);
    }
    let known = &child.facts.origin;
    let back = |steps| origin::nearest(scene, child, steps).map(|(parent, _)| parent);
    // Who opens a connection for a request is nearer to it than who wakes up when it is open.
    let back = if known.connected.is_empty() { back(&known.before) } else { back(&known.connected) };
    (back, origin::only_nearest(scene, child, &known.after))
}

pub(super) fn decide(tier: &Tier, scene: &mut Scene<'_>) {
    let (both, one) = (scene.model.wakes.trusts_both(), scene.model.wakes.trusts_one());
    if !both {
        return;
    }
    scene.decide_each(tier, |scene, child| {
        let parent = match named(scene, child) {
            (Some(back), Some(on)) => Some(back).filter(|back| *back == on),
            (back, on) => back.or(on).filter(|_| one),
        };
        parent.filter(|parent| origin::contains(scene, child, *parent))
    });
}

pub(super) fn lean(tier: &Tier, scene: &mut Scene<'_>) {
    scene.decide_each(tier, |scene, child| {
        let leaning = child.leaning?;
        let (back, on) = named(scene, child);
        back.or(on).filter(|parent| *parent == leaning)
    });
}
