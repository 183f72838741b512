//! Work that the kernel counts: system calls, processes, refused connections, threads that want the CPU.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
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

/// Calls `getppid` for so long, ms.
pub fn getppid_for(millis: u64) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(millis) {
        getppid(1000)?;
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

/// Starts `count` copies of this program that do nothing, one after the other.
pub fn leaves(count: u64) -> Result<()> {
    let this = std::env::current_exe()?;
    for _ in 0..count {
        ensure!(Command::new(&this).args(["getppid", "0"]).status()?.success(), "a copy failed");
    }
    Ok(())
}

/// Opens and closes `count` connections with a request on each, both ends in this process. Three of four end with a
/// reset, so that few wait for late segments afterwards.
pub fn churn(count: u64) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    let mut buffer = [0; 256];
    for turn in 0..count {
        let mut client = TcpStream::connect(address)?;
        let (mut server, _) = listener.accept()?;
        client.write_all(b"GET /churn HTTP/1.1\r\nHost: x\r\n\r\n")?;
        ensure!(server.read(&mut buffer)? > 0, "no request came");
        server.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?;
        ensure!(client.read(&mut buffer)? > 0, "no answer came");
        if turn % 4 != 0 {
            reset_when_closed(&client)?;
        }
    }
    Ok(())
}

fn reset_when_closed(stream: &TcpStream) -> Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let size = size_of::<libc::linger>() as libc::socklen_t;
    // SAFETY: the option's value is a `linger` and the descriptor is open.
    let failed = unsafe {
        libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), size)
    };
    ensure!(failed == 0, "SO_LINGER: {}", std::io::Error::last_os_error());
    Ok(())
}

/// Goes to a network namespace of its own, where only loopback is.
pub fn leave_network() -> Result<()> {
    // SAFETY: takes flags only.
    ensure!(unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0, "unshare: {}", std::io::Error::last_os_error());
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    // SAFETY: all zero is a valid request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *place = byte.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the request is valid for the call and the descriptor is open.
    let failed = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    ensure!(failed == 0, "loopback: {}", std::io::Error::last_os_error());
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
