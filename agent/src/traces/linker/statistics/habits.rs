//! What chains do with threads, by kind of step: whether they stay on one, and in which order it works.
//!
//! Counts of likely steps on the one side, of all pairs that were looked at on the other; what is likelier than chance
//! speaks for a step. Few counts say nothing.

use super::order::{CLASSES, SAME_RUN};

/// Steps: from the beginning, from the end of a span, beside one, to the answer.
pub(super) const KINDS: usize = 4;
/// Pairs from which chance is known.
const PAIRS_LEAST: f64 = 100.0;
/// What is expected of a thread before it has shown anything, as counts: that it works in order.
const IN_ORDER: [f64; CLASSES] = [0.5, 1.0, 2.0, 8.0, 40.0, 8.0, 2.0, 1.0, 0.5, 4.0, 4.0];
/// Most that the order may speak for or against, as a logarithm.
const MOST: f64 = 4.0;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Habits {
    /// Steps, and those that stay on the thread.
    stays: [(f64, f64); KINDS],
    /// Classes of order of likely steps, and of all pairs.
    order: [[f64; CLASSES]; KINDS],
    chance: [[f64; CLASSES]; KINDS],
}

impl Habits {
    pub fn step(&mut self, kind: usize, (from, to): (u32, u32), class: Option<usize>, weight: f64) {
        if from != 0
            && to != 0
            && let Some((seen, stays)) = self.stays.get_mut(kind)
        {
            *seen += weight;
            *stays += if from == to { weight } else { 0.0 };
        }
        if let Some(count) = class.and_then(|class| self.order.get_mut(kind)?.get_mut(class)) {
            *count += weight;
        }
    }

    /// A pair that was looked at, whether it belongs together or not.
    pub fn pair(&mut self, kind: usize, class: Option<usize>) {
        if let Some(count) = class.and_then(|class| self.chance.get_mut(kind)?.get_mut(class)) {
            *count += 1.0;
        }
    }

    pub fn add(&mut self, other: &Self) {
        for ((seen, stays), (more_seen, more_stays)) in self.stays.iter_mut().zip(other.stays) {
            (*seen, *stays) = (*seen + more_seen, *stays + more_stays);
        }
        let tables = [(&mut self.order, &other.order), (&mut self.chance, &other.chance)];
        for (own, more) in
            tables.into_iter().flat_map(|(own, more)| own.iter_mut().flatten().zip(more.iter().flatten()))
        {
            *own += more;
        }
    }

    pub fn scale(&mut self, factor: f64) {
        for (seen, stays) in &mut self.stays {
            (*seen, *stays) = (*seen * factor, *stays * factor);
        }
        self.order.iter_mut().chain(&mut self.chance).flatten().for_each(|count| *count *= factor);
    }

    /// Probability that a step stays on its thread.
    pub fn stays(&self) -> [f64; KINDS] {
        self.stays.map(|(seen, stays)| ((stays + 1.0) / (seen + 2.0)).clamp(0.01, 0.99))
    }

    /// How much likelier than by chance each class is, as a logarithm.
    pub fn orders(&self) -> [[f64; CLASSES]; KINDS] {
        let mut logs = [[0.0; CLASSES]; KINDS];
        for ((logs, order), chance) in logs.iter_mut().zip(&self.order).zip(&self.chance) {
            let (steps, pairs): (f64, f64) = (order.iter().sum(), chance.iter().sum());
            if pairs < PAIRS_LEAST {
                continue;
            }
            let prior: f64 = IN_ORDER.iter().sum();
            for (class, (((log, count), by_chance), expected)) in
                logs.iter_mut().zip(order).zip(chance).zip(IN_ORDER).enumerate()
            {
                let chance = (by_chance + 1.0) / (pairs + CLASSES as f64);
                let likely = (count + expected) / (steps + prior);
                // Not all pairs of other runs are looked at: they are less likely, never more.
                let most = if class < SAME_RUN { MOST } else { 0.0 };
                *log = (likely / chance).ln().clamp(-MOST, most);
            }
        }
        logs
    }
}
