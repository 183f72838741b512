//! The analysis thread: batches of records → signals → exchanges → request metrics and spans.
//!
//! One thread, one owner for flows, names and scope: no lock on the way but the metric table's and the span ring's.
//! Every record of a batch ends as passed or as dropped with a reason.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::bpf::decode::{Batch, Record};
use crate::bpf::drain::Progress;
use crate::bpf::flow_control::FlowControlMap;
use crate::clock::{self, Clock};
use crate::exporters::hops::Hops;
use crate::flows::{FlowState, Flows, Visibility};
use crate::health::{Health, Stage};
use crate::host::names::Names;
use crate::metrics::{Table, record_exchange};
use crate::model::connection::{ConnEvent, ConnEventKind, Cookie, Role};
use crate::model::exchange::Exchange;
use crate::model::metric::{Kind, Metric};
use crate::model::process::{ProcessEventKind, Resource, Resources as _};
use crate::model::span::Span;
use crate::model::task::TaskName;
use crate::model::thread::Breakdown;
use crate::probes::{payload, process, task, tcp, wakeup};
use crate::run::adoption::Adoption;
use crate::run::exemplars::Choice;
use crate::run::scope::ScopeKeeper;
use crate::run::scope_control::{Change, Request};
use crate::run::tasks::Finder;
use crate::store::spans::Spans;
use crate::traces::assemble::{assemble, span_name};
use crate::traces::explain::Explain;
use crate::traces::graph::{self, Edge, Graph};
use crate::traces::live::{Live, Sight};
use crate::traces::tasks::Tasks;

/// Time between looks at timeouts while connections are tracked, and while none is.
const TICK: Duration = Duration::from_millis(100);
const IDLE_TICK: Duration = Duration::from_millis(1000);
/// Time between looks for processes in the scope's table whose end was not told.
const SWEEP_NS: u64 = 10_000_000_000;
/// Connections shown by `/api/seismo/flows`.
const SHOWN_FLOWS: usize = 1000;

fn overdue(deadline_ns: &AtomicU64) -> bool {
    let deadline_ns = deadline_ns.load(Ordering::Relaxed);
    deadline_ns != 0 && clock::monotonic_ns() > deadline_ns
}

/// A server's time by operation.
fn add_time(table: &Table, name: &str, resource: &Resource, time: &Breakdown) {
    for (state, ns) in time.parts() {
        table.add(&SPAN_TIME, &[&resource.service_name, name, state], ns);
    }
}

/// A request between two services.
fn add_edge(table: &Table, edge: Edge<'_>) {
    let labels = [edge.client, edge.server, edge.protocol];
    table.observe(&graph::DURATION, &labels, edge.duration_ns as f64 / 1e9);
    // Without a failure too, so that a rate over the first one is right.
    table.add(&graph::FAILED, &labels, edge.failed.into());
}

pub static WORKLOAD_BYTES: Metric = Metric {
    name: "seismo.workload",
    unit: "By",
    kind: Kind::Counter,
    description: "Bytes of connections in scope, by what could be seen of them",
    labels: &["service.name", "visibility"],
};
pub static EVENTS: Metric = Metric {
    name: "seismo.pipeline.events",
    unit: "{event}",
    kind: Kind::Counter,
    description: "What befell connections, messages, processes and bytes on the way to a span, by reason",
    labels: &["reason"],
};
pub static SPAN_TIME: Metric = Metric {
    name: "seismo.span.time",
    unit: "s",
    kind: Kind::Counter,
    description: "Time of server spans, by what the threads that served them did or waited for",
    labels: &["service.name", "operation", "state"],
};
pub static TABLE_ENTRIES: Metric = Metric {
    name: "seismo.table.entries",
    unit: "{entry}",
    kind: Kind::Gauge,
    description: "Entries in each of the agent's tables, those in the kernel among them",
    labels: &["table"],
};
pub static TABLE_CAPACITY: Metric = Metric {
    name: "seismo.table.capacity",
    unit: "{entry}",
    kind: Kind::Gauge,
    description: "Entries that each of the agent's tables can hold",
    labels: &["table"],
};

