//! Spans to chains: a first matching, then exchanges between chains while they make all of them more likely.
//!
//! The matching gives each span and each answer the event that goes before it ([`super::matching`]): events are one to
//! one with what follows them. What matching cannot see (that a chain must end where it began) the exchanges put right:
//! a span moves, two spans change places, or two chains change all that follows. Bounded: [`MAX_SWEEPS`], and
//! so many steps of chains as its owner says; beyond, nothing is said.

use std::cmp::Ordering;

use super::From;
use super::habits::Habits;
use super::matching::{Row, assign};
use super::moves::{Kind, Move, Seen};
use super::order;
use super::pieces::Piece;
use super::space::{Before, Sent, Space, State};

const MAX_SWEEPS: usize = 6;
/// Times that whole chains change places after that.
const MAX_TURNS: usize = 4;
/// Events before a span that the matching looks at.
const LOOK_BACK: usize = 48;
const MAX_EDGES: usize = 16;
/// How much less likely than nobody's a first step may be to be tried.
pub(super) const HOPELESS: f64 = 5.0;
/// Share of answers before which nothing was: none, but for what was not seen.
const UNANSWERED: f64 = 1e-5;
pub(super) const NOBODY: u32 = u32::MAX;

pub(super) struct Chains<'a> {
    pub(super) space: &'a Space,
    /// Spans of each request, in order.
    pub(super) chains: Vec<Vec<u32>>,
    pub(super) scores: Vec<f64>,
    /// Of each chain, what is known before each span and at the end.
    pub(super) known: Vec<Vec<(f64, State)>>,
    pub(super) parents: Vec<u32>,
    /// For each span, the likelihood of the parent that it has.
    pub posterior: Vec<f64>,
    pub(super) seen: Seen,
    /// Steps of chains that were scored.
    pub work: u64,
    pub(super) most_work: u64,
}

impl<'a> Chains<'a> {
    /// `most_work`: steps of chains that may be scored.
    pub fn new(space: &'a Space, most_work: u64) -> Self {
        let mut chains = Self {
            space,
            chains: vec![Vec::new(); space.served.len()],
            scores: vec![0.0; space.served.len()],
            known: vec![Vec::new(); space.served.len()],
            parents: vec![NOBODY; space.sent.len()],
            posterior: vec![0.0; space.sent.len()],
            seen: Seen::new(space),
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
        let place = parent as usize;
        if let (Some(served), Some(chain), Some(known), Some(own)) = (
            self.space.served.get(place),
            self.chains.get(place),
            self.known.get_mut(place),
            self.scores.get_mut(place),
        ) {
            *own = self.space.chain_known(served, chain, known);
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

    /// The first assignment, and how many rows of it were cut. Also counts all pairs that are looked at.
    pub fn begin(&mut self, habits: &mut Habits) -> u64 {
        let (serveds, spans) = (self.space.served.len(), self.space.sent.len());
        let (columns, cut) = assign(&self.rows(habits), serveds + 2 * spans);
        self.string(&columns);
        cut
    }

    /// For each span, then for each request's answer, what may go before it. Counts all pairs that are looked at.
    pub fn rows(&self, habits: &mut Habits) -> Vec<Row> {
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
                let class = order::class(before.mark, child.begun);
                habits.pair(before.from.kind(), class);
                edges.push((column, -self.space.follow_any(operations, before, child, class)));
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
                let Some(before) = sent.get(*other).filter(|sent| sent.may_be_of(place as u32)) else {
                    continue;
                };
                let (from, gap_ns) = (From::End(before.operation), owner.end_ns - before.end_ns);
                let before = Before { from, gap_ns, tid: before.last_tid, mark: before.ended };
                habits.pair(3, order::class(before.mark, owner.answered));
                edges.push((ended(*other), -self.space.follow_answer(owner, &before)));
            }
            rows.push(cheapest(edges, alone));
        }
        rows
    }

    /// Pieces of chains, each span behind the one that goes before it, to requests.
    fn string(&mut self, columns: &[Option<u32>]) {
        let (serveds, spans) = (self.space.served.len(), self.space.sent.len());
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
    }

    /// Gives whole chains to the requests that they fit best, from beginning to answer.
    fn reseat(&mut self) -> bool {
        let before: f64 = self.total();
        let (chains, parents) = (self.chains.clone(), self.parents.clone());
        let alone = (0..self.parents.len() as u32)
            .filter(|place| self.parent(*place as usize).is_none())
            .map(|place| vec![place]);
        let pieces: Vec<Vec<u32>> = chains.iter().filter(|chain| !chain.is_empty()).cloned().chain(alone).collect();
        self.seat(&pieces);
        let better = self.total() > before + 1e-6;
        if better {
            self.seen.all_changed(&chains, &self.chains, &parents, &self.parents);
        } else {
            (self.chains, self.parents) = (chains, parents);
            self.score_all();
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
            let mut held = Piece::new(piece);
            for parent in first.map_or(&[][..], |sent| sent.candidates.as_slice()) {
                if !spans().all(|sent| sent.may_be_of(*parent)) {
                    continue;
                }
                let (Some(served), Some(empty)) = (space.served.get(*parent as usize), empty.get(*parent as usize))
                else {
                    continue;
                };
                let (score, work) = held.chain(space, served);
                self.work += work;
                edges.push((*parent, empty - score));
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
                if let Some(best) = self.gain(place) {
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
        let moves = self.moves(place);
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
        self.seen.moved(span);
        for parent in [own, exchange.to] {
            self.rescore(parent);
            self.seen.changed(parent);
        }
    }

    fn take(&mut self, span: u32, parent: u32) {
        if let Some(chain) = self.chains.get_mut(parent as usize) {
            chain.retain(|other| *other != span);
        }
    }
}

fn cheapest(mut edges: Vec<(u32, f64)>, alone: f64) -> Row {
    edges.retain(|(_, cost)| *cost < alone + HOPELESS);
    likeliest(&mut edges, MAX_EDGES, |one, other| one.1.total_cmp(&other.1).then(one.0.cmp(&other.0)));
    Row { edges, alone }
}

/// Leaves the first so many, in order.
pub(super) fn likeliest<T>(items: &mut Vec<T>, most: usize, order: impl Fn(&T, &T) -> Ordering) {
    if items.len() > most {
        items.select_nth_unstable_by(most, &order);
        items.truncate(most);
    }
    items.sort_unstable_by(order);
}
