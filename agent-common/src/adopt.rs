//! Sockets that are older than the agent, as an iterator over all open files tells them.
//!
//! One record per open file that is a TCP socket: a listener anywhere on the host (only its place is told), or a
//! connection in scope. The same socket comes again for each descriptor of it; userspace keeps one by its cookie.

use crate::wire;

wire! {
    /// What the iterator writes; records follow each other without a header.
    pub struct SocketRecord {
        /// 0 for a listener: it was not asked for one. Else the socket is tracked from now on.
        pub cookie: u64,
        /// `CLOCK_MONOTONIC` behind the reads below, ns: a record of the socket with a later time is younger than them.
        pub ktime_ns: u64,
        /// Places of `send_sequence` and `receive_sequence` in their streams, as in
        /// [`crate::payload::PayloadRecord::position`]: the side that opened the connection counts its SYN.
        pub send_position: u64,
        pub receive_position: u64,
        /// `write_seq` and `copied_seq`: behind the last byte that the application wrote and read.
        pub send_sequence: u32,
        pub receive_sequence: u32,
        pub tgid: u32,
        /// Inode of the socket's network namespace.
        pub netns: u32,
        /// As in `tcp_states.h`.
        pub state: u8,
        pub reserved: u8,
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

const _: () = assert!(core::mem::size_of::<SocketRecord>() == 88);