/// Every metric that the pipeline fills itself.
pub const METRICS: &[&Metric] = &[&WORKLOAD_BYTES, &EVENTS, &SPAN_TIME, &TABLE_ENTRIES, &TABLE_CAPACITY];

/// What the API shows of the pipeline's inside; replaced at every tick while somebody may look.
#[derive(Debug, Default)]
pub struct View {
    pub flows: Mutex<Vec<FlowState>>,
    pub tracked: AtomicU64,
}

/// What the pipeline works with and writes to; made by whoever wires it.
pub struct Parts {
    pub names: Names,
    pub scope: ScopeKeeper,
    pub adoption: Adoption,
    /// Changes that somebody asks for.
    pub changes: Receiver<Request>,
    pub control: FlowControlMap,
    pub flows: Flows,
    pub links: Live,
    pub tasks: Tasks,
    /// Looks for the runtimes of processes.
    pub finder: Finder,
    /// Agents on other hosts.
    pub hops: Option<Hops>,
    pub explain: Explain,
    pub graph: Graph,
    pub exemplars: Choice,
    pub table: Arc<Table>,
    pub spans: Arc<Spans>,
    pub clock: Arc<Clock>,
    pub health: Arc<Health>,
    pub view: Arc<View>,
}

/// The stages behind the ring.
pub struct Pipeline {
    parts: Parts,
    exchanges: Vec<Exchange>,
    finished: Vec<Span>,
    /// Totals already added to the table.
    shown: HashMap<&'static str, u64>,
    next_tick_ns: u64,
    /// Time up to which every record has been taken: by it bytes are waited for.
    records_ns: u64,
    next_sweep_ns: u64,
    next_idle_check_ns: u64,
    /// Connections taken up, before the first record that is younger.
    adopted: VecDeque<ConnEvent>,
}

impl Pipeline {
    pub fn new(parts: Parts) -> Self {
        Self {
            parts,
            exchanges: Vec::new(),
            finished: Vec::new(),
            shown: HashMap::new(),
            next_tick_ns: 0,
            records_ns: 0,
            next_sweep_ns: 0,
            next_idle_check_ns: 0,
            adopted: VecDeque::new(),
        }
    }

    /// Takes up the connections in scope that are open now; says how many. The programs are attached before: what a
    /// connection does from now on has records, and those that are older than its adoption come before it.
    pub fn adopt(&mut self) -> usize {
        if self.parts.scope.is_empty() {
            return 0;
        }
        let (adopted, owners) = self.parts.adoption.pass(&self.parts.scope.members(), &self.parts.table);
        owners.into_iter().for_each(|pid| self.parts.finder.look(pid));
        let count = adopted.len();
        self.adopted.extend(adopted);
        count
    }

    /// Answers once the processes of what was taken up are looked at: what they do before that has no tasks.
    pub fn looked(&self) -> Receiver<()> {
        self.parts.finder.looked()
    }

    /// Makes the changes that were asked for.
    fn make_changes(&mut self) {
        while let Ok(Request { change, answer }) = self.parts.changes.try_recv() {
            let made = match change {
                Change::Scope(resolved) => {
                    let changed = self.parts.scope.change(*resolved).map_err(|error| format!("{error:#}"));
                    // Who is still in scope is looked at with its next record.
                    self.parts.finder.forget_all();
                    changed.map(|()| self.adopt())
                }
                Change::TakeUp => Ok(self.adopt()),
                Change::Forget => Ok(self.forget(u64::MAX, &HashSet::new())),
            };
            if answer.try_send(made).is_err() {
                log::debug!("nobody waits for the change any more");
            }
        }
    }

