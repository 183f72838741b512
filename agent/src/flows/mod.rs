//! Flows: payload chunks and connection events to exchanges.
//!
//! `table` (connections by cookie, bounded) → `flow` (one connection) → `stream` (order, gaps) → `session` (parser of
//! `protocols`) → `pair` (request to response). Pure: time comes with the records or from [`Flows::tick`]. Everything
//! is bounded by [`Config`]; whatever is given up is counted by reason in [`Counts`] and every byte in one
//! [`Visibility`]. Does not link exchanges to each other.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod counts;
mod demand;
mod flow;
mod loss;
mod outcome;
mod pair;
mod session;
mod stream;
mod table;

use std::collections::{HashSet, VecDeque};

use crate::model::connection::{ConnEvent, ConnEventKind, Connection, Cookie, Direction};
use crate::model::exchange::{Exchange, Opened, WireId};
use crate::model::payload::{CaptureDemand, PayloadChunk};
use crate::protocols::{self, Dialect, Limits, REGISTRY};
use crate::section::Interval;

pub use counts::{Counts, Visibility};
pub use flow::FlowState;

use counts::Ledger;
use flow::Flow;
use session::{Context, Ending};
use table::Table;

crate::section! {
    /// Tracking of connections.
    pub struct Config {
        /// Connections tracked at once; one more and one that was quiet is given up.
        pub connections: usize = 16_384,
        /// Sends or receives of one stream that wait for one before them.
        pub segments_per_stream: usize = 256,
        /// Captured bytes of one stream that wait.
        pub held_bytes_per_stream: usize = 1_048_576,
        /// Bytes that wait or are kept on all connections together; who has more than an equal share gives back.
        pub held_bytes: usize = 67_108_864,
        /// Requests in flight on one connection.
        pub pending_per_connection: usize = 1024,
        /// Bytes captured of one connection in a second; above, only the beginnings of operations are. 0: no limit.
        pub captured_bytes_per_second: u64 = 33_554_432,
        /// Longest head of a message, in bytes.
        pub head_bytes: usize = 65_536,
        /// How long bytes wait for those before them, and answers for their request.
        pub reorder_wait: Interval = Interval::millis(100),
        /// A request without an answer, or an answer that stopped, is given up after this time.
        pub request_timeout: Interval = Interval::secs(60),
        /// A connection without traffic for this long is looked for among the open sockets in scope (at most every tenth of
        /// it): one that is not there is forgotten, should its end not have been told.
        pub idle_check: Interval = Interval::secs(300),
    }
    sections {
        /// What the parsers of each protocol do.
        pub protocols: protocols::Config,
    }
}

/// Connections looked at per tick for requests that take too long.
const SCAN_PER_TICK: usize = 1024;
/// Waiting connections looked at per tick.
const DUE_PER_TICK: usize = 4096;

/// All tracked connections.
pub struct Flows {
    config: Config,
    dialects: Vec<Option<Box<dyn Dialect>>>,
    table: Table<Flow>,
    /// Connections that wait for something, by the time at which they have waited enough.
    due: VecDeque<(u64, Cookie)>,
    scan: usize,
    held_bytes: usize,
    /// What the kernel is to capture of connections, as far as that has changed.
    demands: Vec<(Cookie, Option<CaptureDemand>)>,
    /// Ends that turned out to be a client's.
    clients: Vec<(Cookie, WireId)>,
    /// Requests that began at the end that serves them.
    opened: Vec<Opened>,
    counts: Counts,
    ledger: Ledger,
}

impl Flows {
    pub fn new(config: Config) -> Self {
        let dialects = REGISTRY.iter().map(|row| row.dialect.map(|open| open(&config.protocols))).collect();
        Self {
            dialects,
            table: Table::new(config.connections),
            due: VecDeque::new(),
            scan: 0,
            held_bytes: 0,
            demands: Vec::new(),
            clients: Vec::new(),
            opened: Vec::new(),
            counts: Counts::default(),
            ledger: Ledger::default(),
            config,
        }
    }

    /// Takes bytes of a connection.
    pub fn payload(&mut self, chunk: PayloadChunk, out: &mut Vec<Exchange>) {
        let (connection, ktime_ns) = (chunk.connection, chunk.moment.ktime_ns);
        self.admit(connection, out);
        if chunk.direction == Direction::Receive
            && let Some(peer) = connection.peer_cookie
        {
            self.compare(connection.cookie, peer);
        }
        self.visit(connection.cookie, ktime_ns, out, |flow, config, cx| flow.payload(chunk, config, cx));
    }

