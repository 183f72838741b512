//! Server spans to the client spans on the same connection, where both ends are on this host.
//!
//! The parent's id is known at once (`assemble`), but a parent is only set when that client span is really there:
//! a server span whose client's side is observed waits for it, at most [`Config::wait`]; one from elsewhere waits only
//! where other agents may tell of its client (`remote`). Bounded: connections and client spans remembered, spans waiting. A span without a parent is a root, not an
//! error. Does not link the requests that a process sends to those that it serves.

use std::collections::VecDeque;

use crate::model::connection::{ConnEvent, ConnEventKind, Connection, Cookie, Role, Transport};
use crate::model::exchange::WireId;
use crate::model::hashing::{Map, Set};
use crate::model::hop::Hop;
use crate::model::span::{Span, SpanId, SpanKind, TraceId};
use crate::section::Interval;

use super::assemble::Wire;
use super::remote::{Remote, RemoteCounts};

crate::section! {
    /// Linking of spans on one host.
    pub struct Config {
        /// Connections, client spans and waiting server spans remembered, each.
        pub remembered: usize = 16_384,
        /// How long a server span waits for the span of a client on this host, and that is kept for a server's.
        pub wait: Interval = Interval::secs(2),
        /// Processes of whose habits something is remembered, each for five minutes after it last did something.
        pub processes: usize = 1024,
        /// Goroutines, Python contexts and tasks of tokio of which it is remembered where they came from, about 150 bytes each;
        /// 250 of tokio's.
        pub tasks: usize = 65_536,
        /// Find the request that a process serves for each request that it sends.
        pub requests: bool = true,
        /// Time of which the spans of a process are looked at together.
        pub window: Interval = Interval::millis(500),
        /// How long a span waits for requests that could be its parent to be over.
        pub patience: Interval = Interval::secs(10),
        /// Least probability of a parent that only statistics tells, 0 to 1. A wrong parent is worse than none.
        pub margin: f64 = 0.9,
        /// Requests that one request may have sent; any further one has no parent.
        pub fan_out: usize = 1000,
        /// A request that is open for longer gets no further spans.
        pub age: Interval = Interval::secs(300),
    }
}

/// Ids by the time at which they came; the oldest goes when the set is full or its time is over.
#[derive(Debug)]
struct Recent {
    members: Map<SpanId, TraceId>,
    order: VecDeque<(u64, SpanId)>,
    capacity: usize,
}

impl Recent {
    fn new(capacity: usize) -> Self {
        Self { members: Map::default(), order: VecDeque::new(), capacity: capacity.max(1) }
    }

    fn insert(&mut self, id: SpanId, trace: TraceId, now_ns: u64) {
        if self.members.insert(id, trace).is_some() {
            return;
        }
        if self.order.len() >= self.capacity
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.members.remove(&oldest);
        }
        self.order.push_back((now_ns, id));
    }

    /// Forgets what came before `ktime_ns`.
    fn expire(&mut self, ktime_ns: u64) {
        while let Some((_, id)) = self.order.pop_front_if(|(came_ns, _)| *came_ns < ktime_ns) {
            self.members.remove(&id);
        }
    }
}

/// Connections whose client's end is observed, as long as that end's socket is there; the oldest goes when they are too
/// many.
#[derive(Debug)]
struct Clients {
    wires: Set<WireId>,
    by_cookie: Map<Cookie, WireId>,
    /// Oldest first; holds some that are gone.
    order: VecDeque<Cookie>,
    capacity: usize,
}

impl Clients {
    fn new(capacity: usize) -> Self {
        let (wires, by_cookie, order) = (Set::default(), Map::default(), VecDeque::new());
        Self { wires, by_cookie, order, capacity: capacity.max(1) }
    }

    fn insert(&mut self, cookie: Cookie, wire: WireId) {
        match self.by_cookie.insert(cookie, wire) {
            Some(before) if before == wire => return,
            Some(before) => _ = self.wires.remove(&before),
            None => self.order.push_back(cookie),
        }
        self.wires.insert(wire);
        while self.by_cookie.len() > self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.remove(oldest);
        }
        if self.order.len() > 2 * self.capacity {
            self.order.retain(|cookie| self.by_cookie.contains_key(cookie));
        }
    }

    fn remove(&mut self, cookie: Cookie) {
        if let Some(wire) = self.by_cookie.remove(&cookie) {
            self.wires.remove(&wire);
        }
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
    /// Where the client is on another host.
    pub remote: RemoteCounts,
}

