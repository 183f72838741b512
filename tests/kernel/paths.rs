//! The ways to move bytes through a socket, and how much of each is promised on each tier.
//!
//! A kernel that is older than a way does not have it; nothing else excuses a path.

/// Bytes captured of one operation at most.
pub const CAPTURE: u64 = 4096;
/// Tiers, best first: the order of [`Path::promised`].
pub const TIERS: [&str; 4] = ["l0a", "l0", "l1", "l2"];

/// How much of an operation's bytes is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bytes {
    /// The operation is not seen.
    Unseen,
    /// Its length and position, without bytes.
    Length,
    /// What the first 8 of 12 equal vectors hold, up to [`CAPTURE`].
    Part,
    /// Everything up to [`CAPTURE`].
    Whole,
}

use Bytes::{Length, Part, Unseen, Whole};

#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// Argument of the test client's `cover`.
    pub name: &'static str,
    /// What the tested end does: `send` or `receive`.
    pub direction: &'static str,
    pub promised: [Bytes; 4],
    /// First release whose kernel has it, as far as it is later than the first that is supported.
    pub since: [u32; 2],
}

const fn path(name: &'static str, direction: &'static str, promised: [Bytes; 4]) -> Path {
    Path { name, direction, promised, since: [0, 0] }
}

const fn sends(name: &'static str) -> Path {
    path(name, "send", [Whole; 4])
}

const fn receives(name: &'static str) -> Path {
    path(name, "receive", [Whole; 4])
}

/// By io_uring.
const fn uring(name: &'static str, direction: &'static str) -> Path {
    path(name, direction, [Whole, Length, Length, Unseen])
}

pub const PATHS: &[Path] = &[
    sends("tcp4/write"),
    sends("tcp4/writev"),
    sends("tcp4/pwritev2"),
    sends("tcp4/send"),
    sends("tcp4/sendto"),
    sends("tcp4/sendmsg"),
    path("tcp4/sendmsg-many", "send", [Part; 4]),
    path("tcp4/sendmmsg", "send", [Whole, Length, Length, Whole]),
    path("tcp4/sendfile", "send", [Length; 4]),
    path("tcp4/splice-out", "send", [Length; 4]),
    path("tcp4/vmsplice", "send", [Length; 4]),
    sends("tcp4/zerocopy"),
    sends("tcp4/partial"),
    sends("tcp4/dup"),
    sends("tcp4/passed"),
    sends("tcp4/fork"),
    path("tcp4/compat", "send", [Length; 4]),
    path("tcp4/32-bit-write", "send", [Length; 4]),
    path("tcp4/32-bit-read", "receive", [Length; 4]),
    path("tcp4/32-bit-send", "send", [Length, Length, Length, Unseen]),
    path("tcp4/32-bit-recv", "receive", [Length, Length, Length, Unseen]),
    receives("tcp4/read"),
    receives("tcp4/readv"),
    receives("tcp4/preadv2"),
    receives("tcp4/recv"),
    receives("tcp4/recvfrom"),
    receives("tcp4/recvmsg"),
    path("tcp4/recvmmsg", "receive", [Length, Length, Length, Whole]),
    path("tcp4/splice-in", "receive", [Unseen, Unseen, Length, Length]),
    receives("tcp4/peek"),
    path("tcp4/truncate", "receive", [Length; 4]),
    receives("tcp4/eagain"),
    uring("tcp4/io_uring-send", "send"),
    uring("tcp4/io_uring-write", "send"),
    uring("tcp4/io_uring-sendmsg", "send"),
    // Before 5.11 it needs registered files, and before 5.13 a right that containers have not.
    Path { since: [5, 13], ..uring("tcp4/io_uring-sqpoll-send", "send") },
    uring("tcp4/io_uring-recv", "receive"),
    uring("tcp4/io_uring-read", "receive"),
    uring("tcp4/io_uring-recvmsg", "receive"),
    uring("tcp4/io_uring-late", "receive"),
    Path { since: [5, 13], ..uring("tcp4/io_uring-sqpoll-recv", "receive") },
    uring("tcp4/io_uring-provided", "receive"),
    Path { since: [6, 0], ..uring("tcp4/io_uring-multishot", "receive") },
    sends("tcp6/write"),
    receives("tcp6/read"),
    sends("mapped/write"),
    receives("mapped/read"),
    sends("veth/write"),
    receives("veth/read"),
    sends("unix/write"),
    sends("unix/sendmsg"),
    receives("unix/read"),
    receives("unix/recvmsg"),
    uring("unix/io_uring-send", "send"),
    uring("unix/io_uring-recv", "receive"),
    sends("unix-datagram/send"),
    receives("unix-datagram/recv"),
    sends("udp/send"),
    sends("udp/sendmsg"),
    path("udp/sendmmsg", "send", [Length, Length, Length, Whole]),
    receives("udp/recv"),
    receives("udp/recvmsg"),
    path("udp/recvmmsg", "receive", [Length, Length, Length, Whole]),
    sends("udp-unconnected/sendto"),
    sends("udp-unconnected/sendmsg"),
    receives("udp-unconnected/recvfrom"),
    receives("udp-unconnected/recvmsg"),
    sends("udp6/send"),
    receives("udp6/recv"),
];

