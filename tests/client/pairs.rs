//! Two sockets of this process that are connected to each other, by kind.
//!
//! `veth` is TCP between two network namespaces of their own, over a pair of virtual cards that ends with the
//! namespaces; needs CAP_SYS_ADMIN, the program `ip` and the kernel's veth.

use std::io;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use anyhow::{Result, anyhow, bail, ensure};

use crate::work::leave_network;

/// Two connected sockets, the first of which opened the connection. Those of kind `udp-unconnected` only know their own
/// addresses.
pub fn pair(kind: &str) -> Result<(OwnedFd, OwnedFd)> {
    match kind {
        "tcp4" => tcp("127.0.0.1", "127.0.0.1"),
        "tcp6" => tcp("::1", "::1"),
        "mapped" => tcp("::", "::ffff:127.0.0.1"),
        "veth" => veth(),
        "unix" => unix(libc::SOCK_STREAM),
        "unix-datagram" => unix(libc::SOCK_DGRAM),
        "udp" => udp("127.0.0.1:0"),
        "udp6" => udp("[::1]:0"),
        "udp-unconnected" => Ok((UdpSocket::bind("127.0.0.1:0")?.into(), UdpSocket::bind("127.0.0.1:0")?.into())),
        _ => bail!("no sockets of kind {kind}"),
    }
}

/// Keeps the borders of its messages.
pub fn has_messages(kind: &str) -> bool {
    kind.starts_with("udp") || kind.contains("datagram")
}

fn unix(kind: libc::c_int) -> Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: the array has room for the two descriptors, which nobody else owns.
    unsafe {
        ensure!(libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) == 0, "{}", io::Error::last_os_error());
        Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}

fn tcp(bind: &str, connect: &str) -> Result<(OwnedFd, OwnedFd)> {
    let listener = TcpListener::bind((bind, 0))?;
    let opened = TcpStream::connect((connect, listener.local_addr()?.port()))?;
    opened.set_nodelay(true)?;
    Ok((opened.into(), listener.accept()?.0.into()))
}

fn udp(bind: &str) -> Result<(OwnedFd, OwnedFd)> {
    let (one, two) = (UdpSocket::bind(bind)?, UdpSocket::bind(bind)?);
    one.connect(two.local_addr()?)?;
    two.connect(one.local_addr()?)?;
    Ok((one.into(), two.into()))
}

/// Each end is made by a thread of its own: a namespace is a thread's, and the sockets stay in it.
fn veth() -> Result<(OwnedFd, OwnedFd)> {
    const PORT: u16 = 7;
    const PLACES: [&str; 2] = ["10.213.77.1", "10.213.77.2"];
    let (told, thread_id) = mpsc::channel();
    let (linked, link) = mpsc::channel();
    let (listens, ready) = mpsc::channel();
    let accepting = thread::spawn(move || -> Result<OwnedFd> {
        leave_network()?;
        // SAFETY: takes no arguments.
        told.send(unsafe { libc::gettid() })?;
        link.recv()?;
        ip(&format!("address add {}/24 dev two", PLACES[1]))?;
        ip("link set two up")?;
        let listener = TcpListener::bind((PLACES[1], PORT))?;
        listens.send(())?;
        Ok(listener.accept()?.0.into())
    });
    let opening = thread::spawn(move || -> Result<OwnedFd> {
        leave_network()?;
        ip(&format!("link add one type veth peer name two netns {}", thread_id.recv()?))?;
        ip(&format!("address add {}/24 dev one", PLACES[0]))?;
        ip("link set one up")?;
        linked.send(())?;
        ready.recv()?;
        let stream = TcpStream::connect((PLACES[1], PORT))?;
        stream.set_nodelay(true)?;
        Ok(stream.into())
    });
    // Where one fails, the other's channel is closed, which ends it too.
    let opened = opening.join().map_err(|_| anyhow!("a thread panicked"))?;
    let accepted = accepting.join().map_err(|_| anyhow!("a thread panicked"))?;
    match (opened, accepted) {
        (Ok(opened), Ok(accepted)) => Ok((opened, accepted)),
        (Err(error), Err(other)) => Err(error.context(other)),
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

/// In the network namespace of this thread.
fn ip(words: &str) -> Result<()> {
    let out = Command::new("ip").args(words.split(' ')).output()?;
    ensure!(out.status.success(), "ip {words}: {}", String::from_utf8_lossy(&out.stderr).trim());
    Ok(())
}
