//! TCP connections: state changes of the sockets whose payload is in scope; what one pass over all sockets counts.
//!
//! A socket is in scope once a program asked for its cookie: the connecting thread is in scope at
//! `CLOSE → SYN_SENT`, or a send or receive was captured. All other sockets are only counted, by workload in the lanes
//! of [`crate::workload`].

use crate::{record::RecordHeader, wire};

/// Not a state of the kernel: the socket is gone (`tcp_destroy_sock`), so nobody can read from it any more.
pub const DESTROYED: u8 = 0;
/// States as in `tcp_states.h`.
pub const ESTABLISHED: u8 = 1;
pub const SYN_SENT: u8 = 2;
pub const SYN_RECV: u8 = 3;
pub const TIME_WAIT: u8 = 6;
pub const CLOSE: u8 = 7;
pub const LISTEN: u8 = 10;
/// A request that is not a connection yet: a small socket of its own kind.
pub const NEW_SYN_RECV: u8 = 12;

/// Why a connection could not be opened: RST, no answer, ICMP, a reset later on, closed by its owner before there was an
/// answer, anything else.
pub const FAILURES: [&str; 6] = ["refused", "timeout", "unreachable", "reset", "aborted", "other"];

/// Of how many receives of a workload one tells the connection's round trip time; a power of two.
pub const RTT_ONE_IN: u64 = 16;
/// Slots for sockets that sent something again.
pub const SOCK_SLOTS: usize = 4096;
const _: () = assert!(RTT_ONE_IN.is_power_of_two() && SOCK_SLOTS.is_power_of_two());

/// Words of what a pass over all sockets counts: sockets by state (the kernel's number), then listeners, then so many of
/// them with two words each: [`listener`] and the attempts that it dropped.
pub const PASS_STATES: usize = 16;
pub const PASS_LISTENERS: usize = PASS_STATES;
pub const PASS_FIRST: usize = PASS_LISTENERS + 1;
pub const LISTENERS: usize = 256;
pub const PASS_WORDS: usize = PASS_FIRST + 2 * LISTENERS;
const _: () = assert!(LISTENERS.is_power_of_two() && (NEW_SYN_RECV as usize) < PASS_STATES);

/// Most that a listener's queue is told to hold.
const QUEUE_MAX: u64 = (1 << 24) - 1;

/// A listener's port, the connections that wait to be accepted, and how many may.
#[inline(always)]
pub const fn listener(port: u16, waiting: u32, limit: u32) -> u64 {
    let [waiting, limit] = [waiting as u64, limit as u64];
    let waiting = if waiting > QUEUE_MAX { QUEUE_MAX } else { waiting };
    let limit = if limit > QUEUE_MAX { QUEUE_MAX } else { limit };
    (port as u64) << 48 | waiting << 24 | limit
}

/// Port, waiting and limit out of a [`listener`]'s word.
pub const fn of_listener(word: u64) -> (u16, u64, u64) {
    ((word >> 48) as u16, word >> 24 & QUEUE_MAX, word & QUEUE_MAX)
}

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

#[cfg(test)]
mod tests {
    use super::{listener, of_listener};

    #[test]
    fn a_listener_s_word_holds_what_it_was_made_of_and_no_queue_spills_into_another() {
        assert_eq!(of_listener(listener(443, 7, 4096)), (443, 7, 4096));
        assert_eq!(of_listener(listener(u16::MAX, u32::MAX, u32::MAX)), (u16::MAX, (1 << 24) - 1, (1 << 24) - 1));
        assert_eq!(of_listener(0), (0, 0, 0));
    }
}
