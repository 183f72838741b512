//! What exchanges of a span there are and what each gains; and what is still known of those looked at before.
//!
//! Out of the chains as they stand: for one span, leaving its chain, joining another, changing places with a span of
//! another, or all that follows changing places. Of the chains that it could join the likeliest few are weighed, each from
//! the place on where it would change. An exchange that gained nothing is not weighed again before one of its two chains
//! has changed. Work: a step for each request that contains the span, and the rests of some twenty chains.

use super::chains::{Chains, HOPELESS, NOBODY, likeliest};
use super::space::{Sent, Served, Space, State};

/// Other chains that are tried for one span, the likeliest first.
const MAX_TRIED: usize = 10;
/// Longest chains whose rests are exchanged.
const LONG: usize = 96;
/// What is worth an exchange.
const GAIN: f64 = 1e-6;

/// An exchange and what it gains.
#[derive(Clone, Copy)]
pub(super) struct Move {
    pub gain: f64,
    pub to: u32,
    pub kind: Kind,
}

#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// The span leaves its chain for another or for none.
    Alone,
    /// It changes places with this span.
    Swap(u32),
    /// It and all behind it change places with what follows at this place of the other chain.
    Rest(usize, usize),
}

/// What was looked at, and what has changed since. Time is the number of changes.
pub(super) struct Seen {
    now: u32,
    /// By chain: when it changed.
    changed: Vec<u32>,
    /// By span: when it was looked at; 0: never.
    looked: Vec<u32>,
    /// By span: the chains that were tried then without a gain.
    tried: Vec<[u32; MAX_TRIED]>,
    /// By span: its first place in `firsts`, which has a place for each request that contains it.
    place: Vec<usize>,
    /// How likely its chain goes on with the span.
    firsts: Vec<f64>,
}

const NONE_TRIED: [u32; MAX_TRIED] = [NOBODY; MAX_TRIED];

impl Seen {
    pub fn new(space: &Space) -> Self {
        let mut pairs = 0;
        let mut place = |sent: &Sent| {
            let first = pairs;
            pairs += sent.candidates.len();
            first
        };
        let place = space.sent.iter().map(&mut place).collect();
        Self {
            now: 1,
            changed: vec![1; space.served.len()],
            looked: vec![0; space.sent.len()],
            tried: vec![NONE_TRIED; space.sent.len()],
            place,
            firsts: vec![0.0; pairs],
        }
    }

    /// A chain is another one now.
    pub fn changed(&mut self, chain: u32) {
        if let Some(changed) = self.changed.get_mut(chain as usize) {
            self.now += 1;
            *changed = self.now;
        }
    }

    /// A span has another parent or none.
    pub fn moved(&mut self, span: u32) {
        if let Some(tried) = self.tried.get_mut(span as usize) {
            *tried = NONE_TRIED;
        }
    }

    /// All chains and parents are new; many are as before.
    pub fn all_changed(&mut self, before: &[Vec<u32>], now: &[Vec<u32>], parents: &[u32], parents_now: &[u32]) {
        for (place, _) in before.iter().zip(now).enumerate().filter(|(_, (before, now))| before != now) {
            self.changed(place as u32);
        }
        for (place, _) in parents.iter().zip(parents_now).enumerate().filter(|(_, (before, now))| before != now) {
            self.moved(place as u32);
        }
    }

    fn since(&self, chain: u32, looked: u32) -> bool {
        self.changed.get(chain as usize).is_some_and(|changed| *changed > looked)
    }
}

/// A chain as it is taken up somewhere.
struct Chain<'a> {
    served: &'a Served,
    spans: &'a [u32],
    score: f64,
    known: &'a [(f64, State)],
}

impl Chain<'_> {
    fn until(&self, at: usize) -> (f64, State) {
        self.known.get(at).copied().unwrap_or_else(|| (0.0, Space::begin(self.served)))
    }
}

