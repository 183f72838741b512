//! The few things that are asked of an executable or a library: sections, exported symbols, where an address lies in the
//! file. Reads only what is asked for; sections longer than [`MAX_SECTION`] are refused.

use std::fs::File;
use std::path::Path;

use object::read::elf::ElfFile64;
use object::{Object as _, ObjectSection as _, ObjectSegment as _, ObjectSymbol as _, ReadCache};

/// 256 MiB.
const MAX_SECTION: u64 = 256 << 20;

/// What is read of a file while it is open.
pub(super) struct Elf<'a>(ElfFile64<'a, object::Endianness, &'a ReadCache<File>>);

impl Elf<'_> {
    /// Opens a file; `None` where it is no 64-bit ELF file, or not to be read.
    pub(super) fn with<T>(path: &Path, look: impl FnOnce(&Elf<'_>) -> T) -> Option<T> {
        let cache = ReadCache::new(File::open(path).ok()?);
        let file = ElfFile64::parse(&cache).ok()?;
        Some(look(&Elf(file)))
    }

    /// Bytes of a section.
    pub(super) fn section(&self, name: &str) -> Option<&[u8]> {
        self.0.section_by_name(name).filter(|section| section.size() <= MAX_SECTION)?.data().ok()
    }

    pub(super) fn section_address(&self, name: &str) -> Option<u64> {
        self.0.section_by_name(name).map(|section| section.address())
    }

    /// Address of a symbol that others may use.
    pub(super) fn exported(&self, name: &str) -> Option<u64> {
        let mut symbols = self.0.dynamic_symbols();
        symbols.find(|symbol| symbol.is_definition() && symbol.name() == Ok(name)).map(|symbol| symbol.address())
    }

    /// Where the byte at an address lies in the file.
    pub(super) fn offset(&self, address: u64) -> Option<u64> {
        self.0.segments().find_map(|segment| {
            let (offset, length) = segment.file_range();
            let into = address.checked_sub(segment.address())?;
            (into < length).then_some(offset + into)
        })
    }

    /// Address at which the file's first byte would be; what is added to it when it is loaded elsewhere.
    pub(super) fn base(&self) -> Option<u64> {
        self.0.segments().map(|segment| segment.address().wrapping_sub(segment.file_range().0)).next()
    }
}
