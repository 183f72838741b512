//! Expected trees and the agent's spans in, counts out: found, doubled, linked right, wrong or not at all.
//!
//! Pure: no clock, no files. A link is only judged where the span itself was found, so that a missing span counts once.
//! Spans without a place on a database's port are not judged: a pool asks things of its own.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::Serialize;

use super::spans::Span;
use super::truth::{Key, Kind, Node, Ports, request};

/// A request as its sender saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    pub id: u32,
    pub status: u16,
    /// Unix time, ns.
    pub start_ns: u64,
    pub duration_ns: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Spans {
    pub expected: usize,
    /// Found and whole.
    pub found: usize,
    /// Found, and marked incomplete by the agent.
    pub incomplete: usize,
    /// The same call told once more.
    pub doubled: usize,
    /// Of no call that was made.
    pub unexpected: usize,
    /// Kind and port name of what is missing.
    pub missing: BTreeMap<String, usize>,
}

/// What became of links of one sort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Links {
    pub right: usize,
    /// Another span than the true parent, or any where there is none.
    pub wrong: usize,
    /// No parent where there is one.
    pub orphans: usize,
    /// A parent that was not found either.
    pub dangling: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Breakdown {
    pub server_spans: usize,
    pub server_spans_with: usize,
    pub client_spans_with: usize,
    /// Whose parts are not exactly their duration.
    pub sums_off: usize,
}

/// Times against the sender's clock, ns: the span's minus the sender's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Latency {
    pub durations: Vec<i64>,
    pub starts: Vec<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Judgement {
    pub requests: usize,
    /// Answered with something else than 200; nothing of them is judged.
    pub failed: usize,
    pub spans: Spans,
    /// From a client span to the server span it was sent for.
    pub inside: Links,
    /// From a server span to the client span of the same call.
    pub between: Links,
    /// Spans that begin a trace, as they should, or have a parent all the same.
    pub roots: Links,
    /// Right and wrong ones, by `seismo.link.method`; `-` where it is not said.
    pub methods: BTreeMap<String, Links>,
    /// Requests whose tree is right and whole, under one trace id.
    pub whole: usize,
    /// Trace ids with spans of several requests.
    pub mixed_traces: usize,
    #[serde(skip)]
    pub latency: Latency,
    pub breakdown: Breakdown,
    /// What the agent calls each service, by port name.
    pub services: BTreeMap<String, BTreeSet<String>>,
}

impl Links {
    pub fn judged(&self) -> usize {
        self.right + self.wrong + self.orphans + self.dangling
    }

    pub fn plus(self, other: Self) -> Self {
        Self {
            right: self.right + other.right,
            wrong: self.wrong + other.wrong,
            orphans: self.orphans + other.orphans,
            dangling: self.dangling + other.dangling,
        }
    }

    /// Share of the links made that are right; nothing made is nothing wrong.
    pub fn precision(&self) -> f64 {
        share(self.right, self.right + self.wrong + self.dangling)
    }

    fn count(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Right => self.right += 1,
            Verdict::Wrong => self.wrong += 1,
            Verdict::Orphan => self.orphans += 1,
            Verdict::Dangling => self.dangling += 1,
        }
    }
}

impl Judgement {
    pub fn links(&self) -> Links {
        self.inside.plus(self.between)
    }

    /// Wrong parents among all spans whose parent was judged.
    pub fn wrong_share(&self) -> f64 {
        let all = self.links().plus(self.roots);
        1.0 - share(all.judged() - all.wrong, all.judged())
    }

    pub fn whole_share(&self) -> f64 {
        share(self.whole, self.requests - self.failed)
    }
}

impl Spans {
    pub fn recall(&self) -> f64 {
        share(self.found, self.expected)
    }

    pub fn precision(&self) -> f64 {
        share(self.found + self.incomplete, self.found + self.incomplete + self.doubled + self.unexpected)
    }
}

/// Part of a whole; of nothing, all of it.
pub fn share(part: usize, of: usize) -> f64 {
    if of == 0 { 1.0 } else { part as f64 / of as f64 }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Right,
    Wrong,
    Orphan,
    Dangling,
}

/// A found span and whether its link is right.
struct Found<'a> {
    span: &'a Span,
    doubled: bool,
}

