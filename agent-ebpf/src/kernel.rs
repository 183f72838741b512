//! Bounded reads of kernel structures: direct loads through pointers that the verifier knows, at offsets from BTF.
//!
//! A direct load costs 1–2 ns and is checked against the type at load time; `bpf_probe_read_*` (14–20 ns, unchecked)
//! is used only for user memory. Nothing here writes.

use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_skc_to_tcp_sock, bpf_task_pt_regs};
use core::ffi::c_void;

use seismo_common::offsets::ABSENT;

/// Kernel thread, or an io worker acting for a process (`PF_KTHREAD`, `PF_IO_WORKER` in `sched.h`).
const PF_KTHREAD: u32 = 0x0020_0000;
const PF_IO_WORKER: u32 = 0x0000_0010;
/// Times that the places of a socket under way are loaded again before they are taken as they are.
const PLACE_READS: usize = 3;
/// 32-bit system call under way (`TS_COMPAT` in `asm/thread_info.h`, x86).
const TS_COMPAT: u32 = 2;

/// Reads a frozen global: the compiler must not fold the placeholder; the verifier folds the value.
#[inline(always)]
pub fn frozen(value: &'static u32) -> u32 {
    // SAFETY: a reference to a plain integer.
    unsafe { core::ptr::read_volatile(value) }
}

/// Offset of a kernel field ([`seismo_common::offsets`]).
macro_rules! offset {
    ($field:ident) => {
        $crate::kernel::frozen(&$crate::maps::OFFSETS.$field)
    };
}
pub(crate) use offset;

/// One of the agent's settings ([`seismo_common::config::Settings`]).
macro_rules! setting {
    ($field:ident) => {
        $crate::kernel::frozen(&$crate::maps::SETTINGS.$field)
    };
}
pub(crate) use setting;

/// Loads a `T` at `base + offset`.
///
/// # Safety
/// `base` is a pointer that the verifier knows as a kernel type, and `T` lies within it at `offset`; the
/// verifier refuses the program otherwise.
#[inline(always)]
pub unsafe fn load<T: Copy>(base: *const c_void, offset: u32) -> T {
    // SAFETY: by contract; alignment is that of the kernel's own field.
    unsafe { *base.byte_add(offset as usize).cast::<T>() }
}

/// The running task.
#[derive(Clone, Copy)]
pub struct Task(pub *const c_void);

impl Task {
    #[inline(always)]
    pub fn current() -> Self {
        // SAFETY: no arguments; returns a trusted pointer to the current task.
        Self(unsafe { bpf_get_current_task_btf() }.cast())
    }

    #[inline(always)]
    pub fn tid(self) -> u32 {
        // SAFETY: `self.0` is a task_struct to the verifier; the offset is `pid`'s.
        unsafe { load(self.0, offset!(task_pid)) }
    }

    #[inline(always)]
    pub fn tgid(self) -> u32 {
        // SAFETY: as above, `tgid`.
        unsafe { load(self.0, offset!(task_tgid)) }
    }

    #[inline(always)]
    fn flags(self) -> u32 {
        // SAFETY: as above, `flags`.
        unsafe { load(self.0, offset!(task_flags)) }
    }

    #[inline(always)]
    pub fn is_kernel_thread(self) -> bool {
        self.flags() & PF_KTHREAD != 0
    }

    #[inline(always)]
    pub fn is_io_worker(self) -> bool {
        self.flags() & PF_IO_WORKER != 0
    }

    /// In a 32-bit system call. False where the kernel has no such field.
    #[inline(always)]
    pub fn is_compat(self) -> bool {
        if offset!(task_thread_status) == ABSENT {
            return false;
        }
        // SAFETY: as above, `thread_info.status`.
        let status: u32 = unsafe { load(self.0, offset!(task_thread_status)) };
        status & TS_COMPAT != 0
    }

    /// `comm` as two words (its 16 bytes).
    #[inline(always)]
    pub fn comm(self) -> [u64; 2] {
        let at = offset!(task_comm);
        // SAFETY: as above; `comm` is 16 bytes.
        unsafe { [load(self.0, at), load(self.0, at + 8)] }
    }

