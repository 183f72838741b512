//! What is measured and what it may cost: one row each, in the order in which they are shown.
//!
//! The limit is the target; the bound is what no change may ever exceed. A row without a limit is there to read the
//! others by: the null test tells whether the machine was quiet, the floor what empty programs cost. Targets were set on a
//! machine where hooks, clocks and calls cost less or more than here: where a row is a ratio to one of those, its target is
//! brought to this machine's ([`Row::set_where`]).

use serde::{Deserialize, Serialize};

use super::condition::Condition;
use super::loops::Loop;
use super::peers::Peer;

/// What can be asked for by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Benchmark {
    Getppid,
    ReadWrite,
    PingPong,
    Http,
    /// Each kernel program, beyond an empty one on the same hook.
    Programs,
    /// The agent's own CPU time and memory.
    Agent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    Loop(Loop),
    Http,
}

/// How a row's number comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// CPU time of the workload, attached over bare.
    Slowdown(Workload, Condition),
    Program(ProgramCost),
    Agent(AgentCost),
}

/// ns per run beyond an empty program on the same hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProgramCost {
    SyscallSampled,
    SyscallEveryCall,
    SchedulerSwitch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AgentCost {
    Span,
    Record,
    RecordRate,
    MemoryForMetrics,
    MemoryForSpans,
    MemoryGrowth,
    Scrape,
    Idle,
    StartUp,
}

/// `limit` is what is wanted, `bound` the most (or least) that is ever accepted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Target {
    pub limit: f64,
    pub bound: Option<f64>,
    /// More is better.
    pub at_least: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Met,
    WithinBound,
    Missed,
    /// Measured next to something else: tells nothing.
    Disturbed,
    NoTarget,
    NotMeasured,
}

impl Target {
    /// The same in units that are so many times larger.
    pub fn times(&self, factor: f64) -> Self {
        Self { limit: self.limit * factor, bound: self.bound.map(|bound| bound * factor), ..*self }
    }

    pub fn verdict(&self, measured: f64) -> Verdict {
        let holds = |limit: f64| if self.at_least { measured >= limit } else { measured <= limit };
        match self.bound {
            _ if holds(self.limit) => Verdict::Met,
            Some(bound) if holds(bound) => Verdict::WithinBound,
            _ => Verdict::Missed,
        }
    }
}

#[derive(Debug)]
pub struct Row {
    /// Also its name in saved results.
    pub name: &'static str,
    pub unit: &'static str,
    pub measure: Measure,
    pub target: Option<Target>,
    /// The factor that made it a ratio where the target was set, as [`super::judge::Per::factor`] does here: of the floor, an
    /// empty program or a bare `getppid`. `None`: the target holds as it is on every machine.
    pub set_where: Option<f64>,
}

/// Where the targets were set: slowdown by empty programs of `getppid` and of a read and a write (1.21 each), of the
/// ping-pong (1.02), an empty program (30 ns), a bare `getppid` (110 ns).
const FLOOR: f64 = 1.0 / 1.21;
const PING_PONG_FLOOR: f64 = 1.0 / 1.02;
const EMPTY: f64 = 1.0 / 30.0;
const GETPPID_NS: f64 = 110.0;

impl Row {
    pub fn benchmark(&self) -> Benchmark {
        match self.measure {
            Measure::Slowdown(Workload::Loop(Loop::Getppid), _) => Benchmark::Getppid,
            Measure::Slowdown(Workload::Loop(Loop::ReadWrite), _) => Benchmark::ReadWrite,
            Measure::Slowdown(Workload::Loop(Loop::PingPong), _) => Benchmark::PingPong,
            Measure::Slowdown(Workload::Http, _) => Benchmark::Http,
            Measure::Program(_) => Benchmark::Programs,
            Measure::Agent(_) => Benchmark::Agent,
        }
    }
}

const fn at_most(limit: f64, bound: f64) -> Option<Target> {
    Some(Target { limit, bound: Some(bound), at_least: false })
}

const fn at_most_without_bound(limit: f64) -> Option<Target> {
    Some(Target { limit, bound: None, at_least: false })
}