impl Chains<'_> {
    fn take_up(&self, parent: u32) -> Option<Chain<'_>> {
        let parent = parent as usize;
        Some(Chain {
            served: self.space.served.get(parent)?,
            spans: self.chains.get(parent)?,
            score: self.scores.get(parent).copied()?,
            known: self.known.get(parent)?,
        })
    }

    /// The best exchange of a span, where there is one that gains.
    pub(super) fn gain(&mut self, place: usize) -> Option<Move> {
        let found = self.look(place, true);
        let best = found.into_iter().max_by(|one, other| one.gain.total_cmp(&other.gain));
        best.filter(|best| best.gain > GAIN)
    }

    /// The exchanges of a span, of each kind and each other chain the one there is.
    pub(super) fn moves(&mut self, place: usize) -> Vec<Move> {
        self.look(place, false)
    }

    /// `only_new`: without those that are known to gain nothing.
    fn look(&mut self, place: usize, only_new: bool) -> Vec<Move> {
        let space = self.space;
        let mut found: Vec<Move> = Vec::new();
        let Some(sent) = space.sent.get(place).filter(|sent| !sent.is_fixed) else { return found };
        if self.work > self.most_work {
            return found;
        }
        let span = place as u32;
        let own = self.parents.get(place).copied().unwrap_or(NOBODY);
        let looked = self.seen.looked.get(place).copied().unwrap_or_default();
        let tried = self.seen.tried.get(place).copied().unwrap_or(NONE_TRIED);
        let is_new = !only_new || looked == 0 || self.seen.since(own, looked);
        let mut others = self.joinable(place, sent, own, looked);
        let mut now_tried = NONE_TRIED;
        for (tried, (_, other)) in now_tried.iter_mut().zip(&others) {
            *tried = *other;
        }
        others.retain(|(_, other)| is_new || self.seen.since(*other, looked) || !tried.contains(other));
        let mut work = 0;
        if let Some(own_chain) = self.take_up(own) {
            if is_new || !others.is_empty() || tried == NONE_TRIED {
                work += self.exchanges(span, sent, (own, &own_chain), &others, &mut found);
            }
        } else {
            for (_, other) in others {
                let Some(theirs) = self.take_up(other) else { continue };
                let split = theirs.spans.partition_point(|other| *other < span);
                let tail = theirs.spans.get(split..).unwrap_or_default();
                work += tail.len() as u64 + 2;
                let rest = [span].into_iter().chain(tail.iter().copied());
                let with = space.chain_from(theirs.served, theirs.until(split), rest);
                found.push(Move { gain: with + 0.0 - sent.alone - theirs.score, to: other, kind: Kind::Alone });
            }
        }
        self.work += work;
        if let (Some(looked), Some(tried)) = (self.seen.looked.get_mut(place), self.seen.tried.get_mut(place)) {
            (*looked, *tried) = (self.seen.now, now_tried);
        }
        found
    }

    /// The chains that a span could join, the likeliest first.
    fn joinable(&mut self, place: usize, sent: &Sent, own: u32, looked: u32) -> Vec<(f64, u32)> {
        let first = self.seen.place.get(place).copied().unwrap_or_default();
        let mut firsts = std::mem::take(&mut self.seen.firsts);
        let mut others: Vec<(f64, u32)> = Vec::new();
        let scores = firsts.get_mut(first..).unwrap_or_default();
        for (other, score) in sent.candidates.iter().copied().zip(scores).filter(|(other, _)| *other != own) {
            if looked == 0 || self.seen.since(other, looked) {
                self.work += 1;
                *score = self.first_step(other, place as u32, sent);
            }
            if *score > sent.alone - HOPELESS {
                others.push((*score, other));
            }
        }
        self.seen.firsts = firsts;
        likeliest(&mut others, MAX_TRIED, |one, other| other.0.total_cmp(&one.0).then(one.1.cmp(&other.1)));
        others
    }

    /// Weighs the exchanges of a span that has a parent; returns the work.
    fn exchanges(
        &self,
        span: u32,
        sent: &Sent,
        (own, mine): (u32, &Chain<'_>),
        others: &[(f64, u32)],
        found: &mut Vec<Move>,
    ) -> u64 {
        let space = self.space;
        let at = mine.spans.partition_point(|other| *other < span);
        let rest = mine.spans.get(at..).unwrap_or_default();
        let behind = rest.get(1..).unwrap_or_default();
        let mut work = rest.len() as u64;
        // Without it, and as nobody's.
        let without = space.chain_from(mine.served, mine.until(at), behind.iter().copied());
        found.push(Move { gain: without - mine.score + sent.alone, to: NOBODY, kind: Kind::Alone });
        for (_, other) in others.iter().copied() {
            let Some(theirs) = self.take_up(other) else { continue };
            let split = theirs.spans.partition_point(|other| *other < span);
            let (head, tail) = theirs.spans.split_at(split);
            work += tail.len() as u64 + 2;
            let joined = [span].into_iter().chain(tail.iter().copied());
            let with = space.chain_from(theirs.served, theirs.until(split), joined);
            found.push(Move { gain: with + without - mine.score - theirs.score, to: other, kind: Kind::Alone });
            // The nearest span of the same operation on either side.
            let same = |place: &&u32| {
                space.sent.get(**place as usize).is_some_and(|theirs| {
                    theirs.operation == sent.operation && !theirs.is_fixed && theirs.may_be_of(own)
                })
            };
            for theirs_place in [head.iter().rev().find(same), tail.iter().find(same)].into_iter().flatten().copied() {
                let (one, one_work) = swapped(space, mine, span, theirs_place);
                let (two, two_work) = swapped(space, &theirs, theirs_place, span);
                work += one_work + two_work;
                let gain = one + two - mine.score - theirs.score;
                found.push(Move { gain, to: other, kind: Kind::Swap(theirs_place) });
            }
            let may = |spans: &[u32], to: u32| {
                spans.iter().all(|place| {
                    space.sent.get(*place as usize).is_some_and(|sent| !sent.is_fixed && sent.may_be_of(to))
                })
            };
            let is_more = rest.len() > 1 || !tail.is_empty();
            let is_short = mine.spans.len() + theirs.spans.len() <= LONG;
            if is_more && is_short && may(rest, other) && may(tail, own) {
                work += (tail.len() + rest.len() + 2) as u64;
                let one = space.chain_from(mine.served, mine.until(at), tail.iter().copied());
                let two = space.chain_from(theirs.served, theirs.until(split), rest.iter().copied());
                let gain = one + two - mine.score - theirs.score;
                found.push(Move { gain, to: other, kind: Kind::Rest(at, split) });
            }
        }
        work
    }

    /// How likely a chain goes on with a span.
    fn first_step(&self, parent: u32, span: u32, sent: &Sent) -> f64 {
        let space = self.space;
        let (Some(served), Some(chain)) = (space.served.get(parent as usize), self.chains.get(parent as usize)) else {
            return f64::NEG_INFINITY;
        };
        let split = chain.partition_point(|other| *other < span);
        let mut state = Space::begin(served);
        // The last two tell where it stands, nearly always.
        for place in chain.get(split.saturating_sub(2)..split).unwrap_or_default() {
            if let Some(before) = space.sent.get(*place as usize) {
                state = Space::after(&state, before);
            }
        }
        space.goes_on(served, &state, sent)
    }
}

/// How likely a chain is in order with one span for another, and the work to tell.
fn swapped(space: &Space, chain: &Chain<'_>, without: u32, with: u32) -> (f64, u64) {
    let spans = chain.spans;
    let at = spans.partition_point(|other| *other < with);
    let first = at.min(spans.partition_point(|other| *other < without));
    let (head, tail) = spans.split_at(at);
    let keeps = |place: &u32| *place != without;
    let between = head.get(first..).unwrap_or_default();
    let merged = between.iter().copied().filter(keeps).chain([with]).chain(tail.iter().copied().filter(keeps));
    let score = space.chain_from(chain.served, chain.until(first), merged);
    (score, (spans.len() - first) as u64 + 1)
}
