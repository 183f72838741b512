//! Work that the kernel counts: system calls, processes, refused connections, threads that want the CPU.

use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

pub fn getppid(count: u64) -> Result<()> {
    for _ in 0..count {
        // SAFETY: takes no arguments; called directly so that no library answers from a cache.
        unsafe { libc::syscall(libc::SYS_getppid) };
    }
    Ok(())
}

/// Starts `count` processes, each running a program of its own, one after the other.
pub fn spawn(count: u64) -> Result<()> {
    for _ in 0..count {
        ensure!(Command::new("/bin/true").status()?.success(), "/bin/true failed");
    }
    Ok(())
}

/// Connects `count` times to a port where nobody listens.
pub fn refused(port: u16, count: u64) -> Result<()> {
    for _ in 0..count {
        match TcpStream::connect(("127.0.0.1", port)) {
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
            other => bail!("not refused: {other:?}"),
        }
    }
    Ok(())
}

/// Keeps `threads` threads busy.
pub fn spin(threads: usize, millis: u64) -> Result<()> {
    let end = Instant::now() + Duration::from_millis(millis);
    let all: Vec<_> = (0..threads)
        .map(|_| {
            thread::spawn(move || {
                while Instant::now() < end {
                    std::hint::spin_loop();
                }
            })
        })
        .collect();
    for each in all {
        ensure!(each.join().is_ok(), "a thread panicked");
    }
    Ok(())
}
