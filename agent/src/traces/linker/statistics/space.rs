//! A window as statistics sees it: operations by number, requests and spans as small values, and what a step costs.
//!
//! A request is a chain: it begins, sends this and that, and is answered. A *step* goes from one event of a chain to the
//! next, `to` being an operation sent or the answer, `from` the beginning, the end of an earlier span, or the beginning
//! of one that is not over yet (side by side). Of each step its probability and the density of its gap are known from the
//! [`Model`], with what is known of all operations together standing in where little is known of one.

use std::collections::BTreeMap;

use super::super::facts::Facts;
use super::super::scene::Scene;
use super::density::{Density, Gaps, bin};
use super::habits::{Habits, KINDS};
use super::order::{self, CLASSES, Mark};
use super::{From, Model, Step};

/// Operations told apart in one process; the rest are one.
const MAX_SERVED: usize = 32;
const MAX_SENT: usize = 64;
/// Observations that the general case counts for where a single one is looked at.
const PRIOR: f64 = 3.0;
/// Gaps from which a step has a density of its own.
const OWN_GAPS: f64 = 10.0;
/// The same for a density.
const PRIOR_GAPS: f64 = 5.0;

/// A request that the process serves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Served {
    pub start_ns: u64,
    pub end_ns: u64,
    pub is_over: bool,
    pub operation: u16,
    pub tid: u32,
    pub end_tid: u32,
    /// Share of that thread among those that answer.
    pub share: f32,
    /// How much it speaks for a step to the answer that it stays on that thread, as a logarithm.
    stays: f64,
    pub begun: Mark,
    pub answered: Mark,
}

impl Served {
    /// Whether it is over, and began before a span and ended behind it.
    pub fn contains(&self, sent: &Sent) -> bool {
        self.is_over && self.start_ns <= sent.start_ns && sent.end_ns <= self.end_ns
    }
}

/// A span that it sends.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub start_ns: u64,
    pub end_ns: u64,
    pub operation: u16,
    pub tid: u32,
    pub last_tid: u32,
    /// Share of the sending thread among those that send.
    pub share: f32,
    /// By kind of step: how much it speaks for one that it stays on that thread, as a logarithm.
    stays: [f64; KINDS],
    /// Logarithm of the density of such spans that belong to nobody, per ns.
    pub alone: f64,
    /// Requests that contain it, in their order.
    pub candidates: Vec<u32>,
    /// Their operations, as bits.
    pub operations: u32,
    /// It has its parent, or none for good.
    pub is_fixed: bool,
    pub is_ready: bool,
    pub begun: Mark,
    pub ended: Mark,
}

impl Sent {
    /// Whether this request contains it.
    pub fn may_be_of(&self, request: u32) -> bool {
        self.candidates.binary_search(&request).is_ok()
    }
}

/// An event that something may follow.
#[derive(Clone, Copy, Debug)]
struct Event {
    at_ns: u64,
    operation: u16,
    tid: u32,
    mark: Mark,
}

/// Where a chain stands: what ended last and what began last.
#[derive(Clone, Copy, Debug)]
pub(super) struct State {
    ended: Event,
    began: Event,
}

/// What goes before a step: which event, the gap, and the thread's mark.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before {
    pub from: From,
    pub gap_ns: u64,
    pub tid: u32,
    pub mark: Mark,
}

/// Stands for the beginning of a request.
const BEGINNING: u16 = u16::MAX;

/// Densities as one table; each has its first place.
#[derive(Default)]
struct Densities(Vec<f32>);

impl Densities {
    fn add(&mut self, density: &Density) -> u32 {
        let first = self.0.len() as u32;
        self.0.extend_from_slice(density.logs());
        first
    }
}

pub(super) struct Space {
    pub served: Vec<Served>,
    pub sent: Vec<Sent>,
    pub span_ns: f64,
    served_operations: Vec<u64>,
    sent_operations: Vec<u64>,
    /// By operation served, `from` and `to`: logarithm of the probability, and place of the density.
    steps: Vec<(f32, u32)>,
    /// Densities, one behind the other.
    densities: Vec<f32>,
    /// By operation served and sent: logarithm of the probability that nothing is sent beside.
    singles: Vec<f32>,
    /// By kind of step: how much it speaks for one that it goes to another thread, as a logarithm.
    leaves: [f64; KINDS],
    /// By kind of step and class of order: how much likelier than by chance, as a logarithm.
    orders: [[f64; CLASSES]; KINDS],
}

