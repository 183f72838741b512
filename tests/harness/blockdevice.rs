//! A loop device on a file of the test, and the kernel's own account of it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::output;
use crate::programs;
use crate::rig::Rig;

const LIMIT: Duration = Duration::from_secs(20);

/// A free loop device of this machine, given back when dropped.
#[derive(Debug)]
pub struct Loop {
    device: PathBuf,
    dir: PathBuf,
}

/// What the kernel counted for a device: `/proc/diskstats` from its fourth field on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    pub reads: u64,
    pub read_bytes: u64,
    /// Time of all reads together, ms.
    pub read_ms: u64,
    pub writes: u64,
    pub written_bytes: u64,
    pub active: u64,
}

impl Loop {
    /// A device of so many bytes, which goes to its file without the page cache.
    pub fn new(rig: &Rig, bytes: u64) -> Result<Self> {
        let file = rig.dir().join("device");
        File::create(&file)?.set_len(bytes)?;
        Self::on(rig, &file)
    }

    /// A device whose requests go to another one, on behalf of who made them.
    pub fn above(rig: &Rig, below: &Self) -> Result<Self> {
        Self::on(rig, &below.device)
    }

    fn on(rig: &Rig, file: &Path) -> Result<Self> {
        let mut command = Command::new(programs::find("losetup")?);
        command.args(["--find", "--show", "--direct-io=on"]).arg(file);
        let (status, out, err) = output(command, rig.dir(), "losetup", LIMIT)?;
        ensure!(status.success(), "losetup: {err}");
        Ok(Self { device: PathBuf::from(out.trim()), dir: rig.dir().to_owned() })
    }

    pub fn path(&self) -> &Path {
        &self.device
    }

    /// As metrics name it.
    pub fn name(&self) -> Result<&str> {
        self.device.file_name().and_then(|name| name.to_str()).context("a device has a name")
    }

    /// `MAJOR:MINOR`.
    pub fn number(&self) -> Result<String> {
        let file = Path::new("/sys/class/block").join(self.name()?).join("dev");
        Ok(fs::read_to_string(&file).with_context(|| file.display().to_string())?.trim().to_owned())
    }

    pub fn account(&self) -> Result<Account> {
        const SECTOR: u64 = 512;
        let text = fs::read_to_string("/proc/diskstats")?;
        let name = self.name()?;
        let words = text.lines().map(|line| line.split_ascii_whitespace().skip(2).collect::<Vec<_>>());
        let words = words.into_iter().find(|words| words.first() == Some(&name)).context("not in /proc/diskstats")?;
        let number = |at: usize| -> Result<u64> { Ok(words.get(at).context("a short line")?.parse()?) };
        Ok(Account {
            reads: number(1)?,
            read_bytes: number(3)? * SECTOR,
            read_ms: number(4)?,
            writes: number(5)?,
            written_bytes: number(7)? * SECTOR,
            active: number(9)?,
        })
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let Ok(losetup) = programs::find("losetup") else { return };
        let mut command = Command::new(losetup);
        command.arg("--detach").arg(&self.device);
        match output(command, &self.dir, "losetup", LIMIT) {
            Ok((status, ..)) if status.success() => {}
            other => eprintln!("{} could not be given back: {other:?}", self.device.display()),
        }
    }
}
