//! Spans to chains: a first matching, then exchanges between chains while they make all of them more likely.
//!
//! The matching gives each span and each answer the event that goes before it ([`super::matching`]): events are one to
//! one with what follows them. What matching cannot see (that a chain must end where it began) the exchanges put right:
//! a span moves, two spans change places, or two chains change all that follows. Bounded: [`MAX_SWEEPS`], and
//! [`WORK`] steps of chains for each span of the window; beyond, what is left undecided has no parent.

use super::From;
use super::habits::Habits;
use super::matching::{Row, assign};
use super::order;
use super::space::{Before, Sent, Space};

const MAX_SWEEPS: usize = 6;
/// Times that whole chains change places after that.
const MAX_TURNS: usize = 4;
/// Steps of chains that may be scored, for each span.
const WORK: u64 = 20_000;
/// Events before a span that the matching looks at.
const LOOK_BACK: usize = 48;
const MAX_EDGES: usize = 16;
/// How much less likely than nobody's a first step may be to be tried.
const HOPELESS: f64 = 5.0;
/// Other chains that are tried for one span, the likeliest first.
const MAX_TRIED: usize = 10;
/// Share of answers before which nothing was: none, but for what was not seen.
const UNANSWERED: f64 = 1e-5;
/// Longest chains whose rests are exchanged.
const LONG: usize = 96;
const NOBODY: u32 = u32::MAX;

pub(super) struct Chains<'a> {
    space: &'a Space,
    /// Spans of each request, in order.
    chains: Vec<Vec<u32>>,
    scores: Vec<f64>,
    parents: Vec<u32>,
    /// For each span, the likelihood of the parent that it has.
    pub posterior: Vec<f64>,
    work: u64,
    most_work: u64,
}

/// An exchange and what it gains.
#[derive(Clone, Copy)]
struct Move {
    gain: f64,
    to: u32,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    /// The span leaves its chain for another or for none.
    Alone,
    /// It changes places with this span.
    Swap(u32),
    /// It and all behind it change places with what follows at this place of the other chain.
    Rest(usize, usize),
}

impl<'a> Chains<'a> {
    pub fn new(space: &'a Space) -> Self {
        let most_work = WORK * (space.sent.len() as u64 + 1);
        let mut chains = Self {
            space,
            chains: vec![Vec::new(); space.served.len()],
            scores: vec![0.0; space.served.len()],
            parents: vec![NOBODY; space.sent.len()],
            posterior: vec![0.0; space.sent.len()],
            work: 0,
            most_work,
        };
        for (place, sent) in space.sent.iter().enumerate() {
            if let (true, [parent]) = (sent.is_fixed, sent.candidates.as_slice()) {
                chains.put(place as u32, *parent);
            }
        }
        chains
    }

    fn put(&mut self, place: u32, parent: u32) {
        if let (Some(own), Some(chain)) = (self.parents.get_mut(place as usize), self.chains.get_mut(parent as usize)) {
            *own = parent;
            let at = chain.partition_point(|other| *other < place);
            chain.insert(at, place);
        }
    }

    fn score_all(&mut self) {
        for parent in 0..self.chains.len() {
            self.rescore(parent as u32);
        }
    }

    fn rescore(&mut self, parent: u32) {
        let (Some(served), Some(chain)) = (self.space.served.get(parent as usize), self.chains.get(parent as usize))
        else {
            return;
        };
        let score = self.space.chain(served, chain.iter().copied());
        if let Some(own) = self.scores.get_mut(parent as usize) {
            *own = score;
        }
    }

    pub fn parent(&self, place: usize) -> Option<u32> {
        self.parents.get(place).copied().filter(|parent| *parent != NOBODY)
    }

    pub fn parents(&self) -> Vec<Option<u32>> {
        (0..self.parents.len()).map(|place| self.parent(place)).collect()
    }

    pub fn of(&self, parent: usize) -> &[u32] {
        self.chains.get(parent).map_or(&[], Vec::as_slice)
    }

