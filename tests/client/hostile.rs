//! Calls whose buffers, lengths and vectors are wrong or become wrong while the call lasts.
//!
//! `hostile NAME…`: prints `= NAME` and then what the call said: bytes that were moved, or the negative error number. A mark
//! ends each. Every case has two sockets of its own; the tested end makes one call.

use std::io::{self, Read as _};
use std::net::UdpSocket;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::{mem, ptr, thread};

use anyhow::{Context as _, Result, bail, ensure};
use libc::{c_int, c_void, iovec, ssize_t};
use seismo_tests::pattern;

use crate::cover::Marks;
use crate::pairs::pair;
use crate::region::Region;
use crate::{transfer, uring};

/// More than a connection takes without a reader.
const MUCH: usize = 8 << 20;
const SMALL: usize = 300;

pub fn run(names: &[&str]) -> Result<()> {
    let marks = Marks::new()?;
    for (index, name) in names.iter().enumerate() {
        println!("= {name}");
        let result = play(name).with_context(|| (*name).to_owned())?;
        println!("{result}");
        marks.end(index + 1)?;
    }
    Ok(())
}

/// The result of a call, or its error as a negative number.
fn said(result: ssize_t) -> i64 {
    let error = io::Error::last_os_error().raw_os_error().unwrap_or(0);
    if result < 0 { -i64::from(error) } else { result as i64 }
}

fn play(name: &str) -> Result<i64> {
    let (tested, other) = pair(if name.starts_with("udp") { "udp" } else { "tcp4" })?;
    let socket = tested.as_raw_fd();
    let page = Region::new(4096)?;
    let edge = page.end().wrapping_byte_sub(100);
    let nowhere = Region::gone()?;
    Ok(match name {
        "write-unmapped" => write(socket, nowhere, SMALL),
        "write-no-access" => write(socket, page.end(), SMALL),
        "write-edge" => write(socket, edge, SMALL),
        "write-negative" => write(socket, page.begin(), usize::MAX),
        "writev-edge" => writev(socket, &[(page.begin(), 100), (nowhere, 200)]),
        "write-large-edge" => {
            let large = Region::new(1 << 18)?;
            let reader = reads(&other)?;
            let result = write(socket, large.begin(), 1 << 19);
            drop((tested, other));
            reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
            result
        }
        "write-int-max" => without_waiting(&tested, |socket, much| write(socket, much.begin(), i32::MAX as usize))?,
        "write-beyond-32-bits" => without_waiting(&tested, |socket, much| write(socket, much.begin(), (1 << 32) + 5))?,
        "writev-clipped" => without_waiting(&tested, |socket, much| {
            writev(socket, &[(much.begin(), 0x7fff_f000), (much.begin(), 0x7fff_f000)])
        })?,
        "writev-overflow" => writev(socket, &[(page.begin(), 100), (page.begin(), usize::MAX)]),
        "writev-overflow-sum" => writev(socket, &[(page.begin(), isize::MAX as usize); 2]),
        "writev-1024" => writev(socket, &thirds(&page, 1024)),
        "writev-1025" => writev(socket, &thirds(&page, 1025)),
        "sendmsg-1025" => sendmsg(socket, &thirds(&page, 1025)),
        "sendmsg-empty-vectors" => {
            sendmsg(socket, &[(ptr::null_mut(), 0), (page.begin(), SMALL), (ptr::null_mut(), 0)])
        }
        "sendmsg-no-vectors" => sendmsg(socket, &[]),
        // SAFETY: a null pointer, which the kernel refuses.
        "sendmsg-null" => said(unsafe { libc::sendmsg(socket, ptr::null(), 0) }),
        "sendmsg-null-vectors" => {
            // SAFETY: a null pointer in a live message, which the kernel refuses.
            said(unsafe { libc::sendmsg(socket, &raw const *null_vectors(), 0) })
        }
        "recvmsg-null" => {
            fill(&other, SMALL)?;
            // SAFETY: as above.
            said(unsafe { libc::recvmsg(socket, ptr::null_mut(), 0) })
        }
        "recvmsg-null-vectors" => {
            fill(&other, SMALL)?;
            // SAFETY: as above.
            said(unsafe { libc::recvmsg(socket, &raw mut *null_vectors(), 0) })
        }
        "read-unmapped" => {
            fill(&other, SMALL)?;
            read(socket, nowhere, SMALL)
        }
        "read-edge" => {
            fill(&other, SMALL)?;
            read(socket, edge, SMALL)
        }
        "read-int-max" => {
            fill(&other, SMALL)?;
            read(socket, page.begin(), i32::MAX as usize)
        }
        "write-changed" => changed(socket)?,
        "write-gone" => {
            let much = Region::new(MUCH)?;
            let (begin, length) = (much.begin() as usize, much.length());
            while_blocked(socket, &other, &much, move || write(socket, begin as *mut c_void, length))?
        }
        "writev-vectors-gone" => {
            let much = Region::new(MUCH)?;
            let vectors = Region::new(4096)?;
            let thirds = [0, 1, 2].map(|third| vector((much.begin().wrapping_byte_add(third * MUCH / 3), MUCH / 3)));
            // SAFETY: a page has room for three vectors.
            unsafe { ptr::copy_nonoverlapping(thirds.as_ptr(), vectors.begin().cast(), thirds.len()) };
            let place = vectors.begin() as usize;
            while_blocked(socket, &other, &vectors, move || {
                // SAFETY: three vectors of live memory; whether they are there is the kernel's to find out.
                said(unsafe { libc::writev(socket, place as *const iovec, 3) })
            })?
        }
        "sendmsg-message-gone" => {
            let much = Region::new(MUCH)?;
            let message = Region::new(4096)?;
            let mut vectors = [vector((much.begin(), MUCH))];
            // SAFETY: a page has room for a message, and all zeroes is one.
            unsafe { message.begin().cast::<libc::msghdr>().write(described(&mut vectors)) };
            let place = message.begin() as usize;
            while_blocked(socket, &other, &message, move || {
                // SAFETY: a message of live vectors; whether it is there is the kernel's to find out.
                said(unsafe { libc::sendmsg(socket, place as *const libc::msghdr, 0) })
            })?
        }
        "recv-gone" => receive_gone(socket, &other)?,
        "udp-truncated" => {
            fill(&other, 3000)?;
            // SAFETY: the length is that of the end of a live page.
            said(unsafe { libc::recv(socket, edge.cast(), 100, libc::MSG_TRUNC) })
        }
        "udp-truncated-vectors" => {
            fill(&other, 3000)?;
            let mut vectors = [vector((edge, 50)), vector((edge.wrapping_byte_add(50), 50))];
            let mut message = described(&mut vectors);
            // SAFETY: the vectors describe the end of a live page.
            said(unsafe { libc::recvmsg(socket, &raw mut message, libc::MSG_TRUNC) })
        }
        "udp-error-queue" => error_queue()?,
        "sendmmsg-bad-second" => sendmmsg(socket, &[(page.begin(), 5), (nowhere, SMALL), (page.begin(), SMALL)])?,
        "sendmmsg-1024" => {
            let reader = reads(&other)?;
            let result = sendmmsg(socket, &thirds(&page, 1024))?;
            drop((tested, other));
            reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
            result
        }
        "io_uring-no-access" => {
            // SAFETY: not a slice that anybody reads or writes: only its address and length are given to the kernel, which
            // refuses them.
            let bytes = unsafe { std::slice::from_raw_parts_mut(page.end().cast::<u8>(), SMALL) };
            uring::send(socket, bytes) as i64
        }
        _ => bail!("no such case"),
    })
}

