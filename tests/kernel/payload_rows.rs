//! The table of ways to move bytes through a socket, and what must be seen of each.

/// Sizes that the test client moves, one operation each, unless stated otherwise.
pub const SIZES: [u64; 3] = [5, 300, 6000];
/// What the client sends where its memory never holds the bytes.
pub const LARGE: u64 = 100_000;
/// Bytes captured of one operation at most.
pub const CAPTURE: u64 = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Captured {
    /// Everything up to [`CAPTURE`].
    Whole,
    /// What the first 8 of 12 equal vectors hold, up to [`CAPTURE`].
    EightVectors,
    /// Nothing: no system call names the bytes, or not in a place that the hook can find. Lengths are exact all the same.
    Nothing,
    /// Everything or nothing: depends on the hooks that this kernel has.
    WholeOrNothing,
}

#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Argument of the test client, and name of its copy.
    pub path: &'static str,
    pub direction: &'static str,
    /// Names of the system calls that may stand in the thread's registers; `None` for any.
    pub syscall: Option<&'static str>,
    pub captured: Captured,
    pub total: u64,
    /// Bytes that the client sends to ask for those that it is to receive.
    pub asked: u64,
}

const SMALL: u64 = SIZES[0] + SIZES[1] + SIZES[2];

const fn row(path: &'static str, direction: &'static str, syscall: &'static str, captured: Captured) -> Row {
    Row { path, direction, syscall: Some(syscall), captured, total: SMALL, asked: 0 }
}

pub const ROWS: [Row; 18] = [
    row("write", "send", "write", Captured::Whole),
    row("writev", "send", "writev", Captured::Whole),
    row("send", "send", "sendto", Captured::Whole),
    row("sendto", "send", "sendto", Captured::Whole),
    row("sendmsg", "send", "sendmsg", Captured::Whole),
    row("sendmsg-many", "send", "sendmsg", Captured::EightVectors),
    row("sendmmsg", "send", "sendmmsg", Captured::WholeOrNothing),
    Row { total: LARGE, ..row("sendfile", "send", "sendfile", Captured::Nothing) },
    row("splice", "send", "splice", Captured::Nothing),
    row("io_uring-send", "send", "io_uring_enter", Captured::WholeOrNothing),
    row("read", "receive", "read", Captured::Whole),
    row("readv", "receive", "readv", Captured::Whole),
    row("recv", "receive", "recvfrom", Captured::Whole),
    row("recvmsg", "receive", "recvmsg", Captured::Whole),
    row("recvmmsg", "receive", "recvmmsg", Captured::Nothing),
    row("peek", "receive", "recvfrom", Captured::Whole),
    row("io_uring-recv", "receive", "io_uring_enter", Captured::WholeOrNothing),
    // Completed while the thread leaves another system call, whose buffer holds something else.
    Row { syscall: None, asked: 2, ..row("io_uring-late", "receive", "", Captured::WholeOrNothing) },
];

impl Captured {
    /// May `captured` bytes of an operation of `length` bytes have been copied?
    pub fn allows(self, length: u64, captured: u64) -> bool {
        let whole = length.min(CAPTURE);
        match self {
            Self::Whole => captured == whole,
            Self::EightVectors => captured == (length.div_ceil(12) * 8).min(length).min(CAPTURE),
            Self::Nothing => captured == 0,
            Self::WholeOrNothing => captured == whole || captured == 0,
        }
    }
}
