//! `seismo query`: a PromQL expression over the recent samples of a running agent, printed as promtool does.
//!
//! One instant, or with `--start` a range in steps. Times go to the agent as they are, but for those before now (`-5m`).
//! What the agent says beside its answer goes to standard error.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Map, Value, json};

use super::client::AgentArguments;
use crate::clock;
use crate::model::display::printable;
use crate::section::Interval;

/// Step of a range, where none is given.
const STEP: &str = "15s";

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    agent: AgentArguments,
    /// PromQL, such as `sum(rate(seismo_syscalls_total[1m]))`.
    #[arg(value_name = "EXPR")]
    expression: String,
    /// When: Unix seconds, RFC 3339, or a length of time before now (-5m) [default: now].
    #[arg(long, value_name = "T", allow_hyphen_values = true, conflicts_with_all = ["start", "end", "step"])]
    time: Option<String>,
    /// Begin of a range, written like --time.
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    start: Option<String>,
    /// End of the range [default: now].
    #[arg(long, value_name = "T", allow_hyphen_values = true, requires = "start")]
    end: Option<String>,
    /// From one value of the range to the next [default: 15s].
    #[arg(long, value_name = "D", requires = "start")]
    step: Option<String>,
    /// One JSON object a line: `metric` with `value` or `values`, as Prometheus answers.
    #[arg(long)]
    json: bool,
}

pub fn command(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let now_ms = clock::wall_ns() / 1_000_000;
    let mut parameters = vec![("query", arguments.expression.clone())];
    let path = match &arguments.start {
        Some(start) => {
            let end = arguments.end.as_deref().unwrap_or("-0s");
            parameters.extend([("start", time(start, now_ms)?), ("end", time(end, now_ms)?)]);
            parameters.push(("step", arguments.step.clone().unwrap_or_else(|| STEP.to_owned())));
            "/api/v1/query_range"
        }
        None => {
            let at = arguments.time.as_deref().map(|at| time(at, now_ms)).transpose()?;
            parameters.extend(at.map(|at| ("time", at)));
            "/api/v1/query"
        }
    };
    let answer = arguments.agent.lines(path, &parameters, false)?;
    let answer: Value = serde_json::from_reader(answer).context("the agent's answer is not JSON")?;
    for warning in answer["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let _nobody_reads = writeln!(io::stderr(), "seismo: {}", printable(warning));
    }
    let mut out = io::stdout().lock();
    out.write_all(shown(&answer["data"], arguments.json)?.as_bytes())?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// A time before now as Unix seconds, any other as it was written.
fn time(text: &str, now_ms: u64) -> anyhow::Result<String> {
    match text.strip_prefix('-') {
        None => Ok(text.to_owned()),
        Some(before) => {
            let before: Interval = before.parse().map_err(|error: String| anyhow::anyhow!(error))?;
            let at_ms = now_ms.saturating_sub(u64::try_from(before.0.as_millis()).unwrap_or(u64::MAX));
            Ok(format!("{}.{:03}", at_ms / 1000, at_ms % 1000))
        }
    }
}

fn shown(content: &Value, as_json: bool) -> anyhow::Result<String> {
    let result = &content["result"];
    let elements = match content["resultType"].as_str() {
        Some("scalar") => vec![json!({ "metric": {}, "value": result })],
        Some("vector" | "matrix") => result.as_array().cloned().unwrap_or_default(),
        _ => bail!("the agent's answer is no result of a query"),
    };
    let mut out = String::new();
    for element in &elements {
        if as_json {
            let _infallible = writeln!(out, "{element}");
            continue;
        }
        let name = element["metric"].as_object().map(series).unwrap_or_default();
        match element["values"].as_array() {
            Some(values) => {
                let _infallible = writeln!(out, "{name} =>");
                values.iter().for_each(|each| _ = writeln!(out, "{}", point(each)));
            }
            None => _ = writeln!(out, "{name} => {}", point(&element["value"])),
        }
    }
    Ok(out)
}

/// `value @[time]`
fn point(point: &Value) -> String {
    let value = point[1].as_str().unwrap_or("-");
    format!("{} @[{}]", printable(value), point[0])
}

/// `name{label="value"}`
fn series(labels: &Map<String, Value>) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = labels.get("__name__").map(text).unwrap_or_default();
    let others = labels.iter().filter(|(name, _)| *name != "__name__");
    let others: Vec<String> = others.map(|(name, value)| format!("{name}={:?}", text(value))).collect();
    printable(&format!("{name}{{{}}}", others.join(", "))).to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn results_read_as_promtool_writes_them() {
        let metric = json!({ "__name__": "up", "b": "c\n", "a": "\u{1b}[2J" });
        let vector = json!({ "resultType": "vector", "result": [{ "metric": metric, "value": [1.5, "2"] }] });
        let line = "up{a=\"\\u{1b}[2J\", b=\"c\\n\"} => 2 @[1.5]\n";
        assert_eq!(shown(&vector, false).unwrap(), line);
        let values = json!([[1, "2"], [2, "+Inf"]]);
        let matrix = json!({ "resultType": "matrix", "result": [{ "metric": { "a": "b" }, "values": values }] });
        assert_eq!(shown(&matrix, false).unwrap(), "{a=\"b\"} =>\n2 @[1]\n+Inf @[2]\n");
        assert_eq!(shown(&matrix, true).unwrap(), "{\"metric\":{\"a\":\"b\"},\"values\":[[1,\"2\"],[2,\"+Inf\"]]}\n");
        assert_eq!(shown(&json!({ "resultType": "scalar", "result": [1, "2"] }), false).unwrap(), "{} => 2 @[1]\n");
        assert!(shown(&json!({}), false).is_err());
    }

    #[test]
    fn a_time_before_now_is_told_from_one_that_is_written_out() {
        assert_eq!(time("-5m", 1_000_000_250).unwrap(), "999700.250");
        assert_eq!(time("2015-07-01T20:10:30Z", 0).unwrap(), "2015-07-01T20:10:30Z");
        assert!(time("-x", 0).is_err());
    }
}
