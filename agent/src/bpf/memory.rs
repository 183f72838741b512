//! Memory that is not needed any more is given back: freed heap, and pages of the agent's program and its libraries.
//!
//! Linking at the start, reading the kernel's types, relocating and loading programs and reading the configuration touch
//! most of the executable and some of each library, which then count as resident for as long as the agent runs. Mappings
//! that hold nothing but a file's bytes are let go; what is needed again is there at the next touch, out of the page
//! cache. Done once, some 100 µs.
//!
//! The allocator keeps what a burst of connections took for the next one. It is asked for it now and then ([`Heap`]).

use std::fs;
use std::ops::Range;

/// Gives back what is not needed any more.
pub fn let_go() {
    trim();
    let Ok(maps) = fs::read_to_string("/proc/self/smaps") else {
        log::debug!("the agent's own mappings cannot be read: its memory stays as it is");
        return;
    };
    for Range { start, end } in unchanged(&maps) {
        // SAFETY: a private mapping of a file that is not writable and of which no page was ever changed: every page of it
        // is read from the file again when it is touched.
        let failed = unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) } != 0;
        if failed {
            log::debug!("madvise: {}", std::io::Error::last_os_error());
        }
    }
}

/// The heap as it was last looked at.
#[derive(Debug, Default)]
pub struct Heap {
    /// Bytes that were resident beside what was in use when all that is free had just been given back: other memory than
    /// the heap, and free pieces of pages that hold something in use.
    not_free: usize,
}

impl Heap {
    /// Freed bytes that are kept for what comes next.
    const KEPT: usize = 2 << 20;

    /// Gives freed heap back when more of it is resident than is kept: 1 to 3 ms for 20 MB, else some 100 µs to find out.
    /// Bytes of the heap that are in use, where the allocator tells.
    pub fn give_back(&mut self) -> Option<usize> {
        let in_use = in_use()?;
        let beside = || private().map(|resident| resident.saturating_sub(in_use));
        match beside() {
            Some(before) if before > self.not_free.saturating_add(Self::KEPT) => {
                trim();
                self.not_free = beside().unwrap_or(before);
                log::debug!("{} KiB of freed memory given back", before.saturating_sub(self.not_free) >> 10);
            }
            Some(_) => {}
            None => log::debug!("the agent's own memory cannot be read: freed heap stays with it"),
        }
        Some(in_use)
    }
}

/// Bytes that are allocated, in whole of all arenas.
fn in_use() -> Option<usize> {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallinfo2 only adds up the allocator's own lists, under its locks.
    return Some(unsafe { libc::mallinfo2() }).map(|heap| heap.uordblks.saturating_add(heap.hblkhd));
    #[cfg(not(target_env = "gnu"))]
    None
}

/// Gives freed heap back to the system: parsing the kernel's BTF takes 30 MB.
pub(super) fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim touches only the allocator's own free lists.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Resident bytes of the agent that are of no file and shared with nobody.
fn private() -> Option<usize> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    // SAFETY: sysconf only answers.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()?;
    private_pages(&statm)?.checked_mul(page)
}

/// Of `statm`'s pages (size, resident, of files or shared, …) those that are resident and neither of a file nor shared.
fn private_pages(statm: &str) -> Option<usize> {
    let mut pages = statm.split_ascii_whitespace().skip(1).map_while(|pages| pages.parse::<usize>().ok());
    let (resident, shared) = (pages.next()?, pages.next()?);
    resident.checked_sub(shared)
}

/// Ranges of private mappings of files that cannot be written and of which no page differs from the file.
fn unchanged(smaps: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut range = None;
    for line in smaps.lines() {
        if let Some(mapping) = heading(line) {
            range =
                Some(mapping).filter(|(_, access, file)| matches!(*access, "r--p" | "r-xp") && file.starts_with('/'));
        } else if let Some(kib) = line.strip_prefix("Anonymous:") {
            // Relocated pages are read-only too, and are nobody's but ours.
            found.extend(range.take().filter(|_| kib.trim() == "0 kB").map(|(range, _, _)| range));
        }
    }
    found
}

/// `55d0c0a00000-55d0c0b00000 r-xp 00100000 fe:01 1234   /usr/bin/seismo`
fn heading(line: &str) -> Option<(Range<usize>, &str, &str)> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    let (access, rest) = rest.split_once(' ')?;
    // Offset, device and inode are before it.
    let file = rest.split_ascii_whitespace().nth(3).and_then(|word| rest.find(word)).map_or("", |at| &rest[at..]);
    Some((start..end, access, file))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Heap, fs, in_use, let_go, private, private_pages, unchanged};

    const SMAPS: &str = "\
1000-2000 r--p 00000000 fe:01 7   /opt/my agent/seismo
Rss: 4 kB
Anonymous:             0 kB
2000-4000 r-xp 00001000 fe:01 7   /opt/my agent/seismo
Anonymous:             0 kB
4000-5000 r--p 00003000 fe:01 7   /opt/my agent/seismo
Anonymous:             4 kB
5000-6000 rw-p 00004000 fe:01 7   /opt/my agent/seismo
Anonymous:             0 kB
6000-7000 r-xp 00000000 fe:01 9   /usr/lib/libc.so.6
Anonymous:             0 kB
7000-7800 r-xp 00000000 00:00 0   [vdso]
Anonymous:             0 kB
7000-8000 r--s 00000000 00:0f 11   anon_inode:bpf-map
Anonymous:             0 kB
8000-9000 r--p 00000000 00:00 0
Anonymous:             0 kB
";

    #[test]
    fn only_pages_that_are_the_files_own_are_let_go() {
        assert_eq!(unchanged(SMAPS), [0x1000..0x2000, 0x2000..0x4000, 0x6000..0x7000]);
    }

    #[test]
    fn a_program_runs_on_after_its_pages_were_let_go() {
        assert!(!unchanged(&fs::read_to_string("/proc/self/smaps").unwrap()).is_empty());
        let texts: Vec<String> = (0..1000).map(|number| format!("{number} is still here")).collect();
        let_go();
        assert_eq!(texts.iter().filter(|text| text.contains("still")).count(), 1000);
    }

    #[test]
    #[cfg(target_env = "gnu")]
    fn freed_heap_between_what_is_in_use_is_given_back() {
        let mut heap = Heap::default();
        let mut burst: Vec<Box<[u8]>> = (0..16_384).map(|_| vec![1; 4000].into_boxed_slice()).collect();
        let full = private().unwrap();
        // What is in use at the end keeps the allocator from giving back what is before it.
        let last = burst.pop();
        drop(burst);
        let told = heap.give_back().unwrap();
        assert!(told < in_use().unwrap() + (1 << 20) && told + (32 << 20) < full);
        let after = private().unwrap();
        assert!(after + (32 << 20) < full, "{full} bytes with 64 MB in use, {after} after");
        assert_eq!(last.unwrap()[0], 1);
    }

    #[test]
    fn resident_pages_of_no_file_are_told_apart() {
        assert_eq!(private_pages("9000 700 300 20 0 500 0\n"), Some(400));
        assert_eq!(private_pages("9000 700\n"), None);
        assert_eq!(private_pages("9000 300 700 20 0 500 0\n"), None);
        assert_eq!(private_pages(""), None);
    }
}
