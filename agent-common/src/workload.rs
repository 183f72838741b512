//! Counters that the kernel programs keep per workload (cgroup) and CPU: one row of `u64` lanes for each.
//!
//! Whose which place is is mapped into the agent; a place is read in one system call, since its rows lie together. Place 0 is
//! that of every cgroup that has none of its own.

use crate::counter::lanes;

/// Places for cgroups, a power of two; place 0 belongs to whoever found none.
pub const WORKLOADS: usize = 1024;
/// Places that are looked at for a cgroup, from the one that its id names.
pub const WORKLOAD_PROBES: usize = 4;
/// Lanes of a row.
pub const WORKLOAD_LANES: usize = 128;

const _: () = assert!(WORKLOADS.is_power_of_two());

/// First of the places that a cgroup may have.
#[inline(always)]
pub const fn place(cgroup_id: u64) -> u32 {
    // Ids are given out in sequence.
    (cgroup_id ^ cgroup_id >> 32) as u32 & (WORKLOADS as u32 - 1)
}

lanes! { NAMED:
    /// Cgroups that found no place (row 0 only).
    WORKLOAD_UNPLACED,
    /// Block I/O that was asked for, by direction, in the order of [`crate::block`]: bytes, then requests.
    BLOCK_READ_BYTES,
    BLOCK_WRITE_BYTES,
    BLOCK_DISCARD_BYTES,
    BLOCK_READS,
    BLOCK_WRITES,
    BLOCK_DISCARDS,
    /// Thread groups created, programs executed, thread groups ended by how ([`crate::process::ENDS`], in its order).
    PROCESS_STARTS,
    PROCESS_EXECS,
    PROCESS_ENDS,
    PROCESS_ENDS_2,
    PROCESS_ENDS_3,
    PROCESS_ENDS_4,
    PROCESS_ENDS_5,
    PROCESS_ENDS_6,
    PROCESS_ENDS_7,
    PROCESS_ENDS_8,
    PROCESS_ENDS_9,
    PROCESS_ENDS_10,
    PROCESS_ENDS_11,
    PROCESS_ENDS_12,
    PROCESS_ENDS_13,
    PROCESS_ENDS_14,
    /// Page faults that needed no reading, and those that did.
    MINOR_FAULTS,
    MAJOR_FAULTS,
    /// Time that threads spent on reclaiming memory, ns.
    RECLAIM_NS,
    /// Processes that the kernel chose to kill for lack of memory.
    OOM_KILLS,
    /// Datagrams that found their socket's buffer full, or the protocol out of memory.
    UDP_FULL_BUFFERS,
    UDP_NO_MEMORY,
    /// Datagrams sent and received that were not empty.
    UDP_SENDS,
    UDP_RECEIVES,
    /// Bytes that threads moved through sockets, by transport: sent, then received.
    TCP_SENT_BYTES,
    TCP_RECEIVED_BYTES,
    UDP_SENT_BYTES,
    UDP_RECEIVED_BYTES,
    UNIX_SENT_BYTES,
    UNIX_RECEIVED_BYTES,
    OTHER_SENT_BYTES,
    OTHER_RECEIVED_BYTES,
    /// Segments retransmitted; resets sent and received.
    TCP_RETRANSMITS,
    TCP_RESETS_SENT,
    TCP_RESETS_RECEIVED,
    /// Connections opened from here (`SYN_SENT → ESTABLISHED`) and accepted here (`SYN_RECV → ESTABLISHED`), and those that
    /// reached CLOSE after that.
    TCP_ACTIVE_OPENS,
    TCP_PASSIVE_OPENS,
    TCP_CLOSES,
    /// `SYN_SENT → CLOSE`, by why, in the order of [`crate::tcp::FAILURES`].
    TCP_FAILURES,
    TCP_FAILURES_2,
    TCP_FAILURES_3,
    TCP_FAILURES_4,
    TCP_FAILURES_5,
    TCP_FAILURES_6,
    /// Time from the first SYN to its answer, and round trips that were looked at, µs.
    TCP_CONNECT_US,
    TCP_RTT_US,
    /// Receives: which of them a round trip is looked at.
    TCP_RECEIVES,
    /// Switches from a thread that had to wait for something, and from one that could have gone on.
    SWITCHES_VOLUNTARY,
    SWITCHES_INVOLUNTARY,
    /// Threads that went to another CPU.
    MIGRATIONS,
    /// Time off CPU, ns, by what was waited for, in the order of [`OFF_CPU`].
    OFF_CPU_OTHER,
    OFF_CPU_DISK,
    OFF_CPU_NETWORK,
    OFF_CPU_FUTEX,
    OFF_CPU_SLEEP,
    OFF_CPU_THROTTLED,
    /// Time in the run queue, ns.
    RUNQUEUE_NS,
    /// Time on CPU, ns, and what is not told apart yet.
    CPU_USER_NS,
    CPU_SYSTEM_NS,
    CPU_UNTOLD_NS,
    /// System calls, and those that failed.
    SYSCALL_CALLS,
    SYSCALL_FAILURES,
}

/// What a thread that is off CPU waits for; a reason's lane is [`OFF_CPU_OTHER`] plus its place here.
pub const OFF_CPU: [&str; 6] = ["other", "disk", "network", "futex", "sleep", "throttled"];
/// Waits in the run queue, by octave: the first bucket ends at 2^[`RUNQUEUE_EXPONENT`] s, the last has no end.
pub const RUNQUEUE_WAITS: usize = NAMED;
pub const RUNQUEUE_BUCKETS: usize = 26;
pub const RUNQUEUE_EXPONENT: i32 = -20;
/// Times of opened connections, two octaves a bucket: the first ends at 2^[`TCP_CONNECT_EXPONENT`] s.
pub const TCP_CONNECTS: usize = RUNQUEUE_WAITS + RUNQUEUE_BUCKETS;
pub const TCP_CONNECT_BUCKETS: usize = 12;
pub const TCP_CONNECT_EXPONENT: i32 = -14;
/// Round trips, by octave: the first bucket ends at 2^[`TCP_RTT_EXPONENT`] s.
pub const TCP_RTTS: usize = TCP_CONNECTS + TCP_CONNECT_BUCKETS;
pub const TCP_RTT_BUCKETS: usize = 18;
pub const TCP_RTT_EXPONENT: i32 = -15;

const _: () = assert!(TCP_RTTS + TCP_RTT_BUCKETS <= WORKLOAD_LANES);
const _: () = assert!(TCP_FAILURES_6 + 1 - TCP_FAILURES == crate::tcp::FAILURES.len());
const _: () = assert!(OFF_CPU_THROTTLED + 1 - OFF_CPU_OTHER == OFF_CPU.len());
const _: () = assert!(PROCESS_ENDS_14 + 1 - PROCESS_ENDS == crate::process::ENDS.len());
