//! Spans as they come to spans that are linked: first inside each process, then between the two ends of connections.
//!
//! A span that a process sends while it serves nothing passes at once. Others wait until what could be their parent is
//! over, at most [`Config::patience`] (`linker` decides), then until the trace of that parent is known: of its own
//! context, or of its client's span (`link`). Spans come out with parent, trace id, method and confidence. Bounded by
//! [`Config::remembered`] requests and spans and [`Config::processes`] processes; what finds no room passes without a
//! parent and is counted.

mod askers;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use crate::model::connection::{ConnEvent, ConnEventKind, Cookie, Role};
use crate::model::context::Context;
use crate::model::exchange::{Exchange, Opened, WireId};
use crate::model::handover::{Handover, How, Opening};
use crate::model::hashing::Map;
use crate::model::hop::Hop;
use crate::model::span::{Span, SpanId, SpanKind, TraceId};
use crate::semconv;

use super::assemble::Wire;
use super::handovers::{Handovers, Step};
use super::link::{Config, LinkCounts, Links};
use super::linker::allowance::Allowance;
use super::linker::facts::{self, Facts, OPEN};
use super::linker::window::{Decision, Process, trim};
use super::linker::{Limits, Missed, TIERS};
use super::remote::Remote;
use super::tasks::Tasks;
use askers::Askers;

/// Attributes of a span whose parent was found inside its process.
const METHOD: &str = "seismo.link.method";
const CONFIDENCE: &str = "seismo.link.confidence";
/// A process that has done nothing for so long is forgotten, and with it what was learned of it.
const FORGOTTEN_NS: u64 = 300_000_000_000;
/// How much later than others a record may be read.
const LATE_NS: u64 = 500_000_000;
/// Spans of a process that are enough for a window before its time is over.
const WINDOW_SPANS: usize = 4_096;

/// What [`Live::span`] needs of an exchange, beside its span.
#[derive(Debug)]
pub struct Sight {
    cookie: Cookie,
    number: u64,
    pid: u32,
    wire: Wire,
    role: Role,
    trace_id: Option<TraceId>,
    facts: Facts,
}

impl Sight {
    /// `tasks` knows where the sending task came from.
    pub fn of(exchange: &Exchange, name: &str, tasks: &mut Tasks) -> Self {
        let mut tokens = Vec::new();
        for key in [semconv::URL_PATH, semconv::DB_QUERY_TEXT] {
            facts::tokens(exchange.attributes.text(key).unwrap_or_default(), &mut tokens);
        }
        let task = exchange.request.tasks[0];
        let sent = task.filter(|_| exchange.role == Role::Client);
        let ancestors = sent.map(|task| tasks.ancestors(exchange.pid, task)).unwrap_or_default();
        let wakers = sent
            .filter(|_| tasks.wake_each_other(exchange.pid))
            .map(|task| exchange.request.wake.map(|wake| tasks.wakers(exchange.pid, task, wake)).unwrap_or_default());
        let facts = Facts {
            tid: exchange.request.tid,
            end_tid: exchange.response.map_or(0, |response| response.tid),
            task,
            end_task: exchange.response.and_then(|response| response.tasks[0]),
            ancestors,
            wakers,
            drives: exchange.request.wake.is_some_and(|wake| wake.drives),
            start_ns: exchange.request.first_ns,
            end_ns: exchange.end_ns.max(exchange.request.first_ns),
            operation: facts::hash(name.as_bytes()),
            socket: exchange.connection.cookie.0,
            ids: exchange.context.as_deref().map(facts::ids).unwrap_or_default(),
            tokens,
            ..Facts::default()
        };
        Self {
            cookie: exchange.connection.cookie,
            number: exchange.number,
            pid: exchange.pid,
            wire: Wire::of(exchange),
            role: exchange.role,
            trace_id: trace_of(exchange.context.as_deref()),
            facts,
        }
    }
}

fn trace_of(context: Option<&Context>) -> Option<TraceId> {
    context?.trace_id
}

/// A span that waits.
#[derive(Debug)]
struct Held {
    cookie: Cookie,
    wire: Wire,
    span: Span,
    end_ns: u64,
    /// The request that it belongs to, whose trace is not known yet.
    parent: Option<u64>,
}

/// A request that a process serves.
#[derive(Debug)]
struct Served {
    pid: u32,
    place: (Cookie, u64),
    span_id: SpanId,
    /// What its trace would be if no client of this host had it.
    own_trace: TraceId,
    /// Said by its own context.
    in_band: Option<TraceId>,
    trace: Option<TraceId>,
    /// Spans that wait for its trace.
    children: Vec<u64>,
    began_ns: u64,
}

