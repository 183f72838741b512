//! A control group of a test with little memory.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::controller::Controller;

#[derive(Debug)]
pub struct MemoryLimit(Controller);

impl MemoryLimit {
    /// A group of so many bytes, without swap.
    pub fn new(bytes: u64) -> Result<Self> {
        let group = Controller::new("memory")?;
        let files = if group.version_1 {
            [("memory.swappiness", 0), ("memory.limit_in_bytes", bytes)]
        } else {
            [("memory.swap.max", 0), ("memory.max", bytes)]
        };
        for (file, value) in files {
            group.set(file, &value.to_string())?;
        }
        Ok(Self(group))
    }

    /// What a process writes `0` to in order to move itself in.
    pub fn door(&self) -> PathBuf {
        self.0.door()
    }

    /// Processes that were killed in the group because it had no memory, by the kernel's account.
    pub fn kills(&self) -> Result<u64> {
        let text = self.0.read(if self.0.version_1 { "memory.oom_control" } else { "memory.events" })?;
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        Ok(line.context("the kernel does not count kills")?.trim().parse()?)
    }

    /// How often the limit was reached, by the kernel's account.
    pub fn reached(&self) -> Result<u64> {
        if self.0.version_1 {
            return Ok(self.0.read("memory.failcnt")?.trim().parse()?);
        }
        let text = self.0.read("memory.events")?;
        let line = text.lines().find_map(|line| line.strip_prefix("max "));
        Ok(line.context("the kernel does not count it")?.trim().parse()?)
    }
}
