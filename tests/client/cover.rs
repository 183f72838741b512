//! Moves pattern bytes between two sockets of this process, one of which uses the path under test.
//!
//! `cover KIND/PATH…`: prints `= KIND/PATH`, then how many bytes each operation of the tested end moved, a line each, or
//! `! ` and why it could not. A mark ends each. The other end uses plain read and write. Kinds are those of `pairs`.

use std::io::{self, Read as _, Write as _};
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd};
use std::{mem, ptr, thread};

use anyhow::{Context as _, Result, ensure};
use seismo_tests::pattern;

use crate::pairs::{has_messages, pair};
use crate::transfer::{self, LARGE, SIZES, moved, operation};
use crate::{compat, uring};

pub fn run(paths: &[&str]) -> Result<()> {
    let marks = Marks::new()?;
    for (index, path) in paths.iter().enumerate() {
        println!("= {path}");
        if let Err(error) = play(path) {
            println!("! {}", format!("{error:#}").replace('\n', " "));
        }
        marks.end(index + 1)?;
    }
    Ok(())
}

/// Ends steps in the records themselves. Its sockets are of its own: one that is opened where another was can be taken for
/// it, see the holes in docs/coverage.md.
pub struct Marks(OwnedFd, #[expect(dead_code, reason = "keeps the other end open")] OwnedFd);

impl Marks {
    pub fn new() -> Result<Self> {
        pair("unix").map(|(one, two)| Self(one, two))
    }

    pub fn end(&self, step: usize) -> Result<()> {
        let bytes = pattern::mark(step);
        for _ in 0..pattern::MARKS {
            // SAFETY: pointer and length are those of a live slice.
            let sent = unsafe { libc::write(self.0.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
            ensure!(sent == bytes.len() as isize, "{}", io::Error::last_os_error());
        }
        Ok(())
    }
}

fn play(path: &str) -> Result<()> {
    const SMALL: usize = SIZES[0] + SIZES[1] + SIZES[2];
    let (kind, path) = path.split_once('/').context("KIND/PATH")?;
    let (tested, other) = pair(kind)?;
    let socket = tested.as_raw_fd();
    match path {
        "sendmmsg" if has_messages(kind) => {
            transfer::sendmmsg(socket)?;
            read_messages(&other)
        }
        "recvmmsg" if has_messages(kind) => {
            write_messages(&other)?;
            transfer::recvmmsg(socket)
        }
        "sendmmsg" => send_by(&other, SMALL, || transfer::sendmmsg(socket)),
        "sendfile" => send_by(&other, LARGE, || transfer::sendfile(socket)),
        "splice-out" => send_by(&other, SMALL, || transfer::splice(socket)),
        "vmsplice" => send_by(&other, SMALL, || vmsplice(socket)),
        "passed" => send_by(&other, SMALL, || passed(socket)),
        "fork" => send_by(&other, SMALL, || fork(socket)),
        "compat" => send_by(&other, compat::BYTES, || compat(socket)),
        "32-bit-write" => send_by(&other, compat::BYTES, || compat::run(socket, "write")),
        "32-bit-send" => send_by(&other, compat::BYTES, || compat::run(socket, "send")),
        "32-bit-read" => receive_by(&other, compat::BYTES, || compat::run(socket, "read")),
        "32-bit-recv" => receive_by(&other, compat::BYTES, || compat::run(socket, "get")),
        "partial" => partial(&tested, &other),
        "recvmmsg" => receive_by(&other, SMALL, || {
            transfer::await_bytes(socket, SMALL)?;
            transfer::recvmmsg(socket)
        }),
        "splice-in" => receive_by(&other, SMALL, || splice_in(socket)),
        "truncate" => receive_by(&other, SMALL, || truncate(socket)),
        "eagain" => receive_by(&other, SMALL, || eagain(socket)),
        "io_uring-late" => late(socket, &other),
        "io_uring-multishot" => multishot(socket, &other),
        _ if kind == "udp-unconnected" => unconnected(path, tested, other),
        _ => plain(kind, path, &tested, &other),
    }
}

fn plain(kind: &str, path: &str, tested: &OwnedFd, other: &OwnedFd) -> Result<()> {
    let operation = operation(path)?;
    let receives = ["read", "recv", "peek", "provided"].iter().any(|word| path.contains(word));
    if path == "zerocopy" {
        set(tested, libc::SO_ZEROCOPY, 1)?;
    }
    match (receives, has_messages(kind)) {
        (true, false) => receive_by(other, SIZES.iter().sum(), || each(operation, tested.as_raw_fd())),
        (false, false) => send_by(other, SIZES.iter().sum(), || each(operation, tested.as_raw_fd())),
        (true, true) => {
            write_messages(other)?;
            each(operation, tested.as_raw_fd())
        }
        (false, true) => {
            each(operation, tested.as_raw_fd())?;
            read_messages(other)
        }
    }
}

fn write_messages(socket: &OwnedFd) -> Result<()> {
    let mut position = 0;
    for size in SIZES {
        let bytes = pattern::bytes(position, size);
        // SAFETY: pointer and length are those of a live slice.
        let sent = unsafe { libc::write(socket.as_raw_fd(), bytes.as_ptr().cast(), size) };
        ensure!(sent == size as isize, "{}", io::Error::last_os_error());
        position += size;
    }
    Ok(())
}

fn read_messages(socket: &OwnedFd) -> Result<()> {
    let mut position = 0;
    for size in SIZES {
        let mut bytes = vec![0; size];
        // SAFETY: pointer and length are those of a live mutable slice.
        let came = unsafe { libc::read(socket.as_raw_fd(), bytes.as_mut_ptr().cast(), size) };
        ensure!(came == size as isize && bytes == pattern::bytes(position, size), "other bytes arrived");
        position += size;
    }
    Ok(())
}

/// Each message with the other end's address, in the call or in its `msghdr`; the other end uses `sendto` and `recvfrom`.
fn unconnected(path: &str, tested: OwnedFd, other: OwnedFd) -> Result<()> {
    let (socket, tested, other) = (tested.as_raw_fd(), UdpSocket::from(tested), UdpSocket::from(other));
    let mut position = 0;
    for size in SIZES {
        let mut bytes = pattern::bytes(position, size);
        if path.starts_with("send") {
            let mut address = address_of(&other)?;
            moved(with_address(path, socket, &mut bytes, &mut address)?)?;
            let mut came = vec![0; size + 1];
            let (length, _) = other.recv_from(&mut came)?;
            ensure!(came.get(..length) == Some(&bytes[..]), "other bytes arrived");
        } else {
            other.send_to(&bytes, tested.local_addr()?)?;
            let mut came = vec![0; size];
            let mut address = address_of(&tested)?;
            moved(with_address(path, socket, &mut came, &mut address)?)?;
            ensure!(came == bytes, "other bytes arrived");
            ensure!(address.sin_port == address_of(&other)?.sin_port, "they came from another socket");
        }
        position += size;
    }
    Ok(())
}

fn address_of(socket: &UdpSocket) -> Result<libc::sockaddr_in> {
    // SAFETY: all zeroes is a valid address.
    let mut address: libc::sockaddr_in = unsafe { mem::zeroed() };
    address.sin_family = libc::AF_INET as u16;
    address.sin_port = socket.local_addr()?.port().to_be();
    address.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
    Ok(address)
}

fn with_address(path: &str, socket: RawFd, bytes: &mut [u8], address: &mut libc::sockaddr_in) -> Result<isize> {
    let mut length = size_of::<libc::sockaddr_in>() as u32;
    let place = (&raw mut *address).cast::<libc::sockaddr>();
    let mut vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: all zeroes is a message with no name, no control data and no vectors.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut vector, 1);
    (message.msg_name, message.msg_namelen) = (place.cast(), length);
    let (pointer, size) = (bytes.as_mut_ptr().cast(), bytes.len());
    // SAFETY: pointers and lengths are those of a live mutable slice and of an address, in the message too.
    Ok(unsafe {
        match path {
            "sendto" => libc::sendto(socket, pointer, size, 0, place, length),
            "recvfrom" => libc::recvfrom(socket, pointer, size, 0, place, &raw mut length),
            "sendmsg" => libc::sendmsg(socket, &raw const message, 0),
            "recvmsg" => libc::recvmsg(socket, &raw mut message, 0),
            _ => anyhow::bail!("no transfer by {path}"),
        }
    })
}

/// All bytes in one operation that waits for them while the thread makes other system calls.
fn late(socket: RawFd, other: &OwnedFd) -> Result<()> {
    let mut bytes = vec![0; SIZES.iter().sum()];
    let mut writer = std::fs::File::from(other.try_clone()?);
    let all = pattern::bytes(0, bytes.len());
    moved(uring::receive_late(socket, &mut bytes, || writer.write_all(&all)))?;
    ensure!(bytes == all, "other bytes than were sent");
    Ok(())
}

/// One request that takes whatever comes, each time into the next of the buffers that it was given.
fn multishot(socket: RawFd, other: &OwnedFd) -> Result<()> {
    let mut writer = std::fs::File::from(other.try_clone()?);
    let mut position = 0;
    uring::receive_many(socket, &SIZES, |size| {
        writer.write_all(&pattern::bytes(position, size))?;
        position += size;
        Ok(())
    })
}

fn each(operation: transfer::Operation, socket: RawFd) -> Result<()> {
    let mut position = 0;
    for size in SIZES {
        let mut bytes = pattern::bytes(position, size);
        moved(operation(socket, &mut bytes))?;
        ensure!(bytes == pattern::bytes(position, size), "other bytes than were sent");
        // What the kernel still refers to must stay as it is.
        mem::forget(bytes);
        position += size;
    }
    Ok(())
}

/// Plays the tested end's sends while another thread reads what comes.
fn send_by(other: &OwnedFd, total: usize, sends: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut reader = std::fs::File::from(other.try_clone()?);
    let reading = thread::spawn(move || -> Result<()> {
        let mut bytes = vec![0; total];
        reader.read_exact(&mut bytes)?;
        ensure!(bytes == pattern::bytes(0, total), "other bytes arrived");
        Ok(())
    });
    sends()?;
    reading.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?
}

/// Writes everything, then plays the tested end's receives.
fn receive_by(other: &OwnedFd, total: usize, receives: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut writer = std::fs::File::from(other.try_clone()?);
    writer.write_all(&pattern::bytes(0, total))?;
    receives()
}

/// More than fits, without waiting: the kernel takes a part.
fn partial(tested: &OwnedFd, other: &OwnedFd) -> Result<()> {
    const MUCH: usize = 4 << 20;
    let bytes = pattern::bytes(0, MUCH);
    set(tested, libc::SO_SNDBUF, 1 << 16)?;
    // SAFETY: pointer and length are those of a live slice.
    let sent = unsafe { libc::send(tested.as_raw_fd(), bytes.as_ptr().cast(), MUCH, libc::MSG_DONTWAIT) };
    ensure!(sent < MUCH as isize, "all of it was taken");
    // SAFETY: as above; there is no room, unless the other end's buffer took some meanwhile.
    let more = unsafe {
        let rest = bytes.as_ptr().add(sent.max(0) as usize);
        libc::send(tested.as_raw_fd(), rest.cast(), MUCH - sent.max(0) as usize, libc::MSG_DONTWAIT)
    };
    moved(sent)?;
    if more > 0 {
        moved(more)?;
    }
    std::fs::File::from(other.try_clone()?).read_exact(&mut vec![0; (sent + more.max(0)) as usize])?;
    Ok(())
}

/// Sets an option of the socket layer that is one int.
pub fn set(socket: &OwnedFd, option: libc::c_int, value: libc::c_int) -> Result<()> {
    let size = size_of::<libc::c_int>() as u32;
    // SAFETY: the option is one int, which outlives the call.
    let set =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw const value).cast(), size) };
    ensure!(set == 0, "{}", io::Error::last_os_error());
    Ok(())
}

