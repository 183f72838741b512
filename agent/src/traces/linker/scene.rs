//! One process's requests of a window, and for each span that it sent the requests that were open then.
//!
//! In: facts in any order; inside they are in the order of time. One sweep finds who was open when, in a flat table of
//! at most [`Limits::open`] entries a span: of more, those that began last, and the span is marked as crowded.

use super::facts::{Facts, InBandId};
use super::{Limits, Link, Missed, Model, Tier, wakeup};

/// A span that the process sent.
#[derive(Clone, Debug)]
pub struct Child {
    pub facts: Facts,
    pub link: Option<Link>,
    /// Why there is no link, where there is none.
    pub missed: Missed,
    /// Decided before: not to be changed.
    pub fixed: bool,
    /// Everything that could be its parent is over, or it has waited enough.
    pub ready: bool,
    /// It has waited enough.
    pub expired: bool,
    /// It is not decided yet, though it could be: more will be known of the process.
    pub waits: bool,
    /// It was looked at for what it shows of the process's wake-ups.
    pub seen: bool,
    /// What statistics holds for its parent, though not well enough.
    pub leaning: Option<usize>,
    /// Only requests with this id can be its parent.
    pub(super) narrowed: Option<InBandId>,
    pub(super) crowded: bool,
    pub(super) open: (usize, usize),
}

impl Child {
    pub fn new(facts: Facts) -> Self {
        Self {
            facts,
            link: None,
            missed: Missed::NoneOpen,
            fixed: false,
            ready: false,
            expired: false,
            waits: false,
            seen: false,
            leaning: None,
            narrowed: None,
            crowded: false,
            open: (0, 0),
        }
    }

    /// One that was linked before.
    pub fn linked(facts: Facts, link: Link) -> Self {
        Self { link: Some(link), fixed: true, ..Self::new(facts) }
    }

    /// It stays without a parent.
    pub(super) fn is_given_up(&self) -> bool {
        self.link.is_none() && (self.ready || self.fixed) && !self.waits
    }

    pub fn is_undecided(&self) -> bool {
        self.link.is_none() && !self.fixed && !self.waits
    }
}

pub struct Scene<'a> {
    /// Requests that the process serves, by their beginning.
    pub parents: Vec<Facts>,
    /// Requests that it sends, by their beginning.
    pub children: Vec<Child>,
    pub model: &'a mut Model,
    pub limits: Limits,
    /// Children that each parent has so far.
    counts: Vec<usize>,
    open: Vec<u32>,
}

impl<'a> Scene<'a> {
    /// Both lists by the beginning of their spans; where two begin at once, in an order that does not depend on how they
    /// came.
    pub fn new(parents: Vec<Facts>, children: Vec<Child>, model: &'a mut Model, limits: Limits) -> Self {
        let mut counts = vec![0; parents.len()];
        for link in children.iter().filter_map(|child| child.link.as_ref()) {
            if let Some(count) = counts.get_mut(link.parent) {
                *count += 1;
            }
        }
        let mut scene = Self { parents, children, model, limits, counts, open: Vec::new() };
        scene.sweep();
        scene
    }

    fn sweep(&mut self) {
        let Self { parents, children, limits, open, .. } = self;
        let mut active: Vec<u32> = Vec::new();
        let mut next = 0;
        for child in children.iter_mut() {
            let at_ns = child.facts.start_ns;
            while let Some(parent) = parents.get(next).filter(|parent| parent.start_ns <= at_ns) {
                if parent.end_ns > at_ns {
                    active.push(next as u32);
                }
                next += 1;
            }
            active.retain(|parent| parents.get(*parent as usize).is_some_and(|parent| parent.end_ns > at_ns));
            let first = open.len();
            let young = active.iter().filter(|parent| {
                parents
                    .get(**parent as usize)
                    .is_some_and(|parent| at_ns.saturating_sub(parent.start_ns) <= limits.age_ns)
            });
            open.extend(young);
            let count = open.len() - first;
            if count > limits.open {
                open.drain(first..open.len() - limits.open);
                child.crowded = true;
            }
            child.open = (first, open.len());
            let all = open.get(first..).unwrap_or_default();
            child.ready |= all.iter().all(|parent| parents.get(*parent as usize).is_some_and(Facts::is_over));
            child.missed = match (count, child.crowded) {
                (0, _) => Missed::NoneOpen,
                (_, true) => Missed::Crowded,
                (_, false) => Missed::Ambiguous,
            };
        }
    }

    /// Requests that were open when a span was sent and that nothing rules out.
    pub fn open_at<'b>(&'b self, child: &'b Child) -> impl Iterator<Item = usize> + 'b {
        let open = self.open.get(child.open.0..child.open.1).unwrap_or_default();
        open.iter().map(|parent| *parent as usize).filter(|parent| match child.narrowed {
            None => true,
            Some(id) => self.parents.get(*parent).is_some_and(|parent| parent.has_id(id)),
        })
    }

    /// The only open request for which `wanted` holds.
    pub fn only(&self, child: &Child, wanted: impl Fn(&Facts) -> bool) -> Option<usize> {
        let mut matching = self.open_at(child).filter(|parent| self.parents.get(*parent).is_some_and(&wanted));
        match (matching.next(), matching.next()) {
            (Some(only), None) => Some(only),
            _ => None,
        }
    }

    /// Lets a tier look at each span that is not decided; the parent that it names gets it. A tier may not see all that was
    /// open in a crowd, and then says nothing.
    pub(super) fn decide_each(&mut self, tier: &Tier, name: impl Fn(&Self, &Child) -> Option<usize>) {
        for place in 0..self.children.len() {
            let Some(child) = self.children.get(place) else { continue };
            if !child.is_undecided() || child.crowded {
                continue;
            }
            if let Some(parent) = name(self, child) {
                self.give(place, Link { parent, method: tier.method, confidence: tier.confidence });
            }
        }
    }

    /// `false`: the parent has too many.
    pub(super) fn give(&mut self, place: usize, link: Link) -> bool {
        let limit = self.limits.fan_out;
        let (Some(child), Some(count)) = (self.children.get_mut(place), self.counts.get_mut(link.parent)) else {
            return false;
        };
        if *count >= limit {
            child.missed = Missed::FanOut;
            child.fixed = true;
            return false;
        }
        *count += 1;
        child.link = Some(link);
        true
    }

    /// Pairs of a span that has no parent yet and a request that was open then.
    pub(super) fn pairs(&self) -> u64 {
        let open = self.children.iter().filter(|child| child.is_undecided() && !child.crowded);
        open.map(|child| (child.open.1 - child.open.0) as u64).sum()
    }

    /// Learns about the process what single spans do not tell.
    pub(super) fn observe(&mut self) {
        let Self { parents, children, model, .. } = self;
        model.threads.observe(parents, children);
        model.observe_idle(parents, children);
        let seen = wakeup::seen(self);
        self.model.wakes.observe(seen);
    }
}
