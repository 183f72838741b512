//! Sockets: what they are, whose they are, where their streams stand, and the name that records give them.
//!
//! `struct sock` → family, transport, addresses, stream positions. Generic over how fields are read: a tracepoint gives
//! a pointer that the verifier knows, a walk through the file table an address. Reads only, but for the cookie that the
//! kernel makes when it is first asked for it.

use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_jiffies64, bpf_skc_to_tcp_sock, bpf_skc_to_unix_sock};
use core::ffi::c_void;
use core::marker::PhantomData;

use seismo_common::offsets::ABSENT;
use seismo_common::payload::{AF_INET, AF_INET6, AF_UNIX, TCP, UDP, UNIX_DATAGRAM, UNIX_STREAM};
use seismo_common::tcp::{NEW_SYN_RECV, TIME_WAIT};

use crate::access::{Access, Typed};
use crate::kernel::{offset, setting};

const IPPROTO_TCP: u16 = 6;
const IPPROTO_UDP: u16 = 17;
const SOCK_STREAM: u16 = 1;
/// Times that the places of a socket under way are loaded again before they are taken as they are.
const PLACE_READS: usize = 3;
/// What is counted, but gives no record.
pub const OTHER: u8 = u8::MAX;

/// Addresses of a connection as the records carry them.
#[derive(Clone, Copy)]
pub struct Tuple {
    pub family: u16,
    pub local_port: u16,
    pub peer_port: u16,
    pub local: [u64; 2],
    pub peer: [u64; 2],
}

/// A `struct sock`.
#[derive(Clone, Copy)]
pub struct Sock<A = Typed>(pub *const c_void, PhantomData<A>);

impl<A: Access> Sock<A> {
    #[inline(always)]
    pub fn new(sock: *const c_void) -> Self {
        Self(sock, PhantomData)
    }

    #[inline(always)]
    fn load<T: Copy>(self, offset: u32) -> T {
        // SAFETY: a sock to the verifier, or read by probe; the offset is that of a field of this type.
        unsafe { A::load(self.0, offset) }
    }

    #[inline(always)]
    pub fn family(self) -> u16 {
        self.load(offset!(sock_family))
    }

    #[inline(always)]
    pub fn is_tcp(self) -> bool {
        self.load::<u16>(offset!(sock_protocol)) == IPPROTO_TCP
    }

    /// What carries its bytes, as in [`seismo_common::payload`].
    #[inline(always)]
    pub fn transport(self) -> u8 {
        let family = self.family();
        if family == AF_INET || family == AF_INET6 {
            match self.load::<u16>(offset!(sock_protocol)) {
                IPPROTO_TCP => TCP,
                IPPROTO_UDP => UDP,
                _ => OTHER,
            }
        } else if family == AF_UNIX {
            // Ordered messages (SOCK_SEQPACKET) have no place in a stream either.
            if self.load::<u16>(offset!(sock_type)) == SOCK_STREAM { UNIX_STREAM } else { UNIX_DATAGRAM }
        } else {
            OTHER
        }
    }

    #[inline(always)]
    pub fn local_port(self) -> u16 {
        // `skc_num` is in host order.
        self.load(offset!(sock_local_port))
    }

    #[inline(always)]
    pub fn peer_port(self) -> u16 {
        // `skc_dport` is in network order.
        u16::from_be(self.load(offset!(sock_peer_port)))
    }

    #[inline(always)]
    pub fn error(self) -> u32 {
        self.load(offset!(sock_error))
    }

    /// As in `tcp_states.h`.
    #[inline(always)]
    pub fn state(self) -> u8 {
        self.load(offset!(sock_state))
    }

    /// A whole `struct sock`: not what is left of a connection that is over, nor a request for one.
    #[inline(always)]
    pub fn is_full(self) -> bool {
        !matches!(self.state(), TIME_WAIT | NEW_SYN_RECV)
    }

    /// Its owner wants neither direction any more; false where that is not known.
    #[inline(always)]
    pub fn is_shut(self) -> bool {
        const SHUTDOWN_MASK: u8 = 3;
        offset!(sock_shutdown) != ABSENT && self.load::<u8>(offset!(sock_shutdown)) & SHUTDOWN_MASK == SHUTDOWN_MASK
    }

