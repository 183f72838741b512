//! Services that were never there: events in time, threads, queues and loops, and what an agent would have seen.
//!
//! A closed loop of clients asks a front service, which asks stores and a back service, which asks a store. How a service
//! runs its requests is a [`Style`]. Out of it come spans as in a span file and, for each, the parent it truly has. Times
//! are drawn anew for each run; nothing is tuned to one seed.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use seismo::traces::linker::facts::{self, Facts};
use seismo::traces::linker::file::Span;

use super::random::Random;

/// How a service runs requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// The thread of the connection does everything.
    ThreadPerRequest,
    /// One thread reads, as many workers do the rest and answer.
    Pool(usize),
    /// One thread: reads all that has come, then does all of that.
    Loop,
}

/// What a request does, one step after the other.
#[derive(Clone, Copy, Debug)]
enum Do {
    Compute(f64),
    Call(Target),
    /// Side by side; where threads block, one after the other.
    Both(Target, Target),
    /// So many times, from the first to the second.
    Times(usize, usize, Target),
    /// With this probability.
    Maybe(f64, Target),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Target {
    /// Operation, median answer time in µs.
    Store(&'static str, f64),
    /// Route of the back service.
    Back(usize),
}

struct Route {
    operation: &'static str,
    steps: &'static [Do],
}

use Do::{Both, Call, Compute, Maybe, Times};
use Target::{Back, Store};

const FRONT: &[Route] = &[
    Route {
        operation: "GET /cart",
        steps: &[
            Compute(80.0),
            Call(Store("GET", 250.0)),
            Compute(60.0),
            Call(Store("SELECT cart", 1200.0)),
            Compute(120.0),
            Call(Back(0)),
            Compute(150.0),
        ],
    },
    Route {
        operation: "GET /item/{id}",
        steps: &[
            Compute(60.0),
            Maybe(0.6, Store("GET", 250.0)),
            Compute(50.0),
            Both(Store("SELECT item", 900.0), Back(1)),
            Compute(200.0),
        ],
    },
    Route {
        operation: "POST /order",
        steps: &[
            Compute(200.0),
            Call(Store("BEGIN", 150.0)),
            Compute(40.0),
            Times(1, 4, Store("INSERT line", 500.0)),
            Compute(40.0),
            Call(Store("COMMIT", 1500.0)),
            Compute(90.0),
            Call(Back(1)),
            Compute(90.0),
        ],
    },
    Route { operation: "GET /health", steps: &[Compute(30.0)] },
];

const BACK: &[Route] = &[
    Route { operation: "GET /price", steps: &[Compute(100.0), Call(Store("MGET", 300.0)), Compute(80.0)] },
    Route {
        operation: "GET /stock",
        steps: &[
            Compute(70.0),
            Call(Store("SELECT stock", 800.0)),
            Compute(60.0),
            Maybe(0.3, Store("SETEX", 200.0)),
            Compute(40.0),
        ],
    },
];

/// Spread of times of computing and of stores.
const SPREAD: f64 = 0.45;
/// Time to read one event in a loop, µs.
const READ_US: f64 = 6.0;
/// Mean time between two spans that a service sends on its own, µs.
const BACKGROUND_US: f64 = 40_000.0;
const LOOP_TID: u32 = 1;

/// What comes out: spans, and for each the place of its true parent.
pub struct World {
    pub spans: Vec<Span>,
    pub parents: Vec<Option<usize>>,
    /// The front request that each span is part of.
    pub traces: Vec<Option<usize>>,
}

struct Job {
    service: usize,
    route: usize,
    at: usize,
    /// Of a `Times` step, how often still.
    left: Option<usize>,
    /// Calls that are not answered.
    waits: usize,
    span: usize,
    worker: u32,
    /// The client or the span that waits for the answer.
    asked_by: Asked,
}

#[derive(Clone, Copy)]
enum Asked {
    Client(usize),
    Call(usize, usize),
}

/// What happens to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A request comes to a service's socket.
    Arrive(usize),
    /// The answer to a call comes: job and span.
    Answer(usize, usize),
    /// A job has computed.
    Computed(usize),
    /// A client asks again.
    Think(usize),
    /// A loop looks at what has come.
    Turn(usize),
    /// A service sends something on its own.
    Alone(usize),
    /// The answer to that has come to it.
    AloneAnswer(usize, usize),
}

struct Service {
    style: Style,
    routes: &'static [Route],
    tgid: u32,
    /// Workers that have nothing to do, and requests that wait for one.
    idle: Vec<u32>,
    queue: VecDeque<usize>,
    /// Events that a loop has not read.
    inbox: Vec<Event>,
    turning: bool,
}

pub struct Simulation {
    random: Random,
    now_ns: u64,
    order: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    services: Vec<Service>,
    jobs: Vec<Job>,
    world: World,
    requests: usize,
    /// Of each client: its connection.
    next_port: u32,
}

impl Simulation {
    /// Lets `clients` ask until `requests` have been asked.
    pub fn run(style: Style, clients: usize, requests: usize, seed: u64) -> World {
        let random = Random(seed);
        let service = |tgid, routes| {
            let idle = match style {
                Style::Pool(workers) => (0..workers as u32).map(|worker| 100 + worker).rev().collect(),
                _ => Vec::new(),
            };
            Service { style, routes, tgid, idle, queue: VecDeque::new(), inbox: Vec::new(), turning: false }
        };
        let mut simulation = Self {
            random,
            now_ns: 1_000_000_000,
            order: 0,
            events: BinaryHeap::new(),
            services: vec![service(10, FRONT), service(20, BACK)],
            jobs: Vec::new(),
            world: World { spans: Vec::new(), parents: Vec::new(), traces: Vec::new() },
            requests,
            next_port: 40_000,
        };
        for client in 0..clients {
            let later_ns = simulation.random.exponential_ns(2_000.0);
            simulation.after(later_ns, Event::Think(client));
        }
        for service in 0..2 {
            simulation.after(1_000_000, Event::Alone(service));
        }
        while let Some(Reverse((at_ns, _, event))) = simulation.events.pop() {
            simulation.now_ns = at_ns;
            simulation.happen(event);
            if simulation.requests == 0 && simulation.jobs.iter().all(|job| job.at == usize::MAX) {
                break;
            }
        }
        simulation.world.finish()
    }

