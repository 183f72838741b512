//! `seismo trace ID`: one trace of a running agent as a waterfall, or its spans as JSON lines.
//!
//! The spans come from `/api/seismo/spans?trace=ID`: what the agent still holds of the trace. `tree` puts them in order,
//! `waterfall` draws them. Exit code 1 where nothing of the trace is held.

mod tree;
mod waterfall;

use std::io::{self, BufRead as _, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::Value;

use super::client::AgentArguments;
use super::table::colours;
use crate::model::exported::hex;
use crate::model::span::TraceId;
use tree::Part;

/// Width where standard output is no terminal.
const DEFAULT_WIDTH: usize = 120;
/// No trace of more spans is drawn.
const MOST_SPANS: usize = 100_000;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    agent: AgentArguments,
    /// The trace's id, as the last column of `seismo spans` has it.
    #[arg(value_name = "ID")]
    id: TraceId,
    /// One JSON object a line, with the names of OTLP/JSON.
    #[arg(long)]
    json: bool,
}

pub fn command(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let id = hex(&arguments.id.0);
    let parameters = [("trace", id.clone()), ("limit", MOST_SPANS.to_string())];
    let answer = arguments.agent.lines("/api/seismo/spans", &parameters, false)?;
    let mut spans: Vec<Value> = Vec::new();
    for line in answer.lines() {
        let line = line.context("the agent's answer ended early")?;
        if !line.is_empty() {
            spans.push(serde_json::from_str(&line).context("the agent's answer is no span")?);
        }
    }
    if spans.is_empty() {
        bail!("the agent holds no span of trace {id} (it keeps the last `spans.capacity` spans)");
    }
    let mut out = io::stdout().lock();
    if arguments.json {
        for span in spans.iter().rev() {
            writeln!(out, "{span}")?;
        }
    } else {
        let parts = spans.iter().map(Part::read).collect();
        let width = terminal_size::terminal_size().map_or(DEFAULT_WIDTH, |(width, _)| usize::from(width.0));
        waterfall::draw(&mut out, &id, &tree::order(parts), width, colours())?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
