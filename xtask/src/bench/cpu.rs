//! CPU time of processes and threads, in nanoseconds, as the scheduler accounts it.
//!
//! A process by its CPU clock, which counts threads that have ended too; a thread by its `schedstat`; reaped children
//! by `getrusage`. All three come from the same counter and are exact while the process sleeps.

use std::fs;
use std::io;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// CPU time of a live process, all its threads, without its children.
pub fn of_process(pid: u32) -> Result<Duration> {
    let mut clock = 0;
    // SAFETY: `clock` is a valid place for one clock id.
    let error = unsafe { libc::clock_getcpuclockid(libc::pid_t::try_from(pid)?, &raw mut clock) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error)).with_context(|| format!("CPU time of process {pid}"));
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for one timespec.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error()).with_context(|| format!("CPU time of process {pid}"));
    }
    Ok(Duration::new(time.tv_sec.try_into()?, time.tv_nsec.try_into()?))
}

/// CPU time of the live threads of a process that have this name; fails when there is none.
pub fn of_threads(pid: u32, name: &str) -> Result<Duration> {
    let mut sum = None;
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = entry?.path();
        // A thread may end between the two reads.
        let Ok(comm) = fs::read_to_string(task.join("comm")) else { continue };
        if comm.trim_end() == name {
            let schedstat = fs::read_to_string(task.join("schedstat")).context("this kernel keeps no schedstat")?;
            let ran_ns: u64 = schedstat.split(' ').next().unwrap_or_default().parse().context("schedstat")?;
            *sum.get_or_insert(Duration::ZERO) += Duration::from_nanos(ran_ns);
        }
    }
    match sum {
        Some(sum) => Ok(sum),
        None => bail!("process {pid} has no thread named {name}"),
    }
}

/// CPU time of all children that have been waited for.
pub fn of_reaped_children() -> Result<Duration> {
    usage(libc::RUSAGE_CHILDREN)
}

/// CPU time of this process.
pub fn of_self() -> Result<Duration> {
    usage(libc::RUSAGE_SELF)
}

fn usage(who: libc::c_int) -> Result<Duration> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: `usage` is a valid place for one rusage.
    if unsafe { libc::getrusage(who, usage.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error()).context("getrusage");
    }
    // SAFETY: getrusage succeeded, so it has written the whole struct.
    let usage = unsafe { usage.assume_init() };
    let mut sum = Duration::ZERO;
    for time in [usage.ru_utime, usage.ru_stime] {
        sum += Duration::from_secs(time.tv_sec.try_into()?) + Duration::from_micros(time.tv_usec.try_into()?);
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{of_process, of_self, of_threads};

    #[test]
    fn the_two_views_of_one_process_agree() {
        // The test runner's other threads go on between two reads, so the reads enclose each other.
        let before = of_self().unwrap();
        let between = of_process(std::process::id()).unwrap();
        let after = of_self().unwrap();
        let microsecond = Duration::from_micros(2);
        assert!(before <= between + microsecond && between <= after + microsecond, "{before:?} {between:?} {after:?}");
    }

    #[test]
    fn a_thread_is_found_by_its_name() {
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::Builder::new().name("busy-7".to_owned()).spawn(move || wait.recv()).unwrap();
        let found =
            std::iter::repeat_with(|| of_threads(std::process::id(), "busy-7")).take(1000).any(|time| time.is_ok());
        drop(done);
        assert!(thread.join().unwrap().is_err());
        assert!(found);
        assert!(of_threads(std::process::id(), "no such thread").unwrap_err().to_string().contains("no thread named"));
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        // Above the largest pid that Linux gives out.
        assert!(of_process(1 << 23).is_err());
    }
}
