//! Process life: fork, exec and exit of thread groups (threads are not reported).

use crate::{record::RecordHeader, wire};

/// In `RecordHeader::flags`: the process is in scope by cgroup, pid or executable (not by port or network namespace,
/// which are a socket's). Only such a process may be looked at more closely.
pub const IN_SCOPE: u16 = 1;

wire! {
    /// Record of `PROCESS_FORK`, `PROCESS_EXEC` and `PROCESS_EXIT`.
    pub struct ProcessRecord {
        pub header: RecordHeader,
        pub tgid: u32,
        /// Parent's tgid for a fork; 0 otherwise.
        pub parent_tgid: u32,
        /// Wait status (`task->exit_code`) for an exit; 0 otherwise.
        pub exit_code: u32,
        pub reserved: u32,
        /// Cgroup (v2) id of the task that ran the hook.
        pub cgroup_id: u64,
        /// `task->comm`, zero padded, any bytes.
        pub comm: [u8; 16],
    }
}

const _: () = assert!(core::mem::size_of::<ProcessRecord>() == 64);
