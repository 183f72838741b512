//! `seismo tap`: the payload records as the kernel programs wrote them, one JSON object a line.

use std::cell::RefCell;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process::Process;
use crate::rig::Rig;
use crate::{pattern, programs, wait};

/// Ended by the test, never by its own clock: on an emulated machine loading alone takes a minute.
const DURATION: &str = "1h";

/// One record.
#[derive(Clone, Debug)]
pub struct Record {
    pub tgid: u32,
    pub cookie: u64,
    /// `send` or `receive`.
    pub direction: String,
    pub sequence: u32,
    /// Place in its stream, counted from the connection's beginning.
    pub position: u64,
    pub transport: String,
    pub length: u32,
    /// Name of the system call in the thread's registers; empty if there is none.
    pub syscall: String,
    /// Why fewer bytes than `length` were captured.
    pub cut: Vec<String>,
    pub data: Vec<u8>,
}

#[derive(Debug)]
pub struct Tap {
    process: Process,
    /// Bytes of its output that were read, and the records in them.
    read: RefCell<(usize, Vec<Record>)>,
}

impl Tap {
    pub fn start(rig: &Rig, scopes: &[String]) -> Result<Self> {
        Self::start_with(rig, scopes, &[])
    }

    /// With `SEISMO_…` variables.
    pub fn start_with(rig: &Rig, scopes: &[String], variables: &[(&str, &str)]) -> Result<Self> {
        let mut command = Command::new(programs::seismo()?);
        command.args(["tap", "--json", "--duration", DURATION]);
        let own = vec![format!("cgroup={}", rig.cgroup().path().display())];
        for scope in if scopes.is_empty() { &own } else { scopes } {
            command.args(["--scope", scope]);
        }
        command.envs(variables.iter().copied());
        Ok(Self { process: rig.outside("tap", command)?, read: RefCell::default() })
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Complete records so far.
    pub fn records(&self) -> Result<Vec<Record>> {
        let text = self.process.out();
        let mut read = self.read.borrow_mut();
        let new = text.get(read.0..).unwrap_or_default();
        let complete = new.rfind('\n').map_or("", |end| new.get(..=end).unwrap_or(""));
        for line in complete.lines() {
            read.1.push(parse(line).with_context(|| format!("not a record: {line}"))?);
        }
        read.0 += complete.len();
        Ok(read.1.clone())
    }

    /// The records of each of `count` steps that a client played and marked, when the last mark has come; the first
    /// `before` records are of others. A mark is sent after everything that it marks, and the ring keeps that order: what
    /// is not there by then was not told.
    pub fn steps(&self, before: usize, count: usize) -> Result<Vec<Vec<Record>>> {
        let mark = |record: &Record| pattern::marked(&record.data).filter(|_| record.direction == "send");
        let last = || Ok(self.records()?.iter().skip(before).any(|record| mark(record) == Some(count)).then_some(()));
        wait::until(&format!("the mark of step {count}"), Duration::from_secs(10), last)?;
        let mut steps = vec![Vec::new(); count];
        let mut step = Some(0);
        for record in self.records()?.into_iter().skip(before) {
            match mark(&record) {
                Some(number) => step = Some(number).filter(|number| *number < count),
                None => drop(step.and_then(|step| steps.get_mut(step)).map(|step| step.push(record))),
            }
        }
        Ok(steps)
    }

    /// Runs `beacon` until a record shows that the programs are attached.
    pub fn await_attached(&mut self, mut beacon: impl FnMut() -> Result<()>) -> Result<()> {
        wait::until("the tap's first record", Duration::from_secs(30), || {
            anyhow::ensure!(self.process.ended()?.is_none(), "the tap ended: {}", self.process.err());
            beacon()?;
            Ok((!self.records()?.is_empty()).then_some(()))
        })
    }

    /// Waits until the records of a process cover `bytes`, and returns them.
    pub fn of(&self, tgid: u32, direction: &str, bytes: usize) -> Result<Vec<Record>> {
        let read = || {
            let all = self.records()?;
            Ok(all.into_iter().filter(|record| record.tgid == tgid && record.direction == direction).collect())
        };
        let enough = wait::until("all bytes of a transfer in the tap", Duration::from_secs(5), || {
            let records: Vec<Record> = read()?;
            let seen: usize = records.iter().map(|record| record.length as usize).sum();
            Ok((seen >= bytes).then_some(records))
        });
        // What is missing is for the test to say.
        enough.or_else(|_| read())
    }
}

fn parse(line: &str) -> Result<Record> {
    let json: Value = serde_json::from_str(line)?;
    let number = |key: &str| json.get(key).and_then(Value::as_i64).with_context(|| key.to_owned());
    let text = |key: &str| json.get(key).and_then(Value::as_str).with_context(|| key.to_owned());
    let data = unhex(text("data_hex")?)?;
    anyhow::ensure!(number("captured")? as usize == data.len(), "captured is not the length of the bytes");
    Ok(Record {
        tgid: number("tgid")?.try_into()?,
        cookie: json.get("cookie").and_then(Value::as_u64).context("cookie")?,
        direction: text("direction")?.to_owned(),
        sequence: number("sequence")?.try_into()?,
        position: json.get("position").and_then(Value::as_u64).context("position")?,
        transport: text("transport")?.to_owned(),
        length: number("length")?.try_into()?,
        syscall: json.get("syscall").and_then(Value::as_str).unwrap_or_default().to_owned(),
        cut: serde_json::from_value(json.get("cut").context("cut")?.clone())?,
        data,
    })
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|digit| Some(digit.to_digit(16)? as u8)).collect();
    let digits = digits.context("not hexadecimal")?;
    Ok(digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect())
}
