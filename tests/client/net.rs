//! Traffic of an exact size between two addresses: streams poured and echoed, connections that open and that cannot,
//! datagrams, a listener that nobody accepts from. Prints what was done and how long it took.

use std::io::{ErrorKind, Read, Write};
use std::mem;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

/// Reads `connections` streams to their end, one after the other, and answers each with how many bytes that were.
pub fn sink(address: &str, connections: u64) -> Result<()> {
    let listener = listen(address)?;
    for _ in 0..connections {
        let (mut stream, _) = listener.accept()?;
        let (mut buffer, mut total) = (vec![0; 64 << 10], 0);
        loop {
            match stream.read(&mut buffer)? {
                0 => break,
                bytes => total += bytes as u64,
            }
        }
        stream.write_all(&total.to_be_bytes())?;
    }
    Ok(())
}

/// Pours `bytes` into each of `connections` streams, one after the other.
pub fn pour(address: &str, connections: u64, bytes: usize) -> Result<()> {
    for _ in 0..connections {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(&vec![7; bytes])?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut answer = [0; 8];
        stream.read_exact(&mut answer)?;
        ensure!(u64::from_be_bytes(answer) == bytes as u64, "{answer:?} came");
    }
    Ok(())
}

/// Sends everything back, on `connections` connections at once.
pub fn echo(address: &str, connections: u64) -> Result<()> {
    let listener = listen(address)?;
    let one = |(mut stream, _): (TcpStream, SocketAddr)| -> Result<()> {
        stream.set_nodelay(true)?;
        let mut buffer = [0; 64];
        loop {
            match stream.read(&mut buffer)? {
                0 => return Ok(()),
                bytes => stream.write_all(buffer.get(..bytes).unwrap_or_default())?,
            }
        }
    };
    let all: Vec<_> = (0..connections)
        .map(|_| listener.accept().map(|accepted| thread::spawn(move || one(accepted))))
        .collect::<Result<_, _>>()?;
    all.into_iter().try_for_each(|each| each.join().map_err(|_| anyhow!("a thread panicked"))?)
}

/// Asks `count` times on each of `connections` connections at once, and waits for each answer.
pub fn ask(address: &str, connections: u64, count: u64) -> Result<()> {
    let one = move |address: String| -> Result<()> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        for _ in 0..count {
            stream.write_all(b"?")?;
            stream.read_exact(&mut [0])?;
        }
        Ok(())
    };
    let all: Vec<_> = (0..connections)
        .map(|_| {
            let address = address.to_owned();
            thread::spawn(move || one(address))
        })
        .collect();
    all.into_iter().try_for_each(|each| each.join().map_err(|_| anyhow!("a thread panicked"))?)
}

/// Connects `count` times, one after the other; prints how often each came of it: opened, refused, timeout, unreachable,
/// and how many µs all took.
pub fn connect(address: &str, count: u64) -> Result<()> {
    let (mut outcomes, mut took) = ([0; 4], Duration::ZERO);
    for _ in 0..count {
        let began = Instant::now();
        let outcome = TcpStream::connect(address);
        took += began.elapsed();
        let place = match outcome.map_err(|error| error.kind()) {
            Ok(_) => 0,
            Err(ErrorKind::ConnectionRefused) => 1,
            Err(ErrorKind::TimedOut) => 2,
            Err(ErrorKind::HostUnreachable) => 3,
            Err(other) => bail!("{other}"),
        };
        outcomes[place] += 1;
    }
    let [opened, refused, timeout, unreachable] = outcomes;
    println!("{opened} {refused} {timeout} {unreachable} {}", took.as_micros());
    Ok(())
}

/// Begins to connect `count` times and closes the socket before there is an answer.
pub fn abandon(address: &str, count: u64) -> Result<()> {
    for _ in 0..count {
        drop(begin(address.parse()?)?);
    }
    Ok(())
}

/// Listens on loopback for `backlog` connections and accepts none, while `count` begin to connect; prints the port and
/// waits for the end of its input.
pub fn overflow(backlog: i32, count: u64) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    // SAFETY: takes a descriptor and a number; the socket listens already, only the limit changes.
    ensure!(unsafe { libc::listen(listener.as_raw_fd(), backlog) } == 0, "listen");
    let SocketAddr::V4(address) = listener.local_addr()? else { bail!("not IPv4") };
    let _sockets: Vec<OwnedFd> = (0..count).map(|_| begin(address)).collect::<Result<_>>()?;
    println!("{}", address.port());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Sends `count` datagrams of `bytes` over loopback and receives each.
pub fn datagrams(count: u64, bytes: usize) -> Result<()> {
    let (sender, receiver) = (UdpSocket::bind(("127.0.0.1", 0))?, UdpSocket::bind(("127.0.0.1", 0))?);
    let (to, mut buffer) = (receiver.local_addr()?, vec![0; bytes + 1]);
    for _ in 0..count {
        ensure!(sender.send_to(&vec![7; bytes], to)? == bytes, "sent less");
        ensure!(receiver.recv(&mut buffer)? == bytes, "received less");
    }
    Ok(())
}

fn listen(address: &str) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).with_context(|| address.to_owned())?;
    println!("listens");
    Ok(listener)
}

/// A socket that is about to connect.
fn begin(address: SocketAddrV4) -> Result<OwnedFd> {
    let octets = Ipv4Addr::octets(address.ip());
    let target = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(octets) },
        sin_zero: [0; 8],
    };
    // SAFETY: a new descriptor, which nobody else owns; the address is valid for the call and its length is right.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0);
        ensure!(socket >= 0, "socket: {}", std::io::Error::last_os_error());
        let socket = OwnedFd::from_raw_fd(socket);
        let length = mem::size_of_val(&target) as libc::socklen_t;
        if libc::connect(socket.as_raw_fd(), (&raw const target).cast(), length) != 0 {
            let error = std::io::Error::last_os_error();
            ensure!(error.raw_os_error() == Some(libc::EINPROGRESS), "connect: {error}");
        }
        Ok(socket)
    }
}
