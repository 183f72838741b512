//! A real HAProxy in front of one server, as a proxy of HTTP or of bare streams, that splices whatever it can.
//!
//! One process, one thread, no checks of the server: everything that it sends is a client's doing.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::Process;
use crate::rig::{Rig, free_port};
use crate::{http, programs};

/// What it understands of what it passes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Http,
    Tcp,
}

#[derive(Debug)]
pub struct Haproxy {
    pub process: Process,
    pub port: u16,
    socket: PathBuf,
}

impl Haproxy {
    /// Starts in the test's control group, in front of the server at port `upstream`.
    pub fn start(rig: &Rig, mode: Mode, upstream: u16) -> Result<Self> {
        let port = free_port()?;
        let mode = if mode == Mode::Http { "http" } else { "tcp" };
        let asked = rig.dir().join(format!("haproxy-{port}.sock"));
        let socket = asked.display();
        let text = format!(
            "global
  maxconn 200
  maxpipes 100
  nbthread 1
  stats socket {socket}
defaults
  mode {mode}
  option splice-auto
  option splice-request
  option splice-response
  timeout connect 10s
  timeout client 60s
  timeout server 60s
frontend in
  bind 127.0.0.1:{port}
  default_backend out
backend out
  server one 127.0.0.1:{upstream}
"
        );
        let mut command = Command::new(programs::find("haproxy")?);
        command.arg("-db").arg("-f").arg(rig.file(&format!("haproxy-{port}.cfg"), &text)?);
        let mut process = rig.inside(&format!("haproxy-{port}"), command)?;
        process.await_ready(Duration::from_secs(10), || http::listens(port))?;
        Ok(Self { process, port, socket: asked })
    }

    /// Pipes that it has made to splice through.
    pub fn pipes(&self) -> Result<u64> {
        let mut socket = UnixStream::connect(&self.socket)?;
        socket.write_all(b"show info\n")?;
        let mut said = String::new();
        socket.read_to_string(&mut said)?;
        let lines = said.lines().filter_map(|line| line.split_once(": "));
        let pipes = lines.filter(|(name, _)| matches!(*name, "PipesUsed" | "PipesFree"));
        pipes.map(|(_, count)| count.parse::<u64>().context("a count of pipes")).sum()
    }
}