    /// Forgets connections that have been quiet for long and whose socket is gone, or out of scope by now.
    fn end_gone(&mut self, now_ns: u64) {
        let idle_ns = self.parts.flows.idle_ns();
        self.next_idle_check_ns = now_ns + idle_ns / 10;
        if self.parts.flows.is_empty() {
            return;
        }
        let Some(open) = self.parts.adoption.open(&self.parts.scope.members()) else { return };
        self.forget(now_ns.saturating_sub(idle_ns), &open);
    }

    /// Forgets connections that were quiet since `ktime_ns` and are not among `open`; says how many.
    fn forget(&mut self, ktime_ns: u64, open: &HashSet<Cookie>) -> usize {
        let gone = self.parts.flows.end_gone(ktime_ns, open, &mut self.exchanges);
        for cookie in &gone {
            self.parts.links.forget(*cookie);
            self.parts.tasks.closed(*cookie);
        }
        gone.len()
    }

    /// Hands on the connections taken up before `ktime_ns`.
    fn release_adopted(&mut self, ktime_ns: u64) {
        while let Some(event) = self.adopted.pop_front_if(|event| event.ktime_ns <= ktime_ns) {
            self.connection(&event);
        }
    }

    fn connection(&mut self, event: &ConnEvent) {
        if let ConnEventKind::Destroyed { .. } = event.kind {
            self.parts.tasks.closed(event.connection.cookie);
        }
        self.parts.links.connection(event);
        self.parts.flows.connection(event, &mut self.exchanges);
    }