    /// The registers saved when the thread entered the kernel.
    #[inline(always)]
    pub fn registers(self) -> Registers {
        // SAFETY: the helper takes a trusted task pointer, which `current` and the tracepoints give.
        Registers(unsafe { bpf_task_pt_regs(self.0.cast_mut().cast()) } as *const c_void)
    }
}

/// Saved user registers (`struct pt_regs`, x86-64).
#[derive(Clone, Copy)]
pub struct Registers(pub *const c_void);

impl Registers {
    /// System call number, or -1 outside one.
    #[inline(always)]
    pub fn syscall(self) -> i64 {
        // SAFETY: a pt_regs to the verifier.
        unsafe { load(self.0, offset!(regs_orig_ax)) }
    }

    /// Is the system call still running? On the way out of one, work that others left for this thread (io_uring
    /// completions) runs with the registers of a call that it has nothing to do with.
    #[inline(always)]
    pub fn in_syscall(self) -> bool {
        const ENOSYS: i64 = 38;
        // SAFETY: a pt_regs to the verifier. The entry code stores -ENOSYS where the result will be.
        let result: i64 = unsafe { load(self.0, offset!(regs_ax)) };
        result == -ENOSYS
    }

    /// Second argument.
    #[inline(always)]
    pub fn argument_1(self) -> u64 {
        // SAFETY: a pt_regs to the verifier.
        unsafe { load(self.0, offset!(regs_si)) }
    }

    /// Third argument.
    #[inline(always)]
    pub fn argument_2(self) -> u64 {
        // SAFETY: a pt_regs to the verifier.
        unsafe { load(self.0, offset!(regs_dx)) }
    }
}

/// Addresses of a connection as the records carry them.
#[derive(Clone, Copy)]
pub struct Tuple {
    pub family: u16,
    pub local_port: u16,
    pub peer_port: u16,
    pub local: [u64; 2],
    pub peer: [u64; 2],
}

/// A socket (`struct sock`) given to a tracepoint.
#[derive(Clone, Copy)]
pub struct Sock(pub *const c_void);

impl Sock {
    #[inline(always)]
    pub fn family(self) -> u16 {
        // SAFETY: a sock to the verifier.
        unsafe { load(self.0, offset!(sock_family)) }
    }

    #[inline(always)]
    pub fn protocol(self) -> u16 {
        // SAFETY: as above.
        unsafe { load(self.0, offset!(sock_protocol)) }
    }

    #[inline(always)]
    pub fn local_port(self) -> u16 {
        // SAFETY: as above; `skc_num` is in host order.
        unsafe { load(self.0, offset!(sock_local_port)) }
    }

    #[inline(always)]
    pub fn peer_port(self) -> u16 {
        // SAFETY: as above; `skc_dport` is in network order.
        u16::from_be(unsafe { load(self.0, offset!(sock_peer_port)) })
    }

    #[inline(always)]
    pub fn error(self) -> u32 {
        // SAFETY: as above.
        unsafe { load(self.0, offset!(sock_error)) }
    }

    /// As in `tcp_states.h`.
    #[inline(always)]
    pub fn state(self) -> u8 {
        // SAFETY: as above; `skc_state` is a byte.
        unsafe { load(self.0, offset!(sock_state)) }
    }

    /// Its owner closed it: nobody will read or write any more.
    #[inline(always)]
    pub fn is_dead(self) -> bool {
        // SAFETY: as above; `SOCK_DEAD` is bit 0.
        let flags: u64 = unsafe { load(self.0, offset!(sock_flags)) };
        flags & 1 != 0
    }

    /// The cookie if somebody asked for it before, else 0.
    #[inline(always)]
    pub fn known_cookie(self) -> u64 {
        // SAFETY: as above; an atomic64_t.
        unsafe { load(self.0, offset!(sock_cookie)) }
    }

    /// Inode of the socket's network namespace.
    #[inline(always)]
    pub fn netns(self) -> u32 {
        // SAFETY: as above; `skc_net.net` points to the live namespace of a live socket.
        unsafe {
            let net: *const c_void = load(self.0, offset!(sock_net));
            load(net, offset!(net_inode))
        }
    }

