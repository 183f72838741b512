//! The HTTP workload: one nginx worker answers 22 bytes from memory to wrk's 16 keep-alive connections on loopback.
//!
//! nginx's cost is the CPU time of master and worker per request; wrk's own is told apart. They live in two cgroups,
//! and only nginx is ever in scope: each request is seen once, by its server. wrk counts the requests; those under way
//! at its end (at most 16) are nobody's.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::agent::free_port;
use super::cgroup::Cgroup;
use super::cpu;
use crate::workspace;

const CONNECTIONS: u32 = 16;
const START_LIMIT: Duration = Duration::from_secs(5);
const STOP_LIMIT: Duration = Duration::from_secs(2);
/// wrk is stopped by a signal after a burst; should that get lost, it ends by itself.
const LONGEST_BURST_SECONDS: u64 = 20;

/// What one burst of requests cost.
#[derive(Clone, Copy, Debug)]
pub struct Burst {
    pub requests: u64,
    pub server: Duration,
    pub client: Duration,
}

/// A running nginx; stopped when dropped.
pub struct Nginx {
    master: Child,
    port: u16,
    server: Cgroup,
    client: Cgroup,
}

impl Nginx {
    /// Starts it with its files in `folder`, in a cgroup of its own.
    pub fn start(folder: &Path) -> Result<Self> {
        let program = workspace::program("nginx").context(MISSING)?;
        workspace::program("wrk").context(MISSING)?;
        let (server, client) = (Cgroup::create("nginx")?, Cgroup::create("wrk")?);
        let port = free_port()?;
        let file = folder.join("nginx.conf");
        fs::write(&file, configuration(folder, port))?;
        let mut command = Command::new(program);
        command.args(["-e", "stderr", "-c"]).arg(&file).stdin(Stdio::null()).stdout(Stdio::null());
        server.adopt(&mut command)?;
        let master = command.spawn().context("cannot start nginx")?;
        let mut nginx = Self { master, port, server, client };
        nginx.wait_until_it_listens()?;
        Ok(nginx)
    }

    fn wait_until_it_listens(&mut self) -> Result<()> {
        let started = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            if let Some(status) = self.master.try_wait()? {
                bail!("nginx ended before it listened: {status}");
            }
            if started.elapsed() > START_LIMIT {
                bail!("nginx did not listen within {} s", START_LIMIT.as_secs());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// The cgroup of nginx, without wrk.
    pub fn cgroup(&self) -> &Path {
        self.server.path()
    }

    /// Requests as fast as they are answered, on new connections, for `length`.
    pub fn burst(&self, length: Duration) -> Result<Burst> {
        let program = workspace::program("wrk").context(MISSING)?;
        let mut command = Command::new(program);
        command
            .args(["-t1", &format!("-c{CONNECTIONS}"), &format!("-d{LONGEST_BURST_SECONDS}s")])
            .arg(format!("http://127.0.0.1:{}/", self.port))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        self.client.adopt(&mut command)?;
        let (server, client) = (self.cpu()?, cpu::of_reaped_children()?);
        let wrk = command.spawn().context("cannot start wrk")?;
        thread::sleep(length);
        // SAFETY: takes no pointer; the child is ours and has not been waited for, so the pid is still its own.
        unsafe { libc::kill(libc::pid_t::try_from(wrk.id())?, libc::SIGINT) };
        let output = wrk.wait_with_output()?;
        let requests = parse(&String::from_utf8_lossy(&output.stdout))?;
        Ok(Burst { requests, server: self.cpu()? - server, client: cpu::of_reaped_children()? - client })
    }

    fn cpu(&self) -> Result<Duration> {
        self.server.processes()?.into_iter().map(cpu::of_process).sum()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let deadline = Instant::now() + STOP_LIMIT;
        if let Ok(pid) = libc::pid_t::try_from(self.master.id()) {
            // SAFETY: takes no pointer; the child is ours, and as long as nobody waited for it the pid is its own.
            unsafe { libc::kill(pid, libc::SIGTERM) };
        }
        while self.master.try_wait().is_ok_and(|status| status.is_none()) {
            if Instant::now() > deadline {
                // Ended already or about to; its cgroup ends the worker.
                let _ = self.master.kill();
                let _ = self.master.wait();
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

const MISSING: &str = "nginx or wrk is missing: run `cargo xtask setup --test`";

fn configuration(folder: &Path, port: u16) -> String {
    let folder = folder.display();
    format!(
        "daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
events {{ worker_connections 256; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location / {{ default_type text/plain; return 200 \"twenty-two bytes long\\n\"; }}
  }}
}}
"
    )
}

/// Requests answered, from what wrk printed. A failed request would be cheaper than an answered one.
fn parse(printed: &str) -> Result<u64> {
    for sign in ["Socket errors:", "Non-2xx or 3xx responses:"] {
        if let Some(line) = printed.lines().find(|line| line.trim_start().starts_with(sign)) {
            bail!("wrk saw failures: {}", line.trim());
        }
    }
    let requests = printed.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok());
    match requests {
        Some(requests) if requests > 0 => Ok(requests),
        _ => bail!("wrk made no requests: {}", printed.trim()),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    const PRINTED: &str = "Running 20s test @ http://127.0.0.1:18081/\n  1 threads and 16 connections\n  33208 requests in 500.67ms, 5.38MB read\nRequests/sec:  66327.78\n";

    #[test]
    fn requests_are_counted_by_wrk() {
        assert_eq!(parse(PRINTED).unwrap(), 33208);
    }

    #[test]
    fn failed_requests_are_no_measurement() {
        let refused = format!("{PRINTED}  Socket errors: connect 0, read 3, write 0, timeout 0\n");
        assert!(parse(&refused).unwrap_err().to_string().contains("read 3"));
        assert!(parse(&format!("{PRINTED}  Non-2xx or 3xx responses: 7\n")).is_err());
        assert!(parse("  0 requests in 1.00s, 0B read\n").is_err());
        assert!(parse("unable to connect\n").is_err());
    }
}
