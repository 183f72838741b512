//! Services whose requests no thread tells apart, each asking another server twice for every request that it serves, at the
//! same time: on an event loop in Python, on goroutines in Go, on two pools of threads in Java, on tasks of tokio.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::Process;
use crate::rig::{Rig, free_port};
use crate::{http, programs};

const GO: &str = include_str!("scripts/relay.go");

#[derive(Debug)]
pub struct Relay {
    pub process: Process,
    pub port: u16,
}

impl Relay {
    pub fn python(rig: &Rig, upstream: u16) -> Result<Self> {
        let mut command = Command::new(programs::PYTHON);
        command.arg(rig.file("relay.py", include_str!("scripts/relay.py"))?);
        Self::start(rig, command, upstream)
    }

    /// Compiled first; without what a debugger wants where `stripped`.
    pub fn go(rig: &Rig, upstream: u16, stripped: bool) -> Result<Self> {
        let source = rig.file("relay.go", GO)?;
        let product = source.with_file_name("relay");
        let cache = programs::repository().join("target/go");
        let mut build = Command::new(programs::find("go")?);
        build.args(["build", "-o"]).arg(&product);
        if stripped {
            build.args(["-ldflags", "-s -w"]);
        }
        build.arg(&source).env("GO111MODULE", "off").env("GOCACHE", &cache).env("GOPATH", cache.join("path"));
        let built = build.output().context("go build")?;
        ensure!(built.status.success(), "go build: {}", String::from_utf8_lossy(&built.stderr));
        Self::start(rig, Command::new(product), upstream)
    }

    /// One more of what [`Relay::go`] has compiled.
    pub fn another_go(rig: &Rig, upstream: u16) -> Result<Self> {
        let product = rig.file("relay.go", GO)?.with_file_name("relay");
        Self::start(rig, Command::new(product), upstream)
    }

    /// Compiled as it starts.
    pub fn java(rig: &Rig, upstream: u16) -> Result<Self> {
        let mut command = Command::new(programs::find("java")?);
        command.arg("-XX:+UseSerialGC").arg(rig.file("Relay.java", include_str!("scripts/Relay.java"))?);
        Self::start(rig, command, upstream)
    }

    /// The test client's, of a kind that its `relay` has.
    pub fn tokio(rig: &Rig, client: &Path, upstream: u16, kind: &str) -> Result<Self> {
        let mut command = Command::new(rig.named(client, "relay")?);
        command.arg("relay");
        Self::start_with(rig, command, upstream, &[kind])
    }

    fn start(rig: &Rig, command: Command, upstream: u16) -> Result<Self> {
        Self::start_with(rig, command, upstream, &[])
    }

    fn start_with(rig: &Rig, mut command: Command, upstream: u16, more: &[&str]) -> Result<Self> {
        let port = free_port()?;
        command.args([port, upstream].map(|port| port.to_string())).args(more).stdin(Stdio::null());
        let mut process = rig.inside("relay", command)?;
        process.await_ready(Duration::from_secs(20), || http::listens(port))?;
        Ok(Self { process, port })
    }
}
