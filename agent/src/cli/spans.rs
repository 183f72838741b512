//! `seismo spans`: spans of a running agent, one aligned line each, or the agent's own JSON lines.

use std::io::{self, BufRead, Write};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::client::AgentArguments;
use super::table::{Table, colours};
use crate::model::display::duration;
use crate::model::exported::hex;
use crate::model::span::TraceId;
use crate::section::Interval;
use crate::semconv;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    agent: AgentArguments,
    /// Only of this service.
    #[arg(long)]
    service: Option<String>,
    /// Only with this status.
    #[arg(long, value_parser = ["error", "unset"])]
    status: Option<String>,
    /// Only spans that took at least this long (5ms, 1s).
    #[arg(long, value_name = "T")]
    min_duration: Option<Interval>,
    /// Only with this name, such as "GET /user/{id}".
    #[arg(long)]
    name: Option<String>,
    /// Only of this trace.
    #[arg(long, value_name = "ID")]
    trace: Option<TraceId>,
    /// At most so many of the recent spans [default: 20, with --follow 10].
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Go on with the spans to come, oldest first, until interrupted.
    #[arg(long)]
    follow: bool,
    /// One JSON object a line, with the names of OTLP/JSON.
    #[arg(long)]
    json: bool,
}

pub fn command(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let answer = arguments.agent.lines("/api/seismo/spans", &parameters(arguments), arguments.follow)?;
    let lines = answer.lines().filter(|line| !matches!(line, Ok(line) if line.is_empty()));
    let mut out = io::stdout().lock();
    if arguments.json {
        for line in lines {
            let line = line.context("the agent's answer ended early")?;
            if !tell_loss(&line) {
                writeln!(out, "{line}")?;
                out.flush()?;
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(colours());
    let mut waiting = Vec::new();
    for line in lines {
        let line = line.context("the agent's answer ended early")?;
        if tell_loss(&line) {
            continue;
        }
        let span: Value = serde_json::from_str(&line).context("the agent's answer is no span")?;
        let row = row(&span, &TimeZone::system());
        table.fit(&row);
        let alarming = span["status"]["code"] == 2;
        if arguments.follow {
            table.write(&mut out, &row, alarming)?;
            out.flush()?;
        } else {
            waiting.push((row, alarming));
        }
    }
    for (row, alarming) in &waiting {
        table.write(&mut out, row, *alarming)?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn parameters(arguments: &Arguments) -> Vec<(&'static str, String)> {
    let limit = arguments.limit.unwrap_or(if arguments.follow { 10 } else { 20 });
    let chosen = [
        ("service", arguments.service.clone()),
        ("status", arguments.status.clone()),
        ("min_duration", arguments.min_duration.map(|shortest| shortest.to_string())),
        ("name", arguments.name.clone()),
        ("trace", arguments.trace.map(|id| hex(&id.0))),
        ("limit", Some(limit.to_string())),
        ("follow", arguments.follow.then(|| "true".to_owned())),
    ];
    chosen.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

/// Tells on standard error when the line says that spans went by unread.
fn tell_loss(line: &str) -> bool {
    let lost = line.strip_prefix("{\"lost\":").and_then(|rest| rest.strip_suffix('}'));
    if let Some(count) = lost {
        let _nobody_reads = writeln!(io::stderr(), "seismo: {count} spans went by faster than they could be shown");
    }
    lost.is_some()
}

/// Time, service, kind, name, status, duration, trace id.
fn row(span: &Value, zone: &TimeZone) -> [String; 7] {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let ns = |key: &str| span[key].as_str().and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
    let (start, end) = (ns("startTimeUnixNano"), ns("endTimeUnixNano"));
    let time = Timestamp::from_nanosecond(start.into())
        .map_or_else(|_| "-".to_owned(), |time| time.to_zoned(zone.clone()).strftime("%H:%M:%S%.3f").to_string());
    let kind = match span["kind"].as_u64() {
        Some(2) => "server",
        Some(3) => "client",
        _ => "-",
    };
    let status = match (span["status"]["code"].as_u64(), span["attributes"][semconv::ERROR_TYPE].as_str()) {
        (Some(2), Some(error)) => format!("error({error})"),
        (Some(2), None) => "error".to_owned(),
        _ => "ok".to_owned(),
    };
    [
        time,
        text(&span["resource"][semconv::SERVICE_NAME]),
        kind.to_owned(),
        text(&span["name"]),
        status,
        duration(end.saturating_sub(start)),
        text(&span["traceId"]),
    ]
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use serde_json::json;

    use super::row;

    #[test]
    fn a_span_is_a_row_of_time_service_kind_name_status_duration_and_trace() {
        let span = json!({
            "traceId": "ab", "name": "GET /x", "kind": 3, "startTimeUnixNano": "1700000000123456789",
            "endTimeUnixNano": "1700000000124956789", "status": { "code": 2 },
            "attributes": { "error.type": "503" }, "resource": { "service.name": "shop" },
        });
        let expected = ["22:13:20.123", "shop", "client", "GET /x", "error(503)", "1.50ms", "ab"];
        assert_eq!(row(&span, &TimeZone::UTC), expected);
        assert_eq!(row(&json!({}), &TimeZone::UTC), ["00:00:00.000", "-", "-", "-", "ok", "0ns", "-"]);
    }
}