/// Numbers of the commonest values; the rest share the last one.
fn numbered(values: impl Iterator<Item = u64>, most: usize) -> Vec<u64> {
    let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
    values.for_each(|value| *counts.entry(value).or_default() += 1);
    let mut order: Vec<(u64, u64)> = counts.into_iter().collect();
    order.sort_unstable_by_key(|(value, count)| (u64::MAX - count, *value));
    order.truncate(most - 1);
    order.into_iter().map(|(value, _)| value).collect()
}

fn number(known: &[u64], value: u64) -> u16 {
    known.iter().position(|known| *known == value).unwrap_or(known.len()) as u16
}

/// The numbers of the bits that are set.
fn numbers(mut bits: u32) -> impl Iterator<Item = u16> {
    std::iter::from_fn(move || {
        let number = bits.trailing_zeros();
        bits &= bits.wrapping_sub(1);
        (number < u32::BITS).then_some(number as u16)
    })
}

fn shares(tids: impl Iterator<Item = u32>) -> BTreeMap<u32, f32> {
    let mut counts: BTreeMap<u32, f32> = BTreeMap::new();
    tids.for_each(|tid| *counts.entry(tid).or_default() += 1.0);
    let all: f32 = counts.values().sum();
    counts.values_mut().for_each(|count| *count /= all.max(1.0));
    counts
}

impl Space {
    pub fn new(scene: &Scene<'_>) -> Self {
        let served_operations = numbered(scene.parents.iter().map(|parent| parent.operation), MAX_SERVED);
        let sent_operations = numbered(scene.children.iter().map(|child| child.facts.operation), MAX_SENT);
        let senders = shares(scene.children.iter().map(|child| child.facts.tid));
        let answerers = shares(scene.parents.iter().map(|parent| parent.end_tid));
        let share = |of: &BTreeMap<u32, f32>, tid: u32| of.get(&tid).copied().unwrap_or(1.0).max(1e-4);
        let served: Vec<Served> = scene
            .parents
            .iter()
            .map(|parent| Served {
                start_ns: parent.start_ns,
                end_ns: parent.end_ns,
                is_over: parent.is_over(),
                operation: number(&served_operations, parent.operation),
                tid: parent.tid,
                end_tid: parent.end_tid,
                share: share(&answerers, parent.end_tid),
                stays: 0.0,
                begun: Mark::default(),
                answered: Mark::default(),
            })
            .collect();
        let times = |facts: &Facts| [Some(facts.start_ns), Some(facts.end_ns).filter(|_| facts.is_over())];
        let all = || scene.children.iter().map(|child| &child.facts).chain(&scene.parents).flat_map(times).flatten();
        let span_ns = all().max().unwrap_or(0).saturating_sub(all().min().unwrap_or(0)).max(1_000_000) as f64;
        let mut sent: Vec<Sent> = Vec::with_capacity(scene.children.len());
        for child in &scene.children {
            let facts = &child.facts;
            let operation = number(&sent_operations, facts.operation);
            let candidates = match (&child.link, child.is_undecided()) {
                (Some(link), _) => vec![link.parent as u32],
                (None, true) if !child.crowded => {
                    let contains =
                        |place: &usize| scene.parents.get(*place).is_some_and(|parent| parent.contains(facts));
                    scene.open_at(child).filter(contains).map(|place| place as u32).collect()
                }
                _ => Vec::new(),
            };
            let of = |place: &u32| served.get(*place as usize).map_or(0, |served| 1 << served.operation);
            let operations = candidates.iter().map(of).fold(0, |all, one| all | one);
            sent.push(Sent {
                operations,
                start_ns: facts.start_ns,
                end_ns: facts.end_ns,
                operation,
                tid: facts.tid,
                last_tid: facts.last_tid(),
                share: share(&senders, facts.tid),
                stays: [0.0; KINDS],
                alone: 0.0,
                candidates,
                is_fixed: !child.is_undecided(),
                is_ready: child.ready,
                begun: Mark::default(),
                ended: Mark::default(),
            });
        }
        let mut space = Self {
            served,
            sent,
            span_ns,
            served_operations,
            sent_operations,
            steps: Vec::new(),
            densities: Vec::new(),
            singles: Vec::new(),
            leaves: [0.0; KINDS],
            orders: [[0.0; CLASSES]; KINDS],
        };
        order::mark(&mut space);
        space
    }

