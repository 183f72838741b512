//! The few things that are asked of an executable or a library: sections, exported symbols, where an address lies in the
//! file. Reads only what is asked for; sections longer than [`MAX_SECTION`] are refused.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::Path;

use memchr::memmem;
use object::elf::PT_TLS;
use object::read::elf::{ElfFile64, ProgramHeader as _};
use object::{Object as _, ObjectSection as _, ObjectSegment as _, ObjectSymbol as _, ReadCache, SymbolKind};

/// 256 MiB.
const MAX_SECTION: u64 = 256 << 20;
/// Longest function that is looked through.
const MAX_FUNCTION: u64 = 64 << 10;

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

    /// Whether a name in the symbol table contains this.
    pub(super) fn names_contain(&self, part: &str) -> bool {
        self.section(".strtab").is_some_and(|names| memmem::find(names, part.as_bytes()).is_some())
    }

    /// Functions in the symbol table whose names contain these parts: address and length.
    pub(super) fn functions<const N: usize>(&self, wanted: [&[&str]; N]) -> [Vec<(u64, u64)>; N] {
        let mut found = [const { Vec::new() }; N];
        for symbol in self.0.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition()) {
            let Ok(name) = symbol.name() else { continue };
            let places = found.iter_mut().zip(wanted);
            let matching = places.filter(|(_, parts)| parts.iter().all(|part| name.contains(part)));
            matching.for_each(|(found, _)| found.push((symbol.address(), symbol.size())));
        }
        found
    }

    /// Where a variable of each thread lies whose name contains these parts, from the thread pointer; of an executable, whose
    /// variables end where the pointer points (variant II in "ELF Handling For Thread-Local Storage"). `None` where there
    /// is not exactly one.
    pub(super) fn thread_storage(&self, parts: &[&str]) -> Option<Range<i64>> {
        let endian = self.0.endian();
        let segment = self.0.elf_program_headers().iter().find(|header| header.p_type(endian) == PT_TLS)?;
        let size = segment.p_memsz(endian).checked_next_multiple_of(segment.p_align(endian).max(1))?;
        let mut matching = self.0.symbols().filter(|symbol| {
            symbol.kind() == SymbolKind::Tls
                && symbol.name().is_ok_and(|name| parts.iter().all(|part| name.contains(part)))
        });
        let (symbol, None) = (matching.next()?, matching.next()) else { return None };
        let start = symbol.address().wrapping_sub(size).cast_signed();
        Some(start..start.saturating_add_unsigned(symbol.size()))
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

/// Code of a function, as much of it as is looked through.
pub(super) fn code(path: &Path, offset: u64, size: u64) -> Option<Vec<u8>> {
    let mut file = File::open(path).ok()?;
    file.seek(SeekFrom::Start(offset)).ok()?;
    let mut code = Vec::new();
    file.take(size.min(MAX_FUNCTION)).read_to_end(&mut code).ok()?;
    Some(code)
}
