//! Moves pattern bytes over a connection by one named system call and prints what each call returned.
//!
//! Sending: the given sizes one after the other. Receiving: everything is waited for first, so that each call
//! finds the bytes it asks for. Prints a number a line: bytes that the kernel said it moved, in order.

use std::ffi::c_void;
use std::fs::File;
use std::io::Write;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};
use std::{io, mem, ptr};

use anyhow::{Result, bail, ensure};
use seismo_tests::pattern;

use crate::uring;

/// Bytes per operation: less than one capture, several I/O vectors, more than one capture.
pub const SIZES: [usize; 3] = [5, 300, 6000];
/// For calls whose bytes are nowhere in user memory.
pub const LARGE: usize = 100_000;

pub type Operation = fn(RawFd, &mut [u8]) -> libc::ssize_t;

pub fn run(path: &str, port: u16) -> Result<()> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    let socket = stream.as_raw_fd();
    let operation = operation(path)?;
    let receives = ["read", "recv", "peek"].iter().any(|word| path.contains(word));
    if receives {
        await_bytes(socket, SIZES.iter().sum())?;
    }
    let mut position = 0;
    for size in SIZES {
        let mut bytes = pattern::bytes(position, size);
        moved(operation(socket, &mut bytes))?;
        ensure!(bytes == pattern::bytes(position, size), "other bytes than were sent");
        position += size;
    }
    Ok(())
}

/// One system call that moves a slice of bytes.
pub fn operation(path: &str) -> Result<Operation> {
    let operation: Operation = match path {
        "write" => |socket, bytes| {
            // SAFETY: pointer and length are those of a live slice.
            unsafe { libc::write(socket, bytes.as_ptr().cast(), bytes.len()) }
        },
        "read" => |socket, bytes| {
            // SAFETY: pointer and length are those of a live mutable slice.
            unsafe { libc::read(socket, bytes.as_mut_ptr().cast(), bytes.len()) }
        },
        "send" => |socket, bytes| {
            // SAFETY: pointer and length are those of a live slice.
            unsafe { libc::send(socket, bytes.as_ptr().cast(), bytes.len(), 0) }
        },
        "sendto" => |socket, bytes| {
            // SAFETY: pointer and length are those of a live slice; no address is given.
            unsafe { libc::sendto(socket, bytes.as_ptr().cast(), bytes.len(), 0, ptr::null(), 0) }
        },
        "recv" => |socket, bytes| {
            // SAFETY: pointer and length are those of a live mutable slice.
            unsafe { libc::recv(socket, bytes.as_mut_ptr().cast(), bytes.len(), 0) }
        },
        "recvfrom" => |socket, bytes| {
            let (address, length) = (ptr::null_mut(), ptr::null_mut());
            // SAFETY: pointer and length are those of a live mutable slice; no address is wanted.
            unsafe { libc::recvfrom(socket, bytes.as_mut_ptr().cast(), bytes.len(), 0, address, length) }
        },
        "peek" => |socket, bytes| {
            // SAFETY: pointer and length are those of a live mutable slice, for both calls.
            unsafe {
                libc::recv(socket, bytes.as_mut_ptr().cast(), bytes.len(), libc::MSG_PEEK);
                libc::recv(socket, bytes.as_mut_ptr().cast(), bytes.len(), 0)
            }
        },
        "writev" => |socket, bytes| {
            let pieces = pieces(bytes, 3);
            // SAFETY: the vectors describe disjoint parts of a live slice.
            unsafe { libc::writev(socket, pieces.as_ptr(), pieces.len() as i32) }
        },
        "readv" => |socket, bytes| {
            let pieces = pieces(bytes, 3);
            // SAFETY: the vectors describe disjoint parts of a live mutable slice.
            unsafe { libc::readv(socket, pieces.as_ptr(), pieces.len() as i32) }
        },
        "sendmsg" => |socket, bytes| sendmsg(socket, bytes, 3),
        "sendmsg-many" => |socket, bytes| sendmsg(socket, bytes, 12),
        "recvmsg" => |socket, bytes| {
            let mut pieces = pieces(bytes, 3);
            let mut message = message(&mut pieces);
            // SAFETY: the message's vectors describe disjoint parts of a live mutable slice.
            unsafe { libc::recvmsg(socket, &raw mut message, 0) }
        },
        "preadv2" => |socket, bytes| {
            let pieces = pieces(bytes, 3);
            // SAFETY: the vectors describe disjoint parts of a live mutable slice; -1 is the file's own position.
            unsafe { libc::preadv2(socket, pieces.as_ptr(), pieces.len() as i32, -1, 0) }
        },
        "pwritev2" => |socket, bytes| {
            let pieces = pieces(bytes, 3);
            // SAFETY: the vectors describe disjoint parts of a live slice; -1 is the file's own position.
            unsafe { libc::pwritev2(socket, pieces.as_ptr(), pieces.len() as i32, -1, 0) }
        },
        "zerocopy" => |socket, bytes| {
            // SAFETY: pointer and length are those of a live slice, which nobody changes before the process ends.
            unsafe { libc::send(socket, bytes.as_ptr().cast(), bytes.len(), libc::MSG_ZEROCOPY) }
        },
        "dup" => |socket, bytes| {
            // SAFETY: pointer and length are those of a live slice; the copy is closed again.
            unsafe {
                let copy = libc::dup(socket);
                let result = libc::write(copy, bytes.as_ptr().cast(), bytes.len());
                libc::close(copy);
                result
            }
        },
        "io_uring-send" => uring::send,
        "io_uring-recv" => uring::receive,
        "io_uring-write" => uring::write,
        "io_uring-read" => uring::read,
        "io_uring-sendmsg" => uring::send_message,
        "io_uring-recvmsg" => uring::receive_message,
        "io_uring-sqpoll-send" => uring::send_polled,
        "io_uring-sqpoll-recv" => uring::receive_polled,
        "io_uring-provided" => uring::receive_provided,
        _ => bail!("no transfer by {path}"),
    };
    Ok(operation)
}

