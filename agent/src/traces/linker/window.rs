//! One process over time: what it serves and sends, window after window, until each span that it sent is decided.
//!
//! In: requests when they begin and when they are over, spans when they are over; [`Process::run`] looks at what has
//! gathered. A span is decided when a tier names its parent, or when everything that could be its parent is over and
//! none did, or when it has waited long enough. A request is kept until no undecided span began while it was open.
//! Holds what its owner put in and no more; the owner bounds how much that is.

use std::hash::Hash;

use crate::model::hashing::Map;

use super::facts::{Facts, OPEN};
use super::scene::{Child, Scene};
use super::{Limits, Link, Missed, Model};

/// Entries that an empty table may keep room for.
const SPARE: usize = 64;

/// Gives back a table's room when most of it is not needed any more.
pub fn trim<K: Eq + Hash, V>(table: &mut Map<K, V>) {
    if table.capacity() > SPARE && table.len() < table.capacity() / 8 {
        table.shrink_to(2 * table.len());
    }
}

/// What became of a span.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision<K> {
    pub span: K,
    /// The request that it belongs to, how that was found and how sure it is; or why there is none.
    pub parent: Result<(K, &'static str, f64), Missed>,
}

#[derive(Clone, Debug)]
struct Sent<K> {
    key: K,
    facts: Facts,
    /// Decided, and kept as a part of a request that is not over.
    link: Option<(K, &'static str, f64)>,
    /// As in [`Child`].
    seen: bool,
}

/// One process. `K` names spans; its order decides where two spans have the same times.
#[derive(Clone, Debug)]
pub struct Process<K> {
    model: Model,
    served: Map<K, Facts>,
    sent: Vec<Sent<K>>,
}

impl<K> Default for Process<K> {
    fn default() -> Self {
        Self { model: Model::default(), served: Map::default(), sent: Vec::new() }
    }
}

impl<K: Copy + Eq + Hash + Ord> Process<K> {
    /// A request begins; or it is known better by now.
    pub fn serve(&mut self, key: K, facts: Facts) {
        self.served.insert(key, facts);
    }

    /// A request that began is over, or given up.
    pub fn forget(&mut self, key: K) {
        self.served.remove(&key);
    }

    /// A span that the process sent is over.
    pub fn send(&mut self, key: K, facts: Facts) {
        self.sent.push(Sent { key, facts, link: None, seen: false });
    }

    /// Spans that are not decided.
    pub fn undecided(&mut self) -> impl Iterator<Item = &mut Facts> {
        self.sent.iter_mut().filter(|sent| sent.link.is_none()).map(|sent| &mut sent.facts)
    }

    /// One that is not decided; quickly found where it came a moment ago.
    pub fn undecided_of(&mut self, key: K) -> Option<&mut Facts> {
        let sent = self.sent.iter_mut().rev().find(|sent| sent.key == key)?;
        sent.link.is_none().then_some(&mut sent.facts)
    }

    /// Gives back what it once needed and does not need now.
    pub fn trim(&mut self) {
        trim(&mut self.served);
        if self.sent.capacity() > SPARE && self.sent.len() < self.sent.capacity() / 8 {
            self.sent.shrink_to(2 * self.sent.len());
        }
    }

    /// Gives up all spans that are not decided.
    pub fn drain(&mut self) -> impl Iterator<Item = K> + '_ {
        self.sent.drain(..).filter(|sent| sent.link.is_none()).map(|sent| sent.key)
    }

    /// Requests and spans that are kept.
    pub fn len(&self) -> (usize, usize) {
        (self.served.len(), self.sent.len())
    }

    pub fn is_empty(&self) -> bool {
        self.served.is_empty() && self.sent.is_empty()
    }

    /// Whether a request is or was open since the earliest span that is kept.
    pub fn serves(&self) -> bool {
        !self.served.is_empty()
    }

    pub fn knows(&self, key: K) -> bool {
        self.served.contains_key(&key)
    }

    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Decides what can be decided. Spans that were over before `patience_ns` wait no longer; requests that were over
    /// before `until_ns` get no more spans than they have by now.
    pub fn run(&mut self, limits: Limits, until_ns: u64, patience_ns: u64) -> Vec<Decision<K>> {
        let mut served: Vec<(K, Facts)> = self.served.iter().map(|(key, facts)| (*key, facts.clone())).collect();
        served.sort_unstable_by_key(|(key, facts)| (facts.start_ns, facts.end_ns, *key));
        self.sent.sort_unstable_by_key(|sent| (sent.facts.start_ns, sent.facts.end_ns, sent.key));
        let keys: Vec<K> = served.iter().map(|(key, _)| *key).collect();
        let places: Map<K, usize> = keys.iter().enumerate().map(|(place, key)| (*key, place)).collect();
        let children = self.sent.iter().map(|sent| match sent.link {
            None => {
                let expired = sent.facts.end_ns < patience_ns;
                Child { ready: expired, expired, seen: sent.seen, ..Child::new(sent.facts.clone()) }
            }
            Some((parent, method, confidence)) => match places.get(&parent) {
                Some(parent) => Child::linked(sent.facts.clone(), Link { parent: *parent, method, confidence }),
                None => Child { fixed: true, ..Child::new(sent.facts.clone()) },
            },
        });
        let parents = served.into_iter().map(|(_, facts)| facts).collect();
        let mut scene = Scene::new(parents, children.collect(), &mut self.model, limits);
        super::link(&mut scene);
        let mut decisions = Vec::new();
        let mut undecided_ns = until_ns;
        let Scene { children, .. } = scene;
        for (sent, child) in self.sent.iter_mut().zip(&children) {
            if sent.link.is_some() {
                continue;
            }
            sent.seen = child.seen;
            let parent = child.link.and_then(|link| Some((*keys.get(link.parent)?, link.method, link.confidence)));
            match parent {
                Some(parent) => {
                    sent.link = Some(parent);
                    decisions.push(Decision { span: sent.key, parent: Ok(parent) });
                }
                None if child.is_given_up() => {
                    decisions.push(Decision { span: sent.key, parent: Err(child.missed) });
                }
                None => undecided_ns = undecided_ns.min(sent.facts.start_ns),
            }
        }
        self.served.retain(|_, facts| facts.end_ns == OPEN || facts.end_ns > undecided_ns);
        let served = &self.served;
        let mut decided = children.iter().map(|child| child.is_given_up());
        self.sent.retain(|sent| {
            let without = decided.next().unwrap_or_default();
            match sent.link {
                Some((parent, ..)) => served.contains_key(&parent),
                None => !without,
            }
        });
        decisions
    }
}