fn write(socket: RawFd, place: *mut c_void, length: usize) -> i64 {
    // SAFETY: the kernel checks what it reads; this process does not.
    said(unsafe { libc::write(socket, place, length) })
}

fn read(socket: RawFd, place: *mut c_void, length: usize) -> i64 {
    // SAFETY: the kernel writes into memory of a region of ours, or finds that it cannot.
    said(unsafe { libc::read(socket, place, length) })
}

fn vector((place, length): (*mut c_void, usize)) -> iovec {
    iovec { iov_base: place, iov_len: length }
}

fn writev(socket: RawFd, parts: &[(*mut c_void, usize)]) -> i64 {
    let vectors: Vec<iovec> = parts.iter().copied().map(vector).collect();
    // SAFETY: the vectors are there; what they describe is the kernel's to find out.
    said(unsafe { libc::writev(socket, vectors.as_ptr(), vectors.len() as c_int) })
}

fn sendmsg(socket: RawFd, parts: &[(*mut c_void, usize)]) -> i64 {
    let mut vectors: Vec<iovec> = parts.iter().copied().map(vector).collect();
    let message = described(&mut vectors);
    // SAFETY: as above.
    said(unsafe { libc::sendmsg(socket, &raw const message, 0) })
}

/// Bytes of the messages that were sent.
fn sendmmsg(socket: RawFd, parts: &[(*mut c_void, usize)]) -> Result<i64> {
    let mut vectors: Vec<iovec> = parts.iter().copied().map(vector).collect();
    let mut messages: Vec<libc::mmsghdr> =
        vectors.chunks_mut(1).map(|one| libc::mmsghdr { msg_hdr: described(one), msg_len: 0 }).collect();
    // SAFETY: the messages and their vectors are there.
    let sent = unsafe { libc::sendmmsg(socket, messages.as_mut_ptr(), messages.len() as u32, 0) };
    ensure!(sent > 0, "{}", io::Error::last_os_error());
    Ok(messages.iter().take(sent as usize).map(|message| i64::from(message.msg_len)).sum())
}

fn described(vectors: &mut [iovec]) -> libc::msghdr {
    // SAFETY: all zeroes is a message with no name, no control data and no vectors.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    if !vectors.is_empty() {
        (message.msg_iov, message.msg_iovlen) = (vectors.as_mut_ptr(), vectors.len());
    }
    message
}

fn null_vectors() -> Box<libc::msghdr> {
    let mut message = Box::new(described(&mut []));
    message.msg_iovlen = 3;
    message
}

