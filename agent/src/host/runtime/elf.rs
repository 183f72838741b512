//! The few things that are asked of an executable or a library: sections, exported symbols, where an address lies in the
//! file. Reads only what is asked for; sections longer than [`MAX_SECTION`] are refused.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::Path;

use memchr::memmem;
use object::elf::{PT_TLS, SHN_UNDEF, STT_FUNC, STT_TLS};
use object::read::elf::{ElfFile64, ProgramHeader as _, Sym as _};
use object::{Object as _, ObjectSection as _, ObjectSegment as _, ObjectSymbol as _, ReadCache};

/// 256 MiB.
const MAX_SECTION: u64 = 256 << 20;
/// Of names of symbols, some half a million: 64 MiB.
const MAX_NAMES: u64 = 64 << 20;
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

    /// Functions and variables of threads in the symbol table whose names contain one part and all of several others:
    /// address and length. `None` where no name has the first, or the table is too long.
    pub(super) fn symbols<const N: usize>(&self, first: &str, wanted: [&[&str]; N]) -> Option<[Vec<(u64, u64)>; N]> {
        let endian = self.0.endian();
        let names = self.0.section_by_name(".strtab").filter(|names| names.size() <= MAX_NAMES)?.data().ok()?;
        let first = memmem::Finder::new(first);
        first.find(names)?;
        let mut found = [const { Vec::new() }; N];
        for symbol in self.0.elf_symbol_table().iter().filter(|symbol| matches!(symbol.st_type(), STT_FUNC | STT_TLS)) {
            let rest = names.get(symbol.st_name(endian) as usize..).unwrap_or_default();
            let name = rest.get(..memchr::memchr(0, rest).unwrap_or(0)).unwrap_or_default();
            if symbol.st_shndx(endian) == SHN_UNDEF || first.find(name).is_none() {
                continue;
            }
            let has = |part: &&str| memmem::find(name, part.as_bytes()).is_some();
            let places = found.iter_mut().zip(wanted).filter(|(_, parts)| parts.iter().all(has));
            places.for_each(|(found, _)| found.push((symbol.st_value(endian), symbol.st_size(endian))));
        }
        Some(found)
    }

    /// Where a variable of each thread lies, by address and length as symbols have them, from the thread pointer; of an
    /// executable, whose variables end where the pointer points (variant II in "ELF Handling For Thread-Local Storage").
    pub(super) fn thread_storage(&self, (address, size): (u64, u64)) -> Option<Range<i64>> {
        let endian = self.0.endian();
        let segment = self.0.elf_program_headers().iter().find(|header| header.p_type(endian) == PT_TLS)?;
        let length = segment.p_memsz(endian).checked_next_multiple_of(segment.p_align(endian).max(1))?;
        let start = address.wrapping_sub(length).cast_signed();
        Some(start..start.saturating_add_unsigned(size))
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
