//! Sends and receives through io_uring, by its raw system calls: one entry, one submission, one completion.
//!
//! A ring is set up for each operation; this is a test of what is seen, not of speed.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{mem, ptr};

const IORING_OP_SEND: u8 = 26;
const IORING_OP_RECV: u8 = 27;
const IORING_ENTER_GETEVENTS: u32 = 1;
const IORING_OFF_SQ_RING: libc::off_t = 0;
const IORING_OFF_CQ_RING: libc::off_t = 0x0800_0000;
const IORING_OFF_SQES: libc::off_t = 0x1000_0000;
/// Covers both rings of one entry each and the submission entry.
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

/// Bytes that lie about the stream: what a reader finds who trusts the wrong system call's buffer.
const DECOY: [u8; 8192] = [0xDD; 8192];

pub fn send(socket: RawFd, bytes: &mut [u8]) -> libc::ssize_t {
    submit(IORING_OP_SEND, socket, bytes)
}

pub fn receive(socket: RawFd, bytes: &mut [u8]) -> libc::ssize_t {
    submit(IORING_OP_RECV, socket, bytes)
}

/// Waits for bytes that come while the thread is in other system calls: the ring's work is then done on the way out
/// of one of them, with its arguments still in the registers.
pub fn receive_late(socket: RawFd, bytes: &mut [u8], send_now: impl FnOnce() -> std::io::Result<()>) -> libc::ssize_t {
    let Some(ring) = Ring::new() else { return -1 };
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
    let Some(ring) = Ring::new() else { return -1 };
    if !ring.submit(opcode, socket, bytes, 0, 1) {
        return -1;
    }
    ring.result().unwrap_or(-1)
}

/// A ring of one entry, used once.
struct Ring {
    descriptor: RawFd,
    parameters: Parameters,
    submissions: *mut libc::c_void,
    completions: *mut libc::c_void,
    entries: *mut libc::c_void,
}

impl Ring {
    fn new() -> Option<Self> {
        // SAFETY: all fields are integers, for which zero is valid.
        let mut parameters: Parameters = unsafe { mem::zeroed() };
        // SAFETY: the kernel fills the parameters, which have the layout of its structure.
        let descriptor = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, &raw mut parameters) } as RawFd;
        if descriptor < 0 {
            return None;
        }
        let submissions = map(descriptor, IORING_OFF_SQ_RING)?;
        let completions = map(descriptor, IORING_OFF_CQ_RING)?;
        let entries = map(descriptor, IORING_OFF_SQES)?;
        Some(Self { descriptor, parameters, submissions, completions, entries })
    }

    /// Submits one operation on a socket and waits for `wait` completions. `bytes` must outlive the operation.
    fn submit(&self, opcode: u8, socket: RawFd, bytes: &mut [u8], message_flags: u32, wait: u32) -> bool {
        let length = bytes.len() as u32;
        let address = bytes.as_mut_ptr() as u64;
        let flags = if wait > 0 { IORING_ENTER_GETEVENTS } else { 0 };
        // SAFETY: the maps are live and hold, at the offsets that the kernel gave, the submission ring and the entry;
        // the ring has one entry and is used once, so index 0 is the next.
        unsafe {
            let entry = Entry { opcode, descriptor: socket, address, length, message_flags, ..mem::zeroed() };
            self.entries.cast::<Entry>().write(entry);
            self.submissions.byte_add(self.parameters.submission.array as usize).cast::<u32>().write(0);
            let tail = &*self.submissions.byte_add(self.parameters.submission.tail as usize).cast::<AtomicU32>();
            tail.store(1, Ordering::Release);
            libc::syscall(libc::SYS_io_uring_enter, self.descriptor, 1, wait, flags, ptr::null::<u8>(), 0) == 1
        }
    }

    /// What the completed operation returned; none before it is complete.
    fn result(&self) -> Option<libc::ssize_t> {
        // SAFETY: as in submit; `struct io_uring_cqe` is user data, then the result.
        unsafe {
            let tail = &*self.completions.byte_add(self.parameters.completion.tail as usize).cast::<AtomicU32>();
            let entry = self.completions.byte_add(self.parameters.completion.cqes as usize + 8);
            (tail.load(Ordering::Acquire) > 0).then(|| entry.cast::<i32>().read() as libc::ssize_t)
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