    /// Its owner closed it: nobody will read or write any more.
    #[inline(always)]
    pub fn is_dead(self) -> bool {
        // `SOCK_DEAD` is bit 0.
        self.load::<u64>(offset!(sock_flags)) & 1 != 0
    }

    /// The cookie if somebody asked for it before, else 0.
    #[inline(always)]
    fn known_cookie(self) -> u64 {
        // An atomic64_t.
        self.load(offset!(sock_cookie))
    }

    /// The name of a socket that some program named before, else 0. Where sockets are named by address, every one is
    /// named.
    #[inline(always)]
    pub fn known_identity(self) -> u64 {
        if setting!(cookies) != 0 { self.known_cookie() } else { scrambled(A::number(self.0)) }
    }

    /// Inode of the socket's network namespace.
    #[inline(always)]
    pub fn netns(self) -> u32 {
        let net: *const c_void = self.load(offset!(sock_net));
        // SAFETY: `skc_net.net` points to the live namespace of a live socket.
        unsafe { A::load(net, offset!(net_inode)) }
    }

    #[inline(always)]
    pub fn tuple(self) -> Tuple {
        let family = self.family();
        if family == AF_UNIX {
            return Tuple { family, local_port: 0, peer_port: 0, local: [0; 2], peer: [0; 2] };
        }
        let mut tuple =
            Tuple { family, local_port: self.local_port(), peer_port: self.peer_port(), local: [0; 2], peer: [0; 2] };
        if family == AF_INET {
            tuple.local[0] = u64::from(self.load::<u32>(offset!(sock_local_v4)));
            tuple.peer[0] = u64::from(self.load::<u32>(offset!(sock_peer_v4)));
        } else if offset!(sock_local_v6) != ABSENT && offset!(sock_peer_v6) != ABSENT {
            // in6_addr is 16 bytes.
            let (local, peer) = (offset!(sock_local_v6), offset!(sock_peer_v6));
            tuple.local = [self.load(local), self.load(local + 8)];
            tuple.peer = [self.load(peer), self.load(peer + 8)];
        }
        tuple
    }
}

/// What can be asked of a socket only where the verifier knows it, and what stands in for it elsewhere.
pub trait Checked<A: Access> {
    /// The socket's name; gives it one if it has none, which marks it as tracked for the tcp programs.
    fn identity(self) -> u64;
    /// The full TCP socket, if this is one. Asked of TCP sockets only.
    fn tcp(self) -> Option<TcpSock<A>>;
    /// The other end of a UNIX socket, 0 where it is not known.
    fn unix_peer(self) -> u64;
}

impl Checked<Typed> for Sock<Typed> {
    #[inline(always)]
    fn identity(self) -> u64 {
        match self.known_identity() {
            // SAFETY: a sock to the verifier. Asked last: where there is no such helper, this is not even read.
            0 if setting!(cookies) != 0 => unsafe { bpf_get_socket_cookie(self.0.cast_mut()) },
            known => known,
        }
    }

    #[inline(always)]
    fn tcp(self) -> Option<TcpSock<Typed>> {
        // SAFETY: the helper takes any sock and answers null for anything but a full TCP socket.
        let tcp = unsafe { bpf_skc_to_tcp_sock(self.0.cast_mut()) };
        if tcp.is_null() { None } else { Some(TcpSock(tcp as *const c_void, PhantomData)) }
    }

    #[inline(always)]
    fn unix_peer(self) -> u64 {
        if setting!(unix_cast) == 0 || offset!(unix_peer) == ABSENT {
            return 0;
        }
        // SAFETY: the helper takes any sock and answers null for anything but a UNIX socket.
        let own = unsafe { bpf_skc_to_unix_sock(self.0.cast_mut()) } as *const c_void;
        if own.is_null() {
            return 0;
        }
        // SAFETY: a unix_sock to the verifier; the peer is one while this end holds it.
        let peer: *const c_void = unsafe { Typed::load(own, offset!(unix_peer)) };
        if peer.is_null() { 0 } else { Self::new(peer).identity() }
    }
}

