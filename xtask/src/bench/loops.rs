//! The workloads that are plain loops of system calls, run in a process of their own (`bench --loop NAME`).
//!
//! Each says how often it went round and the CPU time of that alone, so that starting the process is not measured.
//! The clock is read once in many rounds.
//!
//! - getppid: the cheapest system call there is; one call a round.
//! - read-write: 4 KiB read from /dev/zero, then written to /dev/null; two calls a round.
//! - ping-pong: one byte to another process and back through two pipes, both on one CPU; two switches a round.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::cgroup::Cgroup;
use super::cpu;
use crate::shell;

/// Sixteen calls in a row: unoptimised, a loop would cost a tenth of the call in it.
macro_rules! sixteen {
    ($call:expr) => {
        [$call, $call, $call, $call, $call, $call, $call, $call, $call, $call, $call, $call, $call, $call, $call, $call]
    };
}
const CALLS: u64 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Loop {
    Getppid,
    ReadWrite,
    PingPong,
}

impl Loop {
    fn name(self) -> &'static str {
        match self {
            Self::Getppid => "getppid",
            Self::ReadWrite => "read-write",
            Self::PingPong => "ping-pong",
        }
    }

    /// Runs one burst in a process of its own; the CPU time of one round in ns.
    pub fn burst(self, cgroup: &Cgroup, length: Duration) -> Result<f64> {
        let mut command = Command::new("/proc/self/exe");
        command.args(["bench", "--loop", self.name(), "--burst-ms", &length.as_millis().to_string()]);
        cgroup.adopt(&mut command)?;
        parse(&shell::output(&mut command)?)
    }

    /// Is that process: goes round until `length` has passed, then prints the account of it.
    pub fn run(self, length: Duration) -> Result<()> {
        let (rounds, cpu) = match self {
            Self::Getppid => timed(length, 256, CALLS, || {
                // SAFETY: takes no argument and cannot fail.
                sixteen!(unsafe { libc::syscall(libc::SYS_getppid) });
                Ok(())
            })?,
            Self::ReadWrite => read_write(length)?,
            Self::PingPong => ping_pong(length)?,
        };
        println!("{rounds} {}", cpu.as_nanos());
        Ok(())
    }
}

/// Works until `length` has passed, `each` rounds at a time; looks at the clock once in `batch` times.
fn timed(length: Duration, batch: u32, each: u64, mut work: impl FnMut() -> io::Result<()>) -> Result<(u64, Duration)> {
    let (before, started) = (cpu::of_self()?, Instant::now());
    let mut rounds = 0;
    while started.elapsed() < length {
        for _ in 0..batch {
            work()?;
        }
        rounds += u64::from(batch) * each;
    }
    Ok((rounds, cpu::of_self()? - before))
}

fn read_write(length: Duration) -> Result<(u64, Duration)> {
    let (zero, null) = (File::open("/dev/zero")?, File::options().write(true).open("/dev/null")?);
    let (from, to) = (zero.as_raw_fd(), null.as_raw_fd());
    let mut page = [0_u8; 4096];
    let page = page.as_mut_ptr().cast();
    timed(length, 64, CALLS, || {
        // SAFETY: `page` points to 4096 bytes that outlive the loop, and both files stay open as long.
        let done = sixteen!(unsafe { libc::read(from, page, 4096) + libc::write(to, page, 4096) });
        if done == [8192; CALLS as usize] { Ok(()) } else { Err(io::Error::last_os_error()) }
    })
}

fn ping_pong(length: Duration) -> Result<(u64, Duration)> {
    // On two CPUs the cost of a round depends on where the scheduler puts the second process this time.
    stay_on_this_cpu().context("cannot stay on one CPU")?;
    let (mut echo_in, mut out) = io::pipe()?;
    let (mut back, mut echo_out) = io::pipe()?;
    // SAFETY: this process has one thread, so the child's memory is whole.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(io::Error::last_os_error()).context("fork");
    }
    if pid == 0 {
        drop((out, back));
        echo(&mut echo_in, &mut echo_out);
    }
    drop((echo_in, echo_out));
    let (rounds, own) = timed(length, 64, 1, || {
        let mut byte = [7];
        out.write_all(&byte)?;
        back.read_exact(&mut byte)
    })?;
    // The other one reads to the end and goes.
    drop(out);
    let mut status = 0;
    // SAFETY: `status` is a valid place for one int; the child is ours.
    if unsafe { libc::waitpid(pid, &raw mut status, 0) } != pid || status != 0 {
        bail!("the other process of ping-pong failed: {status}");
    }
    Ok((rounds, own + cpu::of_reaped_children()?))
}

/// The other process of ping-pong: sends everything back. Its account is read by who waits for it.
fn echo(from: &mut PipeReader, to: &mut PipeWriter) -> ! {
    let mut byte = [0];
    let code = loop {
        match from.read(&mut byte) {
            Ok(0) => break 0,
            Ok(_) if to.write_all(&byte).is_ok() => {}
            _ => break 1,
        }
    };
    // SAFETY: ends this process without running what the parent has registered to run at its end.
    unsafe { libc::_exit(code) }
}

fn stay_on_this_cpu() -> io::Result<()> {
    // SAFETY: takes no argument.
    let cpu = usize::try_from(unsafe { libc::sched_getcpu() }).map_err(|_| io::Error::last_os_error())?;
    let mut set = std::mem::MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: all zeros is the empty set; `cpu` was given out by the kernel and CPU_SET checks it against the size.
    let set = unsafe {
        libc::CPU_SET(cpu, set.assume_init_mut());
        set.assume_init()
    };
    // SAFETY: `set` is a whole cpu_set_t of the size that is given.
    match unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// ns per round, from what the process printed.
fn parse(printed: &str) -> Result<f64> {
    let parts = printed.trim().split_once(' ').context("the loop printed no account")?;
    let (rounds, cpu_ns): (u64, u64) = (parts.0.parse()?, parts.1.parse()?);
    if rounds == 0 {
        bail!("the loop went round not once");
    }
    Ok(cpu_ns as f64 / rounds as f64)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{parse, timed};

    #[test]
    fn the_cost_of_a_round_is_cpu_time_by_rounds() {
        assert_eq!(parse("4000 440000\n").unwrap(), 110.0);
        for wrong in ["", "0 10", "x 10", "10"] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_loop_ends_after_its_time_and_counts_every_round() {
        let mut calls = 0u64;
        let (rounds, _) = timed(Duration::from_millis(5), 16, 2, || {
            calls += 1;
            std::thread::sleep(Duration::from_micros(50));
            Ok(())
        })
        .unwrap();
        assert_eq!(rounds, 2 * calls);
        assert!(rounds >= 32 && rounds.is_multiple_of(32), "{rounds}");
    }
}
