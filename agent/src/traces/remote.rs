//! Traces that go from host to host: what this agent tells others of the requests that its processes send, and what it
//! hears of those that they serve.
//!
//! A client span that leaves for another host is told as a [`Hop`]: its id, which the other end computes too, its trace
//! and its service. A server span whose client is elsewhere waits for its hop, at most [`Config::wait`]; what is heard before the
//! span comes is remembered as long. A parent is set only where its span is really there: without a hop, a server span is a
//! root. Pure: time is a parameter. Bounded by [`Config::hops`].

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::hashing::Map;
use crate::model::hop::Hop;
use crate::model::span::{Span, SpanId, TraceId};
use crate::section::Interval;
use crate::semconv;

crate::section! {
    /// Agents on several hosts agree about the traces that go through them. Off unless an engine is named.
    pub struct Config {
        /// A Redis server that all of them reach: redis://[USER:PASSWORD@]HOST[:PORT][/NUMBER], without TLS.
        pub redis: Option<String> = None,
        /// The stream on it.
        pub stream: String = "seismo:hops".to_owned(),
        /// Messages that the stream keeps, about; each has up to 1000 hops of 26 bytes and the names of their services.
        pub messages: usize = 1000,
        /// How long a server span waits to hear of its client's, and that is remembered for it.
        pub wait: Interval = Interval::secs(5),
        /// Spans that wait, hops that are remembered and hops that are still to be told, each.
        pub hops: usize = 65_536,
    }
}

/// Sums since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemoteCounts {
    pub linked: u64,
    /// Server spans of whose client nothing was heard.
    pub unheard: u64,
    /// Server spans that found no room to wait.
    pub no_room: u64,
    /// Hops that could not be told because too many were still to be.
    pub untold: u64,
    /// Hops that were heard and forgotten before their time, for want of room.
    pub evicted: u64,
}

#[derive(Debug)]
pub struct Remote {
    config: Config,
    /// By the client's span: its trace and its service.
    heard: Map<SpanId, (TraceId, Arc<str>)>,
    by_hearing: VecDeque<(u64, SpanId)>,
    /// By the client span that each waits for.
    waiting: Map<SpanId, Span>,
    by_wait: VecDeque<(u64, SpanId)>,
    telling: Vec<Hop>,
    /// The service that was told last: mostly it is the next one too.
    teller: Arc<str>,
    counts: RemoteCounts,
}

impl Remote {
    pub fn new(config: Config) -> Self {
        Self {
            config,
            heard: Map::default(),
            by_hearing: VecDeque::new(),
            waiting: Map::default(),
            by_wait: VecDeque::new(),
            telling: Vec::new(),
            teller: Arc::default(),
            counts: RemoteCounts::default(),
        }
    }

    /// Whether the other end of a span's connection may be on another host.
    pub fn is_abroad(span: &Span) -> bool {
        let peer = span.attributes.text(semconv::NETWORK_PEER_ADDRESS).and_then(|text| text.parse::<IpAddr>().ok());
        peer.is_some_and(|peer| !peer.to_canonical().is_loopback())
    }

    /// A client span that is finished.
    pub fn tell(&mut self, span: &Span) {
        if self.telling.len() >= self.config.hops {
            self.counts.untold += 1;
        } else {
            if *self.teller != span.resource.service_name {
                self.teller = span.resource.service_name.as_str().into();
            }
            let client = Arc::clone(&self.teller);
            self.telling.push(Hop { span: span.span_id, trace: span.trace_id, client });
        }
    }

    /// What is to be told since this was asked last.
    pub fn take_told(&mut self) -> Vec<Hop> {
        std::mem::take(&mut self.telling)
    }

    pub fn has_heard(&self, parent: SpanId) -> bool {
        self.heard.contains_key(&parent)
    }

    /// A server span whose client's span would be `parent`.
    pub fn ask(&mut self, mut span: Span, parent: SpanId, now_ns: u64, out: &mut Vec<Span>) {
        if let Some((trace, client)) = self.heard.remove(&parent) {
            self.counts.linked += 1;
            link(&mut span, Hop { span: parent, trace, client });
            out.push(span);
        } else if self.waiting.len() >= self.config.hops || self.waiting.contains_key(&parent) {
            self.counts.no_room += 1;
            out.push(span);
        } else {
            self.waiting.insert(parent, span);
            self.by_wait.push_back((now_ns.saturating_add(self.config.wait.as_ns()), parent));
        }
    }

    /// Others told this.
    pub fn hear(&mut self, hop: Hop, now_ns: u64, out: &mut Vec<Span>) {
        if let Some(mut span) = self.waiting.remove(&hop.span) {
            self.counts.linked += 1;
            link(&mut span, hop);
            out.push(span);
            return;
        }
        if self.heard.insert(hop.span, (hop.trace, hop.client)).is_none() {
            self.by_hearing.push_back((now_ns.saturating_add(self.config.wait.as_ns()), hop.span));
        }
        while self.by_hearing.len() > self.config.hops.max(1)
            && let Some((_, oldest)) = self.by_hearing.pop_front()
        {
            self.counts.evicted += u64::from(self.heard.remove(&oldest).is_some());
        }
    }

