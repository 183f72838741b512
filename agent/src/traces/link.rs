//! Server spans to the client spans on the same connection, where both ends are on this host.
//!
//! The parent's id is known at once (`assemble`), but a parent is only set when that client span is really there:
//! a server span whose client's side is observed waits for it, at most [`Config::wait`]; one from elsewhere never
//! waits. Bounded: connections and client spans remembered, spans waiting. A span without a parent is a root, not an
//! error. Does not link the requests that a process sends to those that it serves.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::model::connection::{ConnEvent, ConnEventKind, Connection, Role, Transport};
use crate::model::exchange::WireId;
use crate::model::span::{Span, SpanId, SpanKind};
use crate::section::Interval;

use super::assemble::Wire;

crate::section! {
    /// Linking of spans on one host.
    pub struct Config {
        /// Connections, client spans and waiting server spans remembered, each.
        pub remembered: usize = 16_384,
        /// How long a server span waits for the span of a client on this host.
        pub wait: Interval = Interval::secs(2),
    }
}

/// A set that forgets its oldest member when it is full.
#[derive(Debug)]
struct Recent<T> {
    members: HashSet<T>,
    order: VecDeque<T>,
    capacity: usize,
}

impl<T: Copy + Eq + std::hash::Hash> Recent<T> {
    fn new(capacity: usize) -> Self {
        Self { members: HashSet::new(), order: VecDeque::new(), capacity: capacity.max(1) }
    }

    fn insert(&mut self, member: T) {
        if !self.members.insert(member) {
            return;
        }
        if self.order.len() >= self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.members.remove(&oldest);
        }
        self.order.push_back(member);
    }
}

/// What both ends know of a connection whose client's end an event tells of.
fn client_wire(connection: &Connection, kind: ConnEventKind) -> Option<WireId> {
    if connection.transport != Transport::Tcp {
        return None;
    }
    let (client, server) = match kind {
        ConnEventKind::Opened { role: Role::Client, send_sequence, receive_sequence } => {
            (send_sequence, receive_sequence)
        }
        ConnEventKind::Adopted { role: Some(Role::Client), send, receive } => (send.origin(), receive.origin()),
        _ => return None,
    };
    Some(WireId { client: client.into(), server: server.into() })
}

/// Sums since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounts {
    pub linked: u64,
    /// Server spans whose client is not on this host, or not seen.
    pub roots: u64,
    /// Server spans whose client was seen but whose client's span did not come in time, or had no room to wait.
    pub given_up: u64,
}

#[derive(Debug)]
pub struct Links {
    config: Config,
    /// Connections whose client side is observed.
    clients: Recent<WireId>,
    /// Client spans that were passed on.
    spans: Recent<SpanId>,
    /// Server spans by the client span that they wait for.
    waiting: HashMap<SpanId, Span>,
    /// By the time at which the wait ends.
    due: VecDeque<(u64, SpanId)>,
    counts: LinkCounts,
}

impl Links {
    pub fn new(config: Config) -> Self {
        Self {
            clients: Recent::new(config.remembered),
            spans: Recent::new(config.remembered),
            waiting: HashMap::new(),
            due: VecDeque::new(),
            counts: LinkCounts::default(),
            config,
        }
    }

    /// Learns which connections have their client on this host.
    pub fn connection(&mut self, event: &ConnEvent) {
        if let Some(wire) = client_wire(&event.connection, event.kind) {
            self.clients.insert(wire);
        }
    }

    /// Takes a span with its wire; passes on what need not wait any longer.
    pub fn span(&mut self, wire: Wire, mut span: Span, now_ns: u64, out: &mut Vec<Span>) {
        if span.kind == SpanKind::Client {
            self.clients.insert(wire.connection);
            self.spans.insert(span.span_id);
            let server = self.waiting.remove(&span.span_id);
            out.push(span);
            if let Some(mut server) = server {
                server.parent_span_id = Some(wire.client_span_id());
                self.counts.linked += 1;
                out.push(server);
            }
            return;
        }
        let parent = wire.client_span_id();
        if self.spans.members.contains(&parent) {
            span.parent_span_id = Some(parent);
            self.counts.linked += 1;
            out.push(span);
        } else if !self.clients.members.contains(&wire.connection) {
            self.counts.roots += 1;
            out.push(span);
        } else {
            if self.due.len() >= self.config.remembered.max(1) {
                self.give_up(out);
            }
            self.due.push_back((now_ns.saturating_add(self.config.wait.as_ns()), parent));
            if let Some(twin) = self.waiting.insert(parent, span) {
                // The same request again within the wait.
                self.counts.given_up += 1;
                out.push(twin);
            }
        }
    }

