//! Memory of this process with an edge: behind the last byte is a page that nobody may touch.

use std::io;
use std::ptr;

use anyhow::{Result, ensure};
use libc::c_void;
use seismo_tests::pattern;

const PAGE: usize = 4096;

/// Some pages that hold the pattern; unmapped when dropped.
pub struct Region {
    begin: *mut c_void,
    length: usize,
}

impl Region {
    /// `length` bytes, a multiple of the page.
    pub fn new(length: usize) -> Result<Self> {
        let begin = map(length + PAGE)?;
        let region = Self { begin, length };
        let bytes = pattern::bytes(0, length);
        // SAFETY: the mapping is new and longer than the bytes; its last page is nobody's yet.
        let failed = unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), begin.cast(), length);
            libc::mprotect(region.end(), PAGE, libc::PROT_NONE)
        };
        ensure!(failed == 0, "{}", io::Error::last_os_error());
        Ok(region)
    }

    /// The address of a page that was unmapped again.
    pub fn gone() -> Result<*mut c_void> {
        let place = map(PAGE)?;
        // SAFETY: the mapping is new and nothing points into it.
        ensure!(unsafe { libc::munmap(place, PAGE) } == 0, "{}", io::Error::last_os_error());
        Ok(place)
    }

    pub fn begin(&self) -> *mut c_void {
        self.begin
    }

    /// The first byte that cannot be touched.
    pub fn end(&self) -> *mut c_void {
        self.begin.wrapping_byte_add(self.length)
    }

    pub fn length(&self) -> usize {
        self.length
    }

    /// From now on no byte can be touched, and none is in memory.
    pub fn take_away(&self) -> Result<()> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
        // SAFETY: replaces the region's own pages, to which this process keeps no reference.
        let place = unsafe { libc::mmap(self.begin, self.length, libc::PROT_NONE, flags, -1, 0) };
        ensure!(place == self.begin, "{}", io::Error::last_os_error());
        Ok(())
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the region's own mapping; who still has an address only gives it to the kernel.
        unsafe { libc::munmap(self.begin, self.length + PAGE) };
    }
}

fn map(length: usize) -> Result<*mut c_void> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let place = unsafe { libc::mmap(ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    ensure!(place != libc::MAP_FAILED, "{}", io::Error::last_os_error());
    Ok(place)
}
