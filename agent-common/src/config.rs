//! Settings that the loader writes: into the programs (constants to the verifier), and the scope map's value.

use crate::wire;

/// Largest number of bytes captured of one operation. A power of two: lengths are bounded by mask as well as by comparison.
pub const MAX_CAPTURE: usize = 8192;
/// What is captured of one unless told otherwise.
pub const DEFAULT_CAPTURE: usize = 4096;
/// I/O vectors visited per operation.
pub const MAX_IOVECS: usize = 8;
/// System call numbers that have a lane of their own; larger ones share the last lane.
pub const SYSCALLS: usize = 512;
/// Words of a CPU's counts of system calls: a lane each, and their sum.
pub const SYSCALL_WORDS: usize = SYSCALLS + 1;
/// Places of a CPU for kinds of failed system calls, a power of two.
pub const SYSCALL_ERRORS: usize = 512;
/// Places that are looked at for one kind.
pub const SYSCALL_ERROR_PROBES: usize = 8;
/// Slots for threads that reclaim memory (a power of two).
pub const RECLAIM_SLOTS: usize = 1024;
/// Threads whose page faults are remembered at once.
pub const FAULT_THREADS: usize = 65_536;
/// Reasons to drop a packet that have a lane of their own; larger numbers share the last one.
pub const SKB_REASONS: usize = 256;
/// Slots of the flat tables keyed by thread id (a power of two). Two threads that share a slot lose a sample.
pub const THREAD_SLOTS: usize = 16_384;
/// io_uring requests on sockets that are remembered at once; the one that was used longest ago goes first.
pub const REQUESTS: usize = 4096;
/// UNIX stream sockets whose position is remembered at once; the one that was used longest ago goes first.
pub const UNIX_STREAMS: usize = 8192;
/// Places for what userspace asks of connections ([`crate::payload::FlowControl`]): a connection's is at its identity,
/// modulo this. Cookies are given out in sequence, so two share a place only when they are so many apart.
pub const FLOW_CONTROLS: usize = 16_384;
const _: () = assert!(SYSCALL_ERRORS.is_power_of_two());
const _: () = assert!(FLOW_CONTROLS.is_power_of_two());
/// Windows of the budget of captured bytes: 67 ms.
pub const BUDGET_WINDOW_SHIFT: u32 = 26;
/// Entries of each kind in one [`ScopeRules`].
pub const SCOPE_ENTRIES: usize = 8;

wire! {
    /// Read-only after load: the verifier removes branches that these switch off.
    pub struct Settings {
        /// [`crate::record::ABI_VERSION`].
        pub abi: u32,
        /// Bytes captured per operation, at most [`MAX_CAPTURE`].
        pub capture_bytes: u32,
        /// Drop a share of payload records on purpose (tests): one in `drop_every`; 0 drops none.
        pub drop_every: u32,
        /// Bytes waiting in the ring at which userspace is woken; below, its timer is enough.
        pub wake_bytes: u32,
        /// Records of sends and receives go to lanes ([`crate::lane`]) where they find room; 0: to the ring alone.
        pub lanes: u32,
        /// CPUs that tables with a row of counters for each place on each CPU have room for, at least 1.
        pub cpus: u32,
        /// Bytes captured at most per CPU in 2^[`BUDGET_WINDOW_SHIFT`] ns; 0: no limit.
        pub budget_bytes: u32,
        /// Helpers that this kernel has, 0 or 1: the current task as a type that the verifier knows (5.11).
        pub task_btf: u32,
        /// A UNIX socket from a socket, checked (`bpf_skc_to_unix_sock`, 5.16).
        pub unix_cast: u32,
        /// The cgroups above a task's own (`bpf_get_current_ancestor_cgroup_id` in tracing programs, after 5.10).
        pub cgroup_ancestor: u32,
        /// Type id of a struct of two 64-bit words, if any address can be taken for one (`bpf_rdonly_cast`, 6.2), else 0.
        pub words_type: u32,
        /// The registers of the running task (`bpf_task_pt_regs`, 5.15).
        pub task_registers: u32,
        /// Type id of what they are where addresses can be cast and their place is known; 0: ask the helper.
        pub registers_type: u32,
        /// How far above the beginning of a thread's stack they are, bytes.
        pub registers_place: u32,
        /// Programs on tracepoints can be preempted, so that two of them run mixed on one CPU (7.0).
        pub preemptible: u32,
        /// Sockets are named by their cookie; 0: by their address, scrambled with `salt`.
        pub cookies: u32,
        /// Sends are noted under the socket's lock, io_uring's requests when they are submitted.
        pub iterators: u32,
        /// Parameters of `tcp_recvmsg` and of `udp_recvmsg`, and which of them is `flags`: they differ by kernel.
        pub tcp_receive_parameters: u32,
        pub tcp_receive_flags: u32,
        pub udp_receive_parameters: u32,
        pub udp_receive_flags: u32,
        /// Bits of a block request's `rq_flags`: it is in the kernel's account; it is a step of a flush.
        pub block_counted: u32,
        pub block_flushing: u32,
        /// Length of a tick of the kernel's timer, ns.
        pub tick_ns: u32,
        /// The tracepoint of a segment sent again says what came of it, and is also there where nothing did (6.17).
        pub retransmit_errors: u32,
        /// When the programs were loaded, seconds of the monotonic clock.
        pub began_s: u32,
        /// Secret of this run of the agent.
        pub salt: [u32; 4],
    }
}