    /// Passes on what has waited long enough.
    pub fn tick(&mut self, now_ns: u64, out: &mut Vec<Span>) {
        while self.due.front().is_some_and(|(due_ns, _)| *due_ns <= now_ns) {
            self.give_up(out);
        }
    }

    /// Passes on everything that waits, before the end.
    pub fn flush(&mut self, out: &mut Vec<Span>) {
        while !self.due.is_empty() {
            self.give_up(out);
        }
    }

    pub fn counts(&self) -> LinkCounts {
        self.counts
    }

    fn give_up(&mut self, out: &mut Vec<Span>) {
        // One that was linked in the meantime is not there any more.
        if let Some((_, parent)) = self.due.pop_front()
            && let Some(span) = self.waiting.remove(&parent)
        {
            self.counts.given_up += 1;
            out.push(span);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Config, LinkCounts, Links};
    use crate::model::attributes::Attributes;
    use crate::model::connection::{ConnEvent, ConnEventKind, Connection, Cookie, Role, Transport};
    use crate::model::exchange::WireId;
    use crate::model::span::{Span, SpanKind, StatusCode};
    use crate::traces::assemble::Wire;

    fn wire(position: u64) -> Wire {
        Wire { connection: WireId { client: 1_000, server: 2_000 }, position }
    }

    fn span(kind: SpanKind, wire: Wire) -> Span {
        let span_id = if kind == SpanKind::Client { wire.client_span_id() } else { wire.server_span_id() };
        Span {
            trace_id: wire.trace_id(),
            span_id,
            parent_span_id: None,
            name: "GET /".to_owned(),
            kind,
            start_ns: 0,
            end_ns: 1,
            status: StatusCode::Unset,
            attributes: Attributes::default(),
            resource: Default::default(),
            incomplete: None,
        }
    }

    fn opened() -> ConnEvent {
        let connection = Connection {
            cookie: Cookie(1),
            transport: Transport::Tcp,
            local: "10.0.0.1:40000".parse().unwrap(),
            peer: "10.0.0.2:80".parse().unwrap(),
            peer_cookie: None,
        };
        let kind = ConnEventKind::Opened { role: Role::Client, send_sequence: 1_000, receive_sequence: 2_000 };
        ConnEvent { connection, ktime_ns: 0, kind }
    }

    #[test]
    fn a_server_span_whose_client_is_elsewhere_passes_at_once_without_a_parent() {
        let (mut links, mut out) = (Links::new(Config::default()), Vec::new());
        links.span(wire(1), span(SpanKind::Server, wire(1)), 0, &mut out);
        assert_eq!(out.len(), 1);
        assert_eq!(out[0].parent_span_id, None);
    }

    #[test]
    fn a_server_span_waits_for_its_client_and_gets_it_as_parent() {
        let (mut links, mut out) = (Links::new(Config::default()), Vec::new());
        links.connection(&opened());
        links.span(wire(1), span(SpanKind::Server, wire(1)), 0, &mut out);
        assert!(out.is_empty());
        links.span(wire(1), span(SpanKind::Client, wire(1)), 5, &mut out);
        assert_eq!(out.len(), 2);
        assert_eq!(out[1].parent_span_id, Some(out[0].span_id));
        assert_eq!(out[1].trace_id, out[0].trace_id);
        // Another request on the connection, the client's span first.
        links.span(wire(2), span(SpanKind::Client, wire(2)), 6, &mut out);
        links.span(wire(2), span(SpanKind::Server, wire(2)), 7, &mut out);
        assert_eq!(out[3].parent_span_id, Some(out[2].span_id));
        links.tick(u64::MAX, &mut out);
        assert_eq!(out.len(), 4, "nothing comes twice");
        assert_eq!(links.counts(), LinkCounts { linked: 2, roots: 0, given_up: 0 });
    }

    #[test]
    fn a_client_span_that_never_comes_is_no_parent() {
        let (mut links, mut out) = (Links::new(Config::default()), Vec::new());
        links.connection(&opened());
        links.span(wire(1), span(SpanKind::Server, wire(1)), 0, &mut out);
        links.tick(1_999_999_999, &mut out);
        assert!(out.is_empty());
        links.tick(2_000_000_000, &mut out);
        assert_eq!(out.len(), 1);
        assert_eq!(out[0].parent_span_id, None);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut links = Links::new(Config { remembered: 10, ..Config::default() });
        let mut out = Vec::new();
        links.connection(&opened());
        for sequence in 0..100 {
            links.span(wire(sequence), span(SpanKind::Server, wire(sequence)), 0, &mut out);
        }
        assert_eq!(out.len(), 90);
        links.flush(&mut out);
        assert_eq!(out.len(), 100);
    }
}
