//! VictoriaMetrics, a real store: takes metrics over OTLP and answers PromQL.
//!
//! It listens on loopback and runs outside of the test's control group: what the agent sends it is not looked at.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::exposition::Labels;
use crate::process::Process;
use crate::rig::{Rig, free_port};
use crate::{http, programs};

#[derive(Debug)]
pub struct VictoriaMetrics {
    _process: Process,
    pub port: u16,
}

impl VictoriaMetrics {
    /// Spells names by OpenTelemetry's rules for Prometheus and shows at once what it has.
    pub fn start(rig: &Rig) -> Result<Self> {
        let port = free_port()?;
        let mut command = Command::new(programs::victoria_metrics()?);
        command.arg(format!("-httpListenAddr=127.0.0.1:{port}"));
        command.arg(format!("-storageDataPath={}", rig.dir().join(format!("victoria-metrics-{port}")).display()));
        command.args(["-opentelemetry.usePrometheusNaming", "-search.latencyOffset=0s", "-search.disableCache"]);
        command.args(["-inmemoryDataFlushInterval=1s", "-memory.allowedBytes=256MB"]);
        let mut process = rig.outside(&format!("victoria-metrics-{port}"), command)?;
        let ready = || http::get(port, "/health").is_ok_and(|answer| answer.status == 200);
        process.await_ready(Duration::from_secs(30), ready)?;
        Ok(Self { _process: process, port })
    }

    /// Where it takes metrics over OTLP.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}/opentelemetry/v1/metrics", self.port)
    }

    /// What an expression yields now: labels and value of each series.
    pub fn query(&self, expression: &str) -> Result<Vec<(Labels, f64)>> {
        // What was taken a moment ago is not searched before it is flushed.
        http::get(self.port, "/internal/force_flush")?.ok()?;
        let answer = http::get(self.port, &format!("/api/v1/query?query={}", http::encode(expression)))?.json()?;
        let series = answer.pointer("/data/result").and_then(Value::as_array).context("no result")?;
        let one = |each: &Value| -> Result<(Labels, f64)> {
            let labels = each.get("metric").and_then(Value::as_object).context("no labels")?;
            let labels = labels.iter().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
            let value = each.pointer("/value/1").and_then(Value::as_str).context("no value")?;
            Ok((labels.collect(), value.parse()?))
        };
        series.iter().map(|each| one(each).with_context(|| each.to_string())).collect()
    }

    /// The value of an expression that yields one series; none if it yields nothing.
    pub fn value(&self, expression: &str) -> Result<Option<f64>> {
        Ok(self.query(expression)?.first().map(|(_, value)| *value))
    }
}