/// Through a pipe that refers to this process's pages.
fn vmsplice(socket: RawFd) -> Result<()> {
    let (reader, writer) = pipe()?;
    let mut position = 0;
    for size in SIZES {
        let mut bytes = pattern::bytes(position, size);
        let vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: size };
        // SAFETY: the vector describes a live slice, which is left alone for good.
        let filled = unsafe { libc::vmsplice(writer.as_raw_fd(), &raw const vector, 1, 0) };
        ensure!(filled == size as isize, "{}", io::Error::last_os_error());
        let mut left = size;
        while left > 0 {
            // SAFETY: both descriptors are open; neither has an offset.
            let result = unsafe { libc::splice(reader.as_raw_fd(), ptr::null_mut(), socket, ptr::null_mut(), left, 0) };
            moved(result)?;
            left -= result as usize;
        }
        mem::forget(bytes);
        position += size;
    }
    Ok(())
}

fn splice_in(socket: RawFd) -> Result<()> {
    let (reader, writer) = pipe()?;
    for size in SIZES {
        let mut left = size;
        while left > 0 {
            // SAFETY: both descriptors are open; neither has an offset.
            let result = unsafe { libc::splice(socket, ptr::null_mut(), writer.as_raw_fd(), ptr::null_mut(), left, 0) };
            moved(result)?;
            left -= result as usize;
        }
        std::fs::File::from(reader.try_clone()?).read_exact(&mut vec![0; size])?;
    }
    Ok(())
}