#[derive(Debug, Default)]
struct Spans {
    process: Process<u64>,
    handovers: Handovers,
    undecided: usize,
    run_ns: u64,
    seen_ns: u64,
    /// By what the kernel said; another one may get its number.
    ended: bool,
}

impl Spans {
    /// What is known by now of the threads that each span may belong to.
    fn fill(&mut self) {
        if self.handovers.is_empty() {
            return;
        }
        for facts in self.process.undecided() {
            facts.origin.before = self.handovers.before(facts.tid, facts.start_ns);
            facts.origin.after = self.handovers.after(facts.last_tid(), facts.end_ns);
            if let Some(opened) = facts.origin.connected.first().copied() {
                facts.origin.connected.truncate(1);
                facts.origin.connected.extend(self.handovers.before(opened.tid, opened.at_ns));
            }
        }
    }
}

#[derive(Debug)]
pub struct Live {
    config: Config,
    links: Links,
    processes: BTreeMap<u32, Spans>,
    /// What statistics may weigh, of all processes together.
    allowance: Allowance,
    served: Map<u64, Served>,
    by_place: Map<(Cookie, u64), u64>,
    by_span: Map<SpanId, u64>,
    /// Who opened connections on which nothing was sent yet.
    openings: Map<Cookie, Opening>,
    held: Map<u64, Held>,
    askers: Askers,
    /// Spans whose parent is decided and has no trace yet, by the end of their patience.
    due: VecDeque<(u64, u64)>,
    /// Spans of processes that were forgotten.
    orphans: Vec<u64>,
    cleaned_ns: u64,
    next: u64,
    counts: BTreeMap<&'static str, u64>,
}

impl Live {
    pub fn new(config: Config) -> Self {
        Self {
            links: Links::new(config.clone()),
            askers: Askers::new(config.remembered),
            config,
            processes: BTreeMap::new(),
            allowance: Allowance::default(),
            served: Map::default(),
            by_place: Map::default(),
            by_span: Map::default(),
            openings: Map::default(),
            held: Map::default(),
            due: VecDeque::new(),
            orphans: Vec::new(),
            cleaned_ns: 0,
            next: 0,
            counts: BTreeMap::new(),
        }
    }

    /// Links spans with those of agents on other hosts.
    pub fn with_remote(mut self, remote: Option<Remote>) -> Self {
        self.links = self.links.with_remote(remote);
        self
    }

    /// Other hosts told of these.
    pub fn hear(&mut self, hops: impl Iterator<Item = Hop>, now_ns: u64, out: &mut Vec<Span>) {
        let mut passed = Vec::new();
        hops.for_each(|hop| self.links.hear(hop, now_ns, &mut passed));
        self.settle(passed, now_ns, out);
    }

    /// What other hosts are to be told since this was asked last.
    pub fn take_told(&mut self) -> Vec<Hop> {
        self.links.take_told()
    }

    /// Learns which connections have their client on this host.
    pub fn connection(&mut self, event: &ConnEvent) {
        if let ConnEventKind::Destroyed { .. } = event.kind {
            self.openings.remove(&event.connection.cookie);
            self.askers.closed(event.connection.cookie);
        }
        self.links.connection(event);
    }

    /// As [`Links::client`].
    pub fn client(&mut self, cookie: Cookie, wire: WireId) {
        self.links.client(cookie, wire);
    }

    /// A thread opens a connection.
    pub fn opening(&mut self, opening: Opening) {
        if !self.config.requests {
            return;
        }
        if self.openings.len() >= self.config.remembered && !self.openings.contains_key(&opening.socket) {
            return self.count("link_no_room_for_opening");
        }
        self.openings.insert(opening.socket, opening);
    }

    /// A thread hands work to another one. Of no account to a process that has served nothing.
    pub fn handed(&mut self, handover: Handover) {
        let Some(process) = self.processes.get_mut(&handover.pid) else { return };
        process.handovers.handed(handover);
        let evicted = process.handovers.take_evicted();
        if evicted > 0 {
            *self.counts.entry("handover_evicted").or_default() += evicted;
        }
    }

    /// A process is gone: what it did is decided as ever, and nothing more is remembered of it.
    pub fn ended(&mut self, pid: u32) {
        if let Some(process) = self.processes.get_mut(&pid) {
            process.ended = true;
        }
    }

    /// The socket is gone, though no event told.
    pub fn forget(&mut self, cookie: Cookie) {
        self.openings.remove(&cookie);
        self.askers.closed(cookie);
        self.links.forget(cookie);
    }

