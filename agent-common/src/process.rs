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

/// How a process ended: with this exit code, or by this signal. Which others there are is nobody's to bound, so what has
/// no entry is in the last one of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Code(&'static str),
    Signal(&'static str),
}

/// Ends that are told apart, in the order of [`end`].
pub const ENDS: [End; 14] = [
    End::Code("0"),
    End::Code("1"),
    End::Code("2"),
    End::Code("126"),
    End::Code("127"),
    End::Code("other"),
    End::Signal("SIGHUP"),
    End::Signal("SIGINT"),
    End::Signal("SIGABRT"),
    End::Signal("SIGKILL"),
    End::Signal("SIGSEGV"),
    End::Signal("SIGPIPE"),
    End::Signal("SIGTERM"),
    End::Signal("other"),
];

/// Index in [`ENDS`] of a wait status.
#[inline(always)]
pub const fn end(status: u32) -> usize {
    match (status & 0x7f, status >> 8 & 0xff) {
        (0, 0) => 0,
        (0, 1) => 1,
        (0, 2) => 2,
        (0, 126) => 3,
        (0, 127) => 4,
        (0, _) => 5,
        (1, _) => 6,
        (2, _) => 7,
        (6, _) => 8,
        (9, _) => 9,
        (11, _) => 10,
        (13, _) => 11,
        (15, _) => 12,
        (_, _) => 13,
    }
}

#[cfg(test)]
mod tests {
    use super::{ENDS, End, end};

    #[test]
    fn a_status_is_told_by_its_code_or_by_its_signal() {
        let cases = [
            (0, End::Code("0")),
            (1 << 8, End::Code("1")),
            (127 << 8, End::Code("127")),
            (3 << 8, End::Code("other")),
            (9, End::Signal("SIGKILL")),
            // With a core dump.
            (11 | 0x80, End::Signal("SIGSEGV")),
            (7, End::Signal("other")),
        ];
        for (status, expected) in cases {
            assert_eq!(ENDS[end(status)], expected, "{status:#x}");
        }
    }
}