#[derive(Debug)]
pub struct Links {
    config: Config,
    clients: Clients,
    /// Sockets that are gone, by the time from which nothing of them is expected any more.
    gone: VecDeque<(u64, Cookie)>,
    /// Client spans that were passed on.
    spans: Recent,
    /// Client spans that are there, and are not passed on yet.
    held: Set<SpanId>,
    /// Server spans by the client span that they wait for.
    waiting: Map<SpanId, Span>,
    /// By the time at which the wait ends.
    due: VecDeque<(u64, SpanId)>,
    counts: LinkCounts,
    /// Where agents on other hosts tell of theirs.
    remote: Option<Remote>,
}

impl Links {
    pub fn new(config: Config) -> Self {
        Self {
            clients: Clients::new(config.remembered),
            gone: VecDeque::new(),
            spans: Recent::new(config.remembered),
            held: Set::default(),
            waiting: Map::default(),
            due: VecDeque::new(),
            counts: LinkCounts::default(),
            remote: None,
            config,
        }
    }

    /// Spans of connections from and to other hosts are linked, too.
    pub fn with_remote(mut self, remote: Option<Remote>) -> Self {
        self.remote = remote;
        self
    }

    /// What other hosts are to be told since this was asked last.
    pub fn take_told(&mut self) -> Vec<Hop> {
        self.remote.as_mut().map(Remote::take_told).unwrap_or_default()
    }

    /// Another agent tells of a client's span.
    pub fn hear(&mut self, hop: Hop, now_ns: u64, out: &mut Vec<Span>) {
        let Some(remote) = self.remote.as_mut() else { return };
        let parent = hop.span;
        remote.hear(hop, now_ns, out);
        if let Some(span) = self.waiting.remove(&parent) {
            remote.ask(span, parent, now_ns, out);
        }
    }

    /// Learns which connections have their client on this host.
    pub fn connection(&mut self, event: &ConnEvent) {
        let cookie = event.connection.cookie;
        if let Some(wire) = client_wire(&event.connection, event.kind) {
            self.clients.insert(cookie, wire);
        } else if matches!(event.kind, ConnEventKind::Destroyed { .. }) && self.clients.by_cookie.contains_key(&cookie)
        {
            // Its last spans come with this, and those of the server's end may come later.
            self.gone.push_back((event.ktime_ns.saturating_add(self.config.wait.as_ns()), cookie));
        }
    }

    /// Learns of a client's end that showed itself only by its first request: of a UNIX socket, or of a connection that was
    /// not seen to open.
    pub fn client(&mut self, cookie: Cookie, wire: WireId) {
        self.clients.insert(cookie, wire);
    }

    /// A client span is there and will come: a server span waits for it, however long. Its owner bounds that.
    pub fn hold(&mut self, id: SpanId) {
        self.held.insert(id);
    }

    /// The socket is gone, though no event told.
    pub fn forget(&mut self, cookie: Cookie) {
        self.clients.remove(cookie);
    }

