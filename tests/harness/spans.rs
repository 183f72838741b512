//! Spans as `seismo spans --json` prints them: one object a line, names of OTLP/JSON.

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// What a span's time can go to.
const TIMES: [&str; 8] = ["on_cpu", "runqueue", "disk", "network", "futex", "sleep", "throttled", "unknown"];

#[derive(Clone, Debug)]
pub struct Span {
    pub name: String,
    pub kind: Kind,
    pub start_ns: u64,
    pub end_ns: u64,
    /// The object as printed.
    pub json: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Server,
    Client,
}

impl Span {
    pub fn parse(line: &str) -> Result<Self> {
        let json: Value = serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))?;
        Self::from_json(json).with_context(|| format!("not a span: {line}"))
    }

    pub fn from_json(json: Value) -> Result<Self> {
        let kind = match json.get("kind").and_then(Value::as_i64) {
            Some(2) => Kind::Server,
            Some(3) => Kind::Client,
            other => bail!("kind {other:?}"),
        };
        let name = json.get("name").and_then(Value::as_str).context("no name")?.to_owned();
        let (start_ns, end_ns) = (time(&json, "startTimeUnixNano")?, time(&json, "endTimeUnixNano")?);
        for (key, length) in [("traceId", 32), ("spanId", 16)] {
            let id = json.get(key).and_then(Value::as_str).with_context(|| format!("no {key}"))?;
            anyhow::ensure!(id.len() == length && id.bytes().all(|digit| digit.is_ascii_hexdigit()), "{key} {id}");
        }
        anyhow::ensure!(start_ns <= end_ns, "ends before it starts");
        let span = Self { name, kind, start_ns, end_ns, json };
        let explained: u64 = TIMES.into_iter().map(|state| span.time_ns(state)).sum();
        anyhow::ensure!(explained == 0 || explained == end_ns - start_ns, "its time does not add up: {explained} ns");
        Ok(span)
    }

    /// How much of its time went to a state, ns; 0 where it does not say.
    pub fn time_ns(&self, state: &str) -> u64 {
        let value = self.json.get("attributes").and_then(|all| all.get(format!("seismo.time.{state}")));
        value.and_then(Value::as_u64).unwrap_or(0)
    }

    pub const fn duration_ns(&self) -> u64 {
        self.end_ns - self.start_ns
    }

    /// An attribute's text, or number as text; empty if absent.
    pub fn attribute(&self, key: &str) -> String {
        text(self.json.get("attributes").and_then(|all| all.get(key)))
    }

    /// A resource attribute, likewise.
    pub fn resource(&self, key: &str) -> String {
        text(self.json.get("resource").and_then(|all| all.get(key)))
    }

    pub fn service(&self) -> String {
        self.resource("service.name")
    }

    pub fn path(&self) -> String {
        self.attribute("url.path")
    }

    pub fn status(&self) -> String {
        self.attribute("http.response.status_code")
    }
}

fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// OTLP/JSON writes 64-bit integers as strings.
fn time(json: &Value, key: &str) -> Result<u64> {
    let value = json.get(key).with_context(|| format!("no {key}"))?;
    text(Some(value)).parse().with_context(|| format!("{key} {value}"))
}
