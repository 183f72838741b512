//! Socket payload: one record per successful send or receive on a socket in scope, and how much of it is captured.
//!
//! The record is the same whichever hook wrote it. `length` is what the kernel moved; `captured` bytes, beginning
//! `skipped` bytes into the operation, follow the struct. The difference is known missing, with its exact size.

use crate::workload::OFF_CPU;
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
/// Userspace said that nobody needs these bytes ([`FlowControl`]).
pub const CUT_SKIP: u16 = 32;
/// The host's budget of captured bytes was used up ([`crate::config::Settings::budget_bytes`]).
pub const CUT_BUDGET: u16 = 64;

/// What carries the bytes. Streams of TCP are ordered by sequence number, those of UNIX sockets by count.
pub const TCP: u8 = 0;
pub const UNIX_STREAM: u8 = 1;
/// One record per datagram; there is no position.
pub const UDP: u8 = 2;
pub const UNIX_DATAGRAM: u8 = 3;

/// Address families as in `socket.h`.
pub const AF_UNIX: u16 = 1;
pub const AF_INET: u16 = 2;
pub const AF_INET6: u16 = 10;

wire! {
    /// Fixed part of a payload record; `captured` bytes follow.
    pub struct PayloadRecord {
        pub header: RecordHeader,
        /// Socket cookie (`sock_gen_cookie`): names the socket for the life of the boot.
        pub cookie: u64,
        /// Place of the first byte in its stream, counted from the connection's beginning, also where that was long
        /// before the agent's (from `bytes_acked` and `bytes_received`, RFC 4898). For the side that opened a TCP
        /// connection its own SYN counts as a byte. A neighbour's update can shift it by one segment: it is the
        /// origin of a stream, `sequence` is what orders.
        pub position: u64,
        /// What the kernel had counted for the thread at this time, ns, since `account_epoch` began: waits in the run queue,
        /// then time off CPU by reason in the order of [`OFF_CPU`]. The rest of the time between two records of a thread it
        /// was on CPU.
        pub account: [u64; ACCOUNT],
        /// Task of the language runtime that the thread ran ([`crate::task`]); 0: not known.
        pub task: u64,
        /// Accounts of a thread with the same epoch can be compared; 0: no account (the scheduler family is off, or the
        /// thread was not seen to leave its CPU yet).
        pub account_epoch: u32,
        /// The first byte's TCP sequence number: `write_seq` after the send, or `copied_seq` after the receive, less
        /// `length`. Not TCP: the low half of `position`.
        pub sequence: u32,
        /// Sequence number behind the last byte of the other direction, at the same time: tells what was moved before
        /// this operation also where its record is lost.
        pub other_sequence: u32,
        /// Bytes that the operation moved.
        pub length: u32,
        /// Bytes before the captured ones, not captured because userspace said so.
        pub skipped: u32,
        /// Bytes that follow this struct.
        pub captured: u32,
        pub tgid: u32,
        pub tid: u32,
        /// System call in the thread's saved registers, or -1.
        pub syscall: i32,
        /// How long before `header.ktime_ns` the bytes were on the network's side, ns; `u32::MAX` where that is not known. Of a
        /// send, when its last segment was handed to the network (`tcp_sock.first_tx_mstamp`, µs precision): a sender that
        /// is preempted inside the call comes back late, so the time of the hook can lie behind the peer's answer. Of a
        /// receive, when the socket's last bytes arrived (`icsk_ack.lrcvtime`, in ticks of the kernel's timer): at least so long.
        pub moved_before_ns: u32,
        /// Segments of the connection that were sent again so far (`tcp_sock.total_retrans`).
        pub retransmits: u32,
        /// [`SEND`] or [`RECEIVE`].
        pub direction: u8,
        /// [`TCP`], [`UNIX_STREAM`], [`UDP`] or [`UNIX_DATAGRAM`].
        pub transport: u8,
        /// [`AF_INET`], [`AF_INET6`] or [`AF_UNIX`].
        pub family: u16,
        /// Host byte order.
        pub local_port: u16,
        /// Host byte order.
        pub peer_port: u16,
        /// IPv4 in the first four bytes, network order.
        pub local_address: [u8; 16],
        /// IPv4 in the first four bytes, network order. UNIX: the peer's cookie, 0 where it is not known.
        pub peer_address: [u8; 16],
        pub reserved: u32,
    }
}

/// Words of a thread's account.
pub const ACCOUNT: usize = 1 + OFF_CPU.len();

const _: () = assert!(core::mem::size_of::<PayloadRecord>() == 136 + 8 * ACCOUNT);

wire! {
    /// What userspace wants of one connection; absent: everything up to [`crate::config::Settings::capture_bytes`].
    /// Indexed by [`SEND`] and [`RECEIVE`].
    pub struct FlowControl {
        /// Whose it is, as in [`PayloadRecord::cookie`]; 0: nobody's.
        pub identity: u64,
        /// Most bytes captured of one operation; `u32::MAX`: as of any other connection.
        pub capture_bytes: [u32; 2],
        /// Bytes before this sequence number need not be captured, where `skips` has the direction's bit (`1 << direction`).
        pub skip_until: [u32; 2],
        pub skips: u32,
        pub reserved: u32,
    }
}
