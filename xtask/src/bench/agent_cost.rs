//! What the agent itself takes: CPU time per span and per record, for a scrape, for nothing; memory; time to start.
//!
//! One agent for metrics alone, one with nginx in scope, each measured where it runs: a span's cost is all CPU time of
//! the agent from the first request until it has caught up, divided by the spans that it stored.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::agent::Agent;
use super::condition::Condition;
use super::judge::{Measured, Outcome, Per};
use super::loops::Loop;
use super::records;
use super::rig::Rig;
use super::targets::{AgentCost, Workload};

/// The thread that reads the ring, by its name.
const CONSUMER: &str = "seismo-drain";
const STARTS: usize = 5;
const SCRAPES: u32 = 10;
const BATCHES: usize = 5;
const IDLE: Duration = Duration::from_secs(5);
const LOAD: Duration = Duration::from_secs(1);
const LOADS: usize = 5;
/// Processes that come and go between two looks at the memory.
const CHURN: usize = 500;
/// Busy for less than this in a look of `LOOK`, the agent has caught up.
const AT_REST: Duration = Duration::from_millis(2);
const LOOK: Duration = Duration::from_millis(100);
const CATCH_UP_LIMIT: Duration = Duration::from_secs(10);

pub type Costs = BTreeMap<AgentCost, Outcome>;

pub fn measure(rig: &Rig, quick: bool) -> Costs {
    let mut costs = Costs::new();
    let part = |measured: Result<Costs>, rows: &[AgentCost]| match measured {
        Ok(costs) => costs,
        Err(error) => rows.iter().map(|row| (*row, Err(format!("{error:#}")))).collect(),
    };
    use AgentCost::{Idle, MemoryForMetrics, MemoryForSpans, MemoryGrowth, Record, RecordRate, Scrape, Span, StartUp};
    costs.extend(part(metrics(rig, quick), &[StartUp, Idle, Scrape, MemoryForMetrics, MemoryGrowth]));
    costs.extend(part(spans(rig, quick), &[Span, Record, MemoryForSpans]));
    costs.extend(part(record_rate(rig, quick), &[RecordRate]));
    if let Ok(getppid_ns) = rig.yardstick_ns() {
        costs.iter_mut().for_each(|(cost, outcome)| relate(*cost, outcome, getppid_ns));
    }
    costs
}

/// CPU time in calls of a bare `getppid`: the same on a faster machine. Not of an idle agent, which is woken by the clock and
/// took as much on days on which that call was twice as fast, nor of a rate that ends at the highest that is tried.
fn relate(cost: AgentCost, outcome: &mut Outcome, getppid_ns: f64) {
    let unit_ns = match cost {
        AgentCost::Span => 1e3,
        AgentCost::Scrape => 1e6,
        // Of a million records.
        AgentCost::Record => 1e3,
        AgentCost::Idle
        | AgentCost::RecordRate
        | AgentCost::MemoryForMetrics
        | AgentCost::MemoryForSpans
        | AgentCost::MemoryGrowth
        | AgentCost::StartUp => return,
    };
    if let Ok(measured) = outcome {
        measured.per = Some(Per { factor: unit_ns / getppid_ns, of: "bare getppid calls" });
    }
}

fn record_rate(rig: &Rig, quick: bool) -> Result<Costs> {
    let (rates, ended) = records::measure(rig, quick)?;
    Ok(Costs::from([(AgentCost::RecordRate, outcome(rates, ended))]))
}

