//! Other tools that count the same things, measured beside the agent in the same run: bpftrace and libbpf-tools.
//!
//! Each is started as its users start it, over the whole host, and only counts. It is attached when its programs are
//! held by its descriptors and it has come to rest; what it prints at its end must show that it saw the load. Where
//! tracefs is not mounted the tool gets one in a mount namespace of its own. One that is not installed or cannot run
//! here is a row with its own error. Packages: `cargo xtask setup --bench`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::agent::resident_mb;
use super::cgroup::Cgroup;
use super::cpu;
use super::targets::Workload;
use crate::workspace;

/// bpftrace compiles its program first.
const START_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// At rest: busy for less than `QUIET` in each of two looks.
const LOOK: Duration = Duration::from_millis(100);
const QUIET: Duration = Duration::from_millis(2);
/// Lines of a tool's own error that are shown.
const SHOWN_LINES: usize = 2;

/// Descriptors by which a process holds programs on their hooks.
const HOLDS: [&str; 2] = ["bpf_link", "perf_event"];

/// Runs its arguments where tracefs and debugfs are, in this mount namespace alone.
const WITH_TRACEFS: &str = "t=/sys/kernel/tracing d=/sys/kernel/debug
[ -e $t/events ] || mount -t tracefs tracefs $t
[ -e $d/tracing ] || mount -t debugfs debugfs $d
exec \"$@\"";

const COUNTS: &str = "tracepoint:raw_syscalls:sys_enter { @[args->id] = count(); }";
const LATENCY: &str = "tracepoint:raw_syscalls:sys_enter { @begin[tid] = nsecs; }
tracepoint:raw_syscalls:sys_exit /@begin[tid]/ { @ns[args->id] = hist(nsecs - @begin[tid]); delete(@begin[tid]); }";
/// As bpftrace's own runqlat.bt, without the header that it includes for one constant: not every machine has it.
const RUN_QUEUE: &str =
    "tracepoint:sched:sched_wakeup, tracepoint:sched:sched_wakeup_new { @since[args->pid] = nsecs; }
tracepoint:sched:sched_switch {
  if (args->prev_state == 0) { @since[args->prev_pid] = nsecs; }
  if (@since[args->next_pid]) { @us = hist((nsecs - @since[args->next_pid]) / 1000); }
  delete(@since[args->next_pid]);
}";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    BpftraceCounts,
    BpftraceLatency,
    BpftraceRunQueue,
    Syscount,
    SyscountLatency,
    Runqlat,
    Biolatency,
}

/// What a tool is about, and so what it must have seen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sees {
    Syscalls,
    RunQueue,
    /// None of the loads reads a disk.
    Disks,
}

impl Peer {
    /// Program and arguments.
    fn command(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::BpftraceCounts => ("bpftrace", &["-e", COUNTS]),
            Self::BpftraceLatency => ("bpftrace", &["-e", LATENCY]),
            Self::BpftraceRunQueue => ("bpftrace", &["-e", RUN_QUEUE]),
            Self::Syscount => ("syscount", &[]),
            Self::SyscountLatency => ("syscount", &["-L"]),
            Self::Runqlat => ("runqlat", &[]),
            Self::Biolatency => ("biolatency", &[]),
        }
    }

    const fn sees(self) -> Sees {
        match self {
            Self::BpftraceCounts | Self::BpftraceLatency | Self::Syscount | Self::SyscountLatency => Sees::Syscalls,
            Self::BpftraceRunQueue | Self::Runqlat => Sees::RunQueue,
            Self::Biolatency => Sees::Disks,
        }
    }

    /// What its result must hold, one of these, after `workload`.
    fn marks(self, workload: Workload) -> &'static [&'static str] {
        use super::loops::Loop::{Getppid, PingPong, ReadWrite};
        match (self.sees(), workload) {
            (Sees::Syscalls, Workload::Loop(Getppid)) => &["[110]", "getppid"],
            (Sees::Syscalls, Workload::Loop(ReadWrite | PingPong)) => &["[0]", "read"],
            (Sees::Syscalls, Workload::Http) => &["[20]", "writev"],
            (Sees::RunQueue, _) => &["|@", "|*"],
            (Sees::Disks, _) => &[],
        }
    }
}

/// A peer at work; ended when dropped without [`Running::stop`].
pub struct Running {
    process: Child,
    output: PathBuf,
    errors: PathBuf,
    /// Ends what is left of it.
    _cgroup: Cgroup,
}

