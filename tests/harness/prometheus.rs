//! A real Prometheus that scrapes the agent, and promtool's opinion of the agent's page.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process::Process;
use crate::rig::{Rig, free_port};
use crate::{http, programs};

#[derive(Debug)]
pub struct Prometheus {
    pub process: Process,
    pub port: u16,
}

impl Prometheus {
    /// Starts outside the scope and scrapes `target` every second.
    pub fn start(rig: &Rig, target: u16) -> Result<Self> {
        Self::scraping(rig, target, &[])
    }

    /// The same, and asks for protobuf.
    pub fn with_native_histograms(rig: &Rig, target: u16) -> Result<Self> {
        Self::scraping(rig, target, &["--enable-feature=native-histograms"])
    }

    /// The same, and keeps exemplars.
    pub fn with_exemplars(rig: &Rig, target: u16) -> Result<Self> {
        Self::scraping(rig, target, &["--enable-feature=exemplar-storage"])
    }

    /// Asks for protobuf and keeps native histograms and exemplars.
    pub fn with_native_histograms_and_exemplars(rig: &Rig, target: u16) -> Result<Self> {
        Self::scraping(rig, target, &["--enable-feature=native-histograms,exemplar-storage"])
    }

    fn scraping(rig: &Rig, target: u16, arguments: &[&str]) -> Result<Self> {
        let text = format!(
            "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\nscrape_configs:\n  - job_name: seismo\n    \
             static_configs:\n      - targets: ['127.0.0.1:{target}']\n"
        );
        Self::launch(rig, &text, &rig.dir().join(format!("prometheus-{}", free_port()?)), arguments)
    }

    /// Starts outside the scope over a store that is there already, and scrapes nothing.
    pub fn over(rig: &Rig, store: &Path) -> Result<Self> {
        Self::launch(rig, "", store, &["--storage.tsdb.retention.time=100y"])
    }

    fn launch(rig: &Rig, config: &str, store: &Path, arguments: &[&str]) -> Result<Self> {
        let port = free_port()?;
        let mut command = Command::new(programs::find("prometheus")?);
        command.arg("--config.file").arg(rig.file(&format!("prometheus-{port}.yml"), config)?);
        command.arg("--storage.tsdb.path").arg(store).args(arguments);
        command.arg(format!("--web.listen-address=127.0.0.1:{port}")).arg("--log.level=warn");
        let mut process = rig.outside(&format!("prometheus-{port}"), command)?;
        let ready = || http::get(port, "/-/ready").is_ok_and(|answer| answer.status == 200);
        process.await_ready(Duration::from_secs(30), ready)?;
        Ok(Self { process, port })
    }

    /// Trace ids of the exemplars that it has of a selector's series, each with the value observed.
    pub fn exemplars(&self, selector: &str) -> Result<Vec<(String, f64)>> {
        let path = format!("/api/v1/query_exemplars?query={}&start=0&end=9999999999", http::encode(selector));
        let answer = http::get(self.port, &path)?.json()?;
        let series = answer.get("data").and_then(Value::as_array).context("no data")?;
        let all = series.iter().filter_map(|each| each.get("exemplars")?.as_array()).flatten();
        all.map(|each| {
            let text = |pointer| each.pointer(pointer).and_then(Value::as_str).with_context(|| each.to_string());
            Ok((text("/labels/trace_id")?.to_owned(), text("/value")?.parse()?))
        })
        .collect()
    }

    /// The value of an expression that yields one series; none if it yields nothing.
    pub fn value(&self, expression: &str) -> Result<Option<f64>> {
        let answer = http::get(self.port, &format!("/api/v1/query?query={}", http::encode(expression)))?.json()?;
        let value = answer.pointer("/data/result/0/value/1").and_then(Value::as_str);
        value.map(|text| text.parse().with_context(|| text.to_owned())).transpose()
    }
}

/// What `promtool check metrics` says of a page; empty when it has nothing to object to.
pub fn lint(rig: &Rig, page: &str) -> Result<String> {
    let mut command = Command::new(programs::find("promtool")?);
    command.args(["check", "metrics"]).stdin(Stdio::piped());
    let mut process = rig.outside("promtool", command)?;
    process.input()?.write_all(page.as_bytes())?;
    let (status, _) = process.wait(Duration::from_secs(20))?;
    let said = format!("{}{}", process.out(), process.err());
    Ok(if status.success() { said } else { format!("{}: {said}", crate::process::describe(status)) })
}