    /// The first assignment. Also counts all pairs that are looked at.
    pub fn begin(&mut self, habits: &mut Habits) -> u64 {
        let Space { served, sent, .. } = self.space;
        let (serveds, spans) = (served.len(), sent.len());
        let (ended, began) = (|place: usize| (serveds + place) as u32, |place: usize| (serveds + spans + place) as u32);
        let mut by_end: Vec<usize> = (0..spans).collect();
        by_end.sort_unstable_by_key(|place| (sent.get(*place).map(|sent| sent.end_ns), *place));
        let mut rows = Vec::with_capacity(spans + serveds);
        let mut finished = 0;
        for (place, child) in sent.iter().enumerate() {
            while by_end
                .get(finished)
                .and_then(|other| sent.get(*other))
                .is_some_and(|other| other.end_ns <= child.start_ns)
            {
                finished += 1;
            }
            if child.is_fixed {
                rows.push(Row { edges: Vec::new(), alone: 0.0 });
                continue;
            }
            let mut edges = Vec::new();
            let mut add = |column: u32, operations: u32, before: &Before| {
                habits.pair(before.from.kind(), order::class(before.mark, child.begun));
                let scores = numbers(operations).map(|operation| self.space.follow(operation, before, child));
                edges.push((column, -scores.fold(f64::NEG_INFINITY, f64::max)));
            };
            for parent in &child.candidates {
                let Some(owner) = served.get(*parent as usize) else { continue };
                add(*parent, 1 << owner.operation, &Space::before(&Space::begin(owner), child));
            }
            let recent = by_end.get(finished.saturating_sub(LOOK_BACK)..finished).unwrap_or_default();
            for other in recent.iter().copied() {
                let Some((before, owner)) = sent.get(other).and_then(|sent| Self::common(sent, child)) else {
                    continue;
                };
                let (from, gap_ns) = (From::End(before.operation), child.start_ns - before.end_ns);
                add(ended(other), owner, &Before { from, gap_ns, tid: before.last_tid, mark: before.ended });
            }
            for other in (place.saturating_sub(LOOK_BACK)..place).rev() {
                let Some((before, owner)) = sent.get(other).and_then(|sent| Self::common(sent, child)) else {
                    continue;
                };
                if before.end_ns <= child.start_ns {
                    continue;
                }
                let (from, gap_ns) = (From::Beside(before.operation), child.start_ns - before.start_ns);
                add(began(other), owner, &Before { from, gap_ns, tid: before.tid, mark: before.begun });
            }
            rows.push(cheapest(edges, -child.alone));
        }
        for (place, owner) in served.iter().enumerate() {
            let alone = -(UNANSWERED * serveds as f64 / self.space.span_ns).ln();
            if !owner.is_over {
                rows.push(Row { edges: Vec::new(), alone });
                continue;
            }
            let nothing = Space::before_answer(&Space::begin(owner), owner);
            let mut edges = vec![(place as u32, -self.space.follow_answer(owner, &nothing))];
            let until =
                by_end.partition_point(|other| sent.get(*other).is_some_and(|sent| sent.end_ns <= owner.end_ns));
            for other in by_end.get(until.saturating_sub(LOOK_BACK)..until).unwrap_or_default() {
                let Some(before) = sent.get(*other).filter(|sent| sent.candidates.contains(&(place as u32))) else {
                    continue;
                };
                let (from, gap_ns) = (From::End(before.operation), owner.end_ns - before.end_ns);
                let before = Before { from, gap_ns, tid: before.last_tid, mark: before.ended };
                habits.pair(3, order::class(before.mark, owner.answered));
                edges.push((ended(*other), -self.space.follow_answer(owner, &before)));
            }
            rows.push(cheapest(edges, alone));
        }
        let (columns, cut) = assign(&rows, serveds + 2 * spans);
        // Pieces of chains: each span behind the one that goes before it.
        let mut pieces: Vec<Vec<u32>> = Vec::new();
        let mut piece_of: Vec<usize> = vec![0; spans];
        for (place, column) in columns.iter().take(spans).enumerate() {
            let before = column.and_then(|column| (column as usize).checked_sub(serveds)).map(|column| column % spans);
            let piece = match before.and_then(|before| piece_of.get(before).copied()) {
                Some(piece) => piece,
                None => {
                    pieces.push(Vec::new());
                    pieces.len() - 1
                }
            };
            if let (Some(own), Some(piece_spans)) = (piece_of.get_mut(place), pieces.get_mut(piece)) {
                *own = piece;
                piece_spans.push(place as u32);
            }
        }
        self.seat(&pieces);
        cut
    }