/// Holds what the agent found (of everything it saw) against what was sent in one run.
pub fn judge(sent: &[Sent], ports: &Ports, spans: &[Span]) -> Judgement {
    let mut judgement = Judgement { requests: sent.len(), ..Judgement::default() };
    let sent_ids: HashSet<u32> = sent.iter().map(|sent| sent.id).collect();
    let failed: HashSet<u32> = sent.iter().filter(|sent| sent.status != 200).map(|sent| sent.id).collect();
    judgement.failed = failed.len();
    let by_id: HashMap<&str, &Span> = spans.iter().map(|span| (span.id.as_str(), span)).collect();
    let trees: Vec<(&Sent, Vec<Node>)> =
        sent.iter().filter(|sent| !failed.contains(&sent.id)).map(|sent| (sent, request(sent.id, ports))).collect();
    let expected: HashSet<&Key> = trees.iter().flat_map(|(_, nodes)| nodes).map(|node| &node.key).collect();

    let window = sent.iter().map(|sent| sent.start_ns).min().unwrap_or(0)
        ..sent.iter().map(|sent| sent.start_ns + sent.duration_ns).max().unwrap_or(0);
    let mut found: HashMap<&Key, Found<'_>> = HashMap::new();
    let mut requests_of_trace: HashMap<&str, HashSet<u32>> = HashMap::new();
    for span in spans {
        let Some(key) = &span.key else {
            if ports.speaks_http(span.port) && window.contains(&span.start_ns) {
                let count = &mut judgement.spans;
                *(if span.incomplete { &mut count.incomplete } else { &mut count.unexpected }) += 1;
            }
            continue;
        };
        let Some(request) = key.request() else { continue };
        if !sent_ids.contains(&request) {
            // Of another run, unless no run ever sent it, which its port's recall then shows.
            continue;
        }
        requests_of_trace.entry(&span.trace).or_default().insert(request);
        if failed.contains(&request) {
            continue;
        }
        if !expected.contains(key) {
            judgement.spans.unexpected += 1;
            continue;
        }
        judgement.services.entry(label(key, ports)).or_default().insert(span.service.clone());
        match found.get_mut(key) {
            Some(earlier) => {
                earlier.doubled = true;
                judgement.spans.doubled += 1;
                if earlier.span.incomplete {
                    earlier.span = span;
                }
            }
            None => drop(found.insert(key, Found { span, doubled: false })),
        }
    }
    judgement.mixed_traces = requests_of_trace.values().filter(|requests| requests.len() > 1).count();
    for (sent, nodes) in &trees {
        judge_request(&mut judgement, sent, nodes, ports, &found, &by_id);
    }
    judgement
}

fn judge_request(
    judgement: &mut Judgement,
    sent: &Sent,
    nodes: &[Node],
    ports: &Ports,
    found: &HashMap<&Key, Found<'_>>,
    by_id: &HashMap<&str, &Span>,
) {
    let mut whole = true;
    let mut traces = HashSet::new();
    for node in nodes {
        judgement.spans.expected += 1;
        let Some(Found { span, doubled }) = found.get(&node.key) else {
            *judgement.spans.missing.entry(label(&node.key, ports)).or_default() += 1;
            whole = false;
            continue;
        };
        if span.incomplete {
            judgement.spans.incomplete += 1;
        } else {
            judgement.spans.found += 1;
        }
        traces.insert(span.trace.as_str());
        account(&mut judgement.breakdown, span);
        let parent = node.parent.and_then(|parent| nodes.get(parent)).map(|parent| &parent.key);
        let verdict = verdict(span, parent, found, by_id);
        match (parent, node.key.kind) {
            (None, _) => judgement.roots.count(verdict),
            (Some(_), Kind::Client) => judgement.inside.count(verdict),
            (Some(_), Kind::Server) => judgement.between.count(verdict),
        }
        if span.parent.is_some() {
            let method = span.method.as_deref().unwrap_or("-");
            judgement.methods.entry(method.to_owned()).or_default().count(verdict);
        }
        whole &= verdict == Verdict::Right && !doubled && !span.incomplete;
        if parent.is_none() && !span.incomplete {
            let difference = |of_span: u64, of_sender: u64| of_span as i64 - of_sender as i64;
            let duration = span.end_ns.saturating_sub(span.start_ns);
            judgement.latency.durations.push(difference(duration, sent.duration_ns));
            judgement.latency.starts.push(difference(span.start_ns, sent.start_ns));
        }
    }
    judgement.whole += usize::from(whole && traces.len() == 1);
}

fn verdict(
    span: &Span,
    parent: Option<&Key>,
    found: &HashMap<&Key, Found<'_>>,
    by_id: &HashMap<&str, &Span>,
) -> Verdict {
    match (&span.parent, parent) {
        (None, None) => Verdict::Right,
        (None, Some(_)) => Verdict::Orphan,
        (Some(_), None) => Verdict::Wrong,
        (Some(id), Some(parent)) => match by_id.get(id.as_str()) {
            Some(named) if named.key.as_ref() == Some(parent) => Verdict::Right,
            Some(_) => Verdict::Wrong,
            // It may be the right one, of which no span was found.
            None if found.contains_key(parent) => Verdict::Wrong,
            None => Verdict::Dangling,
        },
    }
}

fn account(breakdown: &mut Breakdown, span: &Span) {
    let server = span.kind == Kind::Server;
    breakdown.server_spans += usize::from(server);
    let Some(accounted) = span.accounted_ns else { return };
    if server {
        breakdown.server_spans_with += 1;
    } else {
        breakdown.client_spans_with += 1;
    }
    breakdown.sums_off += usize::from(accounted != span.end_ns.saturating_sub(span.start_ns));
}

/// `server s2`.
fn label(key: &Key, ports: &Ports) -> String {
    let kind = if key.kind == Kind::Server { "server" } else { "client to" };
    format!("{kind} {}", ports.name(key.port))
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
