//! The servers that are no part of the question: Redis, PostgreSQL, and nginx or HAProxy as a proxy.
//!
//! Each listens on a loopback port of its own and keeps its files in the run's folder; PostgreSQL runs as nobody, since it
//! refuses root. None is secured: they live for minutes, and only for the lab.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::{shell, workspace};

const NOBODY: u32 = 65534;
/// Where Debian keeps a folder for each version.
const POSTGRESQL: &str = "/usr/lib/postgresql";
const SETTINGS: &str = "listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\nfsync = off\nssl = off\n\
                        max_connections = 200\njit = off\n";

/// What may stand between S1 and S2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Proxy {
    Nginx,
    Haproxy,
}

fn program(name: &str) -> Result<PathBuf> {
    workspace::program(name).with_context(|| format!("no {name} here: run `cargo xtask setup --accuracy`"))
}

pub(super) fn redis(folder: &Path, port: u16) -> Result<Command> {
    let mut command = Command::new(program("redis-server")?);
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    command.arg("--dir").arg(folder);
    Ok(command)
}

/// Makes a cluster in `folder` and gives the command of its server.
pub(super) fn postgresql(folder: &Path, port: u16) -> Result<Command> {
    let programs = fs::read_dir(POSTGRESQL)
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin"))
        .filter(|programs| programs.join("postgres").is_file())
        .max()
        .context("no PostgreSQL here: run `cargo xtask setup --accuracy`")?;
    let unprivileged = |name: &str| {
        let mut command = Command::new(programs.join(name));
        command.current_dir("/").env("HOME", "/");
        // Only root may become somebody else, and only root is refused.
        if workspace::is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    };
    let cluster = folder.join("postgresql");
    fs::create_dir(&cluster)?;
    if workspace::is_root() {
        chown(&cluster, Some(NOBODY), Some(NOBODY))?;
    }
    let mut make = unprivileged("initdb");
    make.arg("-D").arg(&cluster).args(["-U", "lab", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]);
    shell::output(&mut make)?;
    fs::OpenOptions::new().append(true).open(cluster.join("postgresql.conf"))?.write_all(SETTINGS.as_bytes())?;
    let mut command = unprivileged("postgres");
    command.arg("-D").arg(&cluster).args(["-p", &port.to_string()]);
    Ok(command)
}

/// A proxy that listens at `port` and keeps its connections to the server at `upstream`.
pub(super) fn proxy(kind: Proxy, folder: &Path, port: u16, upstream: u16) -> Result<Command> {
    let (name, text) = match kind {
        Proxy::Nginx => ("nginx", nginx(folder, port, upstream)),
        Proxy::Haproxy => ("haproxy", haproxy(port, upstream)),
    };
    let file = folder.join(format!("{name}-{port}.conf"));
    fs::write(&file, text)?;
    let mut command = Command::new(program(name)?);
    match kind {
        Proxy::Nginx => command.args(["-e", "stderr", "-c"]).arg(file),
        Proxy::Haproxy => command.args(["-db", "-f"]).arg(file),
    };
    Ok(command)
}

fn nginx(folder: &Path, port: u16, upstream: u16) -> String {
    let own = folder.join(format!("nginx-{port}"));
    let own = own.display();
    format!(
        "daemon off;
worker_processes 1;
pid {own}.pid;
error_log stderr error;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path {own}-body;
  proxy_temp_path {own}-proxy;
  fastcgi_temp_path {own}-fastcgi;
  uwsgi_temp_path {own}-uwsgi;
  scgi_temp_path {own}-scgi;
  keepalive_timeout 60s;
  keepalive_requests 1000000;
  upstream s2 {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://s2;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
    }}
  }}
}}
"
    )
}

/// A span's port of a server is what its request names; so the header has to name the one behind the proxy.
fn haproxy(port: u16, upstream: u16) -> String {
    format!(
        "global
  maxconn 500
defaults
  mode http
  http-reuse always
  timeout connect 10s
  timeout client 60s
  timeout server 60s
frontend in
  bind 127.0.0.1:{port}
  default_backend s2
backend s2
  http-request set-header Host 127.0.0.1:{upstream}
  server one 127.0.0.1:{upstream}
"
    )
}
