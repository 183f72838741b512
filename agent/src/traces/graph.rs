//! Finished spans to the edges of the service graph: who asks whom, how long it took and whether it failed.
//!
//! A client span and the server span that has it as its parent are one edge. One that stays alone for [`Config::wait`] is
//! an edge too: to what the client knows of its peer, or from a client that is not seen here and that its agent may have named. A server span without a
//! parent is one at once. Spans in = paired + alone + dropped by reason + waiting, exactly. Pure: time is a parameter.
//! Bounded by [`Config::waiting`] spans of some 200 bytes; cost of a span: one look-up, of a client's one text.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use crate::model::hashing::Map;
use crate::model::metric::{Kind, Metric};
use crate::model::process::Resource;
use crate::model::span::{Span, SpanId, SpanKind, StatusCode};
use crate::section::Interval;
use crate::semconv;

const LABELS: &[&str] = &["client", "server", "protocol"];

pub static DURATION: Metric = Metric {
    name: "seismo.service_graph.request.duration",
    unit: "s",
    kind: Kind::Histogram,
    description: "Requests between services as their client saw them. Without a server's span on this host, server is the \
                  database's db.system.name, else server.address, else network.peer.address; without a client's span, the \
                  server's own time, and client is user for a request without a parent (from outside or from another host), \
                  for one whose parent is on another host what the agent there told, unknown where none did",
    labels: LABELS,
};
pub static FAILED: Metric = Metric {
    name: "seismo.service_graph.request.failed",
    unit: "{request}",
    kind: Kind::Counter,
    description: "Requests of the service graph that failed for their client or their server",
    labels: LABELS,
};
pub static SPANS: Metric = Metric {
    name: "seismo.service_graph.spans",
    unit: "{span}",
    kind: Kind::Counter,
    description: "Finished spans by what the service graph made of them: paired and alone are in its requests, incomplete \
                  (of no known duration), no_room and twin (a second one of the same request) are not; with those that wait \
                  they add up to all",
    labels: &["outcome"],
};

/// Every metric of the service graph.
pub const METRICS: &[&Metric] = &[&DURATION, &FAILED, &SPANS];

/// The client of a request that has no parent: whoever uses the services.
const USER: &str = "user";
/// A client that has a span somewhere else, or a server of which nothing is known.
const UNKNOWN: &str = "unknown";

crate::section! {
    /// The service graph: which service asks which, as metrics.
    pub struct Config {
        /// Make it.
        pub enabled: bool = true,
        /// Spans that wait for the span of the other end. Above, the one that has waited longest is in no edge.
        pub waiting: usize = 32_768,
        /// How long they wait. No shorter than `links.wait`, or a server's span comes too late for its client's.
        pub wait: Interval = Interval::secs(3),
    }
}

/// One request between two services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge<'a> {
    pub client: &'a str,
    pub server: &'a str,
    pub protocol: &'static str,
    pub duration_ns: u64,
    pub failed: bool,
}

/// What became of spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Paired,
    Alone,
    Incomplete,
    NoRoom,
    Twin,
}

const OUTCOMES: [&str; 5] = ["paired", "alone", "incomplete", "no_room", "twin"];

/// What is needed of a span.
#[derive(Debug)]
struct End {
    kind: SpanKind,
    resource: Arc<Resource>,
    /// The other end: the server, as its client knows it; the client, where its agent told it, else empty.
    peer: String,
    protocol: &'static str,
    /// `None` for one that is not whole.
    duration_ns: Option<u64>,
    failed: bool,
}

impl End {
    fn of(span: &Span) -> Self {
        Self {
            kind: span.kind,
            resource: Arc::clone(&span.resource),
            peer: peer(span).to_owned(),
            protocol: span.counted.as_ref().map_or("", |counted| counted.protocol),
            duration_ns: span.incomplete.is_none().then(|| span.duration_ns()),
            failed: span.status == StatusCode::Error,
        }
    }
}

/// What a client calls its server, and what a server was told of its client.
fn peer(span: &Span) -> &str {
    if span.kind == SpanKind::Server {
        return span.attributes.text(semconv::PEER_SERVICE).unwrap_or_default();
    }
    let keys = [semconv::DB_SYSTEM_NAME, semconv::SERVER_ADDRESS, semconv::NETWORK_PEER_ADDRESS];
    let known = keys.into_iter().find_map(|key| span.attributes.text(key).filter(|text| !text.is_empty()));
    known.unwrap_or(UNKNOWN)
}