const fn slowdown(name: &'static str, workload: Workload, condition: Condition, target: Option<Target>) -> Row {
    let set_where = match (workload, condition) {
        // Next to its floor there is nothing to measure.
        (_, Condition::Spans) | (Workload::Http, _) => None,
        (Workload::Loop(Loop::PingPong), _) => Some(PING_PONG_FLOOR),
        (Workload::Loop(_), _) => Some(FLOOR),
    };
    Row { name, unit: "×", measure: Measure::Slowdown(workload, condition), target, set_where }
}

const fn program(name: &'static str, cost: ProgramCost, target: Option<Target>) -> Row {
    Row { name, unit: "ns", measure: Measure::Program(cost), target, set_where: Some(EMPTY) }
}

const fn agent(name: &'static str, unit: &'static str, cost: AgentCost, target: Option<Target>) -> Row {
    let set_where = match cost {
        AgentCost::Scrape => Some(1e6 / GETPPID_NS),
        AgentCost::Span | AgentCost::Record => Some(1e3 / GETPPID_NS),
        AgentCost::Idle
        | AgentCost::RecordRate
        | AgentCost::MemoryForMetrics
        | AgentCost::MemoryForSpans
        | AgentCost::MemoryGrowth
        | AgentCost::StartUp => None,
    };
    Row { name, unit, measure: Measure::Agent(cost), target, set_where }
}

const fn peer(name: &'static str, workload: Workload, peer: Peer) -> Row {
    slowdown(name, workload, Condition::Peer(peer), None)
}

const GETPPID: Workload = Workload::Loop(Loop::Getppid);
const READ_WRITE: Workload = Workload::Loop(Loop::ReadWrite);
const PING_PONG: Workload = Workload::Loop(Loop::PingPong);

