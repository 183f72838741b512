//! Which traces leave the node: spans as they are finished → those of the traces that are kept.
//!
//! A trace is kept as soon as one of its spans gives a reason: chosen by its id, an error, slow for its route, a rare route,
//! touched by a firing alert. Without a reason its spans wait until its root has come and [`Config::settle`] has passed, at
//! most [`Config::wait`]; then it is dropped. What comes later follows the decision, which is remembered for
//! [`Config::remember`]. Spans in = kept + dropped + pending, exactly. The choice by id compares the lower 56 bits with a
//! threshold, as OpenTelemetry's consistent probability sampling does: agents with the same share choose the same traces.
//! Pure: time is a parameter. Bounded: waiting spans, decisions, routes ([`routes`]). Cost: a few look-ups a span.

mod counts;
mod routes;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::model::attributes::Value;
use crate::model::exported;
use crate::model::hashing::Map;
use crate::model::span::{Span, SpanKind, StatusCode, TraceId};
use crate::model::spelling::label_name;
use crate::section::Interval;
pub use counts::{Counts, DropReason, KeepReason, METRICS, Shown};
use routes::Routes;

crate::section! {
    /// Which traces are exported. All that is recent stays in memory for `seismo spans` and `seismo trace` either way.
    pub struct Config {
        /// Share of all traces that are exported whatever they are, 0 to 1, chosen by their ids: the same on every agent. At 1
        /// nothing waits for a decision; below 1 the traces that the other keys name are exported too.
        pub share: f64 = 1.0,
        /// Export traces with an error.
        pub errors: bool = true,
        /// Export traces with a request slower than this quantile of its route's last requests (some 2000), 0.5 to 1.
        /// 1: none for being slow.
        pub slow_quantile: f64 = 0.99,
        /// Export traces of routes seen fewer times than this within `rare_window`. 0: none for being rare.
        pub rare_below: u32 = 5,
        /// See `rare_below`; counted in halves of it.
        pub rare_window: Interval = Interval::secs(600),
        /// Routes (service, kind, span name) told apart, 300 bytes each. Those above are neither slow nor rare.
        pub routes: usize = 4096,
        /// Export traces of what a firing alert of the rules in this agent names in its labels.
        pub alerts: bool = true,
        /// How long a trace without its root is waited for.
        pub wait: Interval = Interval::secs(30),
        /// How long a trace is waited for after its root came.
        pub settle: Interval = Interval::secs(3),
        /// Spans that wait for a decision. Above, the oldest trace is dropped.
        pub pending_spans: usize = 20_000,
        /// Decisions remembered for spans that come late, and how long.
        pub decisions: usize = 65_536,
        /// See `decisions`.
        pub remember: Interval = Interval::secs(300),
    }
}

impl Config {
    /// Keys with values that make no sense, and why.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if !(0.0..=1.0).contains(&self.share) {
            problems.push(("share", format!("{} is not between 0 and 1", self.share)));
        }
        if !(0.5..=1.0).contains(&self.slow_quantile) {
            problems.push(("slow_quantile", format!("{} is not between 0.5 and 1", self.slow_quantile)));
        }
        problems
    }
}

/// Labels of one firing alert, as Prometheus spells them.
pub type AlertLabels = BTreeMap<String, String>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Kept(KeepReason),
    Dropped(DropReason),
}

/// Decides trace by trace.
#[derive(Debug)]
pub struct Sampler {
    config: Config,
    threshold: u64,
    routes: Routes,
    alerts: Vec<AlertLabels>,
    /// Spans of traces without a decision.
    waiting: Map<TraceId, Vec<Arc<Span>>>,
    /// When a trace's wait ends, in the order of time; some of them are decided by then.
    by_wait: VecDeque<(u64, TraceId)>,
    by_settle: VecDeque<(u64, TraceId)>,
    decided: Map<TraceId, Verdict>,
    /// When a decision may be forgotten.
    by_decision: VecDeque<(u64, TraceId)>,
    counts: Counts,
}

impl Sampler {
    pub fn new(config: Config) -> Self {
        Self {
            threshold: threshold(config.share),
            routes: Routes::new(&config),
            alerts: Vec::new(),
            waiting: Map::default(),
            by_wait: VecDeque::new(),
            by_settle: VecDeque::new(),
            decided: Map::default(),
            by_decision: VecDeque::new(),
            counts: Counts::default(),
            config,
        }
    }

    /// Replaces the labels of the alerts that fire.
    pub fn set_alerts(&mut self, alerts: Vec<AlertLabels>) {
        self.alerts = alerts;
    }

    /// Takes a span; passes on those that are kept by what is known now.
    pub fn offer(&mut self, span: Arc<Span>, now_ns: u64, out: &mut Vec<Arc<Span>>) {
        self.counts.entered += 1;
        if self.threshold == 0 {
            self.counts.keep(KeepReason::Share, 1);
            out.push(span);
            return;
        }
        let reason = self.reason(&span, now_ns);
        let trace = span.trace_id;
        match (self.decided.get(&trace), reason) {
            (Some(Verdict::Kept(reason)), _) => {
                self.counts.keep(*reason, 1);
                out.push(span);
            }
            // A decision stands, whatever comes late: half a trace would be worse than none.
            (Some(Verdict::Dropped(reason)), _) => self.counts.lose(*reason, 1),
            (None, Some(reason)) => {
                let before = self.waiting.remove(&trace).unwrap_or_default();
                self.counts.pending -= before.len() as u64;
                self.counts.keep(reason, before.len() as u64 + 1);
                out.extend(before);
                out.push(span);
                self.decide(trace, Verdict::Kept(reason), now_ns);
            }
            (None, None) => self.wait(span, now_ns),
        }
    }

