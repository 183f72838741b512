//! What became of the spans, or points of metrics, that were handed to an exporter: sums since the start, and how they show
//! as metrics.

use std::sync::{Mutex, PoisonError};

use crate::model::metric::{Kind, Metric, Sample, Source, Value};

static OFFERED: Metric = Metric {
    name: "seismo.export.offered",
    unit: "{item}",
    kind: Kind::Counter,
    description: "Spans and points of metrics handed to an exporter; sent, lost and queued ones add up to them",
    labels: &["exporter", "signal"],
};
static SPANS: Metric = Metric {
    name: "seismo.export.spans",
    unit: "{span}",
    kind: Kind::Counter,
    description: "Spans that an exporter is done with, by what became of them",
    labels: &["exporter", "outcome", "reason"],
};
static POINTS: Metric = Metric {
    name: "seismo.export.points",
    unit: "{point}",
    kind: Kind::Counter,
    description: "Points of metrics that an exporter is done with, by what became of them",
    labels: &["exporter", "outcome", "reason"],
};
static QUEUED: Metric = Metric {
    name: "seismo.export.queued",
    unit: "{item}",
    kind: Kind::Gauge,
    description: "Spans and points of metrics that an exporter still has to send",
    labels: &["exporter", "signal"],
};
static QUEUE_SIZE: Metric = Metric {
    name: "seismo.export.queue.size",
    unit: "By",
    kind: Kind::Gauge,
    description: "Encoded batches that wait to be sent",
    labels: &["exporter", "signal"],
};
static REQUESTS: Metric = Metric {
    name: "seismo.export.requests",
    unit: "{request}",
    kind: Kind::Counter,
    description: "Requests to a backend by how they ended; those to be tried again are failed ones",
    labels: &["exporter", "signal", "outcome"],
};

/// Every metric of the exporters.
pub const METRICS: &[&Metric] = &[&OFFERED, &SPANS, &POINTS, &QUEUED, &QUEUE_SIZE, &REQUESTS];

/// How a request ended.
pub const ATTEMPTS: [&str; 3] = ["taken", "refused", "failed"];

/// What is handed to an exporter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Items {
    Spans,
    Points,
}

impl Items {
    /// OpenTelemetry's name of the signal.
    const fn signal(self) -> &'static str {
        match self {
            Self::Spans => "traces",
            Self::Points => "metrics",
        }
    }
}

/// Why a span or a point was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossReason {
    QueueFull,
    /// The backend does not want it.
    Rejected,
    /// The backend did not take it for too long.
    GaveUp,
    Shutdown,
    /// The file could not be written.
    Write,
    /// A value that its metric cannot have.
    Unfit,
}

const LOST: [&str; 6] = ["queue_full", "rejected", "gave_up", "shutdown", "write", "unfit"];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub offered: u64,
    pub sent: u64,
    lost: [u64; LOST.len()],
    /// In the order of [`ATTEMPTS`].
    pub attempts: [u64; ATTEMPTS.len()],
}

impl Counts {
    pub fn lose(&mut self, reason: LossReason, items: u64) {
        self.lost[reason as usize] += items;
    }

    pub fn lost_for(&self, reason: LossReason) -> u64 {
        self.lost[reason as usize]
    }

    pub fn lost(&self) -> u64 {
        self.lost.iter().sum()
    }

    pub fn queued(&self) -> u64 {
        self.offered.saturating_sub(self.sent).saturating_sub(self.lost())
    }
}

/// The counts of one exporter as they were last shown, as a source of metrics.
#[derive(Debug)]
pub struct Account {
    exporter: &'static str,
    items: Items,
    shown: Mutex<(Counts, u64)>,
}

impl Account {
    pub fn new(exporter: &'static str, items: Items) -> Self {
        Self { exporter, items, shown: Mutex::default() }
    }

    /// `queue_bytes`: size of the encoded batches that wait.
    pub fn show(&self, counts: Counts, queue_bytes: u64) {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = (counts, queue_bytes);
    }

    pub fn counts(&self) -> Counts {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Source for Account {
    fn collect(&self, out: &mut Vec<Sample>) {
        let (counts, queue_bytes) = *self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let mut push = |metric, labels: &[&'static str], count| {
            let labels = std::iter::once(&self.exporter).chain(labels).map(|label| (*label).into()).collect();
            out.push(Sample { metric, labels, value: Value::Count(count) });
        };
        let signal = self.items.signal();
        let done = match self.items {
            Items::Spans => &SPANS,
            Items::Points => &POINTS,
        };
        push(&OFFERED, &[signal], counts.offered);
        push(done, &["sent", ""], counts.sent);
        LOST.iter().zip(counts.lost).for_each(|(reason, count)| push(done, &["lost", reason], count));
        push(&QUEUED, &[signal], counts.queued());
        push(&QUEUE_SIZE, &[signal], queue_bytes);
        ATTEMPTS.iter().zip(counts.attempts).for_each(|(outcome, count)| push(&REQUESTS, &[signal, outcome], count));
    }
}