    fn after(&mut self, ns: u64, event: Event) {
        self.order += 1;
        self.events.push(Reverse((self.now_ns + ns, self.order, event)));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Think(client) => {
                if self.requests > 0 {
                    self.requests -= 1;
                    let route = [0, 0, 1, 1, 1, 2, 3][self.random.below(7)];
                    self.ask(0, route, Asked::Client(client), None);
                }
            }
            Event::Arrive(job) => self.arrive(job),
            Event::Answer(job, span) => {
                let service = self.jobs[job].service;
                match self.services[service].style {
                    Style::Loop => self.hand_in(service, event),
                    _ => self.answered(job, span),
                }
            }
            Event::Computed(job) => self.advance(job),
            Event::Turn(service) => self.turn(service),
            Event::Alone(service) => self.alone(service),
            Event::AloneAnswer(service, span) => match self.services[service].style {
                Style::Loop => self.hand_in(service, event),
                _ => self.world.spans[span].facts.end_ns = self.now_ns,
            },
        }
    }

    /// A request is under way to a service; its span begins when it is read.
    fn ask(&mut self, service: usize, route: usize, asked_by: Asked, parent: Option<usize>) {
        let operation = self.services[service].routes[route].operation;
        let trace = parent.and_then(|parent| self.world.traces[parent]);
        let span = self.world.add(true, self.services[service].tgid, operation, parent, trace);
        if parent.is_none() {
            self.world.traces[span] = Some(span);
        }
        let port = self.next_port;
        self.next_port += 1;
        let (here, there) = (format!("10.0.0.9:{port}"), format!("10.0.0.{service}:80"));
        if let Some(parent) = parent {
            self.world.spans[parent].connection = Some((here.clone(), there.clone()));
        }
        self.world.spans[span].connection = Some((there, here));
        let job = Job { service, route, at: 0, left: None, waits: 0, span, worker: 0, asked_by };
        self.jobs.push(job);
        self.after(20_000, Event::Arrive(self.jobs.len() - 1));
    }

