//! The bytes of an operation: where an application keeps them, and a bounded copy of them.
//!
//! [`Place`] + what is wanted → bytes in the scratch, and why it is not all. At most [`MAX_CAPTURE`] bytes from at most
//! [`MAX_IOVECS`] vectors; every address and length is the application's and may be anything: a read that fails is told,
//! never repeated. Nothing is read beyond the length that the application gave for its buffer. No loop but the vectors'.

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_user};
use core::ffi::c_void;

use seismo_common::config::{MAX_CAPTURE, MAX_IOVECS};
use seismo_common::payload::{CUT_FAULT, CUT_IOVECS, CUT_NO_BUFFER};

use crate::kernel::opaque;
use crate::maps::Scratch;

/// Where the bytes are.
#[derive(Clone, Copy)]
pub struct Place {
    pub kind: Kind,
    /// Address of the bytes, or of what describes them.
    pub pointer: u64,
    /// Bytes, vectors or messages there.
    pub count: u64,
    /// Bytes in front that belong to an earlier operation.
    pub offset: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nowhere that can be read.
    Nowhere,
    /// In one piece.
    Bytes,
    /// In an array of I/O vectors.
    Vectors,
    /// The same, where the kernel has its own copy of the array.
    KernelVectors,
    /// In a `msghdr`.
    Message,
    /// In an array of `mmsghdr`, each with its own length.
    Messages,
}

impl Place {
    pub const NOWHERE: Self = Self { kind: Kind::Nowhere, pointer: 0, count: 0, offset: 0 };

    #[inline(always)]
    pub fn new(kind: Kind, pointer: u64, count: u64) -> Self {
        Self { kind, pointer, count, offset: 0 }
    }

    /// By x86-64 system call number: its second argument and, where that is an array, its third.
    #[inline(always)]
    pub fn of_syscall(syscall: i64, pointer: u64, count: u64) -> Self {
        let kind = match syscall {
            // read, write, sendto, recvfrom
            0 | 1 | 44 | 45 => Kind::Bytes,
            // readv, writev, preadv2, pwritev2
            19 | 20 | 327 | 328 => Kind::Vectors,
            // sendmsg, recvmsg
            46 | 47 => Kind::Message,
            _ => Kind::Nowhere,
        };
        Self::new(kind, pointer, count)
    }
}

/// Which bytes of an operation are wanted.
#[derive(Clone, Copy)]
pub struct Want {
    /// Bytes before them.
    pub skip: u64,
    pub length: u64,
    /// Why it is not all.
    pub cut: u16,
}

/// `iovec` of a 64-bit process.
#[derive(Clone, Copy)]
#[repr(C)]
struct Vector {
    base: u64,
    length: u64,
}

/// `struct mmsghdr`: a `user_msghdr` of 56 bytes, then the length that was moved.
const MESSAGE_BYTES: u64 = 64;
const MESSAGE_LENGTH: u64 = 56;

type Vectors = [Vector; MAX_IOVECS];

/// Copies what is wanted into the scratch; returns the bytes copied and why it is not all.
#[inline(always)]
pub fn capture(scratch: *mut Scratch, place: &Place, want: &Want) -> (u64, u16) {
    // SAFETY: the scratch is a map value; only the address of its tail is taken.
    let out = unsafe { (&raw mut (*scratch).bytes).cast::<u8>() };
    let skip = want.skip + place.offset;
    if place.kind == Kind::Nowhere {
        return (0, CUT_NO_BUFFER);
    }
    if place.kind == Kind::Bytes {
        // A datagram can be longer than the buffer that it was read into (MSG_TRUNC).
        let there = place.count.saturating_sub(want.skip);
        let length = want.length.min(there);
        return match copy(out, 0, place.pointer.wrapping_add(skip), length) {
            Some(copied) if copied < want.length => (copied, CUT_NO_BUFFER),
            Some(copied) => (copied, 0),
            None => (0, CUT_FAULT),
        };
    }
    let mut table = [Vector { base: 0, length: 0 }; MAX_IOVECS];
    let (count, more) = match place.kind {
        Kind::Messages => first_vectors(&mut table, place),
        Kind::Message => match read_message(place.pointer) {
            Some((vectors, count)) => read_vectors(&mut table, false, vectors, count),
            None => return (0, CUT_FAULT),
        },
        kind => read_vectors(&mut table, kind == Kind::KernelVectors, place.pointer, place.count),
    };
    if count == 0 {
        return (0, if more { CUT_FAULT } else { CUT_NO_BUFFER });
    }
    copy_vectors(out, &table, count, more, skip, want.length)
}

/// `msg_iov` and `msg_iovlen` of a `user_msghdr` (offsets 16 and 24 on 64-bit).
#[inline(always)]
fn read_message(pointer: u64) -> Option<(u64, u64)> {
    let mut words = [0u64; 2];
    // SAFETY: reads 16 bytes of user memory into the stack; a bad pointer is an error, not a fault.
    let failed = unsafe {
        bpf_probe_read_user((&raw mut words).cast(), 16, pointer.wrapping_add(16) as *const c_void)
    };
    if failed == 0 { Some((words[0], words[1])) } else { None }
}

