//! Counters that the kernel programs keep per CPU: one lane of `u64` each, read as a whole at every scrape.
//!
//! The lanes are a single per-CPU array value, so that a scrape is one system call per map.

use crate::drops::DROP_REASONS;

/// Numbers the lanes of a table from 0, and says how many there are.
macro_rules! lanes {
    ($number:ident: $($(#[$meta:meta])* $name:ident),+ $(,)?) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
        #[repr(usize)]
        enum Index { $($name),+, END }
        $($(#[$meta])* pub const $name: usize = Index::$name as usize;)+
        const $number: usize = Index::END as usize;
    };
}
pub(crate) use lanes;

// Counters with a name of their own; the drop lanes follow.
lanes! { NAMED:
    /// Socket operations that want a record: each is submitted or dropped for one of the reasons in [`crate::drops`].
    /// These two lanes are written in process context only, so plain adds are exact.
    PAYLOAD_OBSERVED,
    /// Payload records that the ring took.
    PAYLOAD_SUBMITTED,
    /// The same of all other records, some of which are written in soft interrupts.
    EVENTS_OBSERVED,
    EVENTS_SUBMITTED,
    /// Bytes of the operations whose record was dropped.
    PAYLOAD_DROPPED_BYTES,
    /// Operations that peeked (`MSG_PEEK`) and moved nothing.
    PAYLOAD_PEEKS,
    /// Operations on sockets out of scope: nothing was copied.
    PAYLOAD_OUT_OF_SCOPE,
    /// Bytes captured, and bytes that were not by reason, in the order of the `CUT_` bits in [`crate::payload`]; an
    /// operation that is cut for two reasons counts under the first.
    PAYLOAD_CAPTURED_BYTES,
    PAYLOAD_CUT_LIMIT_BYTES,
    PAYLOAD_CUT_NO_BUFFER_BYTES,
    PAYLOAD_CUT_FAULT_BYTES,
    PAYLOAD_CUT_IOVECS_BYTES,
    PAYLOAD_CUT_COMPAT_BYTES,
    PAYLOAD_CUT_SKIP_BYTES,
    PAYLOAD_CUT_BUDGET_BYTES,
    /// Messages of one call beyond those that are looked at ([`crate::config::MAX_IOVECS`]): their bytes are not in the
    /// record's length.
    PAYLOAD_MESSAGES_UNSEEN,
    /// Sends that another thread's interrupted, so that they are told in two records.
    PAYLOAD_INTERRUPTED,
    /// Run-queue waits whose start was not known (first sight of a thread, or a shared slot).
    RUNQUEUE_UNKNOWN,
    /// Sampled system calls whose slot another thread took.
    SYSCALL_SAMPLE_LOST,
    /// Failed system calls that found no place in the table of their CPU: counted by workload, not by call and error.
    SYSCALL_ERRORS_UNPLACED,
    /// Threads whose page faults are counted only when they end: the table was full.
    FAULTS_UNTRACKED,
    /// Reclaims whose beginning was not seen, or whose slot another thread took.
    RECLAIM_UNKNOWN,
    /// Connections opened from here of which it is not known how long that took: another one took the slot.
    TCP_CONNECT_UNKNOWN,
    /// Tasks that began, or asked over a connection, and that could not be read.
    TASKS_UNREAD,
    /// Wake-ups that were not told: a CPU had told as many as it may.
    WAKES_UNTOLD,
    /// Times that something would have been counted in a row that is not there: of a CPU that came after the agent started.
    CPU_WITHOUT_ROWS,
}

/// First of the lanes that count drops; add a [`crate::drops`] reason.
pub const DROPS: usize = NAMED;
/// Lanes in the map.
pub const COUNTERS: usize = 64;

const _: () = assert!(NAMED + DROP_REASONS <= COUNTERS);
