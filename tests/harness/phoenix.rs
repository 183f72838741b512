//! Phoenix, a real backend for traces: takes OTLP over HTTP, stores spans in SQLite and gives them back by its API.
//!
//! It listens on loopback, keeps all in the test's folder, is told to ask nobody on the network, and runs outside of the
//! test's control group: what the agent sends it is not looked at. It stores times in µs.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process::Process;
use crate::rig::{Rig, free_port};
use crate::{http, programs};

/// Most spans of one page of its API.
const PAGE: usize = 1000;
/// It makes its database first.
const START: Duration = Duration::from_secs(120);

#[derive(Debug)]
pub struct Phoenix {
    _process: Process,
    pub port: u16,
}

/// A span as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    pub trace_id: String,
    pub span_id: String,
    pub parent_id: Option<String>,
    pub name: String,
    pub start_ns: u64,
    pub end_ns: u64,
    /// OTLP's number.
    pub status: u64,
}

impl Phoenix {
    pub fn start(rig: &Rig) -> Result<Self> {
        let (port, grpc) = (free_port()?, free_port()?);
        let mut command = Command::new(programs::PYTHON);
        command.args(["-m", "phoenix.server.main", "serve"]).env("PYTHONPATH", programs::phoenix()?);
        command.env("PHOENIX_HOST", "127.0.0.1").env("PHOENIX_PORT", port.to_string());
        command.env("PHOENIX_GRPC_PORT", grpc.to_string()).env("PHOENIX_WORKING_DIR", rig.dir().join("phoenix"));
        for switch in ["PHOENIX_TELEMETRY_ENABLED", "PHOENIX_ALLOW_EXTERNAL_RESOURCES", "PHOENIX_ENABLE_MCP_SERVER"] {
            command.env(switch, "false");
        }
        command.env("PHOENIX_DISABLE_AGENT_ASSISTANT", "true");
        let mut process = rig.outside("phoenix", command)?;
        let ready = || http::get(port, "/healthz").is_ok_and(|answer| answer.status == 200);
        process.await_ready(START, ready).context("Phoenix")?;
        Ok(Self { _process: process, port })
    }

    /// Where it takes spans over OTLP.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}/v1/traces", self.port)
    }

    /// All spans that it has.
    pub fn spans(&self) -> Result<Vec<Stored>> {
        let (mut spans, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("/v1/projects/default/spans/otlpv1?limit={PAGE}{cursor}");
            let page = http::get(self.port, &path)?.json()?;
            let stored = page.get("data").and_then(Value::as_array).with_context(|| format!("no spans: {page}"))?;
            for span in stored {
                spans.push(one(span).with_context(|| format!("not understood: {span}"))?);
            }
            match page.get("next_cursor").and_then(Value::as_str) {
                Some(next) => cursor = format!("&cursor={}", http::encode(next)),
                None => return Ok(spans),
            }
        }
    }
}

fn one(span: &Value) -> Option<Stored> {
    let text = |key: &str| span.get(key).and_then(Value::as_str).map(str::to_owned);
    let time = |key: &str| match span.get(key)? {
        Value::String(number) => number.parse().ok(),
        number => number.as_u64(),
    };
    Some(Stored {
        trace_id: text("trace_id")?,
        span_id: text("span_id")?,
        parent_id: text("parent_span_id").filter(|id| !id.is_empty()),
        name: text("name")?,
        start_ns: time("start_time_unix_nano")?,
        end_ns: time("end_time_unix_nano")?,
        status: span.pointer("/status/code").and_then(Value::as_u64)?,
    })
}
