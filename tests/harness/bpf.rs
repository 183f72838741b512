//! Which eBPF programs the kernel holds, and which of them a process holds: the proof that nothing stays behind.

use std::collections::BTreeSet;
use std::fs;
use std::io;

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
        // A descriptor may be closed between the listing and the reading.
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        let id: Option<u32> = text.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok());
        ids.extend(id);
    }
    Ok(ids)
}
