//! A real Redis server, redis-cli and redis-py, and what the clients say they did.
//!
//! The server keeps nothing on disk and listens on a loopback port of its own.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process::Process;
use crate::rig::{Rig, free_port};
use crate::spans::{Kind, Span};
use crate::{http, programs, wait};

const LIMIT: Duration = Duration::from_secs(60);

/// A command as its client or a span tells it: operation, masked statement, code of the error or nothing.
pub type Told = (String, String, String);

#[derive(Debug)]
pub struct Redis {
    pub process: Process,
    pub port: u16,
}

impl Redis {
    /// Starts in the test's control group.
    pub fn start(rig: &Rig) -> Result<Self> {
        let port = free_port()?;
        let mut command = Command::new(programs::find("redis-server")?);
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.arg("--dir").arg(rig.dir()).stdin(Stdio::null());
        let mut process = rig.inside("redis-server", command)?;
        process.await_ready(Duration::from_secs(20), || http::listens(port))?;
        Ok(Self { process, port })
    }

    /// Runs redis-cli over one connection inside the control group, a command a line.
    pub fn cli(&self, rig: &Rig, arguments: &[&str], lines: &str) -> Result<String> {
        let mut command = Command::new(programs::find("redis-cli")?);
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]).args(arguments).stdin(Stdio::piped());
        let mut process = rig.inside("redis-cli", command)?;
        process.input()?.write_all(lines.as_bytes())?;
        process.finish(LIMIT)
    }

    /// Starts redis-py inside the control group; its input stays open.
    pub fn client(&self, rig: &Rig, what: &str, rounds: usize) -> Result<Client> {
        let mut command = Command::new(programs::PYTHON);
        command.arg(rig.file("redis_client.py", include_str!("scripts/redis_client.py"))?);
        command.args([&self.port.to_string(), what, &rounds.to_string()]).stdin(Stdio::piped());
        Ok(Client { process: rig.inside(&format!("redis-py-{what}"), command)? })
    }
}

/// redis-py on its way.
#[derive(Debug)]
pub struct Client {
    pub process: Process,
}

impl Client {
    /// Waits until it has sent so many commands.
    pub fn sent(&self, count: usize) -> Result<Vec<Told>> {
        wait::until(&format!("{count} commands"), LIMIT, || {
            let text = self.process.out();
            Ok(if text.lines().count() < count || !text.ends_with('\n') { None } else { Some(parse(&text)?) })
        })
    }

    /// All that it sent, when it is over.
    pub fn finish(&mut self) -> Result<Vec<Told>> {
        parse(&self.process.finish(LIMIT)?)
    }
}

fn parse(text: &str) -> Result<Vec<Told>> {
    text.lines().map(|line| parse_line(line).with_context(|| format!("not a command: {line}"))).collect()
}

fn parse_line(line: &str) -> Result<Told> {
    let json: Value = serde_json::from_str(line)?;
    let text = |key: &str| json.get(key).and_then(Value::as_str).map(str::to_owned).with_context(|| key.to_owned());
    Ok((text("operation")?, text("statement")?, text("code")?))
}

/// What a span tells.
pub fn told(span: &Span) -> Told {
    let text = |key| span.attribute(key);
    (text("db.operation.name"), text("db.query.text"), text("db.response.status_code"))
}

/// How often each was told.
pub fn counted(told: impl IntoIterator<Item = Told>) -> BTreeMap<Told, usize> {
    let mut counts = BTreeMap::new();
    for each in told {
        *counts.entry(each).or_insert(0) += 1;
    }
    counts
}

/// Spans of one end of connections to a server, whole and not.
pub fn of_port(spans: Vec<Span>, port: u16, kind: Kind) -> Vec<Span> {
    let port = port.to_string();
    spans.into_iter().filter(|span| span.kind == kind && span.attribute("server.port") == port).collect()
}
