//! The few things that are asked of an executable or a library: sections, exported symbols, where an address lies in the
//! file. Reads only what is asked for; sections longer than [`MAX_SECTION`] are refused, and files whose tables are longer than
//! [`MAX_TABLE`]: those are read whole.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use memchr::memmem;
use object::elf::{PT_TLS, SHN_UNDEF, SHT_DYNSYM, SHT_SYMTAB, SHT_SYMTAB_SHNDX, STT_FUNC, STT_TLS, SectionType};
use object::read::elf::{ElfFile64, ProgramHeader as _, Sym as _};
use object::{Object as _, ObjectSection as _, ObjectSegment as _, ObjectSymbol as _, ReadCache};

/// 256 MiB.
const MAX_SECTION: u64 = 256 << 20;
/// Of names of symbols, some half a million, and of a table of symbols, 2.8 million: 64 MiB.
const MAX_TABLE: u64 = 64 << 20;
/// Longest function that is looked through.
const MAX_FUNCTION: u64 = 64 << 10;

/// What is read of a file while it is open.
pub(super) struct Elf<'a>(ElfFile64<'a, object::Endianness, &'a ReadCache<File>>);

impl Elf<'_> {
    /// Opens a file; `None` where it is no 64-bit ELF file, or not to be read.
    pub(super) fn with<T>(path: &Path, look: impl FnOnce(&Elf<'_>) -> T) -> Option<T> {
        let file = File::open(path).ok()?;
        if !is_bounded(&file)? {
            return None;
        }
        let cache = ReadCache::new(file);
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
        let names = self.0.section_by_name(".strtab").filter(|names| names.size() <= MAX_TABLE)?.data().ok()?;
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

/// Whether what is read of every file is not too long: its tables of sections and of symbols. `None`: no 64-bit ELF file.
fn is_bounded(file: &File) -> Option<bool> {
    // `Elf64_Ehdr`, `Elf64_Shdr` (elf.h): where fields lie.
    const SECTIONS_AT: usize = 40;
    const PROGRAM_HEADERS: usize = 56;
    const SECTIONS: usize = 60;
    const SECTION_TYPE: usize = 4;
    const SECTION_SIZE: usize = 32;
    const SECTION: usize = 64;
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0).ok()?;
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let short = |at: usize| Some(u16::from_le_bytes(header.get(at..at + 2)?.try_into().ok()?));
    let (at, count) = (u64_at(&header, SECTIONS_AT)?, usize::from(short(SECTIONS)?));
    // Numbers that stand elsewhere, as there are more than fit.
    if (count == 0 && at != 0) || short(PROGRAM_HEADERS)? == u16::MAX {
        return Some(false);
    }
    let mut table = vec![0; count * SECTION];
    file.read_exact_at(&mut table, at).ok()?;
    let is_long = |section: &[u8]| {
        let kind = u32::from_le_bytes(section.get(SECTION_TYPE..SECTION_TYPE + 4)?.try_into().ok()?);
        let is_read = [SHT_SYMTAB, SHT_DYNSYM, SHT_SYMTAB_SHNDX].contains(&SectionType(kind));
        Some(is_read && u64_at(section, SECTION_SIZE)? > MAX_TABLE)
    };
    Some(!table.chunks_exact(SECTION).any(|section| is_long(section) != Some(false)))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// Code of a function, as much of it as is looked through.
pub(super) fn code(path: &Path, offset: u64, size: u64) -> Option<Vec<u8>> {
    let mut file = File::open(path).ok()?;
    file.seek(SeekFrom::Start(offset)).ok()?;
    let mut code = Vec::new();
    file.take(size.min(MAX_FUNCTION)).read_to_end(&mut code).ok()?;
    Some(code)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs::File;
    use std::io::Write as _;

    use object::elf::SHT_SYMTAB;

    use super::{MAX_TABLE, is_bounded};

    /// A file with one section behind its header, `length` of it there.
    fn file(count: u16, programs: u16, size: u64, length: usize) -> Option<bool> {
        let mut bytes = [0u8; 128];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[40..48].copy_from_slice(&64u64.to_le_bytes());
        bytes[56..58].copy_from_slice(&programs.to_le_bytes());
        bytes[60..62].copy_from_slice(&count.to_le_bytes());
        bytes[68..72].copy_from_slice(&SHT_SYMTAB.0.to_le_bytes());
        bytes[96..104].copy_from_slice(&size.to_le_bytes());
        let path =
            std::env::temp_dir().join(format!("seismo-elf-{}-{count}-{programs}-{size}-{length}", std::process::id()));
        File::create(&path).unwrap().write_all(&bytes[..length]).unwrap();
        let found = is_bounded(&File::open(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        found
    }

    #[test]
    fn a_file_whose_tables_are_too_long_is_refused_before_they_are_read() {
        assert_eq!(is_bounded(&File::open("/proc/self/exe").unwrap()), Some(true));
        assert_eq!(file(1, 1, MAX_TABLE, 128), Some(true));
        assert_eq!(file(1, 1, MAX_TABLE + 1, 128), Some(false));
        assert_eq!(file(1, 1, u64::MAX, 128), Some(false));
        // More sections, or program headers, than the header can say.
        assert_eq!([file(0, 1, 0, 128), file(1, u16::MAX, 0, 128)], [Some(false); 2]);
        // Cut short, or more sections than there are bytes.
        assert_eq!([file(1, 1, 0, 63), file(1, 1, 0, 127), file(9, 1, 0, 128), file(1, 1, 0, 0)], [None; 4]);
    }
}
