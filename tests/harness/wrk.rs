//! wrk with an exact number of requests: a script hands out that many and then lets the connections idle.
//!
//! wrk itself knows only durations; cut off in the middle of requests, neither side's count means much.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::Process;
use crate::programs;
use crate::rig::Rig;

#[derive(Clone, Debug)]
pub struct Load {
    /// Requests in all; a multiple of `depth`.
    pub requests: usize,
    pub connections: usize,
    /// Requests sent in one write before the first answer is read; 1 is no pipelining.
    pub depth: usize,
    /// Asked for in turn.
    pub paths: Vec<String>,
}

#[derive(Debug)]
pub struct Wrk {
    process: Process,
}

impl Wrk {
    /// Starts in the test's control group. One thread: the script's count is the thread's own.
    pub fn start(rig: &Rig, port: u16, load: &Load) -> Result<Self> {
        let paths: Vec<String> = load.paths.iter().map(|path| format!("{path:?}")).collect();
        let script = format!(
            "local left, depth, paths = {}, {}, {{{}}}\n{}",
            load.requests,
            load.depth,
            paths.join(", "),
            include_str!("scripts/exact.lua")
        );
        let script = rig.file(&format!("wrk-{port}.lua"), &script)?;
        let mut command = Command::new(programs::find("wrk")?);
        command.args(["-t", "1", "-d", "120s", "--timeout", "60s", "-c", &load.connections.to_string(), "-s"]);
        command.arg(script).arg(format!("http://127.0.0.1:{port}/"));
        Ok(Self { process: rig.inside("wrk", command)? })
    }

    /// Plain wrk for a number of seconds, cut off wherever it is then.
    pub fn plain(rig: &Rig, port: u16, connections: usize, seconds: usize) -> Result<Self> {
        let mut command = Command::new(programs::find("wrk")?);
        command.args(["-t", "1", "-d", &format!("{seconds}s"), "-c", &connections.to_string()]);
        command.arg(format!("http://127.0.0.1:{port}/"));
        Ok(Self { process: rig.inside("wrk", command)? })
    }

    /// Interrupts it, which makes it print its summary, and returns the number of answers that it counted.
    pub fn interrupt(mut self) -> Result<usize> {
        self.process.signal(libc::SIGINT);
        self.finish()
    }

    /// Waits for its end and returns the number of answers that it counted.
    pub fn finish(&mut self) -> Result<usize> {
        let out = self.process.finish(Duration::from_secs(60))?;
        out.lines()
            .find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok())
            .with_context(|| format!("no count in what wrk said: {out}"))
    }
}