    /// How likely spans are nobody's, by what a round has decided.
    pub fn weigh_alone(&mut self, scene: &Scene<'_>, decided: &[(Option<u32>, f64)]) {
        let mut counts = vec![(0.0, 0.0); self.sent_operations.len() + 1];
        for (place, sent) in self.sent.iter().enumerate() {
            let Some((seen, alone)) = counts.get_mut(usize::from(sent.operation)) else { continue };
            *seen += 1.0;
            *alone += match decided.get(place) {
                _ if sent.candidates.is_empty() => 1.0,
                None => 0.0,
                Some((None, _)) => 1.0,
                Some((Some(_), posterior)) => super::nobodys(*posterior),
            };
        }
        for (sent, child) in self.sent.iter_mut().zip(&scene.children) {
            let (seen, alone) = counts.get(usize::from(sent.operation)).copied().unwrap_or_default();
            let share = scene.model.share_alone(child.facts.operation, (seen, alone));
            let idle = scene.model.idle_rate(child.facts.operation);
            sent.alone = f64::max(share * seen / self.span_ns, idle).ln();
        }
    }

    fn kinds(&self) -> (usize, usize, usize) {
        let sent = self.sent_operations.len() + 1;
        (self.served_operations.len() + 1, 2 * sent + 1, sent + 1)
    }

    fn place(&self, operation: u16, from: From, to: u16) -> usize {
        let (_, froms, tos) = self.kinds();
        let from = match from {
            From::Beginning => 0,
            From::End(operation) => 1 + 2 * usize::from(operation),
            From::Beside(operation) => 2 + 2 * usize::from(operation),
        };
        (usize::from(operation) * froms + from) * tos + usize::from(to)
    }

    /// The answer as `to`.
    pub const ANSWER: u16 = 0;

    pub const fn to(sent: u16) -> u16 {
        sent + 1
    }

    /// Learns what steps cost from what is known and from what this window has shown so far.
    pub fn fit(&mut self, model: &Model, shown: &BTreeMap<Step, Gaps>, habits: &Habits) {
        self.fit_threads(habits);
        let mut known: BTreeMap<Step, Gaps> = shown.clone();
        for ((served, from, sent), gaps) in &model.steps {
            let from = match from {
                (0, _) => From::Beginning,
                (1, operation) => From::End(number(&self.sent_operations, *operation)),
                (_, operation) => From::Beside(number(&self.sent_operations, *operation)),
            };
            let to = if *sent == super::ANSWER { Self::ANSWER } else { Self::to(number(&self.sent_operations, *sent)) };
            let step = Step { served: number(&self.served_operations, *served), from, to };
            known.entry(step).or_default().add_all(gaps, 1.0);
        }
        let (serveds, froms, tos) = self.kinds();
        // Of all operations served together.
        let mut general: BTreeMap<(From, u16), Gaps> = BTreeMap::new();
        let mut from_general: BTreeMap<From, f64> = BTreeMap::new();
        let mut from_own: BTreeMap<(u16, From), f64> = BTreeMap::new();
        let mut besides: BTreeMap<(u16, u16), f64> = BTreeMap::new();
        for (step, gaps) in &known {
            general.entry((step.from, step.to)).or_default().add_all(gaps, 1.0);
            // Each span could have one beside it.
            let chances = match (step.from, step.to) {
                (_, Self::ANSWER) => None,
                (_, to) => Some(From::Beside(to - 1)),
            };
            let own = Some(step.from).filter(|from| !matches!(from, From::Beside(_)));
            for from in [own, chances].into_iter().flatten() {
                *from_general.entry(from).or_default() += gaps.total;
                *from_own.entry((step.served, from)).or_default() += gaps.total;
            }
            if let From::Beside(operation) = step.from {
                *besides.entry((step.served, operation)).or_default() += gaps.total;
            }
        }
        self.singles = (0..(serveds * (tos - 1)) as u32)
            .map(|place| {
                let (served, sent) = (place as usize / (tos - 1), place as usize % (tos - 1));
                let key = (served as u16, sent as u16);
                let all = from_own.get(&(key.0, From::Beside(key.1))).copied().unwrap_or_default();
                let beside = besides.get(&key).copied().unwrap_or_default();
                (1.0 - (beside + 0.05) / (all + 0.5).max(beside + 0.1)).max(1e-3).ln() as f32
            })
            .collect();
        let nothing = Gaps::default();
        let mut densities = Densities::default();
        densities.add(&nothing.fit());
        let mut general_density: BTreeMap<(From, u16), u32> = BTreeMap::new();
        for (key, gaps) in &general {
            general_density.insert(*key, densities.add(&gaps.fit()));
        }
        let mut steps = vec![(0.0, 0); serveds * froms * tos];
        let all_froms = std::iter::once(From::Beginning)
            .chain((0..(tos - 1) as u16).flat_map(|operation| [From::End(operation), From::Beside(operation)]));
        for from in all_froms {
            let all = from_general.get(&from).copied().unwrap_or_default();
            for to in 0..tos as u16 {
                let gaps = general.get(&(from, to));
                let is_beside = matches!(from, From::Beside(_));
                // Beside another one there need be nothing.
                let least = if is_beside { 0.05 } else { 0.5 };
                let likely = (gaps.map_or(0.0, |gaps| gaps.total) + least) / (all + 0.5 * tos as f64);
                for served in 0..serveds as u16 {
                    let own = known.get(&Step { served, from, to });
                    let own_all = from_own.get(&(served, from)).copied().unwrap_or_default();
                    let own_total = own.map_or(0.0, |gaps| gaps.total);
                    let probability = (own_total + PRIOR * likely) / (own_all + PRIOR);
                    let density = match (own, gaps) {
                        (Some(own), Some(gaps)) if own.total >= OWN_GAPS && own.total < gaps.total => {
                            let mut mixed = own.clone();
                            mixed.add_all(gaps, PRIOR_GAPS / gaps.total.max(PRIOR_GAPS));
                            densities.add(&mixed.fit())
                        }
                        _ => general_density.get(&(from, to)).copied().unwrap_or_default(),
                    };
                    let place = self.place(served, from, to);
                    if let Some(step) = steps.get_mut(place) {
                        *step = (probability.ln() as f32, density);
                    }
                }
            }
        }
        self.steps = steps;
        self.densities = densities.0;
    }

