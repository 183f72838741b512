//! Servers and clients in Python and node that keep their own account: path, status and time of each request.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process::Process;
use crate::rig::{Rig, free_port};
use crate::{http, programs, wait};

/// One request as the program itself saw it.
#[derive(Clone, Debug)]
pub struct Request {
    pub path: String,
    pub status: String,
    pub ns: u64,
}

/// Which of the two languages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    Python,
    Node,
}

impl Language {
    fn command(self, rig: &Rig, role: &str) -> Result<Command> {
        let (program, name, text) = match (self, role) {
            (Self::Python, "server") => (programs::PYTHON, "server.py", include_str!("scripts/server.py")),
            (Self::Python, _) => (programs::PYTHON, "client.py", include_str!("scripts/client.py")),
            (Self::Node, "server") => ("node", "server.js", include_str!("scripts/server.js")),
            (Self::Node, _) => ("node", "client.js", include_str!("scripts/client.js")),
        };
        let mut command = Command::new(programs::find(program)?);
        command.arg(rig.file(name, text)?);
        Ok(command)
    }
}

#[derive(Debug)]
pub struct Server {
    pub process: Process,
    pub port: u16,
    log: PathBuf,
}

impl Server {
    /// Starts in the test's control group.
    pub fn start(rig: &Rig, language: Language) -> Result<Self> {
        Self::start_with(rig, language, Rig::inside)
    }

    /// Starts outside of it.
    pub fn start_outside(rig: &Rig, language: Language) -> Result<Self> {
        Self::start_with(rig, language, Rig::outside)
    }

    fn start_with(
        rig: &Rig,
        language: Language,
        start: impl FnOnce(&Rig, &str, Command) -> Result<Process>,
    ) -> Result<Self> {
        let port = free_port()?;
        let log = rig.file(&format!("{language:?}-{port}.log"), "")?;
        let mut command = language.command(rig, "server")?;
        command.arg(port.to_string()).arg(&log).stdin(Stdio::null());
        let mut process = start(rig, &format!("{language:?}-server"), command)?;
        process.await_ready(Duration::from_secs(20), || http::listens(port))?;
        Ok(Self { process, port, log })
    }

    /// Waits until it has logged `count` requests.
    pub fn logged(&self, count: usize) -> Result<Vec<Request>> {
        wait::until(&format!("{count} lines in the server's log"), Duration::from_secs(20), || {
            let text = fs::read_to_string(&self.log)?;
            Ok(if text.lines().count() < count || !text.ends_with('\n') { None } else { Some(parse(&text)?) })
        })
    }
}

/// Runs a client over `paths`, in order, on one connection inside the control group.
pub fn client(rig: &Rig, language: Language, port: u16, paths: &[String]) -> Result<Vec<Request>> {
    start_client(rig, language, port, paths)?.finish()
}

/// A client on its way.
#[derive(Debug)]
pub struct Client {
    pub process: Process,
}

pub fn start_client(rig: &Rig, language: Language, port: u16, paths: &[String]) -> Result<Client> {
    let mut command = language.command(rig, "client")?;
    command.arg(port.to_string()).stdin(Stdio::piped());
    let mut process = rig.inside(&format!("{language:?}-client"), command)?;
    process.input()?.write_all(paths.join("\n").as_bytes())?;
    Ok(Client { process })
}

impl Client {
    pub fn finish(&mut self) -> Result<Vec<Request>> {
        parse(&self.process.finish(Duration::from_secs(120))?)
    }
}

/// Requests by status code.
pub fn by_status(requests: &[Request]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for request in requests {
        *counts.entry(request.status.clone()).or_insert(0) += 1;
    }
    counts
}

fn parse(text: &str) -> Result<Vec<Request>> {
    text.lines().map(|line| parse_line(line).with_context(|| format!("not a request: {line}"))).collect()
}

fn parse_line(line: &str) -> Result<Request> {
    let json: Value = serde_json::from_str(line)?;
    let text = |key: &str| json.get(key).and_then(Value::as_str).map(str::to_owned).with_context(|| key.to_owned());
    let ns = json.get("ns").and_then(Value::as_u64).context("ns")?;
    Ok(Request { path: text("path")?, status: text("status")?, ns })
}
