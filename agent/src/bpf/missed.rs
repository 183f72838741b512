//! Runs that the kernel left out because a program had interrupted itself: what it would have counted is missing.
//!
//! The kernel runs no program inside of itself on one CPU, so an interrupt that comes while the same program runs for a
//! thread is not seen. It counts that for each program (5.12+): one system call for each, about 1 µs, which needs no
//! capability from 5.19 on.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use aya::Ebpf;

/// Command of bpf(2), and where `struct bpf_prog_info` has its `recursion_misses` (`linux/bpf.h`), in words.
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const MISSES: usize = 26;
const WORDS: usize = MISSES + 1;

/// Loaded programs by name.
pub struct Missed(Vec<(String, OwnedFd)>);

/// `bpf_attr` of the command.
#[repr(C)]
struct Question {
    program: u32,
    length: u32,
    answer: u64,
}

impl Missed {
    /// Keeps a descriptor of each program that is loaded.
    pub(super) fn take(ebpf: &Ebpf) -> Self {
        let descriptor = |program: &aya::programs::Program| program.fd().ok()?.as_fd().try_clone_to_owned().ok();
        Self(ebpf.programs().filter_map(|(name, program)| Some((name.to_owned(), descriptor(program)?))).collect())
    }

    /// Programs that missed runs, with how many; none where the kernel does not say.
    pub fn read(&self) -> Vec<(&str, u64)> {
        let counts = self.0.iter().filter_map(|(name, program)| Some((name.as_str(), misses(program)?)));
        counts.filter(|(_, count)| *count > 0).collect()
    }
}

fn misses(program: &OwnedFd) -> Option<u64> {
    let mut words = [0u64; WORDS];
    let length = size_of_val(&words) as u32;
    let mut question =
        Question { program: program.as_raw_fd().cast_unsigned(), length, answer: words.as_mut_ptr() as u64 };
    // SAFETY: the kernel writes at most `length` bytes to the words, and the attributes are valid for the call.
    let failed =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &raw mut question, size_of::<Question>()) };
    // An older kernel's answer is shorter.
    (failed == 0 && question.length == length).then_some(words[MISSES])
}
