//! A test client that acts out conversations on one connection, part by part, as the test tells it.
//!
//! Both ends of the connection are in the client's process. A part is over when the client says so: everything in it was
//! written by one end and read by the other.

use std::io::Write;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::conversation::{Step, client, server, to_json};
use crate::process::Process;
use crate::rig::Rig;
use crate::wait;

const LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Player {
    pub process: Process,
    input: ChildStdin,
    parts: usize,
}

impl Player {
    /// Starts the test client `program` under `name` with `words` (`play`, `play PORT`, `apart`), where `start` puts it. It
    /// connects when it is given its first part.
    pub fn start(
        rig: &Rig,
        program: &str,
        name: &str,
        words: &[&str],
        start: impl FnOnce(Command) -> Result<Process>,
    ) -> Result<Self> {
        let mut command = Command::new(rig.named(Path::new(program), name)?);
        command.args(words).stdin(Stdio::piped());
        let mut process = start(command)?;
        let input = process.input()?;
        Ok(Self { process, input, parts: 0 })
    }

    /// Acts out one part and waits for its end.
    pub fn play(&mut self, steps: &[Step]) -> Result<()> {
        writeln!(self.input, "{}", to_json(steps))?;
        self.parts += 1;
        wait::until("a part of the conversation", LIMIT, || {
            anyhow::ensure!(self.process.ended()?.is_none(), "the client ended: {}", self.process.err());
            Ok((self.process.out().lines().count() >= self.parts).then_some(()))
        })
        .with_context(|| format!("part {}", self.parts))
    }

    /// One request for `path` and its answer.
    pub fn request(&mut self, path: &str) -> Result<()> {
        self.play(&[
            client(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")),
            server("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        ])
    }

    /// Closes both ends and ends.
    pub fn finish(mut self) -> Result<()> {
        drop(self.input);
        self.process.finish(LIMIT).map(|_| ())
    }
}