pub const ROWS: &[Row] = &[
    slowdown("getppid, null test", GETPPID, Condition::Null, None),
    slowdown("getppid, floor", GETPPID, Condition::Floor, None),
    slowdown("getppid, default metrics", GETPPID, Condition::Metrics, at_most(1.30, 1.40)),
    slowdown("getppid, every call timed", GETPPID, Condition::EveryCall, at_most(1.85, 2.0)),
    slowdown("getppid, spans without the syscall family", GETPPID, Condition::Spans, at_most(1.02, 1.05)),
    peer("getppid, bpftrace counts", GETPPID, Peer::BpftraceCounts),
    peer("getppid, bpftrace latency histogram", GETPPID, Peer::BpftraceLatency),
    peer("getppid, syscount", GETPPID, Peer::Syscount),
    peer("getppid, syscount -L", GETPPID, Peer::SyscountLatency),
    slowdown("read + write 4 KiB, null test", READ_WRITE, Condition::Null, None),
    slowdown("read + write 4 KiB, floor", READ_WRITE, Condition::Floor, None),
    slowdown("read + write 4 KiB, default metrics", READ_WRITE, Condition::Metrics, at_most(1.22, 1.30)),
    peer("read + write 4 KiB, bpftrace counts", READ_WRITE, Peer::BpftraceCounts),
    peer("read + write 4 KiB, bpftrace latency histogram", READ_WRITE, Peer::BpftraceLatency),
    peer("read + write 4 KiB, syscount", READ_WRITE, Peer::Syscount),
    peer("read + write 4 KiB, syscount -L", READ_WRITE, Peer::SyscountLatency),
    program("syscall program over empty, sampled", ProgramCost::SyscallSampled, at_most_without_bound(10.0)),
    program("syscall program over empty, every call", ProgramCost::SyscallEveryCall, at_most_without_bound(40.0)),
    program("sched_switch over empty", ProgramCost::SchedulerSwitch, at_most(20.0, 40.0)),
    slowdown("pipe ping-pong, null test", PING_PONG, Condition::Null, None),
    slowdown("pipe ping-pong, floor", PING_PONG, Condition::Floor, None),
    slowdown("pipe ping-pong, scheduler family", PING_PONG, Condition::Scheduler, at_most(1.05, 1.10)),
    peer("pipe ping-pong, bpftrace run queue", PING_PONG, Peer::BpftraceRunQueue),
    peer("pipe ping-pong, runqlat", PING_PONG, Peer::Runqlat),
    slowdown("HTTP nginx + wrk, null test", Workload::Http, Condition::Null, None),
    slowdown("HTTP nginx + wrk, floor", Workload::Http, Condition::Floor, None),
    slowdown("HTTP nginx + wrk, default metrics", Workload::Http, Condition::Metrics, at_most(1.05, 1.10)),
    slowdown("HTTP nginx + wrk, metrics and spans", Workload::Http, Condition::MetricsAndSpans, at_most(1.10, 1.20)),
    peer("HTTP nginx + wrk, bpftrace counts", Workload::Http, Peer::BpftraceCounts),
    peer("HTTP nginx + wrk, bpftrace latency histogram", Workload::Http, Peer::BpftraceLatency),
    peer("HTTP nginx + wrk, bpftrace run queue", Workload::Http, Peer::BpftraceRunQueue),
    peer("HTTP nginx + wrk, syscount", Workload::Http, Peer::Syscount),
    peer("HTTP nginx + wrk, syscount -L", Workload::Http, Peer::SyscountLatency),
    peer("HTTP nginx + wrk, runqlat", Workload::Http, Peer::Runqlat),
    peer("HTTP nginx + wrk, biolatency", Workload::Http, Peer::Biolatency),
    agent("agent CPU per HTTP span, end to end", "µs", AgentCost::Span, at_most(5.0, 10.0)),
    agent("consumer CPU per million records", "s", AgentCost::Record, at_most(0.05, 0.1)),
    agent(
        "records without loss, 64 B, one consumer",
        "M/s",
        AgentCost::RecordRate,
        Some(Target { limit: 3.0, bound: Some(1.0), at_least: true }),
    ),
    agent("RSS, default metrics", "MB", AgentCost::MemoryForMetrics, at_most(12.0, 20.0)),
    agent("RSS, metrics, spans and store", "MB", AgentCost::MemoryForSpans, at_most(64.0, 96.0)),
    agent("RSS growth under process churn", "MB", AgentCost::MemoryGrowth, None),
    agent("scrape CPU", "ms", AgentCost::Scrape, at_most_without_bound(1.0)),
    agent("idle CPU per second", "ms", AgentCost::Idle, at_most_without_bound(0.5)),
    agent("start to ready", "ms", AgentCost::StartUp, None),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Benchmark, ROWS, Target, Verdict};

    #[test]
    fn a_verdict_tells_the_target_from_its_bound() {
        let most = Target { limit: 1.30, bound: Some(1.40), at_least: false };
        let least = Target { limit: 3.0, bound: Some(1.0), at_least: true };
        let hard = Target { limit: 10.0, bound: None, at_least: false };
        let cases = [
            (most, 1.30, Verdict::Met),
            (most, 1.31, Verdict::WithinBound),
            (most, 1.41, Verdict::Missed),
            (least, 3.5, Verdict::Met),
            (least, 2.0, Verdict::WithinBound),
            (least, 0.5, Verdict::Missed),
            (hard, -0.4, Verdict::Met),
            (hard, 10.1, Verdict::Missed),
        ];
        for (target, measured, verdict) in cases {
            assert_eq!(target.verdict(measured), verdict, "{measured} of {target:?}");
        }
    }

    #[test]
    fn every_bound_is_on_the_far_side_of_its_limit() {
        for target in ROWS.iter().filter_map(|row| row.target) {
            if let Some(bound) = target.bound {
                assert_eq!(bound < target.limit, target.at_least, "{target:?}");
            }
        }
    }

    #[test]
    fn names_are_unique_and_every_benchmark_has_a_row() {
        let names: BTreeSet<_> = ROWS.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), ROWS.len());
        let benchmarks: BTreeSet<_> = ROWS.iter().map(|row| row.benchmark()).collect();
        let all = <Benchmark as clap::ValueEnum>::value_variants();
        assert_eq!(benchmarks.len(), all.len());
    }

    #[test]
    fn every_workload_has_its_own_null_test() {
        for row in ROWS.iter().filter(|row| row.unit == "×" && row.target.is_some()) {
            let null = |other: &&super::Row| other.benchmark() == row.benchmark() && other.name.ends_with("null test");
            assert!(ROWS.iter().any(|other| null(&other)), "{}", row.name);
        }
    }
}