#[derive(Debug)]
pub struct Graph {
    config: Config,
    /// By the id of the client's span.
    waiting: Map<SpanId, End>,
    /// When the wait is over, in the order of time; some have met the other end by then.
    due: VecDeque<(u64, SpanId)>,
    entered: u64,
    counts: [u64; OUTCOMES.len()],
}

impl Graph {
    pub fn new(config: Config) -> Self {
        Self { config, waiting: Map::default(), due: VecDeque::new(), entered: 0, counts: [0; OUTCOMES.len()] }
    }

    /// Takes a finished span at `now_ns`; hands on the edges that are known now.
    pub fn take(&mut self, span: &Span, now_ns: u64, edges: &mut impl FnMut(Edge<'_>)) {
        if !self.config.enabled {
            return;
        }
        self.entered += 1;
        let end = End::of(span);
        let key = match (span.kind, span.parent_span_id) {
            (SpanKind::Client, _) => span.span_id,
            (SpanKind::Server, Some(parent)) => parent,
            (SpanKind::Server, None) => return self.alone(&end, USER, edges),
        };
        match self.waiting.remove(&key) {
            Some(other) if other.kind == end.kind => {
                self.waiting.insert(key, other);
                self.count(Outcome::Twin, 1);
            }
            Some(other) if other.kind == SpanKind::Client => self.pair(&other, &end, edges),
            Some(other) => self.pair(&end, &other, edges),
            None => self.wait(key, end, now_ns),
        }
    }

    /// Hands on the edges of spans whose wait is over.
    pub fn tick(&mut self, now_ns: u64, edges: &mut impl FnMut(Edge<'_>)) {
        while let Some((_, key)) = self.due.pop_front_if(|(due_ns, _)| *due_ns <= now_ns) {
            if let Some(end) = self.waiting.remove(&key) {
                self.alone(&end, UNKNOWN, edges);
            }
        }
        // Memory of a busy time is given back.
        let (used, most) = (self.waiting.len().max(self.due.len()), self.waiting.capacity().max(self.due.capacity()));
        if most > 1024 && used < most / 8 {
            self.waiting.shrink_to(2 * used);
            self.due.shrink_to(2 * used);
        }
    }

    /// Spans that wait, and how many may.
    pub fn size(&self) -> (usize, usize) {
        (self.waiting.len(), self.config.waiting.max(1))
    }

    /// Spans taken since the start.
    pub const fn entered(&self) -> u64 {
        self.entered
    }

    /// Spans by outcome since this was asked last.
    pub fn drain_counts(&mut self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        OUTCOMES.into_iter().zip(mem::take(&mut self.counts)).filter(|(_, spans)| *spans > 0)
    }

    fn count(&mut self, outcome: Outcome, spans: u64) {
        if let Some(count) = self.counts.get_mut(outcome as usize) {
            *count += spans;
        }
    }

    fn wait(&mut self, key: SpanId, end: End, now_ns: u64) {
        let most = self.config.waiting.max(1);
        while self.waiting.len() >= most
            && let Some((_, oldest)) = self.due.pop_front()
        {
            if self.waiting.remove(&oldest).is_some() {
                self.count(Outcome::NoRoom, 1);
            }
        }
        self.waiting.insert(key, end);
        self.due.push_back((now_ns.saturating_add(self.config.wait.as_ns()), key));
        if self.due.len() > 2 * most {
            self.due.retain(|(_, key)| self.waiting.contains_key(key));
        }
    }

    fn pair(&mut self, client: &End, server: &End, edges: &mut impl FnMut(Edge<'_>)) {
        let Some(duration_ns) = client.duration_ns.or(server.duration_ns) else {
            return self.count(Outcome::Incomplete, 2);
        };
        self.count(Outcome::Paired, 2);
        edges(Edge {
            client: &client.resource.service_name,
            server: &server.resource.service_name,
            protocol: client.protocol,
            duration_ns,
            failed: client.failed || server.failed,
        });
    }

    /// `from`: the client of a server's span of which nobody told.
    fn alone(&mut self, end: &End, from: &'static str, edges: &mut impl FnMut(Edge<'_>)) {
        let Some(duration_ns) = end.duration_ns else { return self.count(Outcome::Incomplete, 1) };
        self.count(Outcome::Alone, 1);
        let own = end.resource.service_name.as_str();
        let (client, server) = match end.kind {
            SpanKind::Client => (own, end.peer.as_str()),
            SpanKind::Server if end.peer.is_empty() => (from, own),
            SpanKind::Server => (end.peer.as_str(), own),
        };
        edges(Edge { client, server, protocol: end.protocol, duration_ns, failed: end.failed });
    }
}

#[cfg(test)]
mod tests;