    /// Takes a span with its socket and its wire; passes on what need not wait any longer.
    pub fn span(&mut self, cookie: Cookie, wire: Wire, mut span: Span, now_ns: u64, out: &mut Vec<Span>) {
        if span.kind == SpanKind::Client {
            self.clients.insert(cookie, wire.connection);
            self.spans.insert(span.span_id, span.trace_id, now_ns);
            self.held.remove(&span.span_id);
            let trace_id = span.trace_id;
            if let Some(remote) = self.remote.as_mut()
                && wire.is_shared()
                && Remote::is_abroad(&span)
            {
                remote.tell(&span);
            }
            let server = self.waiting.remove(&span.span_id);
            out.push(span);
            if let Some(mut server) = server {
                server.parent_span_id = Some(wire.client_span_id());
                server.trace_id = trace_id;
                self.counts.linked += 1;
                out.push(server);
            }
            return;
        }
        let parent = wire.client_span_id();
        if let Some(trace_id) = self.spans.members.get(&parent) {
            span.parent_span_id = Some(parent);
            span.trace_id = *trace_id;
            self.counts.linked += 1;
            out.push(span);
            return;
        }
        let is_here = self.clients.wires.contains(&wire.connection);
        let abroad = self.remote.as_mut().filter(|_| wire.is_shared() && Remote::is_abroad(&span));
        if let Some(remote) = abroad
            && (!is_here || remote.has_heard(parent))
        {
            remote.ask(span, parent, now_ns, out);
        } else if !is_here {
            self.counts.roots += 1;
            out.push(span);
        } else {
            if self.due.len() >= self.config.remembered.max(1) {
                self.give_up(now_ns, out);
            }
            self.due.push_back((now_ns.saturating_add(self.config.wait.as_ns()), parent));
            if let Some(twin) = self.waiting.insert(parent, span) {
                // The same request again within the wait.
                self.counts.given_up += 1;
                out.push(twin);
            }
        }
    }

    /// Passes on what has waited long enough, and forgets what nobody can wait for.
    pub fn tick(&mut self, now_ns: u64, out: &mut Vec<Span>) {
        if let Some(remote) = self.remote.as_mut() {
            remote.tick(now_ns, out);
        }
        self.spans.expire(now_ns.saturating_sub(self.config.wait.as_ns()));
        while let Some((_, cookie)) = self.gone.pop_front_if(|(due_ns, _)| *due_ns <= now_ns) {
            self.clients.remove(cookie);
        }
        while let Some((_, parent)) = self.due.pop_front_if(|(due_ns, _)| *due_ns <= now_ns) {
            if self.held.contains(&parent) && self.waiting.contains_key(&parent) {
                // Its client is known, and is itself waiting to be linked.
                self.due.push_back((now_ns.saturating_add(self.config.wait.as_ns()), parent));
            } else {
                self.due.push_front((0, parent));
                self.give_up(now_ns, out);
            }
        }
    }

    /// Passes on everything that waits, before the end.
    pub fn flush(&mut self, out: &mut Vec<Span>) {
        while !self.due.is_empty() {
            self.give_up(u64::MAX, out);
        }
        if let Some(remote) = self.remote.as_mut() {
            remote.tick(u64::MAX, out);
        }
    }

