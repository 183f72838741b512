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
    /// Nothing: no system call names the bytes. Lengths are exact all the same.
    Nothing,
    /// Everything or nothing: depends on the hooks that this kernel has.
    WholeOrNothing,
}

#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Argument of the test client, and name of its copy.
    pub path: &'static str,
    pub direction: &'static str,
    pub syscalls: &'static [i64],
    pub captured: Captured,
    pub total: u64,
}

const SMALL: u64 = SIZES[0] + SIZES[1] + SIZES[2];

const fn row(path: &'static str, direction: &'static str, syscalls: &'static [i64], captured: Captured) -> Row {
    Row { path, direction, syscalls, captured, total: SMALL }
}

pub const ROWS: [Row; 17] = [
    row("write", "send", &[libc::SYS_write], Captured::Whole),
    row("writev", "send", &[libc::SYS_writev], Captured::Whole),
    row("send", "send", &[libc::SYS_sendto], Captured::Whole),
    row("sendto", "send", &[libc::SYS_sendto], Captured::Whole),
    row("sendmsg", "send", &[libc::SYS_sendmsg], Captured::Whole),
    row("sendmsg-many", "send", &[libc::SYS_sendmsg], Captured::EightVectors),
    row("sendmmsg", "send", &[libc::SYS_sendmmsg], Captured::Whole),
    Row { total: LARGE, ..row("sendfile", "send", &[libc::SYS_sendfile], Captured::Nothing) },
    row("splice", "send", &[libc::SYS_splice], Captured::Nothing),
    row("io_uring-send", "send", &[libc::SYS_io_uring_enter, -1], Captured::WholeOrNothing),
    row("read", "receive", &[libc::SYS_read], Captured::Whole),
    row("readv", "receive", &[libc::SYS_readv], Captured::Whole),
    row("recv", "receive", &[libc::SYS_recvfrom], Captured::Whole),
    row("recvmsg", "receive", &[libc::SYS_recvmsg], Captured::Whole),
    row("recvmmsg", "receive", &[libc::SYS_recvmmsg], Captured::Whole),
    row("peek", "receive", &[libc::SYS_recvfrom], Captured::Whole),
    row("io_uring-recv", "receive", &[libc::SYS_io_uring_enter, -1], Captured::WholeOrNothing),
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