impl Checked<crate::access::Probed> for Sock<crate::access::Probed> {
    #[inline(always)]
    fn identity(self) -> u64 {
        self.known_identity()
    }

    #[inline(always)]
    fn tcp(self) -> Option<TcpSock<crate::access::Probed>> {
        // An open file's TCP socket is never one of the small ones (request, time-wait).
        Some(TcpSock(self.0, PhantomData))
    }

    #[inline(always)]
    fn unix_peer(self) -> u64 {
        if offset!(unix_peer) == ABSENT {
            return 0;
        }
        let peer: *const c_void = self.load(offset!(unix_peer));
        if peer.is_null() { 0 } else { Self::new(peer).known_identity() }
    }
}

/// A name for a socket at this address that tells nothing of the address to who does not know the salt.
#[inline(always)]
fn scrambled(address: u64) -> u64 {
    let key = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    let first = key(setting!(salt, 0), setting!(salt, 1));
    let second = key(setting!(salt, 2), setting!(salt, 3));
    mixed(mixed(address ^ first) ^ second) ^ first
}

/// A permutation of 64-bit words in which every bit of the result depends on every bit of the word: two rounds of
/// multiplication by an odd constant and folding of the upper half.
#[inline(always)]
fn mixed(word: u64) -> u64 {
    let word = (word ^ word >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ word >> 29).wrapping_mul(0xd6e8_feb8_6659_fd93);
    word ^ word >> 32
}

/// `struct tcp_sock`.
#[derive(Clone, Copy)]
pub struct TcpSock<A = Typed>(*const c_void, PhantomData<A>);

impl<A: Access> TcpSock<A> {
    #[inline(always)]
    fn load<T: Copy>(self, offset: u32) -> T {
        // SAFETY: a tcp_sock to the verifier, or read by probe; the offset is that of a field of this type.
        unsafe { A::load(self.0, offset) }
    }

    /// Sequence number behind the last byte that the application wrote.
    #[inline(always)]
    pub fn write_sequence(self) -> u32 {
        self.load(offset!(tcp_write_seq))
    }

    /// Sequence number behind the last byte that the application read, or behind the FIN if it came to that.
    #[inline(always)]
    pub fn copied_sequence(self) -> u32 {
        self.load(offset!(tcp_copied_seq))
    }

    /// Sequence number behind the last byte that the application read. A receive that finds a FIN behind its bytes takes
    /// that in too; nothing follows it, so all that came is read then. Without branches, for the verifier's sake.
    #[inline(always)]
    pub fn read_sequence(self) -> u32 {
        let (copied, next): (u32, u32) = (self.load(offset!(tcp_copied_seq)), self.load(offset!(tcp_rcv_nxt)));
        let apart = copied ^ next;
        let all_read = ((apart | apart.wrapping_neg()) >> 31) ^ 1;
        // `SOCK_DONE` (a FIN came) is bit 1; a tcp_sock begins with its sock.
        let ended = (self.load::<u64>(offset!(sock_flags)) >> 1) as u32 & 1;
        copied.wrapping_sub(all_read & ended)
    }

    /// Place of the next byte that the application writes, and of the next that it reads, each with its sequence number.
    /// The socket is not locked: an acknowledgement between two loads is found out by loading again.
    #[inline(always)]
    pub fn places(self) -> [(u32, u64); 2] {
        let mut places = self.places_once();
        for _ in 0..PLACE_READS {
            let again = self.places_once();
            if again == places {
                break;
            }
            places = again;
        }
        places
    }

    #[inline(always)]
    fn places_once(self) -> [(u32, u64); 2] {
        let (written, read) = (self.write_sequence(), self.copied_sequence());
        [(written, self.written_position(written)), (read, self.read_position(read))]
    }

    /// When the bytes up to `write_seq` were handed to the network, ns; 0 if they were not all, or where it is not
    /// known. A flight that began with an earlier send gives that one's time: userspace knows when that was.
    #[inline(always)]
    pub fn sent_ns(self) -> u64 {
        if offset!(tcp_snd_nxt) == ABSENT || offset!(tcp_first_tx) == ABSENT {
            return 0;
        }
        let (next, first_us): (u32, u64) = (self.load(offset!(tcp_snd_nxt)), self.load(offset!(tcp_first_tx)));
        if next == self.write_sequence() { first_us * 1000 } else { 0 }
    }

