//! A real nginx: answers from memory, from a file with sendfile, from another server, and with failures on demand.
//!
//! Its access log is the other side's number: one tab-separated line a request.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::netns::Netns;
use crate::process::Process;
use crate::rig::{Rig, free_port};
use crate::{http, programs, wait};

/// Bytes of the file at `/static/file`: several times what one capture holds.
pub const FILE_BYTES: usize = 100_000;

#[derive(Debug)]
pub struct Nginx {
    pub process: Process,
    pub port: u16,
    dir: PathBuf,
}

/// One line of the access log.
#[derive(Clone, Debug)]
pub struct Request {
    pub status: String,
    /// `$request_time`: whole milliseconds.
    pub time_ms: u64,
    pub method: String,
    pub path: String,
}

impl Nginx {
    /// Starts in the test's control group; `/up/` is passed to the server at port `upstream`.
    pub fn start(rig: &Rig, upstream: Option<u16>) -> Result<Self> {
        let port = free_port()?;
        let (program, address) = (Command::new(programs::find("nginx")?), IpAddr::V4(Ipv4Addr::LOCALHOST));
        Self::start_by(rig, program, (address, port), upstream, || http::listens(port))
    }

    /// Starts in the test's control group and in a network namespace.
    pub fn start_in(rig: &Rig, namespace: &Netns, place: (IpAddr, u16)) -> Result<Self> {
        let mut program = Command::new(programs::find("nginx")?);
        namespace.enter(&mut program)?;
        Self::start_by(rig, program, place, None, || namespace.listens(place.0, place.1))
    }

    fn start_by(
        rig: &Rig,
        mut command: Command,
        (address, port): (IpAddr, u16),
        upstream: Option<u16>,
        listens: impl Fn() -> bool,
    ) -> Result<Self> {
        let dir = rig.dir().join(format!("nginx-{port}"));
        fs::create_dir_all(dir.join("static"))?;
        fs::write(dir.join("static/file"), "x".repeat(FILE_BYTES))?;
        fs::write(dir.join("nginx.conf"), configuration(&dir.display().to_string(), address, port, upstream))?;
        command.arg("-p").arg(&dir).arg("-c").arg(dir.join("nginx.conf")).arg("-e").arg(dir.join("error.log"));
        let mut process = rig.inside(&format!("nginx-{port}"), command)?;
        process.await_ready(Duration::from_secs(10), listens)?;
        Ok(Self { process, port, dir })
    }

    /// From now on `/fail` answers 500 (or 200 again).
    pub fn fail(&self, failing: bool) -> Result<()> {
        let flag = self.dir.join("failing");
        if failing {
            fs::write(flag, "")?
        } else {
            fs::remove_file(flag)?
        }
        Ok(())
    }

    /// Where a file lies that it serves under `/static/`.
    pub fn static_file(&self, name: &str) -> PathBuf {
        self.dir.join("static").join(name)
    }

    /// The requests that it logged.
    pub fn log(&self) -> Result<Vec<Request>> {
        let text = fs::read_to_string(self.dir.join("access.log"))?;
        let complete = text.rfind('\n').map_or("", |end| text.get(..end).unwrap_or(""));
        complete.lines().map(|line| parse(line).with_context(|| format!("access log: {line}"))).collect()
    }

    /// Waits until it has logged `count` requests.
    pub fn logged(&self, count: usize, limit: Duration) -> Result<Vec<Request>> {
        wait::until(&format!("{count} lines in nginx's log"), limit, || {
            // Counting is cheap enough to leave the processors to the load; parsing is not.
            let lines = fs::read(self.dir.join("access.log"))?.iter().filter(|byte| **byte == b'\n').count();
            if lines >= count { self.log().map(Some) } else { Ok(None) }
        })
    }
}

fn parse(line: &str) -> Result<Request> {
    let words: Vec<&str> = line.split('\t').collect();
    let [status, seconds, method, path] = words[..] else { anyhow::bail!("not four fields") };
    let seconds: f64 = seconds.parse()?;
    ensure!(seconds >= 0.0, "a negative time");
    Ok(Request {
        status: status.to_owned(),
        time_ms: (seconds * 1e3).round() as u64,
        method: method.to_owned(),
        path: path.to_owned(),
    })
}

fn configuration(dir: &str, address: IpAddr, port: u16, upstream: Option<u16>) -> String {
    let (group, pass) = upstream.map_or_else(Default::default, |port| {
        let group = format!("upstream up {{ server 127.0.0.1:{port}; keepalive 8; }}");
        let pass = "location /up/ { proxy_pass http://up/; proxy_http_version 1.1; proxy_set_header Connection ''; }";
        (group, pass)
    });
    format!(
        r#"
user root;
worker_processes 2;
daemon off;
pid {dir}/nginx.pid;
events {{ worker_connections 1024; }}
http {{
  log_format line '$status\t$request_time\t$request_method\t$request_uri';
  access_log {dir}/access.log line;
  client_body_temp_path {dir}/body;
  proxy_temp_path {dir}/proxy;
  fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi;
  scgi_temp_path {dir}/scgi;
  keepalive_requests 1000000;
  sendfile on;
  default_type text/plain;
  {group}
  server {{
    listen {address}:{port};
    location / {{ return 200 "ok\n"; }}
    location /missing {{ return 404 "missing\n"; }}
    location /fail {{ if (-f {dir}/failing) {{ return 500 "failing\n"; }} return 200 "well\n"; }}
    location /static/ {{ root {dir}; }}
    {pass}
  }}
}}
"#
    )
}