    /// Drops the traces whose wait is over, and forgets decisions.
    pub fn tick(&mut self, now_ns: u64) {
        for queue in [Queue::Settle, Queue::Wait] {
            while let Some((_, trace)) = self.queue(queue).pop_front_if(|(due_ns, _)| *due_ns <= now_ns) {
                self.lose(trace, DropReason::NotChosen, now_ns);
            }
        }
        while let Some((_, trace)) = self.by_decision.pop_front_if(|(due_ns, _)| *due_ns <= now_ns) {
            self.decided.remove(&trace);
        }
        self.routes.tick(now_ns);
        self.counts.routes_refused = self.routes.refused();
    }

    /// Drops what still waits, before the end.
    pub fn finish(&mut self) {
        let left: u64 = self.waiting.drain().map(|(_, spans)| spans.len() as u64).sum();
        self.counts.lose(DropReason::Stopped, left);
        self.counts.pending -= left;
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn queue(&mut self, queue: Queue) -> &mut VecDeque<(u64, TraceId)> {
        match queue {
            Queue::Wait => &mut self.by_wait,
            Queue::Settle => &mut self.by_settle,
        }
    }

    fn wait(&mut self, span: Arc<Span>, now_ns: u64) {
        let (trace, is_root) = (span.trace_id, span.parent_span_id.is_none());
        self.counts.pending += 1;
        let spans = self.waiting.entry(trace).or_default();
        spans.push(span);
        if spans.len() == 1 {
            self.by_wait.push_back((now_ns.saturating_add(self.config.wait.as_ns()), trace));
        }
        if is_root {
            self.by_settle.push_back((now_ns.saturating_add(self.config.settle.as_ns()), trace));
        }
        let most = self.config.pending_spans.max(1);
        while self.counts.pending > most as u64
            && let Some((_, oldest)) = self.by_wait.pop_front()
        {
            self.lose(oldest, DropReason::NoRoom, now_ns);
        }
        for queue in [Queue::Settle, Queue::Wait] {
            // Entries of traces that were kept meanwhile.
            if self.queue(queue).len() > 2 * most {
                let mut entries = std::mem::take(self.queue(queue));
                entries.retain(|(_, trace)| self.waiting.contains_key(trace));
                *self.queue(queue) = entries;
            }
        }
    }

    fn lose(&mut self, trace: TraceId, reason: DropReason, now_ns: u64) {
        if let Some(spans) = self.waiting.remove(&trace) {
            self.counts.pending -= spans.len() as u64;
            self.counts.lose(reason, spans.len() as u64);
            self.decide(trace, Verdict::Dropped(reason), now_ns);
        }
    }

    fn decide(&mut self, trace: TraceId, verdict: Verdict, now_ns: u64) {
        self.decided.insert(trace, verdict);
        self.by_decision.push_back((now_ns.saturating_add(self.config.remember.as_ns()), trace));
        while self.by_decision.len() > self.config.decisions.max(1)
            && let Some((_, oldest)) = self.by_decision.pop_front()
        {
            self.decided.remove(&oldest);
            self.counts.forgotten += 1;
        }
    }

    /// Why this span's trace is to be kept. Every request is entered in its route, whatever becomes of it.
    fn reason(&mut self, span: &Span, now_ns: u64) -> Option<KeepReason> {
        let is_request = span.kind == SpanKind::Server || span.parent_span_id.is_none();
        let of_route = if is_request { self.routes.enter(span, now_ns) } else { None };
        if is_chosen(span.trace_id, self.threshold) {
            return Some(KeepReason::Share);
        }
        if self.config.errors && span.status == StatusCode::Error {
            return Some(KeepReason::Error);
        }
        if self.config.alerts && self.alerts.iter().any(|labels| names(labels, span)) {
            return Some(KeepReason::Alert);
        }
        of_route
    }
}

#[derive(Clone, Copy)]
enum Queue {
    Wait,
    Settle,
}

/// Ids whose lower 56 bits are below it are not chosen.
fn threshold(share: f64) -> u64 {
    const ALL: f64 = (1_u64 << 56) as f64;
    ((1.0 - share) * ALL).round() as u64
}

fn is_chosen(trace: TraceId, threshold: u64) -> bool {
    let randomness = u128::from_be_bytes(trace.0) as u64 & ((1 << 56) - 1);
    randomness >= threshold
}

/// Whether an alert is about this span: it has at least one of the alert's labels, and all that it has with the same value.
fn names(labels: &AlertLabels, span: &Span) -> bool {
    let mut some = false;
    for (key, value) in exported::resource(&span.resource).chain(exported::attributes(span)) {
        if let Some(wanted) = labels.get(label_name(key).as_ref()) {
            let same = match &*value {
                Value::Text(text) => text == wanted.as_str(),
                Value::Int(number) => number.to_string() == *wanted,
                Value::Float(number) => number.to_string() == *wanted,
                Value::Bool(truth) => truth.to_string() == *wanted,
            };
            if !same {
                return false;
            }
            some = true;
        }
    }
    some
}