pub fn moved(result: libc::ssize_t) -> Result<()> {
    if result <= 0 {
        bail!("{result}: {}", io::Error::last_os_error());
    }
    println!("{result}");
    Ok(())
}

fn pieces(bytes: &mut [u8], count: usize) -> Vec<libc::iovec> {
    let size = bytes.len().div_ceil(count);
    let part = |part: &mut [u8]| libc::iovec { iov_base: part.as_mut_ptr().cast::<c_void>(), iov_len: part.len() };
    bytes.chunks_mut(size).map(part).collect()
}

fn message(pieces: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: all zeroes is a message with no name, no control data and no vectors.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = pieces.as_mut_ptr();
    message.msg_iovlen = pieces.len();
    message
}

fn sendmsg(socket: RawFd, bytes: &mut [u8], count: usize) -> libc::ssize_t {
    let mut pieces = pieces(bytes, count);
    let message = message(&mut pieces);
    // SAFETY: the message's vectors describe disjoint parts of a live slice.
    unsafe { libc::sendmsg(socket, &raw const message, 0) }
}

/// Three messages in one call.
pub fn sendmmsg(socket: RawFd) -> Result<()> {
    let mut bytes = pattern::bytes(0, SIZES.iter().sum());
    let mut pieces = by_sizes(&mut bytes);
    let mut messages = messages(&mut pieces);
    // SAFETY: every message's vector describes a part of `bytes`, which outlives the call.
    let sent = unsafe { libc::sendmmsg(socket, messages.as_mut_ptr(), messages.len() as u32, 0) };
    report(sent, &messages)
}