    /// A process begins to serve a request.
    pub fn opened(&mut self, opened: &Opened) {
        if !self.config.requests {
            return;
        }
        if self.served.len() >= self.config.remembered {
            return self.count("link_no_room_for_request");
        }
        let cookie = opened.connection.cookie;
        let own = WireId { client: cookie.0, server: u64::MAX };
        let wire = Wire { connection: opened.wire.unwrap_or(own), position: opened.request.position };
        let facts = Facts {
            tid: opened.request.tid,
            task: opened.request.tasks[0],
            start_ns: opened.request.first_ns,
            end_ns: OPEN,
            socket: cookie.0,
            ids: opened.context.as_deref().map(facts::ids).unwrap_or_default(),
            ..Facts::default()
        };
        let id = self.name();
        let in_band = trace_of(opened.context.as_deref());
        self.serve(id, opened.pid, (cookie, opened.number), wire, in_band, facts);
    }

    fn serve(&mut self, id: u64, pid: u32, place: (Cookie, u64), wire: Wire, in_band: Option<TraceId>, facts: Facts) {
        let span_id = wire.server_span_id();
        let served = Served {
            pid,
            place,
            span_id,
            own_trace: wire.trace_id(),
            in_band,
            trace: None,
            children: Vec::new(),
            began_ns: facts.start_ns,
        };
        self.by_place.insert(place, id);
        self.by_span.insert(span_id, id);
        let process = self.process(pid, facts.start_ns);
        process.handovers.moved(facts.tid, facts.start_ns);
        process.process.serve(id, facts);
        self.served.insert(id, served);
    }

    /// What is known of a process. Where there are too many, the one that did nothing for longest is forgotten.
    fn process(&mut self, pid: u32, now_ns: u64) -> &mut Spans {
        if self.processes.len() >= self.config.processes.max(1)
            && !self.processes.contains_key(&pid)
            && let Some(longest) = self.processes.iter().min_by_key(|(_, process)| process.seen_ns).map(|(pid, _)| *pid)
            && let Some(mut process) = self.processes.remove(&longest)
        {
            self.count("link_no_room_for_process");
            self.orphans.extend(process.process.drain());
        }
        let process = self.processes.entry(pid).or_default();
        process.seen_ns = process.seen_ns.max(now_ns);
        process
    }

