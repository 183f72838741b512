//! Go: a thread's storage points to its goroutine (`runtime.g`).
//!
//! Functions are found in the table that the runtime itself needs (`.gopclntab`, 1.18+), so that stripped executables are
//! no different; the version stands in `.go.buildinfo`. Sources: `runtime/symtab.go`, `runtime/runtime2.go`,
//! `debug/buildinfo`, `net/http/transport.go`.

use std::path::Path;

use iced_x86::{Decoder, DecoderOptions, Mnemonic, Register};

use super::Unsupported;
use super::code::emulated;
use super::elf::{Elf, code as code_at};
use crate::model::task::{TaskPlace, TaskPoint, TaskReads, TaskRuntime};

/// Place of `g` in a thread's storage on linux/amd64, from the thread pointer.
const GOROUTINE: i64 = -8;
/// Of `conn` in `net/http.persistConn`: behind `alt`, `t` and `cacheKey`.
const CONNECTION: u64 = 80;
const BEGINS: &[u8] = b"runtime.newproc1";
const BEGUN: &[u8] = b"runtime.casgstatus";
const ASKS: &[u8] = b"net/http.(*persistConn).roundTrip";
const MAX_CALLS: usize = 8;
/// Minor versions whose way to begin a goroutine is known: arguments in registers, a table of functions of this form.
const KNOWN: std::ops::RangeInclusive<u32> = 18..=25;

pub(super) fn find(elf: &Elf<'_>, path: &Path) -> Result<Option<TaskRuntime>, Unsupported> {
    let Some(version) = elf.section(".go.buildinfo").and_then(version) else { return Ok(None) };
    let unsupported = |reason: &str| Unsupported(format!("{version}: {reason}"));
    let minor = minor(&version).ok_or_else(|| unsupported("a version of another form"))?;
    if !KNOWN.contains(&minor) {
        return Err(unsupported("not a version that is known"));
    }
    let table = elf.section(".gopclntab").ok_or_else(|| unsupported("no table of functions"))?;
    let text = elf.section_address(".text").ok_or_else(|| unsupported("no code"))?;
    let functions = Functions::of(table, text).ok_or_else(|| unsupported("a table of functions of another form"))?;
    let found = functions.named([BEGINS, BEGUN, ASKS]);
    let of = |name: &[u8]| found.iter().find(|(found, ..)| *found == name).copied();
    let code_of = |address: u64, size: u64| {
        let offset = elf.offset(address).ok_or_else(|| unsupported("a function outside the file"))?;
        let code = code_at(path, offset, size).ok_or_else(|| unsupported("code that cannot be read"))?;
        Ok((offset, code))
    };
    let (Some((_, begins, size)), Some((_, begun, _))) = (of(BEGINS), of(BEGUN)) else {
        return Err(unsupported("where goroutines begin is not found"));
    };
    let (offset, code) = code_of(begins, size)?;
    let calls = calls(&code, begins, begun).ok_or_else(|| unsupported("code that is not understood"))?;
    let mut places = vec![TaskPlace { point: TaskPoint::Begins, offset: offset + emulated(&code, Register::RAX) }];
    places.extend(calls.into_iter().map(|at| TaskPlace { point: TaskPoint::Begun, offset: offset + at }));
    if let Some((_, asks, size)) = of(ASKS) {
        let (offset, code) = code_of(asks, size)?;
        places.push(TaskPlace { point: TaskPoint::Asks, offset: offset + emulated(&code, Register::RAX) });
    }
    let reads = TaskReads {
        is_structure: true,
        thread_offset: GOROUTINE,
        task_offset: 0,
        kind: 0,
        connection_offset: CONNECTION,
    };
    Ok(Some(TaskRuntime { language: "go", reads, file: path.to_owned(), places }))
}

/// `go1.19.8` out of the build information (1.18+, where it stands in the section itself).
fn version(section: &[u8]) -> Option<String> {
    let at = section.windows(14).position(|window| window == b"\xff Go buildinf:")?;
    let head = section.get(at..)?;
    if head.get(15)? & 2 == 0 {
        return None;
    }
    // A length in 7-bit groups, and one is enough for a version.
    let length = usize::from(*head.get(32)?);
    let text = head.get(33..33 + length).filter(|_| length < 128)?;
    Some(String::from_utf8_lossy(text).into_owned())
}

/// 19 of `go1.19.8`, `go1.19rc1 X:…`.
fn minor(version: &str) -> Option<u32> {
    let digits: String = version.strip_prefix("go1.")?.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// The runtime's table of functions.
struct Functions<'a> {
    names: &'a [u8],
    functions: &'a [u8],
    count: usize,
    text: u64,
}

impl<'a> Functions<'a> {
    /// `text`: where code begins if the table does not say.
    fn of(table: &'a [u8], text: u64) -> Option<Self> {
        const MAGIC_1_18: u32 = 0xffff_fff0;
        const MAGIC_1_20: u32 = 0xffff_fff1;
        let word = |number: usize| table.get(8 + number * 8..16 + number * 8)?.try_into().ok().map(u64::from_le_bytes);
        let magic = u32::from_le_bytes(table.get(..4)?.try_into().ok()?);
        if !matches!(magic, MAGIC_1_18 | MAGIC_1_20) || *table.get(7)? != 8 {
            return None;
        }
        let part = |number: usize| table.get(usize::try_from(word(number)?).ok()?..);
        let text = word(2).filter(|start| *start != 0).unwrap_or(text);
        Some(Self { names: part(3)?, functions: part(7)?, count: usize::try_from(word(0)?).ok()?, text })
    }