impl Settings {
    /// What an object holds before the loader writes it; also the agent's defaults.
    pub const DEFAULT: Self = Self {
        abi: crate::record::ABI_VERSION,
        capture_bytes: DEFAULT_CAPTURE as u32,
        drop_every: 0,
        wake_bytes: 1 << 20,
        lanes: 0,
        cpus: 1,
        budget_bytes: 0,
        task_btf: 1,
        unix_cast: 1,
        words_type: 0,
        task_registers: 1,
        registers_type: 0,
        registers_place: 0,
        preemptible: 0,
        cgroup_ancestor: 1,
        cookies: 1,
        iterators: 0,
        tcp_receive_parameters: 4,
        tcp_receive_flags: 3,
        udp_receive_parameters: 4,
        udp_receive_flags: 3,
        // As they were before 6.12, which has them in its type information.
        block_counted: 1 << 13,
        block_flushing: 1 << 4,
        tick_ns: 4_000_000,
        retransmit_errors: 0,
        began_s: 0,
        salt: [0; 4],
    };
}

/// Processes that can be in or out of scope by themselves at once.
pub const SCOPE_PROCESSES: usize = 16_384;
/// Of a process in `SCOPE_TGIDS` and `ADOPT_TGIDS`: in scope, by its pid or executable in the one, its group in the other.
pub const TGID_INCLUDED: u8 = 1;
/// Of a process in the same maps: excluded.
pub const TGID_EXCLUDED: u8 = 2;
/// Words of the `SCOPE_TGIDS` map: two bits for every process id that a 64-bit kernel gives (`PID_MAX_LIMIT`).
pub const TGID_WORDS: usize = (4 << 20) / TGIDS_PER_WORD as usize;
const TGIDS_PER_WORD: u32 = 32;

/// Where a process is in `SCOPE_TGIDS`: the word, and by how much its two bits are shifted in there.
#[inline(always)]
pub const fn tgid_place(tgid: u32) -> (u32, u32) {
    (tgid / TGIDS_PER_WORD, tgid % TGIDS_PER_WORD * 2)
}

wire! {
    /// One side (include or exclude) of the scope. A socket operation matches when any entry matches.
    pub struct ScopeRules {
        /// 1: everything matches.
        pub all: u32,
        /// Used entries in the arrays below.
        pub cgroups: u32,
        pub ports: u32,
        pub netns: u32,
        /// A task matches when its ancestor at `cgroup_levels[i]` has id `cgroup_ids[i]`.
        pub cgroup_ids: [u64; SCOPE_ENTRIES],
        pub cgroup_levels: [u32; SCOPE_ENTRIES],
        /// Local or peer port, host byte order.
        pub port_values: [u32; SCOPE_ENTRIES],
        /// Inode of the network namespace.
        pub netns_inodes: [u32; SCOPE_ENTRIES],
    }
}

impl ScopeRules {
    /// Matches nothing.
    pub const EMPTY: Self = Self {
        all: 0,
        cgroups: 0,
        ports: 0,
        netns: 0,
        cgroup_ids: [0; SCOPE_ENTRIES],
        cgroup_levels: [0; SCOPE_ENTRIES],
        port_values: [0; SCOPE_ENTRIES],
        netns_inodes: [0; SCOPE_ENTRIES],
    };
}

impl Scope {
    /// Nothing is in scope.
    pub const EMPTY: Self = Self { include: ScopeRules::EMPTY, exclude: ScopeRules::EMPTY, processes: 0, anything: 0 };
}

wire! {
    /// Value of the `SCOPE` map (one entry): replaced as a whole while the agent runs.
    pub struct Scope {
        pub include: ScopeRules,
        pub exclude: ScopeRules,
        /// 1: `SCOPE_TGIDS` may hold processes; 0 saves its lookup.
        pub processes: u32,
        /// 1: something is included; 0 saves looking at any rule.
        pub anything: u32,
    }
}

#[cfg(test)]
mod tests {
    use super::{TGID_EXCLUDED, TGID_INCLUDED, TGID_WORDS, tgid_place};

    #[test]
    fn every_process_id_has_two_bits_of_its_own() {
        let bits = |tgid: u32| {
            let (word, shift) = tgid_place(tgid);
            assert!((word as usize) < TGID_WORDS);
            (word, u64::from(TGID_INCLUDED | TGID_EXCLUDED) << shift)
        };
        for tgid in (0..200).chain((4 << 20) - 200..(4 << 20) - 1) {
            let (one, next) = (bits(tgid), bits(tgid + 1));
            assert!(one.1.count_ones() == 2 && (one.0 != next.0 || one.1 & next.1 == 0), "{tgid}");
        }
        assert_eq!(tgid_place((4 << 20) - 1).0 as usize, TGID_WORDS - 1);
    }
}