/// Bytes that are taken out of the stream and thrown away.
fn truncate(socket: RawFd) -> Result<()> {
    for size in SIZES {
        let mut bytes = vec![0xEE; size];
        // SAFETY: pointer and length are those of a live mutable slice.
        moved(unsafe { libc::recv(socket, bytes.as_mut_ptr().cast(), size, libc::MSG_TRUNC | libc::MSG_WAITALL) })?;
    }
    Ok(())
}

/// Receives that find nothing, after those that find something.
fn eagain(socket: RawFd) -> Result<()> {
    each(operation("recv")?, socket)?;
    let mut bytes = [0u8; 64];
    // SAFETY: pointer and length are those of a live mutable slice.
    let nothing = unsafe { libc::recv(socket, bytes.as_mut_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT) };
    ensure!(nothing == -1, "bytes from nowhere");
    Ok(())
}

/// The descriptor travels over a UNIX socket first; what is sent goes through the copy.
fn passed(socket: RawFd) -> Result<()> {
    let (one, two) = pair("unix")?;
    let mut byte = [b'x'];
    let mut vector = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let mut control = [0u64; 4];
    // SAFETY: the message describes one byte and a control buffer that has room for one descriptor; both outlive the
    // calls, and the macros write inside the buffer.
    let copy = unsafe {
        let mut message: libc::msghdr = mem::zeroed();
        (message.msg_iov, message.msg_iovlen) = (&raw mut vector, 1);
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(4) as usize;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        ((*header).cmsg_level, (*header).cmsg_type) = (libc::SOL_SOCKET, libc::SCM_RIGHTS);
        (*header).cmsg_len = libc::CMSG_LEN(4) as usize;
        libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(socket);
        ensure!(libc::sendmsg(one.as_raw_fd(), &raw const message, 0) == 1, "{}", io::Error::last_os_error());
        message.msg_controllen = libc::CMSG_SPACE(4) as usize;
        ensure!(libc::recvmsg(two.as_raw_fd(), &raw mut message, 0) == 1, "{}", io::Error::last_os_error());
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned())
    };
    each(operation("write")?, copy.as_raw_fd())
}

