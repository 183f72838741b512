//! Moves pattern bytes between two sockets of this process, one of which uses the path under test.
//!
//! `cover KIND/PATH`: KIND is tcp4, tcp6, mapped (IPv4 through an IPv6 socket), unix, unix-datagram or udp. Prints how
//! many bytes each operation of the tested end moved, a line each. The other end uses plain read and write.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd};
use std::{mem, ptr, thread};

use anyhow::{Context as _, Result, bail, ensure};
use seismo_tests::pattern;

use crate::transfer::{self, LARGE, SIZES, moved, operation};

pub fn run(path: &str) -> Result<()> {
    let (kind, path) = path.split_once('/').context("KIND/PATH")?;
    let (tested, other) = pair(kind)?;
    match path {
        "sendmmsg" => send_by(&other, SIZES.iter().sum(), || transfer::sendmmsg(tested.as_raw_fd())),
        "sendfile" => send_by(&other, LARGE, || transfer::sendfile(tested.as_raw_fd())),
        "splice-out" => send_by(&other, SIZES.iter().sum(), || transfer::splice(tested.as_raw_fd())),
        "vmsplice" => send_by(&other, SIZES.iter().sum(), || vmsplice(tested.as_raw_fd())),
        "passed" => send_by(&other, SIZES.iter().sum(), || passed(tested.as_raw_fd())),
        "fork" => send_by(&other, SIZES.iter().sum(), || fork(tested.as_raw_fd())),
        "compat" => send_by(&other, 100, || compat(tested.as_raw_fd())),
        "partial" => partial(&tested, &other),
        "recvmmsg" => receive_by(&other, SIZES.iter().sum(), || transfer::recvmmsg(tested.as_raw_fd())),
        "splice-in" => receive_by(&other, SIZES.iter().sum(), || splice_in(tested.as_raw_fd())),
        "truncate" => receive_by(&other, SIZES.iter().sum(), || truncate(tested.as_raw_fd())),
        "eagain" => receive_by(&other, SIZES.iter().sum(), || eagain(tested.as_raw_fd())),
        _ => plain(kind, path, &tested, &other),
    }
}

/// Two connected sockets, the first of which opened the connection.
fn pair(kind: &str) -> Result<(OwnedFd, OwnedFd)> {
    let unix = |kind| {
        let mut ends = [0; 2];
        // SAFETY: the array has room for the two descriptors, which nobody else owns.
        unsafe {
            ensure!(libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) == 0, "{}", io::Error::last_os_error());
            Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
        }
    };
    let tcp = |bind: &str, connect: &str| {
        let listener = TcpListener::bind((bind, 0))?;
        let opened = TcpStream::connect((connect, listener.local_addr()?.port()))?;
        opened.set_nodelay(true)?;
        Ok((opened.into(), listener.accept()?.0.into()))
    };
    match kind {
        "tcp4" => tcp("127.0.0.1", "127.0.0.1"),
        "tcp6" => tcp("::1", "::1"),
        "mapped" => tcp("::", "::ffff:127.0.0.1"),
        "unix" => unix(libc::SOCK_STREAM),
        "unix-datagram" => unix(libc::SOCK_DGRAM),
        "udp" => {
            let (one, two) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
            one.connect(two.local_addr()?)?;
            two.connect(one.local_addr()?)?;
            Ok((one.into(), two.into()))
        }
        _ => bail!("no sockets of kind {kind}"),
    }
}

fn plain(kind: &str, path: &str, tested: &OwnedFd, other: &OwnedFd) -> Result<()> {
    let operation = operation(path)?;
    let receives = ["read", "recv", "peek", "provided"].iter().any(|word| path.contains(word));
    let datagrams = kind.contains("datagram") || kind == "udp";
    if path == "zerocopy" {
        let on: libc::c_int = 1;
        let size = size_of::<libc::c_int>() as u32;
        // SAFETY: the option is one int, which outlives the call.
        let set = unsafe {
            libc::setsockopt(tested.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ZEROCOPY, (&raw const on).cast(), size)
        };
        ensure!(set == 0, "{}", io::Error::last_os_error());
    }
    if receives && !datagrams {
        return receive_by(other, SIZES.iter().sum(), || each(operation, tested.as_raw_fd()));
    }
    if receives {
        let mut position = 0;
        for size in SIZES {
            let bytes = pattern::bytes(position, size);
            // SAFETY: pointer and length are those of a live slice.
            unsafe { libc::write(other.as_raw_fd(), bytes.as_ptr().cast(), size) };
            let mut bytes = vec![0; size];
            moved(operation(tested.as_raw_fd(), &mut bytes))?;
            ensure!(bytes == pattern::bytes(position, size), "other bytes than were sent");
            position += size;
        }
        return Ok(());
    }
    if datagrams {
        let mut position = 0;
        for size in SIZES {
            moved(operation(tested.as_raw_fd(), &mut pattern::bytes(position, size)))?;
            let mut bytes = vec![0; size];
            // SAFETY: pointer and length are those of a live mutable slice.
            let came = unsafe { libc::read(other.as_raw_fd(), bytes.as_mut_ptr().cast(), size) };
            ensure!(came == size as isize && bytes == pattern::bytes(position, size), "other bytes arrived");
            position += size;
        }
        return Ok(());
    }
    send_by(other, SIZES.iter().sum(), || each(operation, tested.as_raw_fd()))
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
    const MUCH: usize = 64 << 20;
    let bytes = pattern::bytes(0, MUCH);
    // SAFETY: pointer and length are those of a live slice.
    let sent = unsafe { libc::send(tested.as_raw_fd(), bytes.as_ptr().cast(), MUCH, libc::MSG_DONTWAIT) };
    ensure!(sent < MUCH as isize, "all of it was taken");
    // SAFETY: as above; there is no room, so nothing is moved.
    let refused = unsafe { libc::send(tested.as_raw_fd(), bytes.as_ptr().cast(), MUCH, libc::MSG_DONTWAIT) };
    moved(sent)?;
    if refused > 0 {
        println!("{refused}");
    }
    let mut rest = vec![0; sent as usize + refused.max(0) as usize];
    std::fs::File::from(other.try_clone()?).read_exact(&mut rest)?;
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
