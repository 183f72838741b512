//! `cargo xtask accuracy`: how right the agent's spans and links are, for real applications and known truth.
//!
//! A load generator sends numbered requests to S1, which calls S2 and S3, which ask Redis and PostgreSQL; paths, keys
//! and column names tell which call belongs to which, and nothing that an agent may link by. Each case is one language
//! and one way to handle requests; see `accuracy/cases.rs`. Needs root, kernel programs and the packages of
//! `setup --accuracy`; everything takes about ten minutes. Measures no speed.

mod cases;
mod judge;
pub mod load;
mod programs;
mod report;
mod rig;
mod servers;
mod spans;
mod truth;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs};

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::setup::{self, Purpose};
use crate::workspace::{self, Profile};
use crate::{build, shell};
use cases::{CASES, Case, Condition};
use judge::Sent;
use load::Run;
use report::{Cell, Errors};
use rig::{Pace, Rig};

/// Longer than the agent waits for a span's relatives before it shows it.
const SETTLE: Duration = Duration::from_secs(5);
/// Requests before the first that is judged, for each one at the same time.
const WARM_UP: u32 = 4;
/// Request numbers stay below: longer ones could be taken for a token that ties requests together.
const HIGHEST_REQUEST: u32 = 99_999;
const SAVED: &str = "docs/accuracy.md";

/// Measure how right spans and links are, beside real applications
#[derive(clap::Args)]
pub struct Arguments {
    /// What to run; everything, and its extra conditions, by default
    #[arg(value_parser = cases::find)]
    cases: Vec<&'static Case>,
    /// Requests at the same time
    #[arg(long, value_delimiter = ',', default_value = "1,4,16", value_parser = clap::value_parser!(u16).range(1..=64))]
    concurrency: Vec<u16>,
    /// Requests of one run
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    requests: u32,
    /// Also with connections that are older than the agent
    #[arg(long)]
    existing: bool,
    /// Also with one payload record in so many lost on purpose
    #[arg(long, value_name = "ONE-IN", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(2..))]
    loss: Vec<u32>,
    /// Longest time that a service thinks before, between and after its calls
    #[arg(long, default_value_t = 1500)]
    think_us: u32,
    /// Longest pause of a client before its next request
    #[arg(long, default_value_t = 4000)]
    pause_us: u32,
    /// Write the results to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Keep the agent's spans, a file for each run
    #[arg(long, value_name = "FOLDER")]
    spans: Option<PathBuf>,
    /// Write the tables to docs/accuracy.md
    #[arg(long)]
    save: bool,
    /// Judge this agent instead of building one
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// Everything that is needed has been installed and built
    #[arg(long, hide = true)]
    prepared: bool,
}

pub fn command(arguments: &Arguments) -> Result<()> {
    if !arguments.prepared {
        setup::setup(Purpose::Accuracy)?;
        programs::build()?;
    }
    let agent = match &arguments.agent {
        Some(agent) => agent.clone(),
        None => {
            build::agent(Profile::Release, &[])?;
            workspace::agent(Profile::Release)
        }
    };
    if !workspace::is_root() {
        return as_root(arguments, &agent);
    }
    let started = Instant::now();
    let pace = Pace { seed: random_seed()?, think_us: arguments.think_us, pause_us: arguments.pause_us };
    eprintln!("  seed {}; think times up to {} µs", pace.seed, pace.think_us);
    let mut rig = Rig::new(&agent)?;
    let (mut cells, mut failures) = (Vec::new(), Vec::new());
    for (case, condition, concurrency) in runs(arguments) {
        eprintln!("  {} ({})", case.name, condition.name());
        match measure(&mut rig, arguments, case, condition, &concurrency, &pace) {
            Ok(measured) => cells.extend(measured),
            Err(error) => {
                eprintln!("    {error:#}");
                failures.push((format!("{}, {}", case.name, condition.name()), format!("{error:#}")));
            }
        }
    }
    drop(rig);
    let text = report::text(&cells, &failures);
    print!("{text}");
    println!("\nseed {}; measured in {} s", pace.seed, started.elapsed().as_secs());
    if let Some(file) = &arguments.json {
        let json = json!({ "seed": pace.seed, "kernel": kernel()?, "cells": cells, "not_measured": failures });
        fs::write(file, serde_json::to_string_pretty(&json)? + "\n")?;
    }
    if arguments.save {
        fs::write(workspace::root().join(SAVED), document(arguments, &pace, &text)?)?;
    }
    if !failures.is_empty() {
        bail!("{} runs could not be measured, see above", failures.len());
    }
    Ok(())
}

