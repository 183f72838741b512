//! Tier G: which request a span belongs to, by how long such requests wait before such spans.
//!
//! In: a window of a process's spans; out: a parent for each whose likelihood is at least the margin. Gaps between the
//! events of a request (begun → sent, answer read → next sent, answer read → answered) have densities that are learned
//! from the window itself by EM (`density`): a first matching (`matching`), exchanges between chains (`chains`), counts
//! weighted by likelihood, again, a few rounds. Containment is hard. A window with more than [`MAX_SPANS`]
//! spans or [`super::Limits::pairs`] pairs is not weighed: its spans have no parent here. What was learned is kept for [`MEMORY_NS`] or so.

mod chains;
pub mod density;
mod guess;
mod habits;
mod matching;
mod moves;
mod order;
mod pieces;
mod space;

use std::collections::BTreeMap;

use self::chains::Chains;
use self::density::Gaps;
use self::habits::Habits;
use self::order::Mark;
use self::space::{Before, Space};
use super::thread::Threads;
use super::wakeup::Wakes;
use super::{Child, Facts, Link, Missed, Scene, Tier};

/// Spans of one window.
pub const MAX_SPANS: usize = 32_768;
/// Steps of chains that may be scored for one window in all rounds: some 40 ns each. A window of [`super::Limits::pairs`]
/// takes less than half of it, but for chains of many spans.
const WORK: u64 = 20_000_000;
/// What was learned counts half after this time.
pub const MEMORY_NS: f64 = 20e9;
/// Kinds of steps remembered of one process.
const MAX_STEPS: usize = 512;
const MAX_OPERATIONS: usize = 256;
/// Rounds of a process that is not known yet, and of one that is.
const ROUNDS_COLD: usize = 6;
/// By round of a process that is not known yet: how much less a likelihood counts than it says.
const HEAT: [f64; 4] = [8.0, 6.0, 4.0, 3.0];
/// The same once it is known: what is learned from its own answers is too sure of itself.
const DOUBT: f64 = 2.0;
const ROUNDS_WARM: usize = 3;

/// How much less a likelihood says once it is to name a parent: of parents that the model held for right with 0.98, one in
/// ten was wrong where event loops had several requests open (`cargo xtask accuracy`).
const SOBER: f64 = 2.0;

/// Gaps that make a process known.
const KNOWN: f64 = 300.0;
/// Share of the answer that must be the same without a model.
const BORNE_OUT: f64 = 0.5;
/// Likelihood above which the best parent is worth a word to other tiers.
const LEANING: f64 = 0.5;

/// Spans sent while nothing was open from which a rate is made.
const IDLE_LEAST: f64 = 3.0;

/// The answer, among the hashes of operations.
const ANSWER: u64 = 0;

/// What goes before a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum From {
    /// The beginning of the request.
    Beginning,
    /// The end of an earlier span.
    End(u16),
    /// The beginning of one that is not over.
    Beside(u16),
}