    fn name(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn count(&mut self, reason: &'static str) {
        *self.counts.entry(reason).or_default() += 1;
    }

    /// Takes the span of an exchange; passes on what need not wait any longer.
    pub fn span(&mut self, sight: Sight, span: Span, now_ns: u64, out: &mut Vec<Span>) {
        match sight.role {
            Role::Server => self.answered(sight, span, now_ns, out),
            Role::Client => self.sent(sight, span, now_ns, out),
        }
    }

    fn answered(&mut self, sight: Sight, mut span: Span, now_ns: u64, out: &mut Vec<Span>) {
        let Sight { cookie, number, pid, wire, trace_id, facts, .. } = sight;
        let place = (cookie, number);
        let mut in_band = trace_id;
        if self.config.requests
            && let Some(id) = self.by_place.remove(&place)
        {
            if let Some(served) = self.served.get_mut(&id) {
                if served.span_id != span.span_id {
                    self.by_span.remove(&served.span_id);
                    self.by_span.insert(span.span_id, id);
                    served.span_id = span.span_id;
                    served.own_trace = wire.trace_id();
                }
                in_band = in_band.or(served.in_band);
            }
            let process = self.process(pid, now_ns);
            process.handovers.moved(facts.last_tid(), facts.end_ns);
            process.process.serve(id, facts);
        }
        span.trace_id = in_band.unwrap_or(span.trace_id);
        let mut passed = Vec::new();
        self.links.span(cookie, wire, span, now_ns, &mut passed);
        self.settle(passed, now_ns, out);
    }

    fn sent(&mut self, sight: Sight, mut span: Span, now_ns: u64, out: &mut Vec<Span>) {
        let Sight { cookie, pid, wire, trace_id, mut facts, .. } = sight;
        let opening = self.openings.remove(&cookie);
        let id = self.name();
        self.last_on(cookie, id, pid, &facts);
        // Its own context names its trace where no parent does.
        span.trace_id = trace_id.unwrap_or(span.trace_id);
        let has_room = self.held.len() < self.config.remembered;
        let serves = self.processes.get(&pid).is_some_and(|process| process.process.serves());
        if !serves || !has_room {
            if serves {
                self.count("link_no_room_for_span");
            }
            let mut passed = Vec::new();
            self.links.span(cookie, wire, span, now_ns, &mut passed);
            return self.settle(passed, now_ns, out);
        }
        self.links.hold(span.span_id);
        let end_ns = facts.end_ns;
        self.held.insert(id, Held { cookie, wire, span, end_ns, parent: None });
        let process = self.process(pid, now_ns);
        process.undecided += 1;
        process.handovers.moved(facts.tid, facts.start_ns);
        process.handovers.moved(facts.end_tid, facts.end_ns);
        if let Some(Opening { tid, ktime_ns: at_ns, .. }) = opening.filter(|opening| opening.pid == pid) {
            facts.origin.connected = vec![Step { tid, at_ns, how: How::Made, distance: 1 }];
        }
        process.process.send(id, facts);
    }

    /// Spans that came out of `links` have their trace: what waits for them goes on.
    fn settle(&mut self, mut passed: Vec<Span>, now_ns: u64, out: &mut Vec<Span>) {
        while !passed.is_empty() {
            let mut more = Vec::new();
            for span in passed {
                if span.kind == SpanKind::Server
                    && let Some(id) = self.by_span.remove(&span.span_id)
                    && let Some(served) = self.served.get_mut(&id)
                {
                    served.trace = Some(span.trace_id);
                    for child in std::mem::take(&mut served.children) {
                        self.pass(child, Some((span.span_id, span.trace_id)), now_ns, &mut more);
                    }
                }
                out.push(span);
            }
            passed = more;
        }
    }

    /// A span goes on, with the trace of its parent or its own.
    fn pass(&mut self, id: u64, parent: Option<(SpanId, TraceId)>, now_ns: u64, passed: &mut Vec<Span>) {
        let Some(Held { cookie, wire, mut span, .. }) = self.held.remove(&id) else { return };
        if let Some((span_id, trace_id)) = parent {
            (span.parent_span_id, span.trace_id) = (Some(span_id), trace_id);
        }
        self.links.span(cookie, wire, span, now_ns, passed);
    }

    fn decide(&mut self, decision: Decision<u64>, now_ns: u64, passed: &mut Vec<Span>) {
        let (parent, method, confidence) = match decision.parent {
            Ok(parent) => parent,
            Err(missed) => {
                self.count(reason(missed));
                return self.pass(decision.span, None, now_ns, passed);
            }
        };
        let event = TIERS.iter().find(|tier| tier.method == method).map_or("linked", |tier| tier.event);
        self.count(event);
        let Some(held) = self.held.get_mut(&decision.span) else { return };
        held.span.attributes.set(METHOD, method);
        held.span.attributes.set(CONFIDENCE, crate::model::attributes::Value::Float(confidence));
        let due_ns = held.end_ns.saturating_add(self.config.patience.as_ns());
        let Some(served) = self.served.get_mut(&parent) else {
            return self.pass(decision.span, None, now_ns, passed);
        };
        match served.trace {
            Some(trace) => {
                let parent = (served.span_id, trace);
                self.pass(decision.span, Some(parent), now_ns, passed);
            }
            None => {
                held.parent = Some(parent);
                served.children.push(decision.span);
                self.due.push_back((due_ns, decision.span));
            }
        }
    }

    /// Looks at processes whose window is over, gives up what has waited long enough, forgets what nobody needs.
    pub fn tick(&mut self, now_ns: u64, out: &mut Vec<Span>) {
        self.run(now_ns, now_ns.saturating_sub(self.config.patience.as_ns()), false, out);
        self.hurry(now_ns, out);
        let mut passed = Vec::new();
        for id in std::mem::take(&mut self.orphans) {
            self.pass(id, None, now_ns, &mut passed);
        }
        self.links.tick(now_ns, &mut passed);
        self.settle(passed, now_ns, out);
        // Looks at every request that is remembered: as often as a window ends, not at every tick.
        if now_ns.saturating_sub(self.cleaned_ns) >= self.config.window.as_ns() {
            self.cleaned_ns = now_ns;
            self.askers.forget_before(now_ns.saturating_sub(self.config.patience.as_ns()));
            self.clean(now_ns);
        }
    }

    fn run(&mut self, now_ns: u64, patience_ns: u64, all: bool, out: &mut Vec<Span>) {
        let limits = Limits {
            age_ns: self.config.age.as_ns(),
            fan_out: self.config.fan_out,
            margin: self.config.margin,
            ..Limits::default()
        };
        let window_ns = self.config.window.as_ns();
        let mut passed = Vec::new();
        let mut due: Vec<(usize, u32)> = self
            .processes
            .iter()
            .filter(|(_, process)| {
                let is_due = now_ns.saturating_sub(process.run_ns) >= window_ns || process.undecided >= WINDOW_SPANS;
                all || is_due
            })
            .map(|(pid, process)| (process.undecided, *pid))
            .collect();
        // Those with little to do first: what they leave of their part goes to the others.
        due.sort_unstable();
        let count = due.len();
        for (place, (_, pid)) in due.into_iter().enumerate() {
            let Some(process) = self.processes.get_mut(&pid) else { continue };
            let limits = Limits { pairs: self.allowance.at(now_ns) / (count - place).max(1) as u64, ..limits };
            let weighed = process.process.model().weighed;
            process.run_ns = now_ns;
            process.fill();
            // Records of one thread may be behind those of another.
            let decisions = process.process.run(limits, now_ns.saturating_sub(LATE_NS), patience_ns);
            self.allowance.spend(process.process.model().weighed.saturating_sub(weighed));
            process.undecided = process.undecided.saturating_sub(decisions.len());
            for decision in decisions {
                self.decide(decision, now_ns, &mut passed);
            }
        }
        self.settle(passed, now_ns, out);
    }

    /// Spans whose parent takes too long go on before it, with the trace that it most likely has.
    fn hurry(&mut self, now_ns: u64, out: &mut Vec<Span>) {
        let mut passed = Vec::new();
        while let Some((_, id)) = self.due.pop_front_if(|(due_ns, _)| *due_ns <= now_ns) {
            let Some(held) = self.held.get(&id) else { continue };
            let parent = held.parent.and_then(|parent| self.served.get_mut(&parent)).map(|served| {
                served.children.retain(|child| *child != id);
                (served.span_id, served.in_band.unwrap_or(served.own_trace))
            });
            self.count("link_trace_guessed");
            self.pass(id, parent, now_ns, &mut passed);
        }
        self.settle(passed, now_ns, out);
    }

    fn clean(&mut self, now_ns: u64) {
        let Self { served, processes, by_place, by_span, held, counts, .. } = self;
        let too_old_ns = now_ns.saturating_sub(FORGOTTEN_NS);
        let mut never_over = 0;
        served.retain(|id, served| {
            let lost = served.trace.is_none() && served.began_ns < too_old_ns && served.children.is_empty();
            let process = processes.get_mut(&served.pid);
            let known = process.is_some_and(|process| {
                if lost {
                    process.process.forget(*id);
                }
                process.process.knows(*id)
            });
            never_over += u64::from(lost);
            // Once it is over and nobody began anything meanwhile, nothing can become its child any more.
            let keeps = known || !served.children.is_empty();
            if !keeps {
                by_place.remove(&served.place);
                by_span.remove(&served.span_id);
            }
            keeps
        });
        processes.retain(|_, process| !process.process.is_empty() || (!process.ended && process.seen_ns >= too_old_ns));
        processes.values_mut().for_each(|process| process.process.trim());
        trim(served);
        trim(by_place);
        trim(by_span);
        trim(held);
        if never_over > 0 {
            *counts.entry("link_request_never_over").or_default() += never_over;
        }
    }

    /// Passes on everything that waits, before the end.
    pub fn flush(&mut self, out: &mut Vec<Span>) {
        self.run(u64::MAX, u64::MAX, true, out);
        self.hurry(u64::MAX, out);
        let left: Vec<u64> = self.held.keys().copied().collect();
        let mut passed = Vec::new();
        left.into_iter().for_each(|id| self.pass(id, None, u64::MAX, &mut passed));
        self.links.flush(&mut passed);
        self.settle(passed, u64::MAX, out);
    }

    /// Name, entries and capacity of each table.
    pub fn sizes(&self) -> impl Iterator<Item = (&'static str, usize, usize)> {
        let capacity = self.config.remembered;
        let own = [("link_requests", self.served.len(), capacity), ("link_spans", self.held.len(), capacity)];
        let processes = ("link_processes", self.processes.len(), self.config.processes);
        let remote = self.links.sizes_abroad();
        self.links.sizes().into_iter().chain(own).chain(remote).chain([processes, self.askers.size()])
    }

    /// Spans by how their parent was found, or why there is none; sums since the start.
    pub fn counts(&self) -> (LinkCounts, impl Iterator<Item = (&'static str, u64)> + '_) {
        (self.links.counts(), self.counts.iter().map(|(reason, count)| (*reason, *count)))
    }
}

const fn reason(missed: Missed) -> &'static str {
    match missed {
        Missed::NoneOpen => "unlinked_none_open",
        Missed::Ambiguous => "unlinked_ambiguous",
        Missed::Crowded => "unlinked_crowded",
        Missed::FanOut => "unlinked_fan_out",
        Missed::Unweighed => "unlinked_unweighed",
    }
}