/// Case, condition and the concurrencies that one start of its services serves.
fn runs(arguments: &Arguments) -> Vec<(&'static Case, Condition, Vec<u16>)> {
    let all: Vec<&Case> = CASES.iter().collect();
    let chosen = if arguments.cases.is_empty() { &all } else { &arguments.cases };
    let mut extra: Vec<Condition> = arguments.loss.iter().map(|one_in| Condition::Loss(*one_in)).collect();
    extra.extend(arguments.existing.then_some(Condition::Existing));
    let by_default = extra.is_empty() && arguments.cases.is_empty();
    if by_default {
        extra = vec![Condition::Existing, Condition::Loss(100), Condition::Loss(20)];
    }
    let most = arguments.concurrency.iter().max().copied().unwrap_or(1);
    let mut runs = Vec::new();
    for &case in chosen {
        runs.push((case, Condition::Plain, arguments.concurrency.clone()));
        if !by_default || case.extra {
            runs.extend(extra.iter().map(|condition| (case, *condition, vec![most])));
        }
    }
    runs
}

fn measure(
    rig: &mut Rig,
    arguments: &Arguments,
    case: &'static Case,
    condition: Condition,
    concurrency: &[u16],
    pace: &Pace,
) -> Result<Vec<Cell>> {
    let most = concurrency.iter().max().copied().unwrap_or(1);
    let mut next = 1;
    let mut run = |count: u32, concurrency: u16| -> Result<Run> {
        let first = next;
        next += count;
        if next > HIGHEST_REQUEST {
            bail!("more than {HIGHEST_REQUEST} requests in one case: ask for fewer");
        }
        Ok(Run { first, count, concurrency: concurrency.into() })
    };
    let mut stage = rig.start(case, condition, pace, run(WARM_UP * u32::from(most), most)?)?;
    let mut all: Vec<(u16, f64, Vec<Sent>)> = Vec::new();
    for concurrency in concurrency {
        let run = run(arguments.requests, *concurrency)?;
        let started = Instant::now();
        let sent = stage.load.run(run)?;
        all.push((*concurrency, f64::from(arguments.requests) / started.elapsed().as_secs_f64(), sent));
    }
    thread::sleep(SETTLE);
    let text = stage.agent.get("/api/seismo/spans?limit=1000000")?;
    if let Some(folder) = &arguments.spans {
        fs::create_dir_all(folder)?;
        fs::write(folder.join(format!("{}-{}.jsonl", case.name, condition.name().replace(' ', "-"))), &text)?;
    }
    let spans = spans::parse(&text)?;
    let ports = stage.ports;
    drop(stage);
    let cell = |(concurrency, requests_per_second, sent): (u16, f64, Vec<Sent>)| {
        let judgement = judge::judge(&sent, &ports, &spans);
        let cell = Cell {
            case: case.name,
            condition: condition.name(),
            concurrency: concurrency.into(),
            thread_per_request: case.thread_per_request,
            lossy: matches!(condition, Condition::Loss(_)),
            requests_per_second,
            latency_us: Errors::of(&judgement.latency.durations),
            start_us: Errors::of(&judgement.latency.starts),
            judgement,
            missed: Vec::new(),
        };
        cell.judged()
    };
    Ok(all.into_iter().map(cell).collect())
}

/// How long to think: FNV-1a of seed, place and step, so that all languages think alike.
fn think(seed: u32, place: &str, step: u32, longest_us: u32) -> Duration {
    let text = format!("{seed}/{place}/{step}");
    let number =
        text.bytes().fold(2_166_136_261_u32, |number, byte| (number ^ u32::from(byte)).wrapping_mul(16_777_619));
    Duration::from_micros((number % (longest_us + 1)).into())
}

