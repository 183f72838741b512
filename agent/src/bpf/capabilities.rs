//! Capabilities: which the agent needs and why, which it has, and giving back what is no longer needed.
//!
//! Loading needs more than running. After attaching, only what reading other processes' identity takes is kept
//! (and `CAP_BPF` on kernels before 5.19, which want it for every map access).

use std::io;

/// A capability by its number (`linux/capability.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability(u32);

pub const CAP_SYS_PTRACE: Capability = Capability(19);
/// Not asked for: where it is held, processes can be probed on kernels before 6.6 that were repaired in July 2025.
pub const CAP_SYS_ADMIN: Capability = Capability(21);
pub const CAP_PERFMON: Capability = Capability(38);
pub const CAP_BPF: Capability = Capability(39);

/// To load and attach: BPF for maps and programs, PERFMON for tracing programs and for reading memory in them.
pub const LOADING: &[Capability] = &[CAP_BPF, CAP_PERFMON];
/// Everything: with SYS_PTRACE the executable of another user's process can be named.
pub const NEEDED: &[Capability] = &[CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE];

impl Capability {
    pub const fn name(self) -> &'static str {
        match self {
            CAP_SYS_PTRACE => "CAP_SYS_PTRACE",
            CAP_SYS_ADMIN => "CAP_SYS_ADMIN",
            CAP_PERFMON => "CAP_PERFMON",
            CAP_BPF => "CAP_BPF",
            _ => "CAP_UNKNOWN",
        }
    }
}

/// A set of capabilities as a bit mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set(u64);

impl Set {
    pub fn contains(self, capability: &Capability) -> bool {
        self.0 >> capability.0 & 1 == 1
    }
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Word {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`: two words of 32 bits.
const VERSION_3: u32 = 0x2008_0522;

/// Capabilities in effect for this thread; none if the kernel does not say.
pub fn effective() -> Set {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut words = [Word::default(); 2];
    // SAFETY: capget(2) with version 3 fills two words; both pointers are valid for the call.
    let failed = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, words.as_mut_ptr()) } != 0;
    if failed { Set(0) } else { Set(u64::from(words[0].effective) | u64::from(words[1].effective) << 32) }
}

/// What stays after attaching on a kernel of this release.
pub fn kept(kernel_release: &str) -> Vec<Capability> {
    let mut keep = vec![CAP_SYS_PTRACE];
    if version(kernel_release) < (5, 19) {
        keep.push(CAP_BPF);
    }
    keep
}

/// What stays in the thread that probes processes.
pub fn kept_to_probe(kernel_release: &str) -> Vec<Capability> {
    let mut keep = kept(kernel_release);
    // From 6.6 one link attaches a program to many places, which takes none.
    if version(kernel_release) < (6, 6) {
        keep.extend([CAP_PERFMON, CAP_SYS_ADMIN]);
    }
    keep
}

/// Gives up everything but `keep` in this thread, for good. Call before other threads start: capabilities are a
/// thread's own.
pub fn drop_all_but(keep: &[Capability]) -> io::Result<()> {
    let held = effective().0;
    let mask = keep.iter().fold(0, |mask, capability| mask | 1 << capability.0) & held;
    let mut header = Header { version: VERSION_3, pid: 0 };
    let word =
        |shift: u32| Word { effective: (mask >> shift) as u32, permitted: (mask >> shift) as u32, inheritable: 0 };
    let words = [word(0), word(32)];
    // SAFETY: capset(2) with version 3 reads two words; both pointers are valid for the call.
    if unsafe { libc::syscall(libc::SYS_capset, &raw mut header, words.as_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Major and minor of `6.18.44-…`; (0, 0) when it has another form.
pub(super) fn version(release: &str) -> (u32, u32) {
    let mut parts = release.split(['.', '-', '+']).map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::{CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN, CAP_SYS_PTRACE, kept, kept_to_probe, version};

    #[test]
    fn old_kernels_keep_the_capability_that_map_access_wants() {
        assert_eq!(kept("5.10.0-33-cloud-amd64"), [CAP_SYS_PTRACE, CAP_BPF]);
        assert_eq!(kept("6.1.0"), [CAP_SYS_PTRACE]);
        assert_eq!(kept_to_probe("6.1.0"), [CAP_SYS_PTRACE, CAP_PERFMON, CAP_SYS_ADMIN]);
        assert_eq!(kept_to_probe("6.6.1"), [CAP_SYS_PTRACE]);
        assert_eq!(version("7.3-rc1+x"), (7, 3));
    }
}
