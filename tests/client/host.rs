//! Work that the kernel keeps its own account of: page faults, and datagrams that nobody takes. Prints that account.

use std::fs::{self, File};
use std::io::Read as _;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, ensure};

use super::work::leave_network;

const PAGE: usize = 4096;

/// Touches `pages` new pages, then every page of a file that is in no cache; prints the minor and major faults of this
/// process so far and waits for the end of its input.
pub fn touch(pages: usize, file: &str) -> Result<()> {
    let anonymous = map(pages * PAGE, -1)?;
    for page in 0..pages {
        // SAFETY: inside the mapping, which is writable.
        unsafe { anonymous.cast::<u8>().add(page * PAGE).write_volatile(1) };
    }
    let file = File::open(file)?;
    let bytes = usize::try_from(file.metadata()?.len())?;
    // SAFETY: takes a descriptor and numbers.
    let refused = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    ensure!(refused == 0, "the file stays in the cache: {refused}");
    let mapped = map(bytes, file.as_raw_fd())?;
    for page in 0..bytes / PAGE {
        // SAFETY: inside the mapping, which is readable.
        unsafe { mapped.cast::<u8>().add(page * PAGE).read_volatile() };
    }
    // SAFETY: all zero is valid, and the call fills it.
    let used = unsafe {
        let mut used: libc::rusage = std::mem::zeroed();
        ensure!(libc::getrusage(libc::RUSAGE_SELF, &raw mut used) == 0, "getrusage");
        used
    };
    println!("{} {}", used.ru_minflt, used.ru_majflt);
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// New memory, or a file read page by page.
fn map(bytes: usize, file: i32) -> Result<*mut libc::c_void> {
    let (protection, flags) =
        if file < 0 { (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_ANONYMOUS) } else { (libc::PROT_READ, 0) };
    // SAFETY: a new mapping at an address that the kernel chooses; advice takes what was mapped.
    unsafe {
        let address = libc::mmap(std::ptr::null_mut(), bytes, protection, flags | libc::MAP_PRIVATE, file, 0);
        ensure!(address != libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
        let advice = if file < 0 { libc::MADV_NOHUGEPAGE } else { libc::MADV_RANDOM };
        libc::madvise(address, bytes, advice);
        Ok(address)
    }
}

/// In a network of its own: sends `count` datagrams to a socket that nobody reads, and `count` to a port that nobody has.
/// Prints how many found a full buffer, and how many no port, by the network's own counters.
pub fn flood(count: u64) -> Result<()> {
    leave_network()?;
    let receiver = UdpSocket::bind(("127.0.0.1", 0))?;
    let size: libc::c_int = 4096;
    // SAFETY: the option's value is an int and the descriptor is open.
    let failed = unsafe {
        let length = size_of_val(&size) as libc::socklen_t;
        libc::setsockopt(receiver.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, (&raw const size).cast(), length)
    };
    ensure!(failed == 0, "SO_RCVBUF: {}", std::io::Error::last_os_error());
    let sender = UdpSocket::bind(("127.0.0.1", 0))?;
    for _ in 0..count {
        sender.send_to(&[0; 512], receiver.local_addr()?)?;
    }
    let nobody = UdpSocket::bind(("127.0.0.1", 0))?.local_addr()?;
    for _ in 0..count {
        sender.send_to(&[0; 512], nobody)?;
    }
    println!("{} {}", udp("RcvbufErrors")?, udp("NoPorts")?);
    Ok(())
}

/// A counter of this thread's network.
fn udp(name: &str) -> Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/snmp")?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = lines.next().zip(lines.next()).context("no counters of UDP")?;
    let at = names.split(' ').position(|each| each == name).with_context(|| format!("no {name}"))?;
    Ok(values.split(' ').nth(at).context("a short line")?.parse()?)
}

/// Takes memory until it is killed.
pub fn hog() -> Result<()> {
    const STEP: usize = 1 << 20;
    loop {
        let memory = map(STEP, -1)?;
        for page in 0..STEP / PAGE {
            // SAFETY: inside the mapping, which is writable.
            unsafe { memory.cast::<u8>().add(page * PAGE).write_volatile(1) };
        }
    }
}