/// Never the same: what was tuned on one seed would be tuned on nothing else.
fn random_seed() -> Result<u32> {
    let mut bytes = [0; 4];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u32::from_ne_bytes(bytes))
}

fn kernel() -> Result<String> {
    let release = shell::output(Command::new("uname").arg("-r"))?;
    // Who built it is of no interest.
    Ok(format!("Linux {}", release.trim().split('-').next().unwrap_or_default()))
}

fn document(arguments: &Arguments, pace: &Pace, text: &str) -> Result<String> {
    let cpus = thread::available_parallelism()?;
    let cases: String = CASES.iter().map(|case| format!("- `{}`: {}\n", case.name, case.what)).collect();
    Ok(format!(
        "# How right spans and links are

Written by `cargo xtask accuracy --save`: {kernel}, {cpus} CPUs, {requests} requests a run, seed {seed} (a fresh one
each time), think times up to {think} µs.

A load generator asks S1, which asks S2 and S3; S2 gives Redis two commands, S3 asks PostgreSQL and Redis. What belongs
together is known from the paths, keys and column names, which no method of linking reads: request numbers are short, and no
header is passed on. A span counts as found when it is there and whole. *Between* are links from a server span to the client
span of the same call, *inside* those from a client span to the server span that it was made for. A link is judged where its
span was found. A trace is whole when every span of the request is there once, each link is right and all have one trace
id. Durations and starts are held against the load generator's own clock, around its system calls.

Targets: 99.9 % of spans found and right where nothing is lost; 99.5 % of links right where the method is
deterministic; at most 1 % wrong parents; whole traces 99 % where a thread has its request to itself, else 90 % with up to 16
at the same time.

{cases}
{text}",
        kernel = kernel()?,
        requests = arguments.requests,
        seed = pace.seed,
        think = pace.think_us,
    ))
}

/// The same command again as root, with the agent that has been built as the user.
fn as_root(arguments: &Arguments, agent: &Path) -> Result<()> {
    let program = env::current_exe().context("cannot find this program's file")?;
    let mut command = workspace::as_root(&program, &["PATH", "CARGO_TARGET_DIR"])?;
    command.args(env::args_os().skip(1)).arg("--prepared");
    if arguments.agent.is_none() {
        command.arg("--agent").arg(agent);
    }
    shell::run(&mut command)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn asked(words: &[&str]) -> Vec<(&'static str, String, Vec<u16>)> {
        let line = Line::parse_from(["accuracy"].iter().chain(words));
        runs(&line.arguments)
            .into_iter()
            .map(|(case, condition, at_once)| (case.name, condition.name(), at_once))
            .collect()
    }

    #[test]
    fn everything_is_run_plainly_and_some_of_it_under_extra_conditions() {
        let runs = asked(&[]);
        assert_eq!(runs.iter().filter(|run| run.1 == "-").count(), CASES.len());
        assert!(runs.contains(&("go", "older connections".to_owned(), vec![16])));
        assert!(!runs.iter().any(|run| run.0 == "node" && run.1 != "-"));
    }

    #[test]
    fn a_chosen_case_has_the_conditions_that_were_asked_for() {
        let runs = asked(&["node", "--loss", "50", "--concurrency", "2,8"]);
        assert_eq!(runs, [("node", "-".to_owned(), vec![2, 8]), ("node", "1 in 50 lost".to_owned(), vec![8])]);
        assert_eq!(asked(&["java"]).len(), 1);
    }

    #[test]
    fn think_times_are_the_same_for_the_same_seed_and_never_too_long() {
        assert_eq!(think(7, "1/0", 2, 1000), think(7, "1/0", 2, 1000));
        assert_ne!(think(7, "1/0", 2, 1_000_000), think(8, "1/0", 2, 1_000_000));
        assert!((0..100).all(|step| think(7, "1", step, 50) <= Duration::from_micros(50)));
    }
}