/// Parts of three bytes each.
fn thirds(page: &Region, count: usize) -> Vec<(*mut c_void, usize)> {
    (0..count).map(|index| (page.begin().wrapping_byte_add(index * 3), 3)).collect()
}

/// Bytes that wait for the tested end.
fn fill(other: &OwnedFd, length: usize) -> Result<()> {
    let bytes = pattern::bytes(0, length);
    // SAFETY: pointer and length are those of a live slice.
    let sent = unsafe { libc::write(other.as_raw_fd(), bytes.as_ptr().cast(), length) };
    ensure!(sent == length as ssize_t, "{}", io::Error::last_os_error());
    Ok(())
}

/// Reads the other end to its end, as long as there is a copy of neither here.
fn reads(other: &OwnedFd) -> Result<thread::JoinHandle<Result<()>>> {
    let mut other = std::fs::File::from(other.try_clone()?);
    Ok(thread::spawn(move || {
        other.read_to_end(&mut Vec::new())?;
        Ok(())
    }))
}

fn without_waiting(tested: &OwnedFd, call: impl FnOnce(RawFd, &Region) -> i64) -> Result<i64> {
    let much = Region::new(MUCH)?;
    // SAFETY: no pointers.
    let set = unsafe { libc::fcntl(tested.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
    ensure!(set == 0, "{}", io::Error::last_os_error());
    Ok(call(tested.as_raw_fd(), &much))
}

/// A write from bytes that another thread changes all the time.
fn changed(socket: RawFd) -> Result<i64> {
    use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
    let page = Region::new(8192)?;
    let place = page.begin() as usize;
    let stop = AtomicBool::new(false);
    Ok(thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for index in 0..6000 {
                    // SAFETY: inside the region, which outlives the thread.
                    unsafe { AtomicU8::from_ptr((place + index) as *mut u8) }.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let result = write(socket, page.begin(), 6000);
        stop.store(true, Ordering::Relaxed);
        result
    }))
}

/// Makes a call that blocks because nobody reads, takes a region away meanwhile, and then reads everything.
fn while_blocked(socket: RawFd, other: &OwnedFd, region: &Region, call: impl FnOnce() -> i64 + Send) -> Result<i64> {
    thread::scope(|scope| {
        let calling = scope.spawn(call);
        await_still(other.as_raw_fd())?;
        region.take_away()?;
        let mut reader = std::fs::File::from(other.try_clone()?);
        let mut bytes = vec![0; 1 << 20];
        while !calling.is_finished() {
            if transfer::waiting(other.as_raw_fd())? > 0 {
                let _came = reader.read(&mut bytes)?;
            }
            thread::yield_now();
        }
        // SAFETY: no pointers; whatever is left is read to its end.
        unsafe { libc::shutdown(socket, libc::SHUT_WR) };
        reader.read_to_end(&mut Vec::new())?;
        calling.join().map_err(|_| anyhow::anyhow!("the caller panicked"))
    })
}

/// A receive of two parts whose buffer is taken away between them.
fn receive_gone(socket: RawFd, other: &OwnedFd) -> Result<i64> {
    let page = Region::new(8192)?;
    let place = page.begin() as usize;
    thread::scope(|scope| {
        let calling = scope.spawn(move || {
            // SAFETY: the kernel writes into memory of a region of ours, or finds that it cannot.
            said(unsafe { libc::recv(socket, place as *mut c_void, 8192, libc::MSG_WAITALL) })
        });
        fill(other, SMALL)?;
        let start = std::time::Instant::now();
        while transfer::waiting(socket)? > 0 {
            ensure!(start.elapsed().as_secs() < 10, "nobody receives");
            thread::yield_now();
        }
        page.take_away()?;
        fill(other, 6000)?;
        calling.join().map_err(|_| anyhow::anyhow!("the caller panicked"))
    })
}

/// Waits until as many bytes wait for a reader as will come: the number stands still.
fn await_still(socket: RawFd) -> Result<()> {
    let mut before = 0;
    loop {
        thread::sleep(std::time::Duration::from_millis(100));
        let now = transfer::waiting(socket)?;
        if now > 0 && now == before {
            return Ok(());
        }
        before = now;
    }
}

/// A datagram that comes back as an error, with its bytes.
fn error_queue() -> Result<i64> {
    let nobody = UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(nobody)?;
    let on: c_int = 1;
    let size = size_of::<c_int>() as u32;
    // SAFETY: the option is one int, which outlives the call.
    let set =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_IP, libc::IP_RECVERR, (&raw const on).cast(), size) };
    ensure!(set == 0, "{}", io::Error::last_os_error());
    socket.send(&pattern::bytes(0, 100))?;
    let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events: 0, revents: 0 };
    // SAFETY: one live entry.
    ensure!(unsafe { libc::poll(&raw mut poll, 1, 10_000) } == 1, "no error came");
    let mut bytes = vec![0; 200];
    let mut vectors = [vector((bytes.as_mut_ptr().cast(), bytes.len()))];
    let mut message = described(&mut vectors);
    // SAFETY: the vector describes a live slice.
    let result = said(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_ERRQUEUE) });
    Ok(result)
}
