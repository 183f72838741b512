//! Network namespaces of a test: made without a name, so that nothing of them is left when their last user is gone.
//!
//! A thread makes one and leaves its file descriptor behind; commands and closures enter through that. Needs root and
//! the program `ip`.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::programs;

#[derive(Debug)]
pub struct Netns {
    file: File,
}

impl Netns {
    /// A namespace with its loopback device up and nothing else.
    pub fn new() -> Result<Self> {
        let made = on_a_thread(|| {
            // SAFETY: takes no pointers; only this thread, which ends right after, changes its namespace.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
                return Err(io::Error::last_os_error()).context("making a network namespace");
            }
            Ok(File::open("/proc/thread-self/ns/net")?)
        });
        let namespace = Self { file: made? };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Makes a command run in the namespace.
    pub fn enter(&self, command: &mut Command) -> Result<()> {
        let file = self.file.try_clone()?;
        // SAFETY: between fork and exec the closure makes one system call.
        unsafe { command.pre_exec(move || enter(&file)) };
        Ok(())
    }

    /// Does something there, on a thread of its own.
    pub fn within<T: Send>(&self, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on_a_thread(|| {
            enter(&self.file).context("entering a network namespace")?;
            act()
        })
    }

    /// Runs `ip` there.
    pub fn ip(&self, words: &str) -> Result<()> {
        self.run("ip", &words.split(' ').collect::<Vec<_>>())
    }

    /// Runs a command there to its end.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new(programs::find(program)?);
        command.args(arguments);
        self.enter(&mut command)?;
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{program} {}: {said}", arguments.join(" "));
        Ok(())
    }

    /// Lets it pass packets on that are not for itself.
    pub fn forward(&self) -> Result<()> {
        self.within(|| Ok(fs::write("/proc/sys/net/ipv4/ip_forward", "1")?))
    }

    /// A counter of the network's own account: `file` is `snmp` or `netstat`.
    pub fn counter(&self, file: &str, protocol: &str, name: &str) -> Result<u64> {
        self.within(|| counter(file, protocol, name))
    }

    /// Does anything listen there? Asks no question.
    pub fn listens(&self, address: IpAddr, port: u16) -> bool {
        let connect = || Ok(TcpStream::connect_timeout(&SocketAddr::new(address, port), Duration::from_secs(1))?);
        self.within(connect).is_ok()
    }

    /// Where a program that takes a path finds the namespace, as long as this process keeps it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()))
    }
}

/// A counter of the network that this thread is in, out of the kernel's tables of its protocols.
pub fn counter(file: &str, protocol: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/thread-self/net/{file}"))?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(protocol)?.strip_prefix(": "));
    let (names, values) = lines.next().zip(lines.next()).with_context(|| format!("no counters of {protocol}"))?;
    let at = names.split(' ').position(|each| each == name).with_context(|| format!("no {name}"))?;
    Ok(values.split(' ').nth(at).context("a short line")?.parse()?)
}

fn enter(file: &File) -> io::Result<()> {
    // SAFETY: takes no pointers; the descriptor is open.
    match unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn on_a_thread<T: Send>(act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| scope.spawn(act).join().unwrap_or_else(|_| bail!("a thread panicked")))
}
