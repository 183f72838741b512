//! The agent under measurement: started with a configuration, ready, asked over HTTP, stopped by its pid.
//!
//! It only counts as attached when the programs it was asked for are in the kernel: a measurement with a program
//! missing would be of something else. Environment variables that would change its configuration are taken away.

use std::env;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::cpu;

/// From start to ready.
const START_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(5);
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks at whether it is ready or gone.
const PATIENCE: Duration = Duration::from_millis(5);
/// Lines of its log that are shown when it fails.
const SHOWN_LINES: usize = 8;

/// A kernel program as `/api/seismo/probes` shows it.
#[derive(Clone, Debug, Deserialize)]
pub struct Program {
    pub probe: String,
    pub program: String,
    pub hook: String,
    pub state: String,
    #[serde(default)]
    pub reason: String,
    /// Known only while the kernel keeps run statistics.
    pub runs: Option<u64>,
    pub run_ns: Option<u64>,
    #[serde(default)]
    pub verified_instructions: u64,
}

/// A running agent; killed when dropped without [`Agent::stop`].
pub struct Agent {
    process: Child,
    address: SocketAddr,
    log: PathBuf,
    /// From its start until it said that it is ready.
    pub start_up: Duration,
}

impl Agent {
    /// Starts it and waits until all programs of `families` are attached. Its files go into `folder`.
    pub fn start(program: &Path, folder: &Path, configuration: &str, families: &[&str]) -> Result<Self> {
        let (file, log) = (folder.join("agent.yaml"), folder.join("agent.log"));
        fs::write(&file, configuration)?;
        let output = File::create(&log)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let mut command = Command::new(program);
        command.arg("run").arg("--config").arg(&file).arg("--listen").arg(address.to_string());
        for (name, _) in env::vars_os() {
            if ["SEISMO_", "OTEL_"].iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes())) {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let started = Instant::now();
        let process = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let mut agent = Self { process, address, log, start_up: Duration::ZERO };
        agent.wait_until_ready(started)?;
        check(&agent.programs()?, families)?;
        Ok(agent)
    }

    fn wait_until_ready(&mut self, started: Instant) -> Result<()> {
        loop {
            if let Some(status) = self.process.try_wait()? {
                bail!("the agent ended before it was ready: {status}{}", self.last_words());
            }
            let answer = self.answer("/readyz");
            if let Ok((200, _)) = answer {
                self.start_up = started.elapsed();
                return Ok(());
            }
            if started.elapsed() > START_LIMIT {
                let said = answer.map_or_else(|error| format!("{error:#}"), |(_, text)| text);
                bail!("the agent was not ready within {} s: {}", START_LIMIT.as_secs(), said.trim());
            }
            thread::sleep(PATIENCE);
        }
    }

    /// Its kernel programs, with their run statistics when these are on. What it reads of files is no program.
    pub fn programs(&self) -> Result<Vec<Program>> {
        let all = serde_json::from_str(&self.get("/api/seismo/probes")?).context("/api/seismo/probes");
        all.map(|all: Vec<Program>| all.into_iter().filter(|each| !each.hook.starts_with("file/")).collect())
    }

    /// The page at `path`.
    pub fn get(&self, path: &str) -> Result<String> {
        match self.answer(path)? {
            (200, page) => Ok(page),
            (status, page) => bail!("{path}: {status}: {}", page.trim()),
        }
    }