    /// The same of threads and of the order in which they work.
    fn fit_threads(&mut self, habits: &Habits) {
        self.orders = habits.orders();
        let stays = habits.stays();
        self.leaves = stays.map(|stays| (1.0 - stays).ln());
        let speaks = |stays: f64, share: f32| (stays / f64::from(share) + 1.0 - stays).ln();
        for sent in &mut self.sent {
            sent.stays = stays.map(|stays| speaks(stays, sent.share));
        }
        let [.., to_answer] = stays;
        for served in &mut self.served {
            served.stays = speaks(to_answer, served.share);
        }
    }

    fn step(&self, operation: u16, from: From, to: u16, bin: usize) -> f64 {
        self.step_at(self.place(operation, from, to), bin)
    }

    fn step_at(&self, place: usize, bin: usize) -> f64 {
        let (probability, density) = self.steps.get(place).copied().unwrap_or_default();
        f64::from(probability) + self.densities.get(density as usize + bin).copied().map_or(-100.0, f64::from)
    }

    /// How much more likely it is that a step leads from one thread to the other than that just any span is there.
    fn thread(&self, kind: usize, from: u32, to: u32, stays: f64) -> f64 {
        if from == 0 || to == 0 {
            return 0.0;
        }
        if from == to { stays } else { self.leaves.get(kind).copied().unwrap_or_default() }
    }

    fn order(&self, kind: usize, class: Option<usize>) -> f64 {
        class.and_then(|class| self.orders.get(kind)?.get(class).copied()).unwrap_or_default()
    }

    pub fn begin(served: &Served) -> State {
        let beginning = Event { at_ns: served.start_ns, operation: BEGINNING, tid: served.tid, mark: served.begun };
        State { ended: beginning, began: beginning }
    }

    /// What goes before a span in a chain.
    pub fn before(state: &State, sent: &Sent) -> Before {
        let Event { at_ns, operation, tid, mark } = state.ended;
        if at_ns <= sent.start_ns {
            let from = if operation == BEGINNING { From::Beginning } else { From::End(operation) };
            return Before { from, gap_ns: sent.start_ns - at_ns, tid, mark };
        }
        let Event { at_ns, operation, tid, mark } = state.began;
        Before { from: From::Beside(operation), gap_ns: sent.start_ns.saturating_sub(at_ns), tid, mark }
    }

    /// Logarithm of how likely a chain goes on with a span, and where it stands then.
    pub fn go_on(&self, served: &Served, state: &State, sent: &Sent) -> (f64, State) {
        (self.goes_on(served, state, sent), Self::after(state, sent))
    }

    /// The same, but where it stands then.
    #[inline]
    pub fn goes_on(&self, served: &Served, state: &State, sent: &Sent) -> f64 {
        let before = Self::before(state, sent);
        let mut score = self.follow(served.operation, &before, sent);
        if !matches!(before.from, From::Beside(_)) {
            score += self.single(served, state);
        }
        score
    }

    /// How likely it is that a span follows an event.
    pub fn follow(&self, operation: u16, before: &Before, sent: &Sent) -> f64 {
        let kind = before.from.kind();
        self.step(operation, before.from, Self::to(sent.operation), bin(before.gap_ns))
            + self.thread(kind, before.tid, sent.tid, sent.stays.get(kind).copied().unwrap_or_default())
            + self.order(kind, order::class(before.mark, sent.begun))
    }