    /// Place of a sequence number in the stream that the application writes, counted from the connection's beginning:
    /// `snd_una - bytes_acked` is where it began.
    #[inline(always)]
    pub fn written_position(self, sequence: u32) -> u64 {
        let (acked, una): (u64, u32) = (self.load(offset!(tcp_bytes_acked)), self.load(offset!(tcp_snd_una)));
        acked.wrapping_add(i64::from(sequence.wrapping_sub(una) as i32) as u64)
    }

    /// The same of the stream that the application reads: it began at `rcv_nxt - bytes_received`.
    #[inline(always)]
    pub fn read_position(self, sequence: u32) -> u64 {
        let (received, next): (u64, u32) = (self.load(offset!(tcp_bytes_received)), self.load(offset!(tcp_rcv_nxt)));
        received.wrapping_add(i64::from(sequence.wrapping_sub(next) as i32) as u64)
    }

    /// How long ago data came last at least, ns: whole ticks (`tcp_event_data_recv`); `u32::MAX` where it is not known.
    #[inline(always)]
    pub fn arrived_before_ns(self) -> u32 {
        if offset!(socket_arrival) == ABSENT {
            return u32::MAX;
        }
        // SAFETY: no arguments.
        let now = unsafe { bpf_jiffies64() } as u32;
        // A tcp_sock begins with its inet_connection_sock.
        let ticks = now.wrapping_sub(self.load::<u32>(offset!(socket_arrival))).saturating_sub(1);
        (u64::from(ticks) * u64::from(setting!(tick_ns))).min(u64::from(u32::MAX)) as u32
    }

    /// Segments retransmitted over the connection's life.
    #[inline(always)]
    pub fn retransmits(self) -> u32 {
        self.load(offset!(tcp_total_retrans))
    }

    /// Smoothed round trip time, µs; `None` before the first, or where it is not known.
    #[inline(always)]
    pub fn round_trip_us(self) -> Option<u64> {
        if offset!(tcp_srtt) == ABSENT {
            return None;
        }
        match self.load::<u32>(offset!(tcp_srtt)) {
            0 => None,
            eighths => Some(u64::from(eighths >> 3)),
        }
    }

    /// When the last segment came or went, µs; 0 where it is not known.
    #[inline(always)]
    pub fn now_us(self) -> u64 {
        if offset!(tcp_now) == ABSENT { 0 } else { self.load(offset!(tcp_now)) }
    }

    /// When the first of several SYNs went that are not answered, on the clock of [`TcpSock::now_us`], to a ms.
    #[inline(always)]
    pub fn first_syn_us(self) -> Option<u64> {
        if offset!(tcp_now) == ABSENT || offset!(tcp_first_syn) == ABSENT {
            return None;
        }
        let (now_us, first): (u64, u32) = (self.now_us(), self.load(offset!(tcp_first_syn)));
        let in_us = offset!(tcp_in_us) != ABSENT
            && self.load::<u8>(offset!(tcp_in_us) / 8) >> (offset!(tcp_in_us) % 8) & 1 != 0;
        let since_us = if in_us {
            u64::from((now_us as u32).wrapping_sub(first))
        } else {
            u64::from(((now_us / 1000) as u32).wrapping_sub(first)) * 1000
        };
        Some(now_us.saturating_sub(since_us))
    }

    /// Of a listener: connections that wait to be accepted, how many may, attempts that it dropped.
    #[inline(always)]
    pub fn accept_queue(self) -> [u32; 3] {
        if offset!(sock_waiting) == ABSENT || offset!(sock_waiting_limit) == ABSENT || offset!(sock_dropped) == ABSENT {
            return [0; 3];
        }
        // A tcp_sock begins with its sock.
        [self.load(offset!(sock_waiting)), self.load(offset!(sock_waiting_limit)), self.load(offset!(sock_dropped))]
    }
}
