//! Socket payload: one record per successful send or receive on a stream socket in scope.
//!
//! The record is the same whichever hook wrote it. `length` is what the kernel moved; `captured` is what
//! follows the struct. The difference is known missing, with its exact size.

use crate::{record::RecordHeader, wire};

/// Application wrote to the socket.
pub const SEND: u8 = 0;
/// Application read from the socket.
pub const RECEIVE: u8 = 1;

/// Why fewer bytes than `length` were captured (in `RecordHeader::flags`, bit set).
pub const CUT_LIMIT: u16 = 1;
/// The bytes are not in user memory that the system call names (sendfile, splice, io_uring, kernel I/O).
pub const CUT_NO_BUFFER: u16 = 2;
/// Reading the application's memory failed part way.
pub const CUT_FAULT: u16 = 4;
/// More I/O vectors than the bounded loop visits ([`crate::config::MAX_IOVECS`]).
pub const CUT_IOVECS: u16 = 8;
/// A 32-bit process: its system call numbers and structures are not read.
pub const CUT_COMPAT: u16 = 16;

/// Address families as in `socket.h`.
pub const AF_INET: u16 = 2;
pub const AF_INET6: u16 = 10;

wire! {
    /// Fixed part of a payload record; `captured` bytes follow.
    pub struct PayloadRecord {
        pub header: RecordHeader,
        /// `CLOCK_MONOTONIC` at which a send's last segment was handed to the network, ns (`tcp_sock.first_tx_mstamp`,
        /// µs precision); 0 where that is not known. A sender that is preempted inside the call comes back late, so the
        /// time of the hook can lie behind the peer's answer.
        pub sent_ns: u64,
        /// Socket cookie (`sock_gen_cookie`): names the socket for the life of the boot.
        pub cookie: u64,
        /// TCP sequence number of the first byte: `write_seq` after the send, or `copied_seq` after the
        /// receive, less `length`.
        pub sequence: u32,
        /// Bytes that the operation moved.
        pub length: u32,
        /// Bytes that follow this struct.
        pub captured: u32,
        pub tgid: u32,
        pub tid: u32,
        /// System call in the thread's saved registers, or -1.
        pub syscall: i32,
        /// [`SEND`] or [`RECEIVE`].
        pub direction: u8,
        pub reserved: u8,
        /// [`AF_INET`] or [`AF_INET6`].
        pub family: u16,
        /// Host byte order.
        pub local_port: u16,
        /// Host byte order.
        pub peer_port: u16,
        /// IPv4 in the first four bytes, network order.
        pub local_address: [u8; 16],
        /// IPv4 in the first four bytes, network order.
        pub peer_address: [u8; 16],
    }
}

const _: () = assert!(core::mem::size_of::<PayloadRecord>() == 104);