    /// The same in the request of these operations (as bits) in which it is likeliest; `class`: of their order.
    pub fn follow_any(&self, operations: u32, before: &Before, sent: &Sent, class: Option<usize>) -> f64 {
        let (kind, bin, to) = (before.from.kind(), bin(before.gap_ns), Self::to(sent.operation));
        let thread = self.thread(kind, before.tid, sent.tid, sent.stays.get(kind).copied().unwrap_or_default());
        let order = self.order(kind, class);
        let (_, froms, tos) = self.kinds();
        let (first, apart) = (self.place(0, before.from, to), froms * tos);
        let each = numbers(operations)
            .map(|operation| self.step_at(first + usize::from(operation) * apart, bin) + thread + order);
        each.fold(f64::NEG_INFINITY, f64::max)
    }

    /// How likely it is that the answer follows an event.
    pub fn follow_answer(&self, served: &Served, before: &Before) -> f64 {
        self.step(served.operation, before.from, Self::ANSWER, bin(before.gap_ns))
            + self.thread(3, before.tid, served.end_tid, served.stays)
            + self.order(3, order::class(before.mark, served.answered))
    }

    /// That nothing was sent beside the last span.
    fn single(&self, served: &Served, state: &State) -> f64 {
        if state.began.operation == BEGINNING {
            return 0.0;
        }
        let place =
            usize::from(served.operation) * (self.sent_operations.len() + 1) + usize::from(state.began.operation);
        self.singles.get(place).copied().map_or(0.0, f64::from)
    }

    pub fn after(state: &State, sent: &Sent) -> State {
        let ended = if sent.end_ns >= state.ended.at_ns || state.ended.operation == BEGINNING {
            Event { at_ns: sent.end_ns, operation: sent.operation, tid: sent.last_tid, mark: sent.ended }
        } else {
            state.ended
        };
        let began = Event { at_ns: sent.start_ns, operation: sent.operation, tid: sent.tid, mark: sent.begun };
        State { ended, began }
    }

    /// What goes before the answer.
    pub fn before_answer(state: &State, served: &Served) -> Before {
        let Event { at_ns, operation, tid, mark } = state.ended;
        let from = if operation == BEGINNING { From::Beginning } else { From::End(operation) };
        Before { from, gap_ns: served.end_ns.saturating_sub(at_ns), tid, mark }
    }

    /// Logarithm of how likely the answer comes when it came; 0 as long as there is none.
    pub fn answer(&self, served: &Served, state: &State) -> f64 {
        if !served.is_over {
            return 0.0;
        }
        self.follow_answer(served, &Self::before_answer(state, served)) + self.single(served, state)
    }

    /// Logarithm of how likely a request sends these spans, in the order of time, and is answered when it was.
    pub fn chain(&self, served: &Served, spans: impl Iterator<Item = u32>) -> f64 {
        self.chain_from(served, (0.0, Self::begin(served)), spans)
    }

    /// The same of a chain that is known so far.
    pub fn chain_from(&self, served: &Served, so_far: (f64, State), spans: impl Iterator<Item = u32>) -> f64 {
        let (mut score, mut state) = so_far;
        for sent in spans.filter_map(|place| self.sent.get(place as usize)) {
            let (step, next) = self.go_on(served, &state, sent);
            (score, state) = (score + step, next);
        }
        score + self.answer(served, &state)
    }

    /// The same of a whole chain, which also leaves what was known before each span and at the end.
    pub fn chain_known(&self, served: &Served, spans: &[u32], known: &mut Vec<(f64, State)>) -> f64 {
        let (mut score, mut state) = (0.0, Self::begin(served));
        known.clear();
        known.push((score, state));
        for place in spans {
            if let Some(sent) = self.sent.get(*place as usize) {
                let (step, next) = self.go_on(served, &state, sent);
                (score, state) = (score + step, next);
            }
            known.push((score, state));
        }
        score + self.answer(served, &state)
    }

    /// Hashes of a step, as the model keeps it.
    pub fn named(&self, step: &Step) -> Option<super::Named> {
        let sent = |operation: u16| self.sent_operations.get(usize::from(operation)).copied();
        let served = *self.served_operations.get(usize::from(step.served))?;
        let from = match step.from {
            From::Beginning => (0, 0),
            From::End(operation) => (1, sent(operation)?),
            From::Beside(operation) => (2, sent(operation)?),
        };
        let to = if step.to == Self::ANSWER { super::ANSWER } else { sent(step.to - 1)? };
        Some((served, from, to))
    }
}