/// Fills the table from an array; how many of it are there, and whether there are more. None there, but more: a fault.
#[inline(always)]
fn read_vectors(table: &mut Vectors, of_kernel: bool, vectors: u64, count: u64) -> (u64, bool) {
    let there = count.min(MAX_IOVECS as u64);
    // The whole table in one read: each costs more than the bytes it moves. Bounded again by mask, see `copy`.
    let bytes = opaque(there * 16) & (2 * size_of::<Vectors>() as u64 - 1);
    let bytes = bytes.min(size_of::<Vectors>() as u64);
    let table = (&raw mut *table).cast();
    // SAFETY: the length is at most the table's; a bad pointer is an error, not a fault.
    let failed = unsafe {
        if of_kernel {
            bpf_probe_read_kernel(table, bytes as u32, vectors as *const c_void)
        } else {
            bpf_probe_read_user(table, bytes as u32, vectors as *const c_void)
        }
    };
    if failed == 0 { (there, count > there) } else { (0, true) }
}

/// The first vector of each message, as long as the message was in it; ends at the first message that was not.
#[inline(always)]
fn first_vectors(table: &mut Vectors, place: &Place) -> (u64, bool) {
    const WORDS: usize = 6;
    let mut filled = 0u64;
    for (index, vector) in table.iter_mut().enumerate() {
        if index as u64 >= place.count {
            break;
        }
        // From `msg_iov` to `msg_len`.
        let mut words = [0u64; WORDS];
        let message = place.pointer.wrapping_add(index as u64 * MESSAGE_BYTES + 16);
        // SAFETY: reads 48 bytes of user memory into the stack; a bad pointer is an error, not a fault.
        let failed = unsafe { bpf_probe_read_user((&raw mut words).cast(), 48, message as *const c_void) };
        let mut first = Vector { base: 0, length: 0 };
        if failed != 0
            // SAFETY: the same with 16 bytes.
            || unsafe { bpf_probe_read_user((&raw mut first).cast(), 16, words[0] as *const c_void) } != 0
        {
            return (filled, true);
        }
        let moved = words[WORDS - 1] & 0xffff_ffff;
        vector.base = first.base;
        vector.length = first.length.min(moved);
        filled = index as u64 + 1;
        if first.length < moved {
            return (filled, true);
        }
    }
    (filled, place.count > filled)
}

/// Bytes moved by the first messages of an array, and how many messages were not looked at.
#[inline(always)]
pub fn message_lengths(messages: u64, count: u64) -> (u32, u64) {
    /// Messages whose length is looked at; more in one call are rare.
    const MOST: u64 = 64;
    let mut sum = 0u32;
    for index in 0..MOST {
        if index >= count {
            break;
        }
        let mut length = 0u32;
        let place = messages.wrapping_add(index * MESSAGE_BYTES + MESSAGE_LENGTH);
        // SAFETY: reads 4 bytes of user memory into the stack; a bad pointer leaves zero.
        unsafe { bpf_probe_read_user((&raw mut length).cast(), 4, place as *const c_void) };
        sum = sum.wrapping_add(length);
    }
    (sum, count.saturating_sub(MOST))
}

#[inline(always)]
fn copy_vectors(
    out: *mut u8,
    table: &Vectors,
    count: u64,
    more: bool,
    mut skip: u64,
    wanted: u64,
) -> (u64, u16) {
    let mut copied = 0u64;
    for (index, vector) in table.iter().enumerate() {
        if index as u64 >= count || copied >= wanted {
            break;
        }
        let before = skip.min(vector.length);
        skip -= before;
        let part = (vector.length - before).min(wanted - copied);
        if part != 0 {
            match copy(out, copied, vector.base.wrapping_add(before), part) {
                Some(length) => copied += length,
                None => return (copied, CUT_FAULT),
            }
        }
    }
    (copied, if copied >= wanted { 0 } else if more { CUT_IOVECS } else { CUT_NO_BUFFER })
}

/// Copies `length` bytes of user memory to `out + at`. Both are bounded again by mask: up to 6.1 the verifier forgets a
/// bound that was only compared.
#[inline(always)]
fn copy(out: *mut u8, at: u64, from: u64, length: u64) -> Option<u64> {
    const MASK: u64 = MAX_CAPTURE as u64 - 1;
    if length == 0 {
        return Some(0);
    }
    let at = opaque(at) & MASK;
    let length = (opaque(length - 1) & MASK) + 1;
    // SAFETY: at ≤ 4095 and length ≤ 4096: inside the 8192 bytes of the scratch.
    let failed = unsafe { bpf_probe_read_user(out.add(at as usize).cast(), length as u32, from as *const c_void) };
    if failed == 0 { Some(length) } else { None }
}