    fn number(&self, at: usize) -> Option<usize> {
        let bytes = self.functions.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(u32::from_le_bytes(bytes) as usize)
    }

    /// Those with one of the names: name, address and length.
    fn named<const N: usize>(&self, wanted: [&'static [u8]; N]) -> Vec<(&'static [u8], u64, u64)> {
        let found = |index: usize| {
            let (begin, end) = (self.number(index * 8)?, self.number((index + 1) * 8)?);
            let name = self.names.get(self.number(self.number(index * 8 + 4)? + 4)?..)?;
            let name = wanted
                .into_iter()
                .find(|wanted| name.strip_prefix(*wanted).is_some_and(|rest| rest.first() == Some(&0)))?;
            Some((name, self.text + begin as u64, end.saturating_sub(begin) as u64))
        };
        (0..self.count).filter_map(found).take(N).collect()
    }
}

/// Offsets of the calls of one function in the code of another that is at `address`; `None` where there are none or too
/// many, or an instruction is not understood.
fn calls(code: &[u8], address: u64, callee: u64) -> Option<Vec<u64>> {
    let mut calls = Vec::new();
    for instruction in Decoder::with_ip(64, code, address, DecoderOptions::NONE) {
        if instruction.is_invalid() {
            return None;
        }
        if instruction.mnemonic() == Mnemonic::Call && instruction.near_branch_target() == callee {
            calls.push(instruction.ip() - address);
        }
    }
    (1..=MAX_CALLS).contains(&calls.len()).then_some(calls)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Functions, calls, minor, version};

    #[test]
    fn the_version_is_read_where_it_stands() {
        let mut section = vec![0u8; 64];
        section[..14].copy_from_slice(b"\xff Go buildinf:");
        (section[14], section[15], section[32]) = (8, 2, 8);
        section[33..41].copy_from_slice(b"go1.19.8");
        assert_eq!(version(&section).as_deref(), Some("go1.19.8"));
        section[32] = 255;
        assert_eq!(version(&section), None);
        section[15] = 0;
        assert_eq!(version(&section), None);
        for end in 0..41 {
            section[15] = 2;
            section[32] = 8;
            assert_eq!(version(&section[..end]), None, "cut at {end}");
        }
        assert_eq!(["go1.19.8", "go1.22rc1", "go1.9", "devel"].map(minor), [Some(19), Some(22), Some(9), None]);
    }

    /// A table of two functions and the end of the code, as the linker lays it out.
    fn table(names: [&str; 2]) -> Vec<u8> {
        let mut text = vec![0xf0, 0xff, 0xff, 0xff, 0, 0, 1, 8];
        let mut strings = Vec::new();
        let mut at = Vec::new();
        for name in names {
            at.push(strings.len() as u32);
            strings.extend(name.as_bytes());
            strings.push(0);
        }
        let (names_at, functions_at) = (72u64, 72 + strings.len() as u64);
        for word in [2, 0, 0x40_1000, names_at, 0, 0, 0, functions_at] {
            text.extend(word.to_le_bytes());
        }
        text.extend(strings);
        // Code of 16 and 32 bytes; what is told of each function stands behind this.
        for word in [0u32, 20, 16, 28, 48] {
            text.extend(word.to_le_bytes());
        }
        for (begin, name) in [0u32, 16].into_iter().zip(at) {
            text.extend(begin.to_le_bytes());
            text.extend(name.to_le_bytes());
        }
        text
    }

    #[test]
    fn functions_are_found_by_their_whole_name_and_a_cut_table_is_no_panic() {
        let table = table(["runtime.newproc1x", "runtime.newproc1"]);
        let found = Functions::of(&table, 0).unwrap().named([b"runtime.newproc1"]);
        assert_eq!(found, [(&b"runtime.newproc1"[..], 0x40_1010, 32)]);
        for end in 0..table.len() {
            if let Some(functions) = Functions::of(&table[..end], 0) {
                assert!(functions.named([b"runtime.newproc1"]).len() <= 1);
            }
        }
    }

    #[test]
    fn calls_of_a_function_are_found_and_not_bytes_that_look_like_one() {
        // mov rax, 0xe8; call 0x2000; call 0x3000; ret; int3
        let code = [0x48, 0xc7, 0xc0, 0xe8, 0, 0, 0, 0xe8, 0xf4, 0x0f, 0, 0, 0xe8, 0xef, 0x1f, 0, 0, 0xc3, 0xcc];
        assert_eq!(calls(&code, 0x1000, 0x2000), Some(vec![7]));
        assert_eq!(calls(&code, 0x1000, 0x4000), None);
        assert_eq!(calls(&[0x06], 0, 0), None);
    }
}