/// The agent with its default metrics and nothing in scope.
fn metrics(rig: &Rig, quick: bool) -> Result<Costs> {
    let getppid = Workload::Loop(Loop::Getppid);
    let mut starts = Vec::new();
    for _ in 0..if quick { 1 } else { STARTS } {
        let agent = rig.attach(Condition::Metrics, getppid, false)?;
        starts.push(agent.start_up.as_secs_f64() * 1e3);
        rig.detach(agent)?;
    }

    let agent = rig.attach(Condition::Metrics, getppid, false)?;
    wait_until_at_rest(&agent)?;
    let mut idle = Vec::new();
    let second = IDLE / 5;
    for _ in 0..if quick { 2 } else { 5 } {
        let before = agent.cpu()?;
        thread::sleep(second);
        idle.push(milliseconds(agent.cpu()? - before) / second.as_secs_f64());
    }

    // What it counts must be there to be scraped and held.
    rig.burst(getppid)?;
    rig.burst(Workload::Loop(Loop::PingPong))?;
    if rig.nginx().is_ok() {
        rig.burst(Workload::Http)?;
    }
    let mut scrapes = Vec::new();
    let mut page = String::new();
    for _ in 0..BATCHES {
        let before = agent.cpu()?;
        for _ in 0..SCRAPES {
            page = agent.get("/metrics")?;
        }
        scrapes.push(milliseconds(agent.cpu()? - before) / f64::from(SCRAPES));
    }
    churn()?;
    wait_until_at_rest(&agent)?;
    let resident = agent.resident_mb()?;
    churn()?;
    wait_until_at_rest(&agent)?;
    let grown = agent.resident_mb()?;
    rig.detach(agent)?;

    let series = page.lines().filter(|line| !line.starts_with('#')).count();
    Ok(Costs::from([
        (AgentCost::StartUp, outcome(starts, String::new())),
        (AgentCost::Idle, outcome(idle, String::new())),
        (AgentCost::Scrape, outcome(scrapes, format!("{series} samples on the page"))),
        (AgentCost::MemoryForMetrics, outcome(vec![resident.max(grown)], "after load and churn".to_owned())),
        (
            AgentCost::MemoryGrowth,
            outcome(vec![grown - resident], format!("{CHURN} processes after the first {CHURN}")),
        ),
    ]))
}

/// The agent with every family and nginx in scope, under requests.
fn spans(rig: &Rig, quick: bool) -> Result<Costs> {
    let nginx = rig.nginx()?;
    let agent = rig.attach(Condition::MetricsAndSpans, Workload::Http, false)?;
    let (mut per_span, mut per_record) = (Vec::new(), Vec::new());
    let mut sum = Account::default();
    let mut consumer_error = None;
    for _ in 0..if quick { 2 } else { LOADS } {
        let before = Account::of(&agent.get("/metrics")?)?;
        wait_until_at_rest(&agent)?;
        let (cpu, consumer) = (agent.cpu()?, agent.threads_cpu(CONSUMER));
        let requests = nginx.burst(LOAD)?.requests;
        wait_until_at_rest(&agent)?;
        let cpu = agent.cpu()? - cpu;
        let consumer = consumer.and_then(|before| Ok(agent.threads_cpu(CONSUMER)? - before));
        let seen = Account { requests, ..Account::of(&agent.get("/metrics")?)?.since(before) };
        if seen.spans == 0 {
            bail!("{requests} requests gave no span: {seen}");
        }
        per_span.push(cpu.as_secs_f64() * 1e6 / seen.spans as f64);
        match consumer {
            Ok(consumer) => per_record.push(consumer.as_secs_f64() * 1e6 / seen.records as f64),
            Err(error) => consumer_error = Some(format!("{error:#}")),
        }
        sum = sum.plus(seen);
    }
    let resident = agent.resident_mb()?;
    rig.detach(agent)?;

    Ok(Costs::from([
        (AgentCost::Span, outcome(per_span, sum.to_string())),
        (AgentCost::Record, consumer_error.map_or_else(|| outcome(per_record, String::new()), Err)),
        (AgentCost::MemoryForSpans, outcome(vec![resident], "after load".to_owned())),
    ]))
}

/// What became of the requests, by the agent's own counters.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Account {
    pub requests: u64,
    pub records: u64,
    pub spans: u64,
    pub lost: u64,
}

impl Account {
    pub fn of(page: &str) -> Result<Self> {
        let records = |stage: &str| {
            let labels = [format!("stage=\"{stage}\""), "outcome=\"passed\"".to_owned()];
            total(page, "seismo_pipeline_records_total", &labels)
                .with_context(|| format!("/metrics has no {stage} records"))
        };
        let lost = total(page, "seismo_records_dropped_total", &[]).unwrap_or_default();
        Ok(Self { requests: 0, records: records("collected")?, spans: records("stored")?, lost })
    }

