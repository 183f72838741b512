//! The processes that the demo starts, and their certain end.
//!
//! A service ends when its standard input closes, which also happens should the demo be killed; the agent is asked
//! with SIGTERM and killed only when it does not follow within three seconds.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::cgroup::Cgroup;

const GRACE: Duration = Duration::from_secs(3);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C only makes [`Children::check`] fail, so that everything is ended in order.
pub(super) fn stop_on_interrupt() {
    extern "C" fn interrupted(_: libc::c_int) {
        INTERRUPTED.store(true, Ordering::Relaxed);
    }
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler does nothing but store to an atomic, which is allowed in a signal handler.
        unsafe { libc::signal(signal, interrupted as extern "C" fn(libc::c_int) as libc::sighandler_t) };
    }
}

#[derive(Default)]
pub(super) struct Children {
    running: Vec<(String, Child)>,
}

impl Children {
    /// Starts a program with its output going to a file.
    pub(super) fn start(&mut self, name: &str, command: &mut Command, log: &Path) -> Result<()> {
        let log = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        self.running.push((name.to_owned(), child));
        Ok(())
    }

    /// Starts a service of the workload under its own executable name; returns the address it listens on.
    pub(super) fn start_service(
        &mut self,
        name: &str,
        folder: &Path,
        cgroup: &Cgroup,
        upstream: Option<&str>,
    ) -> Result<String> {
        let executable = folder.join(name);
        let own = std::env::current_exe()?;
        // The link fails where the folder is on another file system.
        if fs::hard_link(&own, &executable).is_err() {
            fs::copy(&own, &executable).with_context(|| format!("cannot write {}", executable.display()))?;
        }
        let mut command = Command::new(&executable);
        command.args(["demo-service", name, "--cgroup"]).arg(cgroup.path());
        if let Some(upstream) = upstream {
            command.args(["--upstream", upstream]);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let output = child.stdout.take().context("no output to read")?;
        self.running.push((name.to_owned(), child));
        let mut address = String::new();
        BufReader::new(output).read_line(&mut address).with_context(|| format!("{name} does not say its address"))?;
        if address.trim().is_empty() {
            bail!("{name} ended before it was ready");
        }
        Ok(address.trim().to_owned())
    }

    /// Fails when one of them has ended, or when the user wants to stop.
    pub(super) fn check(&mut self) -> Result<()> {
        if INTERRUPTED.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        for (name, child) in &mut self.running {
            if let Some(status) = child.try_wait()? {
                bail!("{name} ended: {status}");
            }
        }
        Ok(())
    }

    /// Ends all of them, the last started first.
    pub(super) fn end(mut self) -> Result<()> {
        while let Some((name, mut child)) = self.running.pop() {
            drop(child.stdin.take());
            end(&mut child, GRACE).with_context(|| format!("cannot end {name}"))?;
        }
        Ok(())
    }
}

fn end(child: &mut Child, grace: Duration) -> Result<()> {
    if child.try_wait()?.is_some() {
        return Ok(());
    }
    // SAFETY: sends a signal and touches no memory; the child is not reaped yet, so the id is still its own.
    unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGTERM) };
    let asked = Instant::now();
    while asked.elapsed() < grace {
        if child.try_wait()?.is_some() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(10));
    }
    child.kill()?;
    child.wait()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Child {
        Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap()
    }

    #[test]
    fn a_child_that_ends_by_itself_is_noticed() {
        let mut children = Children { running: vec![("shop".to_owned(), sh("exit 4"))] };
        let started = Instant::now();
        let error = loop {
            assert!(started.elapsed() < Duration::from_secs(10));
            if let Err(error) = children.check() {
                break error;
            }
        };
        assert_eq!(format!("{error}"), "shop ended: exit status: 4");
    }

    #[test]
    fn a_child_that_does_not_follow_is_killed() {
        let mut child = sh("trap '' TERM; echo ready; while :; do sleep 0.1; done");
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        end(&mut child, Duration::from_millis(100)).unwrap();
        assert!(child.try_wait().unwrap().is_some());
    }
}
