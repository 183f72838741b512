//! Sends and receives through io_uring, by its raw system calls: one entry, one submission, one completion.
//!
//! A ring is set up for each operation; this is a test of what is seen, not of speed.

use std::cell::Cell;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{mem, ptr};

use anyhow::{Context as _, ensure};
use seismo_tests::pattern;

use crate::transfer::moved;

const IORING_OP_SENDMSG: u8 = 9;
const IORING_OP_RECVMSG: u8 = 10;
const IORING_OP_READ: u8 = 22;
const IORING_OP_WRITE: u8 = 23;
const IORING_OP_PROVIDE_BUFFERS: u8 = 31;
const IOSQE_BUFFER_SELECT: u8 = 1 << 5;
const IORING_SETUP_SQPOLL: u32 = 2;
const IORING_ENTER_SQ_WAKEUP: u32 = 2;
const IORING_OP_SEND: u8 = 26;
const IORING_OP_RECV: u8 = 27;
/// In the entry's priority: go on until there is nothing left to receive into.
const IORING_RECV_MULTISHOT: u16 = 2;
const IORING_ENTER_GETEVENTS: u32 = 1;
/// Of a completion's flags: above are the buffer's number.
const IORING_CQE_BUFFER_SHIFT: u32 = 16;
const IORING_OFF_SQ_RING: libc::off_t = 0;
const IORING_OFF_CQ_RING: libc::off_t = 0x0800_0000;
const IORING_OFF_SQES: libc::off_t = 0x1000_0000;
/// Of a ring for one operation after another.
const ENTRIES: u32 = 4;
/// Covers both rings and the submission entries.
const MAP_BYTES: usize = 4096;

/// `struct io_sqring_offsets`.
#[repr(C)]
struct SubmissionOffsets {
    head: u32,
    tail: u32,
    ring_mask: u32,
    ring_entries: u32,
    flags: u32,
    dropped: u32,
    array: u32,
    reserved: [u32; 3],
}

/// `struct io_cqring_offsets`.
#[repr(C)]
struct CompletionOffsets {
    head: u32,
    tail: u32,
    ring_mask: u32,
    ring_entries: u32,
    overflow: u32,
    cqes: u32,
    reserved: [u32; 4],
}

/// `struct io_uring_params`.
#[repr(C)]
struct Parameters {
    entries: [u32; 2],
    flags: u32,
    thread_cpu: u32,
    thread_idle: u32,
    features: u32,
    attached: u32,
    reserved: [u32; 3],
    submission: SubmissionOffsets,
    completion: CompletionOffsets,
}

/// `struct io_uring_sqe`, up to what send and receive use.
#[repr(C)]
struct Entry {
    opcode: u8,
    flags: u8,
    priority: u16,
    descriptor: i32,
    offset: u64,
    address: u64,
    length: u32,
    message_flags: u32,
    user: u64,
    rest: [u64; 3],
}

impl Entry {
    const ZERO: Self = Self {
        opcode: 0,
        flags: 0,
        priority: 0,
        descriptor: 0,
        offset: 0,
        address: 0,
        length: 0,
        message_flags: 0,
        user: 0,
        rest: [0; 3],
    };
}

/// Bytes that lie about the stream: what a reader finds who trusts the wrong system call's buffer.
const DECOY: [u8; 8192] = [0xDD; 8192];

pub fn send(socket: RawFd, bytes: &mut [u8]) -> libc::ssize_t {
    submit(IORING_OP_SEND, socket, bytes)
}

pub fn receive(socket: RawFd, bytes: &mut [u8]) -> libc::ssize_t {
    submit(IORING_OP_RECV, socket, bytes)
}

pub fn write(socket: RawFd, bytes: &mut [u8]) -> libc::ssize_t {
    submit(IORING_OP_WRITE, socket, bytes)
}

pub fn read(socket: RawFd, bytes: &mut [u8]) -> libc::ssize_t {
    submit(IORING_OP_READ, socket, bytes)
}

pub fn send_message(socket: RawFd, bytes: &mut [u8]) -> libc::ssize_t {
    message(IORING_OP_SENDMSG, socket, bytes)
}

pub fn receive_message(socket: RawFd, bytes: &mut [u8]) -> libc::ssize_t {
    message(IORING_OP_RECVMSG, socket, bytes)
}

pub fn send_polled(socket: RawFd, bytes: &mut [u8]) -> libc::ssize_t {
    polled(IORING_OP_SEND, socket, bytes)
}

pub fn receive_polled(socket: RawFd, bytes: &mut [u8]) -> libc::ssize_t {
    polled(IORING_OP_RECV, socket, bytes)
}