    /// Gives whole chains to the requests that they fit best, from beginning to answer.
    fn reseat(&mut self) -> bool {
        let before: f64 = self.total();
        let (chains, parents, scores) = (self.chains.clone(), self.parents.clone(), self.scores.clone());
        let alone = (0..self.parents.len() as u32)
            .filter(|place| self.parent(*place as usize).is_none())
            .map(|place| vec![place]);
        let pieces: Vec<Vec<u32>> = chains.iter().filter(|chain| !chain.is_empty()).cloned().chain(alone).collect();
        self.seat(&pieces);
        let better = self.total() > before + 1e-6;
        if !better {
            (self.chains, self.parents, self.scores) = (chains, parents, scores);
        }
        better
    }

    pub fn total(&self) -> f64 {
        let alone = self.parents.iter().zip(&self.space.sent).filter(|(parent, _)| **parent == NOBODY);
        self.scores.iter().sum::<f64>() + alone.map(|(_, sent)| sent.alone).sum::<f64>()
    }

    fn seat(&mut self, pieces: &[Vec<u32>]) {
        let space = self.space;
        let empty: Vec<f64> = space.served.iter().map(|served| space.chain(served, std::iter::empty())).collect();
        let mut rows = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let spans = || piece.iter().filter_map(|place| space.sent.get(*place as usize));
            let alone = -spans().map(|sent| sent.alone).sum::<f64>();
            let first = spans().min_by_key(|sent| sent.candidates.len());
            let mut edges = Vec::new();
            for parent in first.map_or(&[][..], |sent| sent.candidates.as_slice()) {
                if !spans().all(|sent| sent.candidates.contains(parent)) {
                    continue;
                }
                let (Some(served), Some(empty)) = (space.served.get(*parent as usize), empty.get(*parent as usize))
                else {
                    continue;
                };
                self.work += piece.len() as u64 + 1;
                edges.push((*parent, empty - space.chain(served, piece.iter().copied())));
            }
            rows.push(cheapest(edges, alone));
        }
        let (seats, _) = assign(&rows, space.served.len());
        self.chains.iter_mut().for_each(Vec::clear);
        self.parents.fill(NOBODY);
        for (piece, seat) in pieces.iter().zip(seats) {
            for place in piece {
                let fixed = space
                    .sent
                    .get(*place as usize)
                    .filter(|sent| sent.is_fixed)
                    .map(|sent| sent.candidates.first().copied());
                match (fixed, seat) {
                    (Some(None), _) | (None, None) => {}
                    (Some(Some(parent)), _) | (None, Some(parent)) => self.put(*place, parent),
                }
            }
        }
        self.score_all();
    }

    /// What goes before, if both could belong to one request, and the operations of such requests.
    fn common<'b>(before: &'b Sent, child: &Sent) -> Option<(&'b Sent, u32)> {
        // Requests that are open together lie together; what is wrong here is found out when chains are seated.
        let (first, last) = (child.candidates.first()?, child.candidates.last()?);
        let operations = before.operations & child.operations;
        let meets = before.candidates.first()? <= last && first <= before.candidates.last()?;
        (meets && operations != 0).then_some((before, operations))
    }

    /// Exchanges until nothing gains, then says how likely each parent is. `false`: there was too much to do.
    pub fn improve(&mut self, heat: f64) -> bool {
        for turn in 0..MAX_TURNS {
            if turn > 0 && !self.reseat() {
                break;
            }
            if !self.exchange() {
                return false;
            }
        }
        // What moves a whole rest moves each of its spans.
        let mut others = vec![0.0; self.parents.len()];
        for place in 0..self.parents.len() {
            self.weigh(place, heat, &mut others);
        }
        for (place, (posterior, other)) in self.posterior.iter_mut().zip(&others).enumerate() {
            let is_linked = self.parents.get(place).is_some_and(|parent| *parent != NOBODY);
            *posterior = if is_linked { 1.0 / (1.0 + other) } else { 0.0 };
            if self.space.sent.get(place).is_some_and(|sent| sent.is_fixed) {
                *posterior = f64::from(u8::from(is_linked));
            }
        }
        true
    }

    fn exchange(&mut self) -> bool {
        for _ in 0..MAX_SWEEPS {
            let mut changed = false;
            for place in 0..self.parents.len() {
                let (best, _) = self.moves(place);
                if let Some(best) = best.filter(|best| best.gain > 1e-6) {
                    self.make(place as u32, best);
                    changed = true;
                }
            }
            if self.work > self.most_work {
                return false;
            }
            if !changed {
                break;
            }
        }
        true
    }

    fn weigh(&mut self, place: usize, heat: f64, others: &mut [f64]) {
        let (_, moves) = self.moves(place);
        let own = self.parents.get(place).copied().unwrap_or(NOBODY);
        let rest = match self.chains.get(own as usize) {
            Some(chain) => chain.get(chain.partition_point(|other| (*other as usize) < place)..).unwrap_or_default(),
            None => &[],
        };
        for other in moves {
            let weight = (other.gain / heat).min(50.0).exp();
            match other.kind {
                Kind::Rest(..) => {
                    for place in rest {
                        if let Some(sum) = others.get_mut(*place as usize) {
                            *sum += weight;
                        }
                    }
                }
                Kind::Alone | Kind::Swap(_) => {
                    if let Some(sum) = others.get_mut(place) {
                        *sum += weight;
                    }
                }
            }
        }
    }

    /// The best exchange of a span, and of each kind and each other chain the one there is.
    fn moves(&mut self, place: usize) -> (Option<Move>, Vec<Move>) {
        let space = self.space;
        let mut found: Vec<Move> = Vec::new();
        let Some(sent) = space.sent.get(place).filter(|sent| !sent.is_fixed) else { return (None, found) };
        if self.work > self.most_work {
            return (None, found);
        }
        let own = self.parents.get(place).copied().unwrap_or(NOBODY);
        let span = place as u32;
        let empty = Vec::new();
        let chain = self.chains.get(own as usize).unwrap_or(&empty);
        let own_score = self.scores.get(own as usize).copied().unwrap_or_default();
        let owner = space.served.get(own as usize);
        let at = chain.partition_point(|other| *other < span);
        let mut work = 0u64;
        // Without it, and as nobody's.
        let (without, was) = match owner {
            Some(owner) => {
                work += chain.len() as u64;
                let score = space.chain(owner, chain.iter().copied().filter(|other| *other != span));
                let gain = score - own_score + sent.alone;
                found.push(Move { gain, to: NOBODY, kind: Kind::Alone });
                (score, own_score)
            }
            None => (0.0, sent.alone),
        };
        let mut others: Vec<(f64, u32, usize)> = sent
            .candidates
            .iter()
            .copied()
            .filter(|other| *other != own)
            .filter_map(|other| {
                let theirs = self.chains.get(other as usize)?;
                let split = theirs.partition_point(|other| *other < span);
                let served = space.served.get(other as usize)?;
                let score = self.first_step(served, theirs.get(..split).unwrap_or_default(), sent);
                (score > sent.alone - HOPELESS).then_some((score, other, split))
            })
            .collect();
        work += sent.candidates.len() as u64;
        others.sort_unstable_by(|one, other| other.0.total_cmp(&one.0).then(one.1.cmp(&other.1)));
        others.truncate(MAX_TRIED);
        for (_, other, split) in others {
            let (Some(served), Some(theirs), Some(their_score)) = (
                space.served.get(other as usize),
                self.chains.get(other as usize),
                self.scores.get(other as usize).copied(),
            ) else {
                continue;
            };
            let (head, tail) = theirs.split_at(split);
            work += 2 * (theirs.len() + 1) as u64;
            let with = space.chain(served, head.iter().copied().chain([span]).chain(tail.iter().copied()));
            found.push(Move { gain: with + without - was - their_score, to: other, kind: Kind::Alone });
            let Some(owner) = owner else { continue };
            // The nearest span of the same operation on either side.
            let same = |place: &&u32| {
                space.sent.get(**place as usize).is_some_and(|theirs| {
                    theirs.operation == sent.operation && !theirs.is_fixed && theirs.candidates.contains(&own)
                })
            };
            for theirs_place in [head.iter().rev().find(same), tail.iter().find(same)].into_iter().flatten().copied() {
                work += (theirs.len() + chain.len()) as u64;
                let mine = merged(chain, span, theirs_place);
                let its = merged(theirs, theirs_place, span);
                let score = space.chain(owner, mine) + space.chain(served, its);
                found.push(Move { gain: score - own_score - their_score, to: other, kind: Kind::Swap(theirs_place) });
            }
            let rest = chain.get(at..).unwrap_or_default();
            let may = |spans: &[u32], to: u32| {
                spans.iter().all(|place| {
                    space.sent.get(*place as usize).is_some_and(|sent| !sent.is_fixed && sent.candidates.contains(&to))
                })
            };
            let is_more = rest.len() > 1 || !tail.is_empty();
            if is_more && chain.len() + theirs.len() <= LONG && may(rest, other) && may(tail, own) {
                work += (theirs.len() + chain.len()) as u64;
                let before = chain.get(..at).unwrap_or_default();
                let mine = space.chain(owner, before.iter().chain(tail).copied());
                let its = space.chain(served, head.iter().chain(rest).copied());
                found.push(Move { gain: mine + its - own_score - their_score, to: other, kind: Kind::Rest(at, split) });
            }
        }
        self.work += work;
        let best = found.iter().copied().max_by(|one, other| one.gain.total_cmp(&other.gain));
        (best, found)
    }

    /// How likely a chain goes on with a span.
    fn first_step(&self, served: &super::space::Served, head: &[u32], sent: &Sent) -> f64 {
        let space = self.space;
        let mut state = Space::begin(served);
        // The last two tell where it stands, nearly always.
        for place in head.get(head.len().saturating_sub(2)..).unwrap_or_default() {
            if let Some(before) = space.sent.get(*place as usize) {
                state = Space::after(&state, before);
            }
        }
        space.go_on(served, &state, sent).0
    }

    fn make(&mut self, span: u32, exchange: Move) {
        let own = self.parents.get(span as usize).copied().unwrap_or(NOBODY);
        match exchange.kind {
            Kind::Alone => {
                self.take(span, own);
                if exchange.to == NOBODY {
                    if let Some(parent) = self.parents.get_mut(span as usize) {
                        *parent = NOBODY;
                    }
                } else {
                    self.put(span, exchange.to);
                }
            }
            Kind::Swap(theirs) => {
                self.take(span, own);
                self.take(theirs, exchange.to);
                self.put(span, exchange.to);
                self.put(theirs, own);
            }
            Kind::Rest(at, split) => {
                let mine = self.chains.get_mut(own as usize).map(|chain| chain.split_off(at.min(chain.len())));
                let theirs =
                    self.chains.get_mut(exchange.to as usize).map(|chain| chain.split_off(split.min(chain.len())));
                mine.unwrap_or_default().into_iter().for_each(|place| self.put(place, exchange.to));
                theirs.unwrap_or_default().into_iter().for_each(|place| self.put(place, own));
            }
        }
        for parent in [own, exchange.to] {
            self.rescore(parent);
        }
    }

    fn take(&mut self, span: u32, parent: u32) {
        if let Some(chain) = self.chains.get_mut(parent as usize) {
            chain.retain(|other| *other != span);
        }
    }
}

/// A chain in order with one span for another.
fn merged(chain: &[u32], without: u32, with: u32) -> impl Iterator<Item = u32> {
    let at = chain.partition_point(|other| *other < with);
    let (head, tail) = chain.split_at(at);
    let keeps = move |place: &u32| *place != without;
    head.iter().copied().filter(keeps).chain([with]).chain(tail.iter().copied().filter(keeps))
}

/// The numbers of the bits that are set.
fn numbers(mut bits: u32) -> impl Iterator<Item = u16> {
    std::iter::from_fn(move || {
        let number = bits.trailing_zeros();
        bits &= bits.wrapping_sub(1);
        (number < u32::BITS).then_some(number as u16)
    })
}

fn cheapest(mut edges: Vec<(u32, f64)>, alone: f64) -> Row {
    edges.retain(|(_, cost)| *cost < alone + HOPELESS);
    edges.sort_unstable_by(|one, other| one.1.total_cmp(&other.1).then(one.0.cmp(&other.0)));
    edges.truncate(MAX_EDGES);
    Row { edges, alone }
}