/// What is not seen, or not in its place, and why.
pub struct Hole {
    /// A part of the names of the paths.
    paths: &'static str,
    tiers: &'static [&'static str],
    reason: &'static str,
}

pub const UNSEEN: &[Hole] = &[
    Hole { paths: "/io_uring-", tiers: &["l2"], reason: "l2 sees system calls, and io_uring moves bytes without one" },
    Hole {
        paths: "/32-bit-",
        tiers: &["l2"],
        reason: "the system call `socketcall` of 32-bit processes keeps its descriptor in memory, where l2 does not look",
    },
    Hole {
        paths: "/splice-in",
        tiers: &["l0a", "l0"],
        reason: "splice out of a socket passes no hook of l0; the connection's next operation tells how far it went",
    },
];

pub const MISPLACED: &[Hole] = &[Hole {
    paths: "unix/",
    tiers: &["l2"],
    reason: "the kernel counts no bytes of UNIX streams, and l2 knows sockets by their address: one that is opened where \
             another was goes on where that one ended",
}];

impl Hole {
    /// The reason for a path on a tier, if there is one.
    pub fn of(holes: &[Self], path: &Path, tier: &str) -> Option<&'static str> {
        holes.iter().find(|hole| path.name.contains(hole.paths) && hole.tiers.contains(&tier)).map(|hole| hole.reason)
    }
}

impl Path {
    /// Does a kernel of this release have it?
    pub fn is_on(&self, release: [u32; 2]) -> bool {
        release >= self.since
    }

    pub fn kind(&self) -> &'static str {
        self.name.split('/').next().unwrap_or_default()
    }

    /// Keeps the borders of its messages, and has no positions.
    pub fn has_messages(&self) -> bool {
        self.kind().starts_with("udp") || self.kind() == "unix-datagram"
    }

    /// What a record calls the kind.
    pub fn transport(&self) -> &'static str {
        match self.kind() {
            "unix" => "unix_stream",
            "unix-datagram" => "unix_datagram",
            kind if kind.starts_with("udp") => "udp",
            _ => "tcp",
        }
    }

    /// The system call that must stand in the thread's registers, where the path is named after it.
    pub fn syscall(&self) -> Option<&'static str> {
        match self.name.split('/').nth(1).unwrap_or_default() {
            "send" => Some("sendto"),
            "recv" => Some("recvfrom"),
            name if ["write", "writev", "read", "readv", "sendto", "sendmsg", "sendmmsg", "sendfile"]
                .contains(&name) =>
            {
                Some(name)
            }
            name if ["recvfrom", "recvmsg", "recvmmsg", "preadv2", "pwritev2"].contains(&name) => Some(name),
            _ => None,
        }
    }

    /// Bytes that must be captured of an operation, if so much is.
    pub fn captured(bytes: Bytes, length: u64) -> u64 {
        match bytes {
            Unseen | Length => 0,
            Part => (length.div_ceil(12) * 8).min(length).min(CAPTURE),
            Whole => length.min(CAPTURE),
        }
    }
}

/// Major and minor release of the running kernel.
pub fn release() -> anyhow::Result<(String, [u32; 2])> {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
    let mut parts = text.split(['.', '-', '+']).map(|part| part.parse().unwrap_or(0));
    let numbers = [parts.next().unwrap_or(0), parts.next().unwrap_or(0)];
    Ok((text, numbers))
}