/// In three vectors.
fn message(opcode: u8, socket: RawFd, bytes: &mut [u8]) -> libc::ssize_t {
    let size = bytes.len().div_ceil(3);
    let mut pieces: Vec<libc::iovec> = bytes
        .chunks_mut(size)
        .map(|part| libc::iovec { iov_base: part.as_mut_ptr().cast(), iov_len: part.len() })
        .collect();
    // SAFETY: all zeroes is a message with no name, no control data and no vectors.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = pieces.as_mut_ptr();
    message.msg_iovlen = pieces.len();
    let Some(ring) = Ring::new(0) else { return -1 };
    let entry = Entry { opcode, descriptor: socket, address: (&raw mut message) as u64, length: 1, ..Entry::ZERO };
    if !ring.submit_entry(entry, 1) {
        return -1;
    }
    ring.result().unwrap_or(-1)
}

/// A kernel thread takes the entry out of the ring; nobody makes a system call for it.
fn polled(opcode: u8, socket: RawFd, bytes: &mut [u8]) -> libc::ssize_t {
    let Some(ring) = Ring::new(IORING_SETUP_SQPOLL) else { return -1 };
    ring.push(Entry {
        opcode,
        descriptor: socket,
        address: bytes.as_mut_ptr() as u64,
        length: bytes.len() as u32,
        ..Entry::ZERO
    });
    // SAFETY: no pointers; wakes the kernel's thread if it sleeps.
    unsafe { libc::syscall(libc::SYS_io_uring_enter, ring.descriptor, 0, 0, IORING_ENTER_SQ_WAKEUP, 0, 0) };
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(10) {
        if let Some(result) = ring.result() {
            return result;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    -1
}

/// Into a buffer that the ring was given before.
pub fn receive_provided(socket: RawFd, bytes: &mut [u8]) -> libc::ssize_t {
    const GROUP: u64 = 7;
    let (address, length) = (bytes.as_mut_ptr() as u64, bytes.len() as u32);
    let Some(ring) = Ring::new(0) else { return -1 };
    let provide =
        Entry { opcode: IORING_OP_PROVIDE_BUFFERS, descriptor: 1, address, length, rest: [GROUP, 0, 0], ..Entry::ZERO };
    // Before 5.19 no length means nothing.
    let receive = Entry {
        opcode: IORING_OP_RECV,
        flags: IOSQE_BUFFER_SELECT,
        descriptor: socket,
        length,
        rest: [GROUP, 0, 0],
        ..Entry::ZERO
    };
    if !ring.submit_entry(provide, 1) || ring.result().is_none_or(|result| result < 0) || !ring.submit_entry(receive, 1)
    {
        return -1;
    }
    ring.result().unwrap_or(-1)
}

/// Waits for bytes that come while the thread is in other system calls: the ring's work is then done on the way out
/// of one of them, with its arguments still in the registers.
pub fn receive_late(socket: RawFd, bytes: &mut [u8], send_now: impl FnOnce() -> std::io::Result<()>) -> libc::ssize_t {
    let Some(ring) = Ring::new(0) else { return -1 };
    if !ring.submit(IORING_OP_RECV, socket, bytes, libc::MSG_WAITALL as u32, 0) || send_now().is_err() {
        return -1;
    }
    let Ok(sink) = std::fs::File::create("/dev/null") else { return -1 };
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(10) {
        if let Some(result) = ring.result() {
            return result;
        }
        // SAFETY: pointer and length are those of a constant.
        unsafe { libc::write(sink.as_raw_fd(), DECOY.as_ptr().cast(), DECOY.len()) };
    }
    -1
}

fn submit(opcode: u8, socket: RawFd, bytes: &mut [u8]) -> libc::ssize_t {
    let Some(ring) = Ring::new(0) else { return -1 };
    if !ring.submit(opcode, socket, bytes, 0, 1) {
        return -1;
    }
    ring.result().unwrap_or(-1)
}

/// One request with a buffer for each of `sizes`, which `send_now` lets come one at a time; prints what each took.
pub fn receive_many(
    socket: RawFd,
    sizes: &[usize],
    mut send_now: impl FnMut(usize) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    const GROUP: u64 = 7;
    const EACH: usize = 8192;
    let mut buffers = vec![0u8; sizes.len() * EACH];
    let ring = Ring::new(0).context("no ring")?;
    let provide = Entry {
        opcode: IORING_OP_PROVIDE_BUFFERS,
        descriptor: sizes.len() as i32,
        address: buffers.as_mut_ptr() as u64,
        length: EACH as u32,
        rest: [GROUP, 0, 0],
        ..Entry::ZERO
    };
    ensure!(ring.submit_entry(provide, 1) && ring.result() == Some(0), "no buffers were taken");
    let receive = Entry {
        opcode: IORING_OP_RECV,
        flags: IOSQE_BUFFER_SELECT,
        priority: IORING_RECV_MULTISHOT,
        descriptor: socket,
        rest: [GROUP, 0, 0],
        ..Entry::ZERO
    };
    ensure!(ring.submit_entry(receive, 0), "the request was not taken");
    let mut position = 0;
    for (index, size) in sizes.iter().enumerate() {
        send_now(*size)?;
        let start = Instant::now();
        // The completion of the buffers was the first.
        let (result, flags) = loop {
            if let Some(completion) = ring.completion(index as u32 + 1) {
                break completion;
            }
            ensure!(start.elapsed() < Duration::from_secs(10), "no completion");
            std::thread::sleep(Duration::from_millis(1));
        };
        moved(result as libc::ssize_t)?;
        let buffer = (flags >> IORING_CQE_BUFFER_SHIFT) as usize * EACH;
        let came = buffers.get(buffer..buffer + *size);
        ensure!(came == Some(&pattern::bytes(position, *size)[..]), "other bytes than were sent");
        position += size;
    }
    Ok(())
}

/// A ring, with one operation at a time.
struct Ring {
    used: Cell<u32>,
    descriptor: RawFd,
    parameters: Parameters,
    submissions: *mut libc::c_void,
    completions: *mut libc::c_void,
    entries: *mut libc::c_void,
}

impl Ring {
    fn new(flags: u32) -> Option<Self> {
        // SAFETY: all fields are integers, for which zero is valid.
        let mut parameters: Parameters = unsafe { mem::zeroed() };
        parameters.flags = flags;
        // SAFETY: the kernel fills the parameters, which have the layout of its structure.
        let descriptor = unsafe { libc::syscall(libc::SYS_io_uring_setup, ENTRIES, &raw mut parameters) } as RawFd;
        if descriptor < 0 {
            return None;
        }
        let submissions = map(descriptor, IORING_OFF_SQ_RING)?;
        let completions = map(descriptor, IORING_OFF_CQ_RING)?;
        let entries = map(descriptor, IORING_OFF_SQES)?;
        Some(Self { used: Cell::new(0), descriptor, parameters, submissions, completions, entries })
    }

    /// Submits one operation on a socket and waits for `wait` completions. `bytes` must outlive the operation.
    fn submit(&self, opcode: u8, socket: RawFd, bytes: &mut [u8], message_flags: u32, wait: u32) -> bool {
        let length = bytes.len() as u32;
        let address = bytes.as_mut_ptr() as u64;
        self.submit_entry(Entry { opcode, descriptor: socket, address, length, message_flags, ..Entry::ZERO }, wait)
    }

    fn submit_entry(&self, entry: Entry, wait: u32) -> bool {
        let flags = if wait > 0 { IORING_ENTER_GETEVENTS } else { 0 };
        self.push(entry);
        // SAFETY: no pointer but a null one.
        unsafe { libc::syscall(libc::SYS_io_uring_enter, self.descriptor, 1, wait, flags, ptr::null::<u8>(), 0) == 1 }
    }

    /// Puts an entry into the ring. What it points to must outlive the operation.
    fn push(&self, entry: Entry) {
        let index = self.used.get() & (self.parameters.entries[0] - 1);
        self.used.set(self.used.get() + 1);
        // SAFETY: the maps are live and hold, at the offsets that the kernel gave, the submission ring and the entries; the
        // index is below their number, a power of two.
        unsafe {
            self.entries.cast::<Entry>().add(index as usize).write(entry);
            let places = self.submissions.byte_add(self.parameters.submission.array as usize).cast::<u32>();
            places.add(index as usize).write(index);
            let tail = &*self.submissions.byte_add(self.parameters.submission.tail as usize).cast::<AtomicU32>();
            tail.store(self.used.get(), Ordering::Release);
        }
    }

    /// What the last operation returned; none before it is complete.
    fn result(&self) -> Option<libc::ssize_t> {
        self.completion(self.used.get() - 1).map(|(result, _)| result as libc::ssize_t)
    }

    /// Result and flags of the completion of this number; none before it is there. No more have room than were ever asked
    /// for: none is taken out of the ring.
    fn completion(&self, number: u32) -> Option<(i32, u32)> {
        // SAFETY: as in push; `struct io_uring_cqe` is user data, then result and flags.
        unsafe {
            let tail = &*self.completions.byte_add(self.parameters.completion.tail as usize).cast::<AtomicU32>();
            let index = (number & (self.parameters.entries[1] - 1)) as usize;
            let entry = self.completions.byte_add(self.parameters.completion.cqes as usize + 16 * index + 8);
            (tail.load(Ordering::Acquire) > number).then(|| {
                let words = entry.cast::<i32>();
                (words.read(), words.add(1).read().cast_unsigned())
            })
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: unmaps what `new` mapped and closes what it opened; nothing points there any more.
        unsafe {
            for place in [self.submissions, self.completions, self.entries] {
                libc::munmap(place, MAP_BYTES);
            }
            libc::close(self.descriptor);
        }
    }
}

fn map(ring: RawFd, offset: libc::off_t) -> Option<*mut libc::c_void> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let place = unsafe { libc::mmap(ptr::null_mut(), MAP_BYTES, access, flags, ring, offset) };
    (place != libc::MAP_FAILED).then_some(place)
}