    /// Name, entries and capacity of each table.
    pub fn sizes(&self) -> [(&'static str, usize, usize); 3] {
        let capacity = self.config.remembered;
        [
            ("link_connections", self.clients.by_cookie.len(), capacity),
            ("link_client_spans", self.spans.members.len(), capacity),
            ("link_waiting_spans", self.waiting.len(), capacity),
        ]
    }

    /// The same of what has to do with other hosts; nothing where there are none.
    pub fn sizes_abroad(&self) -> impl Iterator<Item = (&'static str, usize, usize)> {
        self.remote.iter().flat_map(Remote::sizes)
    }

    pub fn counts(&self) -> LinkCounts {
        LinkCounts { remote: self.remote.as_ref().map(Remote::counts).unwrap_or_default(), ..self.counts }
    }

    fn give_up(&mut self, now_ns: u64, out: &mut Vec<Span>) {
        // One that was linked in the meantime is not there any more.
        if let Some((_, parent)) = self.due.pop_front()
            && let Some(span) = self.waiting.remove(&parent)
        {
            // Another agent may see the client.
            if let Some(remote) = self.remote.as_mut().filter(|_| Remote::is_abroad(&span)) {
                return remote.ask(span, parent, now_ns, out);
            }
            self.counts.given_up += 1;
            out.push(span);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Config, LinkCounts, Links};
    use crate::model::connection::{ConnEvent, ConnEventKind, Connection, Cookie, Role, Transport};
    use crate::model::exchange::WireId;
    use crate::model::span::{Span, SpanKind};
    use crate::traces::assemble::Wire;

    const COOKIE: Cookie = Cookie(1);

    fn wire(position: u64) -> Wire {
        Wire { connection: WireId { client: 1_000, server: 2_000 }, position }
    }

    fn span(kind: SpanKind, wire: Wire) -> Span {
        let span_id = if kind == SpanKind::Client { wire.client_span_id() } else { wire.server_span_id() };
        Span { trace_id: wire.trace_id(), span_id, kind, end_ns: 1, ..Span::example() }
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
    fn nothing_is_remembered_of_connections_that_are_gone() {
        let (mut links, mut out) = (Links::new(Config::default()), Vec::new());
        for number in 0..100_000 {
            let mut event = opened();
            event.connection.cookie = Cookie(number);
            event.ktime_ns = number;
            links.connection(&event);
            event.kind = ConnEventKind::Destroyed { retransmits: 0, error: 0, send_sequence: 0, receive_sequence: 0 };
            links.connection(&event);
            // Comes with the end of the connection.
            let wire = wire(number);
            links.span(event.connection.cookie, wire, span(SpanKind::Client, wire), number, &mut out);
            links.tick(number, &mut out);
        }
        assert!(links.clients.order.len() <= 2 * Config::default().remembered, "{}", links.clients.order.len());
        links.tick(10_000_000_000, &mut out);
        assert!(links.sizes().iter().all(|(_, entries, _)| *entries == 0), "{:?}", links.sizes());
        assert_eq!(out.len(), 100_000);
    }

    #[test]
    fn a_server_span_whose_client_is_elsewhere_passes_at_once_without_a_parent() {
        let (mut links, mut out) = (Links::new(Config::default()), Vec::new());
        links.span(COOKIE, wire(1), span(SpanKind::Server, wire(1)), 0, &mut out);
        assert_eq!(out.len(), 1);
        assert_eq!(out[0].parent_span_id, None);
    }

    #[test]
    fn a_server_span_waits_for_its_client_and_gets_it_as_parent() {
        let (mut links, mut out) = (Links::new(Config::default()), Vec::new());
        links.connection(&opened());
        links.span(COOKIE, wire(1), span(SpanKind::Server, wire(1)), 0, &mut out);
        assert!(out.is_empty());
        links.span(COOKIE, wire(1), span(SpanKind::Client, wire(1)), 5, &mut out);
        assert_eq!(out.len(), 2);
        assert_eq!(out[1].parent_span_id, Some(out[0].span_id));
        assert_eq!(out[1].trace_id, out[0].trace_id);
        // Another request on the connection, the client's span first.
        links.span(COOKIE, wire(2), span(SpanKind::Client, wire(2)), 6, &mut out);
        links.span(COOKIE, wire(2), span(SpanKind::Server, wire(2)), 7, &mut out);
        assert_eq!(out[3].parent_span_id, Some(out[2].span_id));
        links.tick(u64::MAX, &mut out);
        assert_eq!(out.len(), 4, "nothing comes twice");
        assert_eq!(links.counts(), LinkCounts { linked: 2, ..LinkCounts::default() });
    }

    #[test]
    fn a_client_that_only_its_request_showed_is_waited_for() {
        let (mut links, mut out) = (Links::new(Config::default()), Vec::new());
        links.client(COOKIE, wire(1).connection);
        links.span(Cookie(2), wire(1), span(SpanKind::Server, wire(1)), 0, &mut out);
        assert!(out.is_empty());
        links.span(COOKIE, wire(1), span(SpanKind::Client, wire(1)), 5, &mut out);
        assert_eq!(out.len(), 2);
        assert_eq!(out[1].parent_span_id, Some(out[0].span_id));
    }

    #[test]
    fn a_client_span_that_never_comes_is_no_parent() {
        let (mut links, mut out) = (Links::new(Config::default()), Vec::new());
        links.connection(&opened());
        links.span(COOKIE, wire(1), span(SpanKind::Server, wire(1)), 0, &mut out);
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
            links.span(COOKIE, wire(sequence), span(SpanKind::Server, wire(sequence)), 0, &mut out);
        }
        assert_eq!(out.len(), 90);
        links.flush(&mut out);
        assert_eq!(out.len(), 100);
    }
}
