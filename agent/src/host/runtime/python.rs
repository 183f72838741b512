//! CPython: a thread's state holds the context that runs (`PyThreadState.context`); every task of asyncio has its own.
//!
//! The state is found as `PyGILState_GetThisThreadState` finds it, also while the lock of the interpreter is given up, as
//! it is in a system call: under a key of the C library's thread storage. Offsets are those of the headers of 3.9 to 3.13
//! (`internal/pycore_runtime.h`, `cpython/pystate.h`); the kernel program checks in each read that what it finds is a
//! context, so a build with other offsets gives nothing, counted. glibc only: musl keeps its storage elsewhere.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::Unsupported;
use super::elf::Elf;
use crate::host::procfs::Procfs;
use crate::model::task::{TaskPlace, TaskPoint, TaskReads, TaskRuntime};

/// Of `specific_1stblock` in glibc's `struct pthread` on x86-64, whose members are 16 bytes: a number, then the value
/// (`nptl/descr.h`).
const STORAGE: i64 = 0x310;
/// Keys in that first block.
const KEYS: u32 = 32;

/// Offsets by minor version: the key in `_PyRuntime`, the context in a thread's state.
fn offsets(minor: u32) -> Option<(u64, u64)> {
    match minor {
        9 | 10 => Some((588, 240)),
        11 => Some((596, 224)),
        12 => Some((1548, 208)),
        13 => Some((2164, 208)),
        _ => None,
    }
}

/// What is exported by the executable or the library that has the interpreter in it, addresses as in the file.
struct Exports {
    runtime: u64,
    context_type: u64,
    copies: u64,
    base: u64,
}

pub(super) fn find(proc: &Procfs, pid: u32) -> Result<Option<TaskRuntime>, Unsupported> {
    let Some(maps) = proc.maps(pid) else { return Ok(None) };
    let Some((path, loaded)) = interpreter(&maps) else { return Ok(None) };
    let Some(minor) = minor(path) else { return Ok(None) };
    let file = proc.path(pid, "root").join(path.trim_start_matches('/'));
    let Some(exports) = Elf::with(&file, exports).flatten() else { return Ok(None) };
    let unsupported = |reason: &str| Unsupported(format!("python 3.{minor}: {reason}"));
    let (key_offset, task_offset) =
        offsets(minor).ok_or_else(|| unsupported("where threads keep their context is not known"))?;
    if maps.contains("/ld-musl") {
        return Err(unsupported("musl keeps the storage of threads elsewhere"));
    }
    let moved = loaded.wrapping_sub(exports.base);
    let memory = proc.path(pid, "mem");
    let key = key(&memory, exports.runtime.wrapping_add(moved).wrapping_add(key_offset))
        .ok_or_else(|| unsupported("the key of its threads' states is not where it was expected"))?;
    let reads = TaskReads {
        is_number: false,
        thread_offset: STORAGE + i64::from(key) * 16 + 8,
        task_offset,
        kind: exports.context_type.wrapping_add(moved),
        connection_offset: 0,
    };
    let places = vec![TaskPlace { point: TaskPoint::Copied, offset: exports.copies }];
    Ok(Some(TaskRuntime { language: "python", reads, file, places }))
}

fn exports(elf: &Elf<'_>) -> Option<Exports> {
    Some(Exports {
        runtime: elf.exported("_PyRuntime")?,
        context_type: elf.exported("PyContext_Type")?,
        copies: elf.offset(elf.exported("PyContext_CopyCurrent")?)?,
        base: elf.base()?,
    })
}

/// The file that may have the interpreter in it, and where its first byte is mapped: the library if there is one.
fn interpreter(maps: &str) -> Option<(&str, u64)> {
    let mapped = maps.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (range, _, offset) = (fields.next()?, fields.next()?, fields.next()?);
        let path = line.find('/').and_then(|at| line.get(at..))?;
        (offset.bytes().all(|digit| digit == b'0'))
            .then(|| Some((path, u64::from_str_radix(range.split('-').next()?, 16).ok()?)))?
    });
    let mut executable = None;
    for (path, address) in mapped {
        let name = path.rsplit('/').next().unwrap_or_default();
        if name.starts_with("libpython3") {
            return Some((path, address));
        }
        if name.starts_with("python3") && executable.is_none() {
            executable = Some((path, address));
        }
    }
    executable
}

/// 11 of `/usr/bin/python3.11`, `libpython3.11.so.1.0`.
fn minor(path: &str) -> Option<u32> {
    let name = path.rsplit('/').next()?;
    let rest = name.split_once("python3.")?.1;
    rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
}

/// The key of the threads' states: a word that says that it is there, and the key.
fn key(memory: &Path, address: u64) -> Option<u32> {
    let mut words = [[0u8; 4]; 2];
    File::open(memory).ok()?.read_exact_at(words.as_flattened_mut(), address.checked_sub(4)?).ok()?;
    let [is_there, key] = words.map(u32::from_ne_bytes);
    (is_there == 1 && key < KEYS).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::{interpreter, minor, offsets};

    #[test]
    fn the_interpreter_is_the_library_where_there_is_one() {
        let own = "00400000-00420000 r--p 00000000 fd:00 1  /usr/bin/python3.11\n\
                   00420000-006f8000 r-xp 0001f000 fd:00 1  /usr/bin/python3.11\n";
        let library = "7f10-7f20 r--p 00000000 fd:00 2   /opt/a b/libpython3.12.so.1.0\n";
        assert_eq!(interpreter(own), Some(("/usr/bin/python3.11", 0x40_0000)));
        assert_eq!(interpreter(&(own.to_owned() + library)), Some(("/opt/a b/libpython3.12.so.1.0", 0x7f10)));
        assert_eq!(interpreter("7f10-7f20 r--p 00000000 00:00 0\n\n7f10\n7f-8f r--p 0 0 0 /bin/x"), None);
    }

    #[test]
    fn versions_are_read_from_the_name_and_unknown_ones_have_no_offsets() {
        let names = ["/usr/bin/python3.11", "/x/libpython3.9.so.1.0", "/usr/bin/python3", "/usr/bin/python2.7"];
        assert_eq!(names.map(minor), [Some(11), Some(9), None, None]);
        assert_eq!([8, 11, 14].map(|minor| offsets(minor).is_some()), [false, true, false]);
    }
}
