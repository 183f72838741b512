//! The bytes of an operation: where an application keeps them, and a bounded copy of them.
//!
//! [`Place`] + what is wanted → bytes behind their record, and why it is not all. At most [`MAX_CAPTURE`] bytes from at most
//! [`MAX_IOVECS`] vectors; every address and length is the application's and may be anything: a read that fails is told,
//! never repeated. Nothing is read beyond the length that the application gave for its buffer. No loop but the vectors'.

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use core::ffi::c_void;

use seismo_common::config::{MAX_CAPTURE, MAX_IOVECS};
use seismo_common::payload::{CUT_FAULT, CUT_IOVECS, CUT_NO_BUFFER};

use crate::access::{Access as _, Probed};
use crate::kernel::opaque;
use crate::maps::{Draft, Scratch, Vector};

/// Where the bytes are.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Place {
    pub kind: u64,
    /// Address of the bytes, or of what describes them.
    pub pointer: u64,
    /// Bytes, vectors or messages there.
    pub count: u64,
    /// Bytes in front that belong to an earlier operation.
    pub offset: u64,
}

/// Nowhere that can be read.
pub const NOWHERE: u64 = 0;
/// In one piece.
pub const BYTES: u64 = 1;
/// In an array of I/O vectors.
pub const VECTORS: u64 = 2;
/// The same, where the kernel has its own copy of the array.
pub const KERNEL_VECTORS: u64 = 3;
/// In a `msghdr`.
pub const MESSAGE: u64 = 4;
/// In an array of `mmsghdr`, each with its own length.
pub const MESSAGES: u64 = 5;

impl Place {
    pub const NOWHERE: Self = Self { kind: NOWHERE, pointer: 0, count: 0, offset: 0 };

    #[inline(always)]
    pub fn new(kind: u64, pointer: u64, count: u64) -> Self {
        Self { kind, pointer, count, offset: 0 }
    }

    /// By x86-64 system call number: its second argument and, where that is an array, its third.
    #[inline(always)]
    pub fn of_syscall(syscall: i64, pointer: u64, count: u64) -> Self {
        let kind = match syscall {
            // read, write, sendto, recvfrom
            0 | 1 | 44 | 45 => BYTES,
            // readv, writev, preadv2, pwritev2
            19 | 20 | 327 | 328 => VECTORS,
            // sendmsg, recvmsg
            46 | 47 => MESSAGE,
            _ => NOWHERE,
        };
        Self::new(kind, pointer, count)
    }
}

/// Which bytes of an operation are wanted.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Want {
    /// Bytes before them.
    pub skip: u64,
    pub length: u64,
    /// Why it is not all.
    pub cut: u64,
}

/// `struct mmsghdr`: a `user_msghdr` of 56 bytes, then the length that was moved.
const MESSAGE_BYTES: u64 = 64;
const MESSAGE_LENGTH: u64 = 56;
const TABLE_BYTES: u64 = (MAX_IOVECS * size_of::<Vector>()) as u64;
/// Place of the second number in a word of [`Scratch`].
pub const UPPER: u32 = 32;

/// Copies what is wanted behind the record, and notes in the scratch how much that was and why it is not all. `messages`:
/// whether the place can be an array of messages.
#[inline(always)]
pub fn capture(scratch: *mut Scratch, draft: *mut Draft, place: &Place, want: &Want, messages: bool) {
    // SAFETY: the scratch is a map value, and this program's.
    let outcome = unsafe { &mut (*scratch).outcome };
    let mut done = |copied: u64, cut: u16| *outcome = copied | u64::from(cut) << UPPER;
    // SAFETY: only the address of the room behind the record is taken.
    let out = unsafe { (&raw mut (*draft).bytes).cast::<u8>() };
    let skip = want.skip + place.offset;
    if place.kind == NOWHERE {
        return done(0, CUT_NO_BUFFER);
    }
    if place.kind == BYTES {
        // A datagram can be longer than the buffer that it was read into (MSG_TRUNC).
        let there = place.count.saturating_sub(want.skip);
        let length = want.length.min(there);
        return match copy(out, 0, place.pointer.wrapping_add(skip), length) {
            Some(copied) => done(copied, if copied < want.length { CUT_NO_BUFFER } else { 0 }),
            None => done(0, CUT_FAULT),
        };
    }
    // SAFETY: as above.
    unsafe { (*scratch).filled = 0 };
    if messages && place.kind == MESSAGES {
        first_vectors(scratch, place);
    } else {
        let (vectors, count) = if place.kind == MESSAGE {
            match read_message(place.pointer) {
                Some(found) => found,
                None => return done(0, CUT_FAULT),
            }
        } else {
            (place.pointer, place.count)
        };
        if !read_vectors(scratch, place.kind == KERNEL_VECTORS, vectors, count) {
            return done(0, CUT_FAULT);
        }
    }
    // SAFETY: as above.
    let filled = unsafe { (*scratch).filled };
    copy_vectors(scratch, out, filled, skip, want.length);
}

/// `msg_iov` and `msg_iovlen` of a `user_msghdr` (offsets 16 and 24 on 64-bit).
#[inline(always)]
fn read_message(pointer: u64) -> Option<(u64, u64)> {
    let mut words = [0u64; 2];
    // SAFETY: reads 16 bytes of user memory into the stack; a bad pointer is an error, not a fault.
    let failed = unsafe { bpf_probe_read_user((&raw mut words).cast(), 16, pointer.wrapping_add(16) as *const c_void) };
    if failed == 0 { Some((words[0], words[1])) } else { None }
}

