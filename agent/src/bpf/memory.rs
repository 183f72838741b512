//! Memory that only starting up needed is given back: freed heap, and pages of the agent's own program.
//!
//! Reading the kernel's types, relocating and loading programs and reading the configuration touch most of the executable,
//! which then counts as resident for as long as the agent runs. The mappings of it that hold nothing but the file's bytes
//! are let go; what is needed again is there at the next touch, out of the page cache. Done once, some 100 µs.

use std::fs;
use std::ops::Range;

/// Gives back what is not needed any more.
pub fn let_go() {
    trim();
    let (Ok(program), Ok(maps)) = (fs::read_link("/proc/self/exe"), fs::read_to_string("/proc/self/smaps")) else {
        log::debug!("the agent's own mappings cannot be read: its memory stays as it is");
        return;
    };
    let Some(program) = program.to_str() else { return };
    for Range { start, end } in unchanged(&maps, program) {
        // SAFETY: a private mapping of a file that is not writable and of which no page was ever changed: every page of it
        // is read from the file again when it is touched.
        let failed = unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) } != 0;
        if failed {
            log::debug!("madvise: {}", std::io::Error::last_os_error());
        }
    }
}

/// Gives freed heap back to the system: parsing the kernel's BTF takes 30 MB.
pub(super) fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim touches only the allocator's own free lists.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Ranges of private mappings of `program` that cannot be written and of which no page differs from the file.
fn unchanged(smaps: &str, program: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut range = None;
    for line in smaps.lines() {
        if let Some(mapping) = heading(line) {
            range = Some(mapping).filter(|(_, access, file)| matches!(*access, "r--p" | "r-xp") && *file == program);
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
    use super::{fs, let_go, unchanged};

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
7000-8000 r--s 00000000 00:0f 11   anon_inode:bpf-map
Anonymous:             0 kB
8000-9000 r--p 00000000 00:00 0
Anonymous:             0 kB
";

    #[test]
    fn only_pages_that_are_the_files_own_are_let_go() {
        assert_eq!(unchanged(SMAPS, "/opt/my agent/seismo"), [0x1000..0x2000, 0x2000..0x4000]);
        assert!(unchanged(SMAPS, "/usr/bin/other").is_empty());
    }

    #[test]
    fn a_program_runs_on_after_its_pages_were_let_go() {
        let own = fs::read_link("/proc/self/exe").unwrap();
        let found = unchanged(&fs::read_to_string("/proc/self/smaps").unwrap(), own.to_str().unwrap());
        assert!(!found.is_empty());
        let texts: Vec<String> = (0..1000).map(|number| format!("{number} is still here")).collect();
        let_go();
        assert_eq!(texts.iter().filter(|text| text.contains("still")).count(), 1000);
    }
}