    /// Passes on what has waited long enough.
    pub fn tick(&mut self, now_ns: u64, out: &mut Vec<Span>) {
        while let Some((_, parent)) = self.by_wait.pop_front_if(|(due_ns, _)| *due_ns <= now_ns) {
            if let Some(span) = self.waiting.remove(&parent) {
                self.counts.unheard += 1;
                out.push(span);
            }
        }
        while let Some((_, span)) = self.by_hearing.pop_front_if(|(due_ns, _)| *due_ns <= now_ns) {
            self.heard.remove(&span);
        }
    }

    /// Name, entries and capacity of each table.
    pub fn sizes(&self) -> [(&'static str, usize, usize); 2] {
        let capacity = self.config.hops;
        [("hops_heard", self.heard.len(), capacity), ("hops_awaited", self.waiting.len(), capacity)]
    }

    pub const fn counts(&self) -> RemoteCounts {
        self.counts
    }
}

/// Makes a server span the child of its client's, and names who asked.
fn link(span: &mut Span, hop: Hop) {
    (span.parent_span_id, span.trace_id) = (Some(hop.span), hop.trace);
    if !hop.client.is_empty() {
        span.attributes.set(semconv::PEER_SERVICE, hop.client.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::{Config, Remote, RemoteCounts};
    use crate::model::attributes::Attributes;
    use crate::model::hop::Hop;
    use crate::model::span::{Span, SpanId, TraceId};
    use crate::semconv;

    const SECOND: u64 = 1_000_000_000;

    fn span(id: u8, peer: &str) -> Span {
        let mut attributes = Attributes::default();
        attributes.set(semconv::NETWORK_PEER_ADDRESS, peer.to_owned());
        Span { trace_id: TraceId([id; 16]), span_id: SpanId([id; 8]), end_ns: 1, attributes, ..Span::example() }
    }

    fn hop(id: u8) -> Hop {
        let client = if id.is_multiple_of(4) { "shop" } else { "" };
        Hop { span: SpanId([id; 8]), trace: TraceId([100 + id; 16]), client: client.into() }
    }

    #[test]
    fn a_span_gets_its_parent_and_trace_whichever_comes_first() {
        let (mut remote, mut out) = (Remote::new(Config::default()), Vec::new());
        remote.ask(span(1, "10.0.0.1"), SpanId([2; 8]), 0, &mut out);
        assert!(out.is_empty(), "nothing was heard yet");
        remote.hear(hop(2), SECOND, &mut out);
        remote.hear(hop(4), SECOND, &mut out);
        remote.ask(span(3, "10.0.0.1"), SpanId([4; 8]), 2 * SECOND, &mut out);
        let linked: Vec<_> = out.iter().map(|span| (span.parent_span_id, span.trace_id)).collect();
        let expected = [2, 4].map(|id| (Some(SpanId([id; 8])), TraceId([100 + id; 16])));
        assert_eq!(linked, expected);
        let clients: Vec<_> = out.iter().map(|span| span.attributes.text(semconv::PEER_SERVICE)).collect();
        assert_eq!(clients, [None, Some("shop")]);
        assert_eq!(remote.counts(), RemoteCounts { linked: 2, ..RemoteCounts::default() });
        remote.tick(20 * SECOND, &mut out);
        assert!(remote.sizes().iter().all(|(_, entries, _)| *entries == 0));
        assert_eq!(out.len(), 2, "nothing comes twice");
    }

    #[test]
    fn a_span_of_whose_client_nothing_is_heard_is_a_root() {
        let (mut remote, mut out) = (Remote::new(Config::default()), Vec::new());
        remote.ask(span(1, "10.0.0.1"), SpanId([2; 8]), 0, &mut out);
        remote.tick(5 * SECOND - 1, &mut out);
        assert!(out.is_empty());
        remote.tick(5 * SECOND, &mut out);
        assert_eq!((out[0].parent_span_id, out[0].trace_id), (None, TraceId([1; 16])));
        // Too late.
        remote.hear(hop(2), 6 * SECOND, &mut out);
        remote.tick(11 * SECOND, &mut out);
        assert_eq!(out.len(), 1);
        assert_eq!(remote.counts(), RemoteCounts { unheard: 1, ..RemoteCounts::default() });
    }

    #[test]
    fn what_waits_is_remembered_and_is_to_be_told_is_bounded_and_counted() {
        let (mut remote, mut out) = (Remote::new(Config { hops: 10, ..Config::default() }), Vec::new());
        for id in 0..30 {
            remote.hear(hop(id), 0, &mut out);
            remote.tell(&span(id, "10.0.0.1"));
        }
        for id in 100..130 {
            remote.ask(span(id, "10.0.0.1"), SpanId([id; 8]), 0, &mut out);
        }
        assert_eq!(remote.sizes().map(|(_, entries, _)| entries), [10, 10]);
        assert_eq!(remote.take_told().len(), 10);
        let counts = RemoteCounts { no_room: 20, untold: 20, evicted: 20, ..RemoteCounts::default() };
        assert_eq!((remote.counts(), out.len()), (counts, 20));
        remote.tick(u64::MAX, &mut out);
        assert_eq!(out.len(), 30);
    }

    #[test]
    fn connections_to_this_host_do_not_go_abroad() {
        for (peer, abroad) in [("127.0.0.1", false), ("::1", false), ("::ffff:127.0.0.1", false), ("", false)] {
            assert_eq!(Remote::is_abroad(&span(1, peer)), abroad, "{peer}");
        }
        assert!(Remote::is_abroad(&span(1, "10.0.0.1")) && Remote::is_abroad(&span(1, "fd00::1")));
    }
}