impl Running {
    /// Starts it and waits until it is attached. Its files go into `folder`.
    pub fn start(peer: Peer, folder: &Path) -> Result<Self> {
        let (name, arguments) = peer.command();
        let Some(program) = workspace::program(name) else {
            bail!("{name} is not installed: run `cargo xtask setup --bench`");
        };
        let (output, errors) = (folder.join("peer.out"), folder.join("peer.err"));
        let cgroup = Cgroup::create("peer")?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", WITH_TRACEFS, "sh"]).arg(program).args(arguments);
        command.stdin(Stdio::null()).stdout(File::create(&output)?).stderr(File::create(&errors)?);
        cgroup.adopt(&mut command)?;
        let process = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let mut running = Self { process, output, errors, _cgroup: cgroup };
        running.wait_until_attached(name)?;
        Ok(running)
    }

    fn wait_until_attached(&mut self, name: &str) -> Result<()> {
        let started = Instant::now();
        let pid = self.process.id();
        let mut quiet = 0;
        let mut before = Duration::ZERO;
        loop {
            thread::sleep(LOOK);
            if let Some(status) = self.process.try_wait()? {
                bail!("{name} cannot run here ({status}): {}", self.last_words());
            }
            let busy = cpu::of_process(pid)?;
            quiet = if holds_programs(pid) && busy - before < QUIET { quiet + 1 } else { 0 };
            before = busy;
            if quiet == 2 {
                return Ok(());
            }
            if started.elapsed() > START_LIMIT {
                bail!("{name} was not attached within {} s: {}", START_LIMIT.as_secs(), self.last_words());
            }
        }
    }

    /// Memory of it that is resident, MB of 10^6 bytes.
    pub fn resident_mb(&self) -> Result<f64> {
        resident_mb(self.process.id())
    }

    /// Interrupts it as its users do, and fails unless it says that it saw the load.
    pub fn stop(mut self, peer: Peer, workload: Workload) -> Result<()> {
        // SAFETY: takes no pointer; the child is ours and has not been waited for, so the pid is still its own.
        unsafe { libc::kill(libc::pid_t::try_from(self.process.id())?, libc::SIGINT) };
        let (name, _) = peer.command();
        let deadline = Instant::now() + STOP_LIMIT;
        while self.process.try_wait()?.is_none() {
            if Instant::now() > deadline {
                bail!("{name} did not end within {} s", STOP_LIMIT.as_secs());
            }
            thread::sleep(Duration::from_millis(5));
        }
        let printed = fs::read_to_string(&self.output)?;
        let marks = peer.marks(workload);
        if !marks.is_empty() && !marks.iter().any(|mark| printed.contains(mark)) {
            bail!("{name} saw nothing of the load: {}", self.last_words());
        }
        Ok(())
    }

    /// The last lines of what it said on standard error, as one.
    fn last_words(&self) -> String {
        let said = fs::read_to_string(&self.errors).unwrap_or_default();
        let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
        lines.get(lines.len().saturating_sub(SHOWN_LINES)..).unwrap_or_default().join("; ")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when it has ended already, which is what is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn holds_programs(pid: u32) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors.flatten().filter_map(|each| fs::read_link(each.path()).ok()).any(|target| {
        let target = target.to_string_lossy();
        HOLDS.iter().any(|kind| target.contains(kind))
    })
}

#[cfg(test)]
mod tests {
    use super::{Peer, Workload, holds_programs};
    use crate::bench::loops::Loop;

    #[test]
    fn a_tool_that_counts_system_calls_must_have_seen_those_of_the_load() {
        let marks = Peer::Syscount.marks(Workload::Loop(Loop::Getppid));
        assert!(marks.iter().any(|mark| "SYSCALL COUNT\ngetppid  123456\n".contains(mark)));
        assert!(!marks.iter().any(|mark| "SYSCALL COUNT\nfutex  1015\n".contains(mark)));
        let marks = Peer::BpftraceRunQueue.marks(Workload::Http);
        assert!(marks.iter().any(|mark| "[4, 8)  2190 |@@@@@   |\n".contains(mark)));
        assert!(!marks.iter().any(|mark| "     usecs : count    distribution\n".contains(mark)));
    }

    #[test]
    fn a_process_without_programs_is_not_attached() {
        assert!(!holds_programs(std::process::id()));
    }
}
