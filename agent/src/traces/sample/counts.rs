//! What became of the spans that were sampled: sums since the start, and how they show as metrics.

use std::sync::{Mutex, PoisonError};

use crate::model::metric::{Kind, Metric, Sample, Source, Value};

static ENTERED: Metric = Metric {
    name: "seismo.sampling.spans",
    unit: "{span}",
    kind: Kind::Counter,
    description: "Finished spans that came to be chosen from for export; kept, dropped and pending ones add up to them",
    labels: &[],
};
static DECIDED: Metric = Metric {
    name: "seismo.sampling.decided",
    unit: "{span}",
    kind: Kind::Counter,
    description: "Spans by what was decided of their trace, and why",
    labels: &["outcome", "reason"],
};
static PENDING: Metric = Metric {
    name: "seismo.sampling.pending",
    unit: "{span}",
    kind: Kind::Gauge,
    description: "Spans of traces that are not decided yet",
    labels: &[],
};
static LIMITED: Metric = Metric {
    name: "seismo.sampling.limited",
    unit: "{event}",
    kind: Kind::Counter,
    description: "Times that a bound of the sampling was reached: a decision forgotten early, a request of a route too many",
    labels: &["limit"],
};

/// Every metric of the sampling.
pub const METRICS: &[&Metric] = &[&ENTERED, &DECIDED, &PENDING, &LIMITED];

/// Why a trace is exported; of several reasons the first one known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepReason {
    Share,
    Error,
    Slow,
    Rare,
    Alert,
}

const KEEP: [&str; 5] = ["share", "error", "slow", "rare", "alert"];

/// Why a trace is not exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    NotChosen,
    /// Too many spans waited; this trace had waited longest.
    NoRoom,
    /// The agent stopped before a decision.
    Stopped,
}

const DROP: [&str; 3] = ["not_chosen", "no_room", "stopped"];

/// Spans, but for the last two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub entered: u64,
    pub pending: u64,
    kept: [u64; KEEP.len()],
    dropped: [u64; DROP.len()],
    /// Decisions that made room for newer ones before their time.
    pub forgotten: u64,
    /// Requests of routes that there was no room for.
    pub routes_refused: u64,
}

impl Counts {
    pub(super) fn keep(&mut self, reason: KeepReason, spans: u64) {
        self.kept[reason as usize] += spans;
    }

    pub(super) fn lose(&mut self, reason: DropReason, spans: u64) {
        self.dropped[reason as usize] += spans;
    }

    pub fn kept_for(&self, reason: KeepReason) -> u64 {
        self.kept[reason as usize]
    }

    pub fn dropped_for(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }

    pub fn kept(&self) -> u64 {
        self.kept.iter().sum()
    }

    pub fn dropped(&self) -> u64 {
        self.dropped.iter().sum()
    }
}

/// The counts as they were last set, as a source of metrics.
#[derive(Debug, Default)]
pub struct Shown(Mutex<Counts>);

impl Shown {
    pub fn set(&self, counts: Counts) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = counts;
    }
}

impl Source for Shown {
    fn collect(&self, out: &mut Vec<Sample>) {
        let counts = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut push = |metric, labels: &[&'static str], count| {
            let labels = labels.iter().map(|label| (*label).into()).collect();
            out.push(Sample { metric, labels, value: Value::Count(count) });
        };
        push(&ENTERED, &[], counts.entered);
        KEEP.iter().zip(counts.kept).for_each(|(reason, count)| push(&DECIDED, &["kept", reason], count));
        DROP.iter().zip(counts.dropped).for_each(|(reason, count)| push(&DECIDED, &["dropped", reason], count));
        push(&PENDING, &[], counts.pending);
        push(&LIMITED, &["decisions"], counts.forgotten);
        push(&LIMITED, &["routes"], counts.routes_refused);
    }
}