pub fn recvmmsg(socket: RawFd) -> Result<()> {
    let mut bytes = vec![0; SIZES.iter().sum()];
    let mut pieces = by_sizes(&mut bytes);
    let mut messages = messages(&mut pieces);
    let count = messages.len() as u32;
    // SAFETY: every message's vector describes a part of `bytes`, which outlives the call; no time limit is given.
    let received = unsafe { libc::recvmmsg(socket, messages.as_mut_ptr(), count, 0, ptr::null_mut()) };
    report(received, &messages)
}

fn by_sizes(mut bytes: &mut [u8]) -> Vec<libc::iovec> {
    let mut pieces = Vec::new();
    for size in SIZES {
        let (part, rest) = bytes.split_at_mut(size);
        pieces.push(libc::iovec { iov_base: part.as_mut_ptr().cast(), iov_len: part.len() });
        bytes = rest;
    }
    pieces
}

fn messages(pieces: &mut [libc::iovec]) -> Vec<libc::mmsghdr> {
    pieces.chunks_mut(1).map(|one| libc::mmsghdr { msg_hdr: message(one), msg_len: 0 }).collect()
}

fn report(count: i32, messages: &[libc::mmsghdr]) -> Result<()> {
    ensure!(count as usize == SIZES.len(), "{count} messages: {}", io::Error::last_os_error());
    messages.iter().try_for_each(|message| moved(message.msg_len as libc::ssize_t))
}

/// The bytes never pass through this process.
pub fn sendfile(socket: RawFd) -> Result<()> {
    let file = unnamed_file(LARGE)?;
    let mut sent = 0;
    while sent < LARGE {
        // SAFETY: both descriptors are open; no offset is passed, so the file's own position moves.
        let result = unsafe { libc::sendfile(socket, file.as_raw_fd(), ptr::null_mut(), LARGE - sent) };
        moved(result)?;
        sent += result as usize;
    }
    Ok(())
}

/// From a pipe, which holds the bytes as pages.
pub fn splice(socket: RawFd) -> Result<()> {
    let mut ends = [0; 2];
    // SAFETY: the array has room for the two descriptors.
    ensure!(unsafe { libc::pipe(ends.as_mut_ptr()) } == 0, "{}", io::Error::last_os_error());
    let [reader, writer] = ends;
    let mut position = 0;
    for size in SIZES {
        let bytes = pattern::bytes(position, size);
        // SAFETY: pointer and length are those of a live slice; a pipe takes 64 KiB without blocking.
        let filled = unsafe { libc::write(writer, bytes.as_ptr().cast(), size) };
        ensure!(filled as usize == size, "{}", io::Error::last_os_error());
        let mut left = size;
        while left > 0 {
            // SAFETY: both descriptors are open; neither has an offset.
            let result = unsafe { libc::splice(reader, ptr::null_mut(), socket, ptr::null_mut(), left, 0) };
            moved(result)?;
            left -= result as usize;
        }
        position += size;
    }
    Ok(())
}

fn unnamed_file(length: usize) -> Result<File> {
    let path = std::env::temp_dir().join(format!("seismo-testclient-{}", std::process::id()));
    let mut file = File::create(&path)?;
    file.write_all(&pattern::bytes(0, length))?;
    let file = File::open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// Bytes in the socket's queue.
pub fn waiting(socket: RawFd) -> Result<usize> {
    let mut waiting: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int to the pointer.
    let result = unsafe { libc::ioctl(socket, libc::FIONREAD, &raw mut waiting) };
    ensure!(result == 0, "{}", io::Error::last_os_error());
    Ok(waiting as usize)
}

/// Waits until the socket's queue holds `count` bytes.
pub fn await_bytes(socket: RawFd, count: usize) -> Result<()> {
    let start = Instant::now();
    loop {
        let waiting = waiting(socket)?;
        if waiting >= count {
            return Ok(());
        }
        ensure!(start.elapsed() < Duration::from_secs(10), "{waiting} bytes came of {count}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
