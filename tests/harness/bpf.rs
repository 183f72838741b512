//! Which eBPF programs the kernel holds, and which of them a process holds: the proof that nothing stays behind.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};

/// `bpf(2)` command that walks the ids of all loaded programs.
const BPF_PROG_GET_NEXT_ID: libc::c_int = 11;

/// First fields of `union bpf_attr` for that command.
#[repr(C)]
#[derive(Default)]
struct NextId {
    start: u32,
    next: u32,
    open_flags: u32,
}

/// Ids of all programs that the kernel holds now.
pub fn loaded() -> Result<BTreeSet<u32>> {
    let mut ids = BTreeSet::new();
    let mut attributes = NextId::default();
    loop {
        let size = size_of::<NextId>();
        // SAFETY: the pointer and size describe a live bpf_attr prefix that the kernel reads and writes.
        let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_GET_NEXT_ID, &raw mut attributes, size) };
        if result != 0 {
            let error = io::Error::last_os_error();
            if error.raw_os_error() == Some(libc::ENOENT) {
                return Ok(ids);
            }
            bail!("listing eBPF programs: {error}");
        }
        ids.insert(attributes.next);
        attributes.start = attributes.next;
    }
}

/// Ids of the programs that are attached by a link now, whoever made it.
pub fn attached() -> Result<BTreeSet<u32>> {
    /// `bpf(2)` commands on links.
    const BPF_LINK_GET_FD_BY_ID: libc::c_int = 30;
    const BPF_LINK_GET_NEXT_ID: libc::c_int = 31;
    let mut programs = BTreeSet::new();
    let mut attributes = NextId::default();
    let size = size_of::<NextId>();
    loop {
        // SAFETY: as in `loaded`.
        if unsafe { libc::syscall(libc::SYS_bpf, BPF_LINK_GET_NEXT_ID, &raw mut attributes, size) } != 0 {
            let error = io::Error::last_os_error();
            if error.raw_os_error() == Some(libc::ENOENT) {
                return Ok(programs);
            }
            bail!("listing eBPF links: {error}");
        }
        let link = NextId { start: attributes.next, ..NextId::default() };
        // SAFETY: as above; the command reads the id and gives a descriptor.
        let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_LINK_GET_FD_BY_ID, &raw const link, size) };
        // It may be gone by now.
        if fd >= 0 {
            // SAFETY: a descriptor that was just made and that nobody else owns.
            let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
            programs.extend(program_of(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())));
        }
        attributes.start = attributes.next;
    }
}

/// The program that a descriptor holds, by its fdinfo. A descriptor may be closed between the listing and the reading.
fn program_of(info: impl AsRef<Path>) -> Option<u32> {
    let text = fs::read_to_string(info).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok())
}

/// How often the kernel did not run a program of a process because it was running on that CPU already (5.12+).
pub fn missed_runs(pid: u32) -> Result<u64> {
    let place = format!("/proc/{pid}/fdinfo");
    let mut sum = 0;
    for entry in fs::read_dir(&place).with_context(|| place.clone())? {
        // A descriptor may be closed between the listing and the reading.
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("recursion_misses:"));
        sum += line.and_then(|count| count.trim().parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(sum)
}

/// Ids of the programs that a process holds by program or link descriptors.
pub fn held_by(pid: u32) -> Result<BTreeSet<u32>> {
    let mut ids = BTreeSet::new();
    let place = format!("/proc/{pid}/fdinfo");
    for entry in fs::read_dir(&place).with_context(|| place.clone())? {
        ids.extend(program_of(entry?.path()));
    }
    Ok(ids)
}