    fn arrive(&mut self, job: usize) {
        let service = self.jobs[job].service;
        match self.services[service].style {
            Style::ThreadPerRequest => {
                // A connection has its thread; there are as many as clients wait at once.
                let thread = self.services[service].idle.pop().unwrap_or_else(|| 1000 + job as u32);
                self.jobs[job].worker = thread;
                self.read(job, thread);
                self.advance(job);
            }
            Style::Pool(_) => {
                self.read(job, LOOP_TID);
                self.services[service].queue.push_back(job);
                self.employ(service);
            }
            Style::Loop => self.hand_in(service, Event::Arrive(job)),
        }
    }

    fn read(&mut self, job: usize, tid: u32) {
        let facts = &mut self.world.spans[self.jobs[job].span].facts;
        (facts.start_ns, facts.tid) = (self.now_ns, tid);
    }

    /// Gives waiting requests to idle workers.
    fn employ(&mut self, service: usize) {
        while let (true, Some(worker)) =
            (!self.services[service].queue.is_empty(), self.services[service].idle.last().copied())
        {
            self.services[service].idle.pop();
            if let Some(job) = self.services[service].queue.pop_front() {
                self.jobs[job].worker = worker;
                let wake_ns = self.random.log_normal_ns(25.0, 0.5);
                self.after(wake_ns, Event::Computed(job));
            }
        }
    }

    fn hand_in(&mut self, service: usize, event: Event) {
        self.services[service].inbox.push(event);
        if !self.services[service].turning {
            self.services[service].turning = true;
            self.after(2_000, Event::Turn(service));
        }
    }

    /// A loop reads everything that has come, then does what follows of each.
    fn turn(&mut self, service: usize) {
        let inbox = std::mem::take(&mut self.services[service].inbox);
        if inbox.is_empty() {
            self.services[service].turning = false;
            return;
        }
        let start_ns = self.now_ns;
        for event in &inbox {
            self.now_ns += self.random.log_normal_ns(READ_US, 0.3);
            match *event {
                Event::Arrive(job) => {
                    self.jobs[job].worker = LOOP_TID;
                    self.read(job, LOOP_TID);
                }
                Event::Answer(_, span) | Event::AloneAnswer(_, span) => {
                    let facts = &mut self.world.spans[span].facts;
                    (facts.end_ns, facts.end_tid) = (self.now_ns, LOOP_TID);
                }
                _ => {}
            }
        }
        for event in inbox {
            match event {
                Event::Arrive(job) => self.advance(job),
                Event::Answer(job, _) => {
                    self.jobs[job].waits -= 1;
                    if self.jobs[job].waits == 0 {
                        self.advance(job);
                    }
                }
                _ => {}
            }
        }
        let took_ns = self.now_ns - start_ns;
        self.now_ns = start_ns;
        self.after(took_ns + 2_000, Event::Turn(service));
    }

    fn answered(&mut self, job: usize, span: usize) {
        let worker = self.jobs[job].worker;
        let facts = &mut self.world.spans[span].facts;
        (facts.end_ns, facts.end_tid) = (self.now_ns, worker);
        self.jobs[job].waits -= 1;
        if self.jobs[job].waits == 0 {
            self.advance(job);
        }
    }

    /// Does the steps of a job until it waits. A loop computes at once, with its clock going on; others wait.
    fn advance(&mut self, job: usize) {
        let is_loop = self.services[self.jobs[job].service].style == Style::Loop;
        loop {
            let Job { service, route, at, left, .. } = self.jobs[job];
            let Some(step) = self.services[service].routes[route].steps.get(at).copied() else {
                return self.respond(job);
            };
            let next = at + 1;
            match step {
                Do::Compute(us) => {
                    self.jobs[job].at = next;
                    let ns = self.random.log_normal_ns(us, SPREAD);
                    if !is_loop {
                        return self.after(ns, Event::Computed(job));
                    }
                    // Most of a request's time in a loop is not its own.
                    self.now_ns += ns / 4;
                }
                Do::Call(target) => {
                    self.jobs[job].at = next;
                    return self.call(job, target);
                }
                Do::Both(one, other) if is_loop => {
                    self.jobs[job].at = next;
                    self.call(job, one);
                    self.now_ns += self.random.log_normal_ns(8.0, 0.3);
                    return self.call(job, other);
                }
                Do::Both(one, other) => {
                    let second = left.is_some();
                    self.jobs[job].left = if second { None } else { Some(1) };
                    if second {
                        self.jobs[job].at = next;
                    }
                    return self.call(job, if second { other } else { one });
                }
                Do::Times(least, most, target) => {
                    let left = left.unwrap_or_else(|| least + self.random.below(most - least + 1));
                    if left == 0 {
                        (self.jobs[job].at, self.jobs[job].left) = (next, None);
                        continue;
                    }
                    self.jobs[job].left = Some(left - 1);
                    if is_loop {
                        self.now_ns += self.random.log_normal_ns(15.0, SPREAD);
                    }
                    return self.call(job, target);
                }
                Do::Maybe(share, target) => {
                    self.jobs[job].at = next;
                    if self.random.chance(share) {
                        return self.call(job, target);
                    }
                }
            }
        }
    }