    /// Bytes of a UNIX stream that were under way when its ends were first seen make them count differently. When a client
    /// gets an answer, everything that it sent has been told: has its peer received more, then what they know of each
    /// other's requests is not the same.
    fn compare(&mut self, cookie: Cookie, peer: Cookie) {
        let Some(received) = self.table.get(peer).and_then(|flow| flow.end_of(Direction::Receive)) else { return };
        let Some(flow) = self.table.get(cookie) else { return };
        let behind = |sent: u64| (received as u32).wrapping_sub(sent as u32).cast_signed() > 0;
        if flow.names_server() && flow.end_of(Direction::Send).is_some_and(behind) {
            flow.stand_alone();
            self.counts.add("unix_ends_differ", 1);
        }
    }

    /// Takes an event of a connection's life.
    pub fn connection(&mut self, event: &ConnEvent, out: &mut Vec<Exchange>) {
        let (kind, ktime_ns) = (event.kind, event.ktime_ns);
        if matches!(kind, ConnEventKind::Opened { .. } | ConnEventKind::Adopted { .. }) {
            self.admit(event.connection, out);
        }
        self.visit(event.connection.cookie, ktime_ns, out, |flow, config, cx| flow.event(kind, ktime_ns, config, cx));
    }

    /// Lets time pass: gaps that nobody fills, answers that do not come. Bounded work per call; call it every
    /// 100 ms or so.
    pub fn tick(&mut self, now_ns: u64, out: &mut Vec<Exchange>) {
        for _ in 0..DUE_PER_TICK {
            match self.due.front() {
                Some((due_ns, cookie)) if *due_ns <= now_ns => {
                    let cookie = *cookie;
                    self.due.pop_front();
                    self.visit(cookie, now_ns, out, |flow, config, cx| {
                        flow.queued = false;
                        flow.advance(now_ns, false, config, cx);
                    });
                }
                _ => break,
            }
        }
        for _ in 0..SCAN_PER_TICK.min(self.table.places()) {
            self.scan = if self.scan + 1 < self.table.places() { self.scan + 1 } else { 0 };
            let Self { config, dialects, table, held_bytes, counts, ledger, opened, .. } = self;
            let Some(flow) = table.at(self.scan) else { continue };
            let before = flow.buffered_bytes();
            flow.expire(now_ns, config, &mut context(config, dialects, (counts, ledger), (out, opened)));
            *held_bytes = (*held_bytes + flow.buffered_bytes()).saturating_sub(before);
            if let Some(ending) = flow.ended(now_ns, config) {
                let cookie = flow.cookie();
                if let Some(flow) = self.table.remove(cookie) {
                    self.counts.add("end_not_seen", 1);
                    self.end(flow, ending, out);
                }
            }
        }
    }

    /// Ends connections without a record since `ktime_ns` whose socket is not among `open`; says which.
    pub fn end_gone(&mut self, ktime_ns: u64, open: &HashSet<Cookie>, out: &mut Vec<Exchange>) -> Vec<Cookie> {
        let quiet = self.table.values().filter(|flow| flow.last_ns() < ktime_ns).map(Flow::cookie);
        let gone: Vec<Cookie> = quiet.filter(|cookie| !open.contains(cookie)).collect();
        self.counts.add("connection_gone_unnoticed", gone.len() as u64);
        for cookie in &gone {
            if let Some(flow) = self.table.remove(*cookie) {
                self.end(flow, Ending::Evicted, out);
            }
        }
        gone
    }

    /// Tracked connections.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Connections that can be tracked.
    pub fn capacity(&self) -> usize {
        self.config.connections
    }

    /// Time without traffic after which a connection is looked for.
    pub fn idle_ns(&self) -> u64 {
        self.config.idle_check.as_ns()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every outcome by reason since the start: exchanges whole and incomplete, messages refused, bytes given up.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// What the kernel is to capture of connections from now on, as far as that has changed since the last call.
    pub fn drain_demands(&mut self) -> impl Iterator<Item = (Cookie, Option<CaptureDemand>)> + '_ {
        self.demands.drain(..)
    }

