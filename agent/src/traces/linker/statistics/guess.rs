//! A first guess at the gaps of a process that is not known yet: which gaps between events are more frequent than chance.
//!
//! Every pair of events that could follow each other is counted by its gap; from that is taken what would be there if
//! nothing had to do with anything (as many pairs, spread evenly over the time in which they could lie). What remains are
//! the gaps of pairs that belong together, whoever they are. Linear in the pairs, at most [`PAIRS`] for each span.

use std::collections::BTreeMap;

use super::density::{BINS, Gaps, bin, middle, width};
use super::space::Space;
use super::{From, Step};

/// Pairs looked at for one span, of each kind.
const PAIRS: usize = 64;
/// Standard errors above chance at which a gap counts.
const SURE: f64 = 2.0;

/// Pairs by their gap, and by the time in which they could lie.
#[derive(Clone)]
struct Pairs {
    seen: [f64; BINS],
    spread: [f64; BINS],
    /// Those that belong together, if each event has one that does.
    together: f64,
}

impl Default for Pairs {
    fn default() -> Self {
        Self { seen: [0.0; BINS], spread: [0.0; BINS], together: 0.0 }
    }
}

impl Pairs {
    fn add(&mut self, gap_ns: u64, within_ns: u64, share: f64) {
        if let (Some(seen), Some(spread)) = (self.seen.get_mut(bin(gap_ns)), self.spread.get_mut(bin(within_ns))) {
            *seen += 1.0;
            *spread += 1.0 - share;
            self.together += share;
        }
    }

    /// What is more than chance.
    fn excess(&self) -> Gaps {
        let mut by_chance = [0.0; BINS];
        // From long to short: how many pairs lie evenly over this bin, per ns.
        let mut per_ns = 0.0;
        for place in (0..BINS).rev() {
            let spread = self.spread.get(place).copied().unwrap_or_default();
            per_ns += spread / middle(place);
            if let Some(chance) = by_chance.get_mut(place) {
                *chance = per_ns * width(place);
            }
        }
        let mut gaps = Gaps::default();
        for (place, (seen, chance)) in self.seen.iter().zip(by_chance).enumerate() {
            let more = seen - chance - SURE * chance.sqrt();
            if more > 0.0 {
                gaps.add(middle(place) as u64, more);
            }
        }
        if gaps.total > self.together && gaps.total > 0.0 {
            gaps.scale(self.together / gaps.total);
        }
        gaps
    }
}

pub(super) fn first_guess(space: &Space) -> BTreeMap<Step, Gaps> {
    let mut begun: BTreeMap<(u16, u16), Pairs> = BTreeMap::new();
    let mut answered: BTreeMap<(u16, u16), Pairs> = BTreeMap::new();
    let mut ended: BTreeMap<(u16, u16), Pairs> = BTreeMap::new();
    let mut beside: BTreeMap<(u16, u16), Pairs> = BTreeMap::new();
    let mut by_end: Vec<(u64, u16)> = space.sent.iter().map(|sent| (sent.end_ns, sent.operation)).collect();
    by_end.sort_unstable();
    for (place, sent) in space.sent.iter().enumerate() {
        let before = space.sent.get(place.saturating_sub(PAIRS)..place).unwrap_or_default();
        if let Some(first) = before.first() {
            let share = 1.0 / before.len() as f64;
            for other in before.iter().filter(|other| other.end_ns > sent.start_ns) {
                let pairs = beside.entry((other.operation, sent.operation)).or_default();
                pairs.add(sent.start_ns - other.start_ns, sent.start_ns - first.start_ns, share);
            }
        }
        let share = 1.0 / sent.candidates.len().max(1) as f64;
        for parent in sent.candidates.iter().take(PAIRS) {
            let Some(served) = space.served.get(*parent as usize).filter(|served| served.contains(sent)) else {
                continue;
            };
            let within_ns = (served.end_ns - served.start_ns).saturating_sub(sent.end_ns.saturating_sub(sent.start_ns));
            let key = (served.operation, sent.operation);
            begun.entry(key).or_default().add(sent.start_ns - served.start_ns, within_ns, share);
            answered.entry(key).or_default().add(served.end_ns - sent.end_ns, within_ns, share);
        }
        let until = by_end.partition_point(|(end_ns, _)| *end_ns <= sent.start_ns);
        let recent = by_end.get(until.saturating_sub(PAIRS)..until).unwrap_or_default();
        let Some((first_ns, _)) = recent.first() else { continue };
        let share = 1.0 / recent.len() as f64;
        for (end_ns, operation) in recent {
            let pairs = ended.entry((*operation, sent.operation)).or_default();
            pairs.add(sent.start_ns - end_ns, sent.start_ns - first_ns, share);
        }
    }
    let mut guess: BTreeMap<Step, Gaps> = BTreeMap::new();
    for ((served, sent), pairs) in begun {
        guess.insert(Step { served, from: From::Beginning, to: Space::to(sent) }, pairs.excess());
    }
    for ((served, sent), pairs) in answered {
        guess.insert(Step { served, from: From::End(sent), to: Space::ANSWER }, pairs.excess());
    }
    let operations = space.served.iter().map(|served| served.operation).max().map_or(0, |most| most + 1);
    let ended = ended.into_iter().map(|((before, sent), pairs)| (From::End(before), sent, pairs));
    let beside = beside.into_iter().map(|((before, sent), pairs)| (From::Beside(before), sent, pairs));
    for (from, sent, pairs) in ended.chain(beside) {
        let mut gaps = pairs.excess();
        gaps.scale(1.0 / f64::from(operations.max(1)));
        for served in 0..operations {
            guess.insert(Step { served, from, to: Space::to(sent) }, gaps.clone());
        }
    }
    guess.retain(|_, gaps| gaps.total > 0.0);
    guess
}