    fn call(&mut self, job: usize, target: Target) {
        let Job { service, span: parent, worker, .. } = self.jobs[job];
        let operation = match target {
            Store(operation, _) => operation,
            Back(route) => BACK[route].operation,
        };
        let trace = self.world.traces[parent];
        let span = self.world.add(false, self.services[service].tgid, operation, Some(parent), trace);
        let facts = &mut self.world.spans[span].facts;
        (facts.start_ns, facts.tid) = (self.now_ns, worker);
        self.jobs[job].waits += 1;
        match target {
            Store(_, median_us) => {
                let ns = self.random.log_normal_ns(median_us, SPREAD);
                self.after(ns, Event::Answer(job, span));
            }
            Back(route) => self.ask(1, route, Asked::Call(job, span), Some(span)),
        }
    }

    fn respond(&mut self, job: usize) {
        let Job { service, span, worker, asked_by, .. } = self.jobs[job];
        self.jobs[job].at = usize::MAX;
        let facts = &mut self.world.spans[span].facts;
        (facts.end_ns, facts.end_tid) = (self.now_ns, worker);
        match asked_by {
            Asked::Client(client) => {
                let ns = 20_000 + self.random.exponential_ns(1_000.0);
                self.after(ns, Event::Think(client));
            }
            Asked::Call(job, span) => self.after(20_000, Event::Answer(job, span)),
        }
        if self.services[service].style != Style::Loop {
            self.services[service].idle.push(worker);
        }
        if let Style::Pool(_) = self.services[service].style {
            self.employ(service);
        }
    }

    fn alone(&mut self, service: usize) {
        let is_loop = self.services[service].style == Style::Loop;
        let span = self.world.add(false, self.services[service].tgid, "PING", None, None);
        let facts = &mut self.world.spans[span].facts;
        (facts.start_ns, facts.tid) = (self.now_ns, if is_loop { LOOP_TID } else { 7 });
        let ns = self.random.log_normal_ns(200.0, SPREAD);
        self.after(ns, Event::AloneAnswer(service, span));
        let again_ns = self.random.exponential_ns(BACKGROUND_US);
        self.after(again_ns, Event::Alone(service));
    }
}

impl World {
    fn add(
        &mut self,
        is_server: bool,
        tgid: u32,
        operation: &str,
        parent: Option<usize>,
        trace: Option<usize>,
    ) -> usize {
        let place = self.spans.len();
        let facts = Facts {
            operation: facts::hash(operation.as_bytes()),
            end_ns: facts::OPEN,
            socket: place as u64 + 1,
            ..Facts::default()
        };
        self.spans.push(Span {
            id: format!("s{place}"),
            is_server,
            host: "h".to_owned(),
            tgid,
            facts,
            connection: None,
            request_position: Some(0),
            response_position: Some(0),
            extra: serde_json::Map::new(),
        });
        self.parents.push(parent);
        self.traces.push(trace);
        place
    }

    /// Without what was not over at the end.
    fn finish(self) -> Self {
        let kept: Vec<bool> =
            self.spans.iter().map(|span| span.facts.end_ns != facts::OPEN && span.facts.start_ns > 0).collect();
        let mut places = Vec::new();
        let mut next = 0;
        for is_kept in &kept {
            places.push(is_kept.then_some(next));
            next += usize::from(*is_kept);
        }
        let moved = |of: Vec<Option<usize>>| -> Vec<Option<usize>> {
            of.into_iter().zip(&kept).filter(|(_, kept)| **kept).map(|(place, _)| places[place?]).collect()
        };
        let spans = self.spans.into_iter().zip(&kept).filter(|(_, kept)| **kept).map(|(span, _)| span).collect();
        Self { spans, parents: moved(self.parents), traces: moved(self.traces) }
    }
}
