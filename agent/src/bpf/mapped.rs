//! A kernel map in the agent's own memory: read and written without a system call.
//!
//! The kernel keeps it as long as the mapping is there. Words are read and written as a whole; programs may write
//! any of them at any moment. What was touched counts as the agent's resident memory.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the kernel allows with the memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

/// An array of 64-bit words.
pub struct Mapped {
    base: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the memory is only reached through atomic words, and unmapped once, by its one owner.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps the first `words` words of an array that was made to be mapped.
    pub fn new(map: &impl AsFd, words: usize) -> io::Result<Self> {
        Self::part(map, 0, words, Access::Write)
    }

    /// Maps `words` words that begin `offset` bytes into a map that can be mapped. Words that are mapped for reading must not
    /// be written.
    pub fn part(map: &impl AsFd, offset: usize, words: usize, access: Access) -> io::Result<Self> {
        let protection = if access == Access::Write { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        // SAFETY: a new mapping at an address that the kernel chooses; the length is checked against the map by it.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                words * size_of::<u64>(),
                protection,
                libc::MAP_SHARED,
                map.as_fd().as_raw_fd(),
                offset,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { base, words })
    }

    /// The words, for as long as the mapping lives.
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping holds so many words and lives as long as `self`; words may change under way, as atomics may.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.words) }
    }

    /// One word; 0 beyond the end.
    pub fn get(&self, at: usize) -> u64 {
        self.words().get(at).map_or(0, |word| word.load(Ordering::Relaxed))
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made, once; nothing borrows it any more.
        let failed = unsafe { libc::munmap(self.base.as_ptr().cast(), self.words * size_of::<u64>()) };
        debug_assert_eq!(failed, 0);
    }
}
