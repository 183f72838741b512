//! A process that the test started: in its own process group, with its output in files, ended by id.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::wait;

/// Lines of each output shown when a test fails.
const SHOWN_LINES: usize = 40;
/// Characters shown of each line.
const SHOWN_WIDTH: usize = 400;

#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    out: PathBuf,
    err: PathBuf,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` with its output in `dir`; `door` is the `cgroup.procs` file of the group to enter.
    pub fn start(name: &str, dir: &Path, mut command: Command, door: Option<File>) -> Result<Self> {
        let (out, err) = (dir.join(format!("{name}.out")), dir.join(format!("{name}.err")));
        command.stdout(File::create(&out)?).stderr(File::create(&err)?).process_group(0);
        let parent = std::process::id() as i32;
        let enter = move || {
            if let Some(door) = &door {
                // SAFETY: the buffer is one byte of a constant and the descriptor stays open until exec.
                if unsafe { libc::write(door.as_raw_fd(), b"0".as_ptr().cast(), 1) } != 1 {
                    return Err(io::Error::last_os_error());
                }
            }
            // SAFETY: takes no pointers; whatever becomes of the test, its processes end with it.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            // SAFETY: takes no arguments.
            if unsafe { libc::getppid() } != parent {
                return Err(io::Error::other("the test ended"));
            }
            Ok(())
        };
        // SAFETY: between fork and exec the closure only makes system calls and allocates nothing on its way.
        unsafe { command.pre_exec(enter) };
        let child = command.spawn().with_context(|| format!("starting {name}: {:?}", command.get_program()))?;
        Ok(Self { name: name.to_owned(), child, out, err, status: None })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn out(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.out).unwrap_or_default()).into_owned()
    }

    pub fn err(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.err).unwrap_or_default()).into_owned()
    }

    /// Its standard input, when the command asked for a pipe.
    pub fn input(&mut self) -> Result<ChildStdin> {
        self.child.stdin.take().with_context(|| format!("{} has no input pipe", self.name))
    }

    pub fn signal(&self, signal: i32) {
        if self.status.is_none() {
            // SAFETY: kill takes no pointers; the child is not reaped yet, so the id is still its own.
            unsafe { libc::kill(self.child.id() as i32, signal) };
        }
    }

    /// Its status if it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait()?;
        }
        Ok(self.status)
    }

    /// Waits for the end; says how long it took.
    pub fn wait(&mut self, limit: Duration) -> Result<(ExitStatus, Duration)> {
        let start = Instant::now();
        let what = format!("the end of {}", self.name);
        let status = wait::until(&what, limit, || self.ended())?;
        Ok((status, start.elapsed()))
    }

    /// Waits for an end with status 0 and returns what the process printed.
    pub fn finish(&mut self, limit: Duration) -> Result<String> {
        let (status, _) = self.wait(limit)?;
        if !status.success() {
            bail!("{} ended with {} and said: {}", self.name, describe(status), self.err());
        }
        Ok(self.out())
    }

    /// Waits until `ready` says yes; an early end is an error with the process's own words.
    pub fn await_ready(&mut self, limit: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
        let what = format!("{} to be ready", self.name);
        wait::until(&what, limit, || match self.ended()? {
            Some(status) => bail!("{} ended with {} and said: {}", self.name, describe(status), self.err()),
            None => Ok(ready().then_some(())),
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.ended(), Ok(None)) {
            // SAFETY: kill takes no pointers; the group was made for this child, which is not reaped yet.
            unsafe { libc::kill(-(self.child.id() as i32), libc::SIGKILL) };
            if let Err(error) = self.child.wait() {
                eprintln!("{}: {error}", self.name);
            }
        }
    }
}

/// `exit status 1`, `signal 9`.
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "neither status nor signal".to_owned(),
    }
}

/// The ends of all logs in a directory, for a test that failed.
pub fn show_logs(dir: &Path) {
    let files = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut logs: Vec<PathBuf> =
        files.filter(|file| file.extension().is_some_and(|kind| kind == "err" || kind == "out")).collect();
    logs.sort();
    for file in logs {
        let text = String::from_utf8_lossy(&fs::read(&file).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        if !lines.is_empty() {
            println!("--- {} (last of {} lines)", file.display(), lines.len());
            for line in lines.iter().skip(lines.len().saturating_sub(SHOWN_LINES)) {
                println!("{}", line.chars().take(SHOWN_WIDTH).collect::<String>());
            }
        }
    }
}

/// Runs a command to its end with no input, within `limit`; standard output and error apart.
pub fn output(mut command: Command, dir: &Path, name: &str, limit: Duration) -> Result<(ExitStatus, String, String)> {
    command.stdin(Stdio::null());
    let mut process = Process::start(name, dir, command, None)?;
    let (status, _) = process.wait(limit)?;
    Ok((status, process.out(), process.err()))
}