    /// As HTTP/1.0, whose answers end with the connection: nothing to decode.
    fn answer(&self, path: &str) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect_timeout(&self.address, ANSWER_LIMIT)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address)?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        split_answer(&text).with_context(|| format!("{path}: not an HTTP answer"))
    }

    /// CPU time so far.
    pub fn cpu(&self) -> Result<Duration> {
        cpu::of_process(self.process.id())
    }

    /// CPU time so far of its threads of this name.
    pub fn threads_cpu(&self, name: &str) -> Result<Duration> {
        cpu::of_threads(self.process.id(), name)
    }

    /// Memory of it that is resident, MB of 10^6 bytes.
    pub fn resident_mb(&self) -> Result<f64> {
        resident_mb(self.process.id())
    }

    /// Stops it as systemd would, and fails unless it ends well.
    pub fn stop(mut self) -> Result<()> {
        // SAFETY: takes no pointer; the child is ours and has not been waited for, so the pid is still its own.
        unsafe { libc::kill(libc::pid_t::try_from(self.process.id())?, libc::SIGTERM) };
        let deadline = Instant::now() + STOP_LIMIT;
        loop {
            match self.process.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("the agent ended with {status}{}", self.last_words()),
                None if Instant::now() > deadline => bail!("the agent did not end within {} s", STOP_LIMIT.as_secs()),
                None => thread::sleep(PATIENCE),
            }
        }
    }

    /// The last lines of its log, each after a line break.
    fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let skipped = log.lines().count().saturating_sub(SHOWN_LINES);
        log.lines().skip(skipped).map(|line| format!("\n{line}")).collect()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Both fail only when it has ended already, which is what is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Memory of a process that is resident, MB of 10^6 bytes.
pub fn resident_mb(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    resident_kib(&status).map(|kib| kib * 1024.0 / 1e6).context("no VmRSS in the status of the process")
}

/// A port that nothing listens on now.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Fails unless every family is there whole. What the kernel does not offer cannot cost anything, nor can what belongs
/// to a tier that is not used; a family that is switched off has no active program.
fn check(programs: &[Program], families: &[&str]) -> Result<()> {
    for family in families {
        let of_family: Vec<_> = programs.iter().filter(|program| program.probe == *family).collect();
        if let Some(missing) =
            of_family.iter().find(|program| !["active", "unsupported", "disabled"].contains(&program.state.as_str()))
        {
            bail!("{} is {}: {}", missing.program, missing.state, missing.reason);
        }
        if !of_family.iter().any(|program| program.state == "active") {
            bail!("no program of the family {family} is active");
        }
    }
    Ok(())
}

fn split_answer(text: &str) -> Option<(u16, String)> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

fn resident_kib(status: &str) -> Option<f64> {
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::{Program, check, resident_kib, split_answer};

    fn programs(states: &[(&str, &str, &str)]) -> Vec<Program> {
        let shown: Vec<_> = states
            .iter()
            .map(|(probe, program, state)| {
                serde_json::json!({ "probe": probe, "program": program, "hook": "tp_btf/x", "state": state, "reason": "why" })
            })
            .collect();
        serde_json::from_value(shown.into()).unwrap()
    }

    #[test]
    fn a_family_counts_as_attached_only_when_it_is_whole() {
        let seen = programs(&[
            ("syscall", "syscall_enter", "active"),
            ("syscall", "syscall_exit", "failed"),
            ("tcp", "tcp_state", "active"),
            ("tcp", "tcp_reset", "unsupported"),
            ("tcp", "tcp_other_tier", "disabled"),
            ("payload", "payload_send", "disabled"),
        ]);
        assert!(check(&seen, &["tcp"]).is_ok());
        assert_eq!(check(&seen, &["tcp", "syscall"]).unwrap_err().to_string(), "syscall_exit is failed: why");
        assert_eq!(check(&seen, &["payload"]).unwrap_err().to_string(), "no program of the family payload is active");
        assert_eq!(check(&seen, &["floor"]).unwrap_err().to_string(), "no program of the family floor is active");
    }

    #[test]
    fn an_answer_is_its_status_and_its_page() {
        let answer = "HTTP/1.0 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nwhy\n";
        assert_eq!(split_answer(answer), Some((503, "why\n".to_owned())));
        assert_eq!(split_answer("HTTP/1.0 200 OK\r\n"), None);
        assert_eq!(split_answer("220 mail\r\n\r\n"), None);
    }

    #[test]
    fn resident_memory_is_read_from_the_process_status() {
        assert_eq!(resident_kib("VmHWM:\t   9000 kB\nVmRSS:\t    8192 kB\n"), Some(8192.0));
        assert_eq!(resident_kib("Name:\tx\n"), None);
    }
}
