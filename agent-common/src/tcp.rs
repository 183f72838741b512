//! TCP connections: state changes of the sockets whose payload is in scope.
//!
//! A socket is in scope once a program asked for its cookie: the connecting thread is in scope at
//! `CLOSE → SYN_SENT`, or a send or receive was captured. All other sockets are only counted.

use crate::{record::RecordHeader, wire};

/// Not a state of the kernel: the socket is gone (`tcp_destroy_sock`), so nobody can read from it any more.
pub const DESTROYED: u8 = 0;
/// States as in `tcp_states.h`.
pub const ESTABLISHED: u8 = 1;
pub const SYN_SENT: u8 = 2;
pub const SYN_RECV: u8 = 3;
pub const CLOSE: u8 = 7;
pub const LISTEN: u8 = 10;
wire! {
    /// Record of `TCP_STATE`.
    pub struct TcpStateRecord {
        pub header: RecordHeader,
        pub cookie: u64,
        /// Zero where the hook ran outside the owner's thread.
        pub tgid: u32,
        pub tid: u32,
        /// Segments retransmitted over the socket's life (`tcp_sock.total_retrans`).
        pub retransmits: u32,
        /// `sk_err` at the change: an errno, 0 for an orderly close.
        pub error: u32,
        /// `write_seq` and `copied_seq` at the change: behind the last byte that the application wrote and read.
        pub send_sequence: u32,
        pub receive_sequence: u32,
        pub old_state: u8,
        pub new_state: u8,
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

const _: () = assert!(core::mem::size_of::<TcpStateRecord>() == 96);