    /// Ends of which only their first request told that they are a client's, since the last call.
    pub fn drain_clients(&mut self) -> impl Iterator<Item = (Cookie, WireId)> + '_ {
        self.clients.drain(..)
    }

    /// Requests that began at the end that serves them, since the last call. Each comes again as an exchange.
    pub fn drain_opened(&mut self) -> impl Iterator<Item = Opened> + '_ {
        self.opened.drain(..)
    }

    /// Bytes by process and by how far they could be read, since the last call.
    pub fn drain_visibility(&mut self, each: impl FnMut(u32, Visibility, u64)) {
        self.ledger.drain(each);
    }

    /// The state of at most `limit` connections.
    pub fn snapshot(&self, limit: usize) -> Vec<FlowState> {
        self.table.values().take(limit).map(Flow::state).collect()
    }

    /// Makes sure that the connection is tracked.
    fn admit(&mut self, connection: Connection, out: &mut Vec<Exchange>) {
        if let Some(known) = self.table.get(connection.cookie) {
            if !known.is_another(&connection) {
                return;
            }
            self.counts.add("name_used_again", 1);
            if let Some(gone) = self.table.remove(connection.cookie) {
                self.end(gone, Ending::Evicted, out);
            }
        }
        if let Some(evicted) = self.table.insert(connection.cookie, Flow::new(connection)) {
            self.counts.add("connection_evicted", 1);
            self.end(evicted, Ending::Evicted, out);
        }
    }

    /// Does something with a tracked connection and settles the accounts afterwards.
    fn visit(
        &mut self,
        cookie: Cookie,
        now_ns: u64,
        out: &mut Vec<Exchange>,
        act: impl FnOnce(&mut Flow, &Config, &mut Context<'_>),
    ) {
        let Self { config, dialects, table, due, held_bytes, demands, clients, counts, ledger, opened, .. } = self;
        let Some(flow) = table.get(cookie) else { return };
        let before = flow.buffered_bytes();
        let mut cx = context(config, dialects, (counts, ledger), (out, opened));
        act(flow, config, &mut cx);
        *held_bytes = (*held_bytes + flow.buffered_bytes()).saturating_sub(before);
        // Only who has more than an equal share gives back: the sum stays below twice the bound.
        let share_bytes = config.held_bytes / config.connections.max(1);
        if *held_bytes > config.held_bytes && flow.buffered_bytes() > share_bytes {
            let before = flow.buffered_bytes();
            flow.squeeze(share_bytes, config, &mut cx);
            *held_bytes = (*held_bytes + flow.buffered_bytes()).saturating_sub(before);
        }
        clients.extend(flow.found_client().map(|wire| (cookie, wire)));
        if let Some(ending) = flow.ended(now_ns, config) {
            if let Some(flow) = self.table.remove(cookie) {
                self.end(flow, ending, out);
            }
            return;
        }
        if let Some(demand) = flow.changed_demand(config) {
            demands.push((cookie, demand));
        }
        if flow.waits() && !flow.queued && due.len() < 2 * config.connections {
            // A connection that closed may still have its place; one that finds none comes with its next record.
            flow.queued = true;
            due.push_back((now_ns.saturating_add(config.reorder_wait.as_ns()), cookie));
        }
    }

    fn end(&mut self, flow: Flow, ending: Ending, out: &mut Vec<Exchange>) {
        self.held_bytes = self.held_bytes.saturating_sub(flow.buffered_bytes());
        if flow.has_demand() {
            self.demands.push((flow.cookie(), None));
        }
        let Self { config, dialects, counts, ledger, opened, .. } = self;
        flow.end(ending, config, &mut context(config, dialects, (counts, ledger), (out, opened)));
    }
}

fn context<'a>(
    config: &Config,
    dialects: &'a mut [Option<Box<dyn Dialect>>],
    (counts, ledger): (&'a mut Counts, &'a mut Ledger),
    (out, opened): (&'a mut Vec<Exchange>, &'a mut Vec<Opened>),
) -> Context<'a> {
    Context {
        dialects,
        counts,
        ledger,
        out,
        opened,
        pending_limit: config.pending_per_connection,
        limits: Limits { head_bytes: config.head_bytes, fresh: false },
        now_ns: 0,
        retransmits: 0,
        origins: [None; 2],
    }
}
