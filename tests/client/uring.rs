//! Sends and receives through io_uring, by its raw system calls: one entry, one submission, one completion.
//!
//! A ring is set up for each operation; this is a test of what is seen, not of speed.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU32, Ordering};
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

pub fn send(socket: RawFd, bytes: &mut [u8]) -> libc::ssize_t {
    submit(IORING_OP_SEND, socket, bytes)
}

pub fn receive(socket: RawFd, bytes: &mut [u8]) -> libc::ssize_t {
    submit(IORING_OP_RECV, socket, bytes)
}

fn submit(opcode: u8, socket: RawFd, bytes: &mut [u8]) -> libc::ssize_t {
    // SAFETY: all fields are integers, for which zero is valid.
    let mut parameters: Parameters = unsafe { mem::zeroed() };
    // SAFETY: the kernel fills the parameters, which have the layout of its structure.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, &raw mut parameters) } as RawFd;
    if ring < 0 {
        return -1;
    }
    let maps = [IORING_OFF_SQ_RING, IORING_OFF_CQ_RING, IORING_OFF_SQES].map(|offset| map(ring, offset));
    let [Some(submissions), Some(completions), Some(entries)] = maps else { return -1 };
    let length = bytes.len() as u32;
    let address = bytes.as_mut_ptr() as u64;
    // SAFETY: the maps are live and hold, at the offsets that the kernel gave, the rings and the entry; the ring
    // has one entry, so index 0 is the next in both; `bytes` outlives the wait for the completion.
    unsafe {
        let entry = Entry { opcode, descriptor: socket, address, length, ..mem::zeroed() };
        entries.cast::<Entry>().write(entry);
        submissions.byte_add(parameters.submission.array as usize).cast::<u32>().write(0);
        let tail = &*submissions.byte_add(parameters.submission.tail as usize).cast::<AtomicU32>();
        tail.store(1, Ordering::Release);
        let enter = libc::SYS_io_uring_enter;
        if libc::syscall(enter, ring, 1, 1, IORING_ENTER_GETEVENTS, ptr::null::<u8>(), 0) != 1 {
            return -1;
        }
        // `struct io_uring_cqe`: user data, then the result.
        let result = completions.byte_add(parameters.completion.cqes as usize + 8).cast::<i32>().read();
        for place in maps.into_iter().flatten() {
            libc::munmap(place, MAP_BYTES);
        }
        libc::close(ring);
        result as libc::ssize_t
    }
}

fn map(ring: RawFd, offset: libc::off_t) -> Option<*mut libc::c_void> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let place = unsafe { libc::mmap(ptr::null_mut(), MAP_BYTES, access, flags, ring, offset) };
    (place != libc::MAP_FAILED).then_some(place)
}