    pub fn since(self, before: Self) -> Self {
        Self {
            requests: self.requests - before.requests,
            records: self.records - before.records,
            spans: self.spans - before.spans,
            lost: self.lost - before.lost,
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            records: self.records + other.records,
            spans: self.spans + other.spans,
            lost: self.lost + other.lost,
        }
    }
}

impl std::fmt::Display for Account {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { requests, records, spans, lost } = self;
        write!(out, "{requests} requests, {records} records, {spans} spans, {lost} lost")
    }
}

/// Sum of the samples with this name and these labels on a metrics page; `None` when there are none.
fn total(page: &str, name: &str, labels: &[String]) -> Option<u64> {
    page.lines()
        .filter_map(|line| line.strip_prefix(name)?.split_once('}'))
        .filter(|(given, _)| given.starts_with('{') && labels.iter().all(|label| given.contains(label.as_str())))
        .filter_map(|(_, value)| value.trim().split(' ').next()?.parse::<f64>().ok())
        .map(|value| value as u64)
        .reduce(|sum, value| sum + value)
}

/// Waits until the agent has caught up with what it was sent. Looking costs it nothing.
pub(super) fn wait_until_at_rest(agent: &Agent) -> Result<()> {
    let started = Instant::now();
    loop {
        let before = agent.cpu()?;
        thread::sleep(LOOK);
        if agent.cpu()? - before < AT_REST {
            return Ok(());
        }
        if started.elapsed() > CATCH_UP_LIMIT {
            bail!("the agent was still busy {} s after the load", CATCH_UP_LIMIT.as_secs());
        }
    }
}

/// Processes that start and end, one after the other.
fn churn() -> Result<()> {
    for _ in 0..CHURN {
        let status = Command::new("true").stdin(Stdio::null()).status().context("cannot start `true`")?;
        if !status.success() {
            bail!("`true` ended with {status}");
        }
    }
    Ok(())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn outcome(values: Vec<f64>, note: String) -> Outcome {
    let measured = Measured::new(values).ok_or("nothing was measured")?;
    Ok(Measured { note, ..measured })
}

#[cfg(test)]
mod tests {
    use super::super::targets::{Measure, ROWS};
    use super::{Account, Measured, relate, total};

    const PAGE: &str = "# TYPE seismo_pipeline_records counter
seismo_pipeline_records_total{stage=\"collected\",outcome=\"entered\"} 210
seismo_pipeline_records_total{stage=\"collected\",outcome=\"passed\"} 200
seismo_pipeline_records_total{stage=\"stored\",outcome=\"passed\"} 1e2
seismo_pipeline_records_total{stage=\"stored\",outcome=\"dropped\"} 7
seismo_records_dropped_total{stage=\"stored\",reason=\"full\"} 7
seismo_records_dropped_total{stage=\"observed\",reason=\"ring_full\"} 3 1600000000
";

    #[test]
    fn the_account_is_read_from_the_agents_counters() {
        let account = Account::of(PAGE).unwrap();
        assert_eq!(account, Account { requests: 0, records: 200, spans: 100, lost: 10 });
        let later = Account { requests: 60, records: 320, spans: 160, lost: 10 };
        assert_eq!(later.since(account), Account { requests: 60, records: 120, spans: 60, lost: 0 });
    }

    #[test]
    fn what_is_brought_to_another_machine_is_brought_to_this_one_the_same_way() {
        let mut brought = 0;
        for row in ROWS {
            let Measure::Agent(cost) = row.measure else { continue };
            let mut outcome = Ok(Measured::new(vec![1.0]).unwrap());
            // Where the targets were set, a bare `getppid` took so long.
            relate(cost, &mut outcome, 110.0);
            assert_eq!(outcome.unwrap().per.map(|per| per.factor), row.set_where, "{}", row.name);
            brought += usize::from(row.set_where.is_some());
        }
        assert_eq!(brought, 3, "time for a span, a record and a scrape");
    }

    #[test]
    fn an_agent_that_does_not_count_is_told_from_one_that_counts_nothing() {
        assert!(Account::of("seismo_up 1\n").is_err());
        assert_eq!(total("a_total{x=\"1\"} 0\n", "a_total", &[]), Some(0));
        assert_eq!(total("a_total_more{x=\"1\"} 5\n", "a_total", &[]), None);
    }
}