impl From {
    const fn kind(self) -> usize {
        match self {
            Self::Beginning => 0,
            Self::End(_) => 1,
            Self::Beside(_) => 2,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Step {
    served: u16,
    from: From,
    to: u16,
}

/// A step by the hashes of its operations.
type Named = (u64, (u8, u64), u64);

/// What is known of one process.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub(super) threads: Threads,
    pub(super) wakes: Wakes,
    steps: BTreeMap<Named, Gaps>,
    /// By operation sent: how many, and how many belong to nobody.
    alone: BTreeMap<u64, (f64, f64)>,
    habits: Habits,
    learned_ns: u64,
    /// Time without an open request, ns, and by operation the spans that were sent then.
    idle_ns: f64,
    idle: BTreeMap<u64, f64>,
    idle_until_ns: u64,
    /// Rows of the matching whose search was cut, and windows with more to do than is done.
    pub cut: u64,
    pub unfinished: u64,
    /// Pairs of a span and an open request that were weighed.
    pub weighed: u64,
    /// Windows whose answer nothing but itself spoke for.
    pub doubted: u64,
    /// Of them, how many one after the other, and windows that are passed over before the next try.
    streak: u32,
    pause: u32,
}

impl Model {
    /// Share of an operation's spans that belong to nobody; with what the window shows.
    fn share_alone(&self, operation: u64, (seen, alone): (f64, f64)) -> f64 {
        let (more_seen, more_alone) = self.alone.get(&operation).copied().unwrap_or_default();
        ((alone + more_alone + 0.5) / (seen + more_seen + 10.0)).clamp(0.002, 0.95)
    }

    /// How often an operation is sent while nothing is open, per ns; 0 where that is not known.
    fn idle_rate(&self, operation: u64) -> f64 {
        match self.idle.get(&operation) {
            Some(sent) if *sent >= IDLE_LEAST && self.idle_ns > 0.0 => sent / self.idle_ns,
            _ => 0.0,
        }
    }

    /// Whether an operation was sent while nothing was open, and not only once or twice.
    pub(super) fn sends_on_its_own(&self, operation: u64) -> bool {
        self.idle.get(&operation).is_some_and(|sent| *sent >= IDLE_LEAST)
    }

    /// Looks at the time since the last window in which nothing was open.
    pub(super) fn observe_idle(&mut self, parents: &[Facts], children: &[Child]) {
        let first_ns = children.first().map(|child| child.facts.start_ns);
        let last_ns = children.last().map(|child| child.facts.start_ns);
        let (Some(first_ns), Some(last_ns)) = (first_ns, last_ns) else { return };
        let from_ns = self.idle_until_ns.max(first_ns);
        if last_ns <= from_ns {
            return;
        }
        self.idle_until_ns = last_ns;
        let mut free_ns = from_ns;
        for parent in parents.iter().filter(|parent| parent.end_ns > from_ns) {
            self.idle_ns += parent.start_ns.min(last_ns).saturating_sub(free_ns) as f64;
            free_ns = free_ns.max(parent.end_ns);
        }
        self.idle_ns += last_ns.saturating_sub(free_ns) as f64;
        for child in children.iter().filter(|child| child.facts.start_ns > from_ns && child.missed == Missed::NoneOpen)
        {
            let operation = child.facts.operation;
            if child.link.is_none() && (self.idle.len() < MAX_OPERATIONS || self.idle.contains_key(&operation)) {
                *self.idle.entry(operation).or_default() += 1.0;
            }
        }
    }

    fn gaps(&self) -> f64 {
        self.steps.values().map(|gaps| gaps.total).sum()
    }

    /// Kinds of steps remembered.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Nothing is said of a window; where that happens again and again, it is tried less and less often.
    fn doubt(&mut self) {
        self.doubted += 1;
        self.rest();
    }

    fn rest(&mut self) {
        self.pause = (1 << self.streak.min(4)) - 1;
        self.streak += 1;
    }

    /// Forgets with time.
    fn fade(&mut self, now_ns: u64) {
        let passed = now_ns.saturating_sub(self.learned_ns) as f64;
        if self.learned_ns == 0 || passed <= 0.0 {
            self.learned_ns = self.learned_ns.max(now_ns);
            return;
        }
        self.learned_ns = now_ns;
        let factor = 0.5f64.powf(passed / MEMORY_NS);
        self.steps.values_mut().for_each(|gaps| gaps.scale(factor));
        self.steps.retain(|_, gaps| gaps.total > 0.05);
        self.habits.scale(factor);
        for (seen, part) in self.alone.values_mut() {
            (*seen, *part) = (*seen * factor, *part * factor);
        }
        self.alone.retain(|_, (seen, _)| *seen > 0.05);
        self.idle_ns *= factor;
        self.idle.values_mut().for_each(|sent| *sent *= factor);
        self.idle.retain(|_, sent| *sent > 0.05);
    }
}

/// What the chains of a window show.
#[derive(Default)]
struct Shown {
    steps: BTreeMap<Step, Gaps>,
    habits: Habits,
}

/// Counts every step of every chain, as far as it is likely. `ready`: only what will not be counted again.
fn count(space: &Space, chains: &Chains<'_>, ready: bool) -> Shown {
    let mut shown = Shown::default();
    for (place, served) in space.served.iter().enumerate() {
        let mut state = Space::begin(served);
        let (mut weight, mut least) = (1.0, 1.0f64);
        for number in chains.of(place) {
            let Some(sent) = space.sent.get(*number as usize) else { continue };
            let posterior = chains.posterior.get(*number as usize).copied().unwrap_or_default();
            let before = Space::before(&state, sent);
            let step = Step { served: served.operation, from: before.from, to: Space::to(sent.operation) };
            if !ready || (sent.is_ready && !sent.is_fixed) || served.is_over {
                shown.add(step, &before, (sent.tid, sent.begun), f64::min(weight, posterior));
            }
            state = Space::after(&state, sent);
            (weight, least) = (posterior, least.min(posterior));
        }
        if served.is_over {
            let before = Space::before_answer(&state, served);
            let step = Step { served: served.operation, from: before.from, to: Space::ANSWER };
            shown.add(step, &before, (served.end_tid, served.answered), least);
        }
    }
    shown
}

impl Shown {
    fn add(&mut self, step: Step, before: &Before, (tid, mark): (u32, Mark), weight: f64) {
        if weight < 0.05 {
            return;
        }
        self.steps.entry(step).or_default().add(before.gap_ns, weight);
        let kind = if step.to == Space::ANSWER { 3 } else { before.from.kind() };
        self.habits.step(kind, (before.tid, tid), order::class(before.mark, mark), weight);
    }
}

/// Whether it has to be guessed. Where it is told how tasks hand requests on, what is left is what was handed on together
/// with others, or for nobody: times say less of that than of the others.
fn is_asked(child: &Child) -> bool {
    child.is_undecided() && child.facts.wakers.is_none()
}

pub(super) fn decide(tier: &Tier, scene: &mut Scene<'_>) {
    if !scene.children.iter().any(|child| is_asked(child) && child.missed == Missed::Ambiguous) {
        return;
    }
    if scene.model.pause > 0 {
        scene.model.pause -= 1;
        return;
    }
    let pairs = scene.pairs();
    if scene.parents.len() + scene.children.len() > MAX_SPANS || pairs > scene.limits.pairs {
        return give_up(scene);
    }
    scene.model.weighed += pairs;
    let mut space = Space::new(scene);
    let known = scene.model.gaps() >= KNOWN;
    let rounds = if known { ROUNDS_WARM } else { ROUNDS_COLD };
    let mut shown = Shown::default();
    let mut pairs = Habits::default();
    // What can be said without any model.
    let guess = guess::first_guess(&space);
    space.fit(&Model::default(), &guess, &Habits::default());
    space.weigh_alone(scene, &[]);
    Chains::new(&space, 0).rows(&mut pairs);
    space.fit(&Model::default(), &guess, &pairs);
    let mut left = WORK;
    let mut chains = Chains::new(&space, left);
    chains.begin(&mut Habits::default());
    if !chains.improve(1.0) {
        scene.model.rest();
        return give_up(scene);
    }
    left -= chains.work.min(left);
    let plain = chains.parents();
    if !known {
        shown.steps = guess;
    }
    let mut decided: Vec<(Option<u32>, f64)> = Vec::new();
    for round in 0..rounds {
        let mut habits = scene.model.habits;
        habits.add(&shown.habits);
        habits.add(&pairs);
        space.fit(scene.model, &shown.steps, &habits);
        space.weigh_alone(scene, &decided);
        let mut chains = Chains::new(&space, left);
        pairs = Habits::default();
        scene.model.cut += chains.begin(&mut pairs);
        let heat = if known { DOUBT } else { HEAT.get(round).copied().unwrap_or(DOUBT) };
        if !chains.improve(heat) {
            scene.model.rest();
            return give_up(scene);
        }
        left -= chains.work.min(left);
        shown = count(&space, &chains, round + 1 == rounds);
        decided = (0..space.sent.len())
            .map(|place| (chains.parent(place), chains.posterior.get(place).copied().unwrap_or_default()))
            .collect();
        if round >= 2 && agreement(&space, &decided, &plain, scene.limits.margin) < BORNE_OUT {
            scene.model.doubt();
            return;
        }
    }
    scene.model.streak = 0;
    shown.habits.add(&pairs);
    learn(scene, &space, &shown, &decided);
    for (place, (parent, posterior)) in decided.into_iter().enumerate() {
        let margin = scene.limits.margin;
        let Some(child) = scene.children.get_mut(place).filter(|child| is_asked(child) && child.ready) else {
            continue;
        };
        let Some(parent) = parent.map(|parent| parent as usize) else { continue };
        let posterior = sober(posterior);
        if posterior >= margin {
            scene.give(place, Link { parent, method: tier.method, confidence: posterior });
        } else if posterior >= LEANING {
            child.leaning = Some(parent);
        }
    }
}

/// Nothing is said of a window that has more to do than is done.
fn give_up(scene: &mut Scene<'_>) {
    scene.model.unfinished += 1;
    for child in scene.children.iter_mut().filter(|child| child.is_undecided() && child.missed == Missed::Ambiguous) {
        child.missed = Missed::Unweighed;
    }
}

/// Tempered: the odds count less.
fn sober(posterior: f64) -> f64 {
    1.0 / (1.0 + ((1.0 - posterior) / posterior.max(f64::MIN_POSITIVE)).max(0.0).powf(SOBER.recip()))
}

/// How near the answer is to what can be said without anything learned from it. A process that answers in
/// the order of a queue nobody sees can be explained in ways that are whole in themselves and wrong.
fn agreement(space: &Space, decided: &[(Option<u32>, f64)], plain: &[Option<u32>], margin: f64) -> f64 {
    let sure = space
        .sent
        .iter()
        .zip(decided)
        .zip(plain)
        .filter(|((sent, (_, posterior)), _)| !sent.is_fixed && *posterior >= margin);
    let (mut all, mut same) = (0.0, 0.0);
    for ((_, (parent, _)), plain) in sure {
        all += 1.0;
        same += if parent == plain { 1.0 } else { 0.0 };
    }
    if all > 0.0 { same / all } else { 1.0 }
}

/// How much a span with this likelihood of its parent counts as nobody's: it may well have another one.
fn nobodys(posterior: f64) -> f64 {
    (1.0 - posterior) / 2.0
}

fn learn(scene: &mut Scene<'_>, space: &Space, shown: &Shown, decided: &[(Option<u32>, f64)]) {
    let now_ns = scene.children.last().map_or(0, |child| child.facts.start_ns);
    let model = &mut *scene.model;
    model.fade(now_ns);
    for (step, gaps) in &shown.steps {
        let Some(named) = space.named(step) else { continue };
        if model.steps.len() < MAX_STEPS || model.steps.contains_key(&named) {
            model.steps.entry(named).or_default().add_all(gaps, 1.0);
        }
    }
    model.habits.add(&shown.habits);
    for (child, (parent, posterior)) in scene.children.iter().zip(decided) {
        if !child.ready || child.fixed {
            continue;
        }
        let operation = child.facts.operation;
        if model.alone.len() < MAX_OPERATIONS || model.alone.contains_key(&operation) {
            let (seen, alone) = model.alone.entry(operation).or_default();
            *seen += 1.0;
            *alone += if parent.is_none() { 1.0 } else { nobodys(*posterior) };
        }
    }
}