/// A child sends the second part through the socket that it shares.
fn fork(socket: RawFd) -> Result<()> {
    let mut position = 0;
    for (index, size) in SIZES.into_iter().enumerate() {
        let bytes = pattern::bytes(position, size);
        if index == 1 {
            // SAFETY: the child only writes and ends; pointer and length are those of a live slice.
            unsafe {
                let child = libc::fork();
                if child == 0 {
                    libc::write(socket, bytes.as_ptr().cast(), size);
                    libc::_exit(0);
                }
                let mut status = 0;
                ensure!(libc::waitpid(child, &raw mut status, 0) == child && status == 0, "the child failed");
            }
            println!("{size}");
        } else {
            // SAFETY: pointer and length are those of a live slice.
            moved(unsafe { libc::write(socket, bytes.as_ptr().cast(), size) })?;
        }
        position += size;
    }
    Ok(())
}

/// A 32-bit system call of this 64-bit process: write(2) by `int 0x80`, with the bytes below 4 GiB.
fn compat(socket: RawFd) -> Result<()> {
    const PAGE: usize = 4096;
    const WRITE: usize = 4;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT;
    // SAFETY: a new mapping; filled before it is read; the call changes no register but its result's.
    let result = unsafe {
        let page = libc::mmap(ptr::null_mut(), PAGE, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        ensure!(page != libc::MAP_FAILED, "{}", io::Error::last_os_error());
        ptr::copy_nonoverlapping(pattern::bytes(0, 100).as_ptr(), page.cast(), 100);
        let mut result = WRITE;
        std::arch::asm!(
            "push rbx", "mov rbx, {socket}", "int 0x80", "pop rbx",
            socket = in(reg) socket as usize, inout("rax") result, in("rcx") page, in("rdx") 100usize,
        );
        result as i32
    };
    moved(result as isize)
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: the array has room for the two descriptors, which nobody else owns.
    unsafe {
        ensure!(libc::pipe(ends.as_mut_ptr()) == 0, "{}", io::Error::last_os_error());
        Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}
