//! What the verifier did for each program that a process loads, on kernels that do not keep the number (before 5.16).
//!
//! The process is traced: where it calls `bpf(BPF_PROG_LOAD)` without a log, the call is given one of the kind that
//! holds only statistics, and everything is put back before the process goes on. Costs two stops a system call. For
//! x86-64, kernel 5.3 or later (`PTRACE_GET_SYSCALL_INFO`); only for a machine of our own.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

const BPF_PROG_LOAD: u64 = 5;
/// Offsets in `union bpf_attr` for that command: log level (u32), log size (u32), log buffer (u64); name (16 bytes).
const LOG: u64 = 24;
const NAME: u64 = 48;
/// `BPF_LOG_STATS`: a few lines at the end, nothing about single instructions.
const STATISTICS: u32 = 4;
const LOG_BYTES: u32 = 4096;
/// Bytes below the stack pointer that belong to the running function on x86-64.
const RED_ZONE: u64 = 128;

/// A program that was accepted.
#[derive(Debug, PartialEq, Eq)]
pub struct Walked {
    /// As the kernel keeps it: the first 15 bytes.
    pub program: String,
    pub instructions: u64,
}

/// A call that was given a log.
struct Call {
    attributes: u64,
    buffer: u64,
    /// What stood in the place of the log's fields.
    original: [u8; 16],
    program: String,
}

/// Follows one traced process and its threads.
#[derive(Default)]
pub struct Watch {
    /// By thread.
    calls: BTreeMap<libc::pid_t, Call>,
    started: bool,
}

/// The command's process will stop for its parent when it begins.
pub fn traced(command: &mut Command) {
    let ask = || {
        // SAFETY: takes no pointers; makes the parent the tracer of this process.
        if unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes one system call.
    unsafe { command.pre_exec(ask) };
}

impl Watch {
    /// Deals with a stop of thread `pid` and lets it go on; a program that was accepted, if that is what happened.
    pub fn stopped(&mut self, pid: libc::pid_t, signal: i32) -> Result<Option<Walked>> {
        const SYSTEM_CALL: i32 = libc::SIGTRAP | 0x80;
        let mut passed_on = 0;
        let mut walked = None;
        match signal {
            SYSTEM_CALL => walked = self.call(pid)?,
            // The stop at the beginning of the program, a new thread, and its own first stop.
            libc::SIGTRAP | libc::SIGSTOP => {}
            other => passed_on = other,
        }
        if !self.started {
            self.started = true;
            let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_EXITKILL;
            // SAFETY: takes no pointers; the thread is stopped for us.
            check(unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, pid, 0, options) })?;
        }
        // SAFETY: takes no pointers; the thread is stopped for us.
        check(unsafe { libc::ptrace(libc::PTRACE_SYSCALL, pid, 0, passed_on) })?;
        Ok(walked)
    }

    /// Beginning or end of a system call.
    fn call(&mut self, pid: libc::pid_t) -> Result<Option<Walked>> {
        // SAFETY: the struct is made of integers, for which zero is a value.
        let mut call: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
        // SAFETY: the thread is stopped for us, and the kernel fills at most the size that it is told.
        let filled = unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, pid, size_of_val(&call), &raw mut call) };
        check(filled)?;
        let memory = File::options().read(true).write(true).open(format!("/proc/{pid}/mem"))?;
        if call.op == libc::PTRACE_SYSCALL_INFO_ENTRY {
            // SAFETY: `op` says that this is the member which was filled.
            let entry = unsafe { call.u.entry };
            let [command, attributes, ..] = entry.args;
            if entry.nr.cast_signed() == libc::SYS_bpf && command == BPF_PROG_LOAD {
                let begun = begin(&memory, attributes, call.stack_pointer).context("a program's attributes")?;
                self.calls.extend(begun.map(|call| (pid, call)));
            }
            return Ok(None);
        }
        let Some(begun) = self.calls.remove(&pid) else { return Ok(None) };
        // SAFETY: what is no beginning is an end here, and `op` of an end has this member.
        let failed = unsafe { call.u.exit.is_error } != 0;
        memory.write_all_at(&begun.original, begun.attributes + LOG)?;
        if failed {
            return Ok(None);
        }
        let mut log = [0; LOG_BYTES as usize];
        memory.read_exact_at(&mut log, begun.buffer)?;
        let log = String::from_utf8_lossy(&log);
        let instructions = processed(&log).with_context(|| format!("no count for {}", begun.program))?;
        Ok(Some(Walked { program: begun.program, instructions }))
    }
}

/// Gives a call that has no log a place for it, on the unused part of the stack.
fn begin(memory: &File, attributes: u64, stack: u64) -> io::Result<Option<Call>> {
    let mut original = [0; 16];
    memory.read_exact_at(&mut original, attributes + LOG)?;
    // Level and size: the process wants a log of its own.
    if original.iter().any(|byte| *byte != 0) {
        return Ok(None);
    }
    let mut name = [0; 16];
    memory.read_exact_at(&mut name, attributes + NAME)?;
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    let buffer = (stack - RED_ZONE - u64::from(LOG_BYTES)) & !15;
    let mut asked = [0; 16];
    asked[..4].copy_from_slice(&STATISTICS.to_le_bytes());
    asked[4..8].copy_from_slice(&LOG_BYTES.to_le_bytes());
    asked[8..].copy_from_slice(&buffer.to_le_bytes());
    memory.write_all_at(&asked, attributes + LOG)?;
    Ok(Some(Call { attributes, buffer, original, program: String::from_utf8_lossy(name).into_owned() }))
}

/// `processed 49 insns (limit 1000000) …`
fn processed(log: &str) -> Option<u64> {
    log.lines().find_map(|line| line.strip_prefix("processed ")?.split(' ').next()?.parse().ok())
}

fn check(result: libc::c_long) -> Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error()).context("tracing the process");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_read_from_the_statistics() {
        let log = "verification time 4899 usec\nstack depth 96\nprocessed 49 insns (limit 1000000) max_states 0\n\0\0";
        assert_eq!(processed(log), Some(49));
        assert_eq!(processed("stack depth 96\n"), None);
    }
}