    #[inline(always)]
    pub fn tuple(self) -> Tuple {
        let family = self.family();
        let mut tuple =
            Tuple { family, local_port: self.local_port(), peer_port: self.peer_port(), local: [0; 2], peer: [0; 2] };
        if family == seismo_common::payload::AF_INET {
            // SAFETY: a sock to the verifier.
            unsafe {
                tuple.local[0] = u64::from(load::<u32>(self.0, offset!(sock_local_v4)));
                tuple.peer[0] = u64::from(load::<u32>(self.0, offset!(sock_peer_v4)));
            }
        } else if offset!(sock_local_v6) != ABSENT && offset!(sock_peer_v6) != ABSENT {
            let (local, peer) = (offset!(sock_local_v6), offset!(sock_peer_v6));
            // SAFETY: as above; in6_addr is 16 bytes.
            unsafe {
                tuple.local = [load(self.0, local), load(self.0, local + 8)];
                tuple.peer = [load(self.0, peer), load(self.0, peer + 8)];
            }
        }
        tuple
    }

    /// The full TCP socket, if this is one.
    #[inline(always)]
    pub fn tcp(self) -> Option<TcpSock> {
        // SAFETY: the helper takes any sock and answers null for anything but a full TCP socket.
        let tcp = unsafe { bpf_skc_to_tcp_sock(self.0.cast_mut()) };
        if tcp.is_null() { None } else { Some(TcpSock(tcp as *const c_void)) }
    }
}

/// `struct tcp_sock`.
#[derive(Clone, Copy)]
pub struct TcpSock(*const c_void);

impl TcpSock {
    /// Sequence number behind the last byte that the application wrote.
    #[inline(always)]
    pub fn write_sequence(self) -> u32 {
        // SAFETY: a tcp_sock to the verifier.
        unsafe { load(self.0, offset!(tcp_write_seq)) }
    }

    /// Sequence number behind the last byte that the application read.
    #[inline(always)]
    pub fn copied_sequence(self) -> u32 {
        // SAFETY: as above.
        unsafe { load(self.0, offset!(tcp_copied_seq)) }
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
        // SAFETY: as above.
        let (next, first_us): (u32, u64) =
            unsafe { (load(self.0, offset!(tcp_snd_nxt)), load(self.0, offset!(tcp_first_tx))) };
        if next == self.write_sequence() { first_us * 1000 } else { 0 }
    }

    /// Place of a sequence number in the stream that the application writes, counted from the connection's beginning:
    /// `snd_una - bytes_acked` is where it began.
    #[inline(always)]
    pub fn written_position(self, sequence: u32) -> u64 {
        // SAFETY: as above.
        let (acked, una): (u64, u32) =
            unsafe { (load(self.0, offset!(tcp_bytes_acked)), load(self.0, offset!(tcp_snd_una))) };
        acked.wrapping_add(i64::from(sequence.wrapping_sub(una) as i32) as u64)
    }

    /// The same of the stream that the application reads: it began at `rcv_nxt - bytes_received`.
    #[inline(always)]
    pub fn read_position(self, sequence: u32) -> u64 {
        // SAFETY: as above.
        let (received, next): (u64, u32) =
            unsafe { (load(self.0, offset!(tcp_bytes_received)), load(self.0, offset!(tcp_rcv_nxt))) };
        received.wrapping_add(i64::from(sequence.wrapping_sub(next) as i32) as u64)
    }

    /// Segments retransmitted over the connection's life.
    #[inline(always)]
    pub fn retransmits(self) -> u32 {
        // SAFETY: as above.
        unsafe { load(self.0, offset!(tcp_total_retrans)) }
    }
}

/// Hides a value from the compiler, so that a bound written after it survives to the verifier. The instruction is a
/// real one (`rN = rN`): a comment-only `asm!` breaks the object's line information.
#[inline(always)]
pub fn opaque(value: u64) -> u64 {
    let mut hidden = value;
    // SAFETY: moves a register onto itself.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) hidden, options(pure, nomem, nostack, preserves_flags)) };
    hidden
}
