//! Answers of the linker against what is true.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use seismo::traces::linker::file::Answer;

use super::service::World;

/// What came of a run. Links are those of spans that a process sent; those between the ends of a connection only count
/// for whole traces.
#[derive(Clone, Debug, Default)]
pub struct Score {
    pub sent: usize,
    /// Of those, that have a parent in truth.
    pub children: usize,
    pub right: usize,
    pub wrong: usize,
    pub traces: usize,
    pub whole: usize,
    pub methods: BTreeMap<&'static str, (usize, usize)>,
}

impl Score {
    pub fn of(world: &World, answers: &[Answer]) -> Self {
        let places: HashMap<&str, usize> =
            world.spans.iter().enumerate().map(|(place, span)| (span.id.as_str(), place)).collect();
        let mut score = Self::default();
        let mut broken: BTreeSet<usize> = BTreeSet::new();
        for (place, (span, answer)) in world.spans.iter().zip(answers).enumerate() {
            let (truth, said) = (world.parents[place], answer.parent.as_deref().map(|parent| places[parent]));
            if truth != said
                && let Some(trace) = world.traces[place]
            {
                broken.insert(trace);
            }
            if truth.is_none()
                && let Some(trace) = said.and_then(|said| world.traces[said])
            {
                // A stranger in it.
                broken.insert(trace);
            }
            if span.is_server {
                continue;
            }
            score.sent += 1;
            score.children += usize::from(truth.is_some());
            let Some(method) = answer.method else { continue };
            let is_right = truth == said;
            score.right += usize::from(is_right);
            score.wrong += usize::from(!is_right);
            let (right, wrong) = score.methods.entry(method).or_default();
            *right += usize::from(is_right);
            *wrong += usize::from(!is_right);
        }
        let traces: BTreeSet<usize> = world.traces.iter().flatten().copied().collect();
        (score.traces, score.whole) = (traces.len(), traces.difference(&broken).count());
        score
    }

    /// Right among those that have a parent.
    pub fn recall(&self) -> f64 {
        share(self.right, self.children)
    }

    /// Right among those that were given one.
    pub fn precision(&self) -> f64 {
        share(self.right, self.right + self.wrong)
    }

    /// Given a wrong parent, of all that were sent.
    pub fn wrong_share(&self) -> f64 {
        1.0 - share(self.sent - self.wrong, self.sent)
    }

    pub fn whole_share(&self) -> f64 {
        share(self.whole, self.traces)
    }
}

fn share(part: usize, all: usize) -> f64 {
    if all == 0 { 1.0 } else { part as f64 / all as f64 }
}