    /// Works until the drain thread is gone and its last batch is done, or `deadline_ns` (`CLOCK_MONOTONIC`; 0: none yet)
    /// has passed: what is still queued then is counted as lost.
    pub fn run(mut self, batches: &Receiver<Batch>, progress: &Progress, deadline_ns: &AtomicU64) {
        loop {
            let tick = if self.parts.flows.is_empty() { IDLE_TICK } else { TICK };
            let drained_ns = progress.until_ns();
            match batches.recv_timeout(tick) {
                Ok(batch) if overdue(deadline_ns) => {
                    self.parts.health.enter(Stage::Analyzed, batch.records);
                    self.parts.health.lose(Stage::Analyzed, "stopping", batch.records);
                }
                Ok(batch) => self.batch(&batch),
                Err(RecvTimeoutError::Timeout) => self.records_ns = self.records_ns.max(drained_ns),
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.make_changes();
            let now_ns = clock::monotonic_ns();
            if now_ns >= self.next_tick_ns {
                self.next_tick_ns = now_ns + TICK.as_nanos() as u64;
                self.tick(now_ns);
            }
        }
        self.tick(clock::monotonic_ns());
        self.parts.links.flush(&mut self.finished);
        self.exchange_hops();
        self.store();
        self.show_graph(u64::MAX);
    }

    fn batch(&mut self, batch: &Batch) {
        let mut passed = 0;
        self.parts.health.enter(Stage::Analyzed, batch.records);
        for record in batch.iter() {
            match record {
                Ok(record) => {
                    self.records_ns = self.records_ns.max(record.ktime_ns());
                    self.release_adopted(record.ktime_ns());
                    self.record(record);
                    passed += 1;
                }
                Err(malformed) => self.parts.health.lose(Stage::Analyzed, malformed.name(), 1),
            }
        }
        self.parts.health.pass(Stage::Analyzed, passed);
    }

    fn record(&mut self, record: Record) {
        match record {
            Record::Process(record) => {
                if let Some(event) = process::event(&record) {
                    self.parts.names.process_event(&event);
                    self.parts.scope.process_event(&event);
                    if let ProcessEventKind::Exit { .. } = event.kind {
                        self.parts.links.ended(event.pid);
                    }
                    if let ProcessEventKind::Exit { .. } | ProcessEventKind::Exec = event.kind {
                        self.parts.tasks.ended(event.pid);
                        self.parts.finder.forget(event.pid);
                    }
                }
            }
            Record::TcpState(record) => {
                if let Some(opening) = tcp::opening(&record) {
                    self.parts.links.opening(opening);
                }
                if let Some(event) = tcp::event(&record) {
                    self.connection(&event);
                }
            }
            Record::Payload(record, data) => {
                let Parts { tasks, finder, .. } = &mut self.parts;
                finder.look(record.tgid);
                let mut chunk = payload::chunk(&record, data);
                let socket = chunk.connection.cookie;
                let name = TaskName(record.task);
                let ktime_ns = chunk.moment.ktime_ns;
                (chunk.moment.task, chunk.moment.wake) = tasks.of(record.tgid, name, socket, chunk.direction, ktime_ns);
                self.parts.explain.operation(&chunk.moment);
                self.parts.flows.payload(chunk, &mut self.exchanges);
            }
            Record::Task(record) => {
                let Parts { tasks, links, .. } = &mut self.parts;
                if let Some(answered) = task::event(&record).and_then(|event| tasks.event(&event)) {
                    links.asker(answered);
                }
                return;
            }
            Record::Handover(record) => {
                if let Some(handover) = wakeup::event(&record) {
                    self.parts.links.handed(handover);
                }
                return;
            }
            Record::Filler(_) => return,
        }
        self.finish_exchanges();
        self.ask_kernel();
    }

    /// What flows want of single connections goes to the kernel programs.
    fn ask_kernel(&mut self) {
        let Parts { flows, control, .. } = &mut self.parts;
        for (cookie, demand) in flows.drain_demands() {
            control.set(cookie, demand);
        }
    }

    /// Exchanges to metrics and spans.
    fn finish_exchanges(&mut self) {
        let Parts { flows, links, tasks, .. } = &mut self.parts;
        flows.drain_clients().for_each(|(cookie, wire)| links.client(cookie, wire));
        flows.drain_opened().for_each(|opened| {
            if let Some(task) = opened.request.tasks[0] {
                tasks.serves(opened.pid, task);
            }
            links.opened(&opened);
        });
        if self.exchanges.is_empty() {
            return;
        }
        self.parts.health.enter(Stage::Stored, self.exchanges.len() as u64);
        for exchange in self.exchanges.drain(..) {
            let resource = self.parts.names.resource(exchange.pid);
            let series = record_exchange(&self.parts.table, &exchange, &resource);
            let (name, time) = (span_name(&exchange), self.parts.explain.breakdown(&exchange));
            if let (Role::Server, Some(time)) = (exchange.role, &time) {
                add_time(&self.parts.table, &name, &resource, time);
            }
            let (sight, now_ns) = (Sight::of(&exchange, &name, &mut self.parts.tasks), exchange.end_ns);
            let span = assemble(exchange, name, time, (resource, series), &self.parts.clock);
            self.parts.links.span(sight, span, now_ns, &mut self.finished);
        }
        self.store();
    }

    fn store(&mut self) {
        let count = self.finished.len() as u64;
        let Parts { graph, exemplars, table, spans, .. } = &mut self.parts;
        for (mut span, place) in self.finished.drain(..).zip(spans.held().end..) {
            graph.take(&span, self.records_ns, &mut |edge| add_edge(table, edge));
            exemplars.finished(&mut span, place);
            spans.push(span);
        }
        if count > 0 {
            self.parts.health.pass(Stage::Stored, count);
        }
    }

    fn tick(&mut self, now_ns: u64) {
        self.parts.clock.refresh();
        self.release_adopted(self.records_ns);
        if now_ns >= self.next_idle_check_ns {
            self.end_gone(now_ns);
        }
        if now_ns >= self.next_sweep_ns {
            self.next_sweep_ns = now_ns + SWEEP_NS;
            self.parts.scope.sweep();
        }
        self.parts.names.advance(now_ns);
        self.parts.explain.tick(self.records_ns);
        self.parts.flows.tick(self.records_ns, &mut self.exchanges);
        self.finish_exchanges();
        self.ask_kernel();
        self.parts.links.tick(self.records_ns, &mut self.finished);
        self.exchange_hops();
        self.store();
        let (names, table) = (&mut self.parts.names, &self.parts.table);
        self.parts.flows.drain_visibility(|pid, visibility: Visibility, bytes| {
            let resource = names.resource(pid);
            table.add(&WORKLOAD_BYTES, &[&resource.service_name, visibility.name()], bytes);
        });
        self.show_graph(self.records_ns);
        self.show_counts();
        self.show_tables();
        self.parts.view.tracked.store(self.parts.flows.len() as u64, Ordering::Relaxed);
        *self.parts.view.flows.lock().unwrap_or_else(PoisonError::into_inner) = self.parts.flows.snapshot(SHOWN_FLOWS);
    }

    /// Tells other hosts, and hears from them.
    fn exchange_hops(&mut self) {
        let Parts { hops, links, .. } = &mut self.parts;
        if let Some(hops) = hops {
            links.hear(hops.heard(), self.records_ns, &mut self.finished);
            hops.tell(links.take_told());
        }
    }

    /// Edges of requests whose other end does not show itself, and what became of spans.
    fn show_graph(&mut self, now_ns: u64) {
        let Parts { graph, table, .. } = &mut self.parts;
        graph.tick(now_ns, &mut |edge| add_edge(table, edge));
        graph.drain_counts().for_each(|(outcome, spans)| table.add(&graph::SPANS, &[outcome], spans));
    }

    /// How full each table is.
    fn show_tables(&self) {
        let Parts { names, scope, control, flows, links, tasks, finder, explain, graph, table, .. } = &self.parts;
        let (waiting, room) = graph.size();
        let (tasks, most_tasks) = tasks.size();
        let sizes = [
            ("flows", flows.len(), flows.capacity()),
            ("names", names.len(), names.capacity()),
            ("flow_control", control.entries(), FlowControlMap::CAPACITY),
            ("service_graph", waiting, room),
            ("threads", explain.len(), explain.capacity()),
            ("tasks", tasks, most_tasks),
            ("task_processes", finder.len(), Finder::CAPACITY),
            ("scope_processes", scope.processes(), ScopeKeeper::CAPACITY),
        ];
        for (name, entries, capacity) in sizes.into_iter().chain(links.sizes()) {
            table.set(&TABLE_ENTRIES, &[name], entries as f64);
            table.set(&TABLE_CAPACITY, &[name], capacity as f64);
        }
    }

    /// Adds to the table what each stage's own counters gained since the last time.
    fn show_counts(&mut self) {
        let (links, inside) = self.parts.links.counts();
        let others = [
            ("server_span_linked", links.linked),
            ("server_span_root", links.roots),
            ("server_span_without_its_client", links.given_up),
            ("server_span_linked_abroad", links.remote.linked),
            ("server_span_not_heard_of", links.remote.unheard),
            ("server_span_without_room_for_its_hop", links.remote.no_room),
            ("hop_not_told", links.remote.untold),
            ("hop_evicted", links.remote.evicted),
            ("thread_account_refused", self.parts.explain.refused()),
            ("process_name_evicted", self.parts.names.evicted()),
            ("scope_table_full", self.parts.scope.failed()),
            ("flow_control_refused", self.parts.control.refused()),
            ("task_evicted", self.parts.tasks.evicted()),
        ];
        let others = others.into_iter().chain(self.parts.finder.counts());
        for (reason, total) in self.parts.flows.counts().iter().chain(others).chain(inside) {
            let shown = self.shown.entry(reason).or_default();
            if total > *shown {
                self.parts.table.add(&EVENTS, &[reason], total - *shown);
                *shown = total;
            }
        }
    }
}