/// Fills the table from an array of vectors; false if that cannot be read.
#[inline(always)]
fn read_vectors(scratch: *mut Scratch, of_kernel: bool, vectors: u64, count: u64) -> bool {
    let there = count.min(MAX_IOVECS as u64);
    // SAFETY: the scratch is this program's.
    unsafe { (*scratch).filled = there | u64::from(count > there) << UPPER };
    if of_kernel {
        load_vectors(scratch, vectors, there);
        return true;
    }
    // The whole table in one read: each costs more than the bytes it moves. Bounded again by mask, see `copy`.
    let bytes = opaque(there * 16) & (2 * TABLE_BYTES - 1);
    let bytes = bytes.min(TABLE_BYTES);
    // SAFETY: the length is at most the table's; a bad pointer is an error, not a fault.
    unsafe {
        let table = (&raw mut (*scratch).table).cast();
        bpf_probe_read_user(table, bytes as u32, vectors as *const c_void) == 0
    }
}

/// Writes a step out once for each place of the table; `break` ends it. The verifier forgets what it knows of a loop's
/// steps when it meets them too often, and then walks every combination of their branches.
macro_rules! for_each_place {
    ($done:lifetime, $index:ident, $step:block) => {
        for_each_place!(@ $done, $index, $step, 0 1 2 3 4 5 6 7)
    };
    (@ $done:lifetime, $index:ident, $step:block, $($place:literal)+) => {{
        const _: () = assert!(MAX_IOVECS == [$($place),+].len());
        $done: {
            $({
                let $index: u64 = $place;
                $step
            })+
        }
    }};
}

/// Fills the table from an array of vectors that is the kernel's own, and so is there.
#[inline(always)]
fn load_vectors(scratch: *mut Scratch, vectors: u64, count: u64) {
    for_each_place!('done, index, {
            if index >= count {
                break 'done;
            }
            let from = (vectors as *const c_void).wrapping_byte_add(index as usize * size_of::<Vector>());
            // SAFETY: any address can be read so; index is below the table's length.
            unsafe {
                let vector = (&raw mut (*scratch).table).cast::<Vector>().add(index as usize);
                *vector = Vector { base: Probed::load(from, 0), length: Probed::load(from, 8) };
            }
    });
}

/// Fills the table with the first vector of each message, as long as the message was in it: ends with the first message
/// that was not, or that cannot be read.
#[inline(always)]
fn first_vectors(scratch: *mut Scratch, place: &Place) {
    /// From `msg_iov` to `msg_len`.
    const WORDS: usize = 6;
    for_each_place!('done, index, {
            if index >= place.count {
                break 'done;
            }
            let mut words = [0u64; WORDS];
            let message = place.pointer.wrapping_add(index * MESSAGE_BYTES + 16);
            // SAFETY: reads user memory into the stack, and a vector into the table: a bad pointer is an error, not a
            // fault; index is below the table's length.
            unsafe {
                (*scratch).filled = index | 1 << UPPER;
                let vector = (&raw mut (*scratch).table).cast::<Vector>().add(index as usize);
                if bpf_probe_read_user((&raw mut words).cast(), 48, message as *const c_void) != 0
                    || bpf_probe_read_user(vector.cast(), 16, words[0] as *const c_void) != 0
                {
                    break 'done;
                }
                let moved = words[WORDS - 1] & 0xffff_ffff;
                let whole = (*vector).length >= moved;
                (*vector).length = (*vector).length.min(moved);
                (*scratch).filled = (index + 1) | u64::from(!whole || index + 1 < place.count) << UPPER;
                if !whole {
                    break 'done;
                }
            }
    });
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
#[allow(unused_assignments, reason = "the last step leaves what nobody asks for")]
fn copy_vectors(scratch: *mut Scratch, out: *mut u8, filled: u64, mut skip: u64, wanted: u64) {
    let (count, more) = (filled & 0xffff_ffff, filled >> UPPER != 0);
    let mut copied = 0u64;
    let mut fault = false;
    for_each_place!('done, index, {
            if index >= count || copied >= wanted {
                break 'done;
            }
            // SAFETY: index is below the table's length.
            let vector = unsafe { (&raw const (*scratch).table).cast::<Vector>().add(index as usize).read() };
            let before = skip.min(vector.length);
            skip -= before;
            let part = (vector.length - before).min(wanted - copied);
            if part != 0 {
                match copy(out, copied, vector.base.wrapping_add(before), part) {
                    Some(length) => copied += length,
                    None => {
                        fault = true;
                        break 'done;
                    }
                }
            }
    });
    let cut = if fault {
        CUT_FAULT
    } else if copied >= wanted {
        0
    } else if more {
        CUT_IOVECS
    } else {
        CUT_NO_BUFFER
    };
    // SAFETY: the scratch is this program's.
    unsafe { (*scratch).outcome = copied | u64::from(cut) << UPPER };
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
    // SAFETY: at < MAX_CAPTURE and length ≤ MAX_CAPTURE: inside the twice as many bytes of the draft.
    let failed = unsafe { bpf_probe_read_user(out.add(at as usize).cast(), length as u32, from as *const c_void) };
    if failed == 0 { Some(length) } else { None }
}
