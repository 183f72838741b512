//! bpf(2) itself, for what is done while the agent runs: links of programs and iterators, and emptying maps.
//!
//! Descriptors in, descriptors or an error out. None of these commands takes a capability on kernels from 5.19; before that
//! all take CAP_BPF, which the agent then keeps. A link lives as long as its descriptor. Emptying takes a system call for
//! each element (about 0.3 µs).

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use aya::maps::{Map, MapData};

/// Commands and a constant of bpf(2) (`linux/bpf.h`).
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_MAP_GET_NEXT_KEY: libc::c_long = 4;
const BPF_RAW_TRACEPOINT_OPEN: libc::c_long = 17;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_ITER_CREATE: libc::c_long = 33;
const BPF_TRACE_ITER: u32 = 28;

/// Attaches a tracing program to what it was loaded for.
pub(super) fn attach(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // The first word pair is the address of a name, which such a program has already.
    descriptor(BPF_RAW_TRACEPOINT_OPEN, [0, 0, program.as_raw_fd().cast_unsigned(), 0, 0, 0, 0, 0])
}

/// Opens an iterator: reading it runs its program. The link is needed for this moment only.
pub(super) fn iterator(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let link = descriptor(BPF_LINK_CREATE, [program.as_raw_fd().cast_unsigned(), 0, BPF_TRACE_ITER, 0, 0, 0, 0, 0])?;
    descriptor(BPF_ITER_CREATE, [link.as_raw_fd().cast_unsigned(), 0, 0, 0, 0, 0, 0, 0])
}

/// A command that gives a descriptor; `words` is the beginning of its attributes, the rest is zero.
fn descriptor(command: libc::c_long, words: [u32; 8]) -> io::Result<OwnedFd> {
    // SAFETY: the attributes are valid for the call and no member of them is a pointer.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, words.as_ptr(), size_of_val(&words)) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that was just made and that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// `bpf_attr` of the commands on elements.
#[repr(C)]
struct Element {
    map: u32,
    reserved: u32,
    key: u64,
    /// Of the value, or of the next key.
    value: u64,
    flags: u64,
}

/// Empties a map: hashes have no entry afterwards, the elements of arrays are zero.
pub(super) fn clear(map: &Map) -> io::Result<()> {
    match map {
        Map::HashMap(data) | Map::LruHashMap(data) => clear_hash(data),
        Map::Array(data) => fill(data, 1, None),
        Map::PerCpuArray(data) => {
            let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
            fill(data, cpus, None)
        }
        _ => Err(io::Error::other("not a map that can be emptied")),
    }
}

/// Writes the only word of an array.
pub(super) fn set(map: &Map, word: u64) -> io::Result<()> {
    match map {
        Map::Array(data) => fill(data, 1, Some(word)),
        _ => Err(io::Error::other("not an array")),
    }
}

fn fill(data: &MapData, copies: usize, word: Option<u64>) -> io::Result<()> {
    let info = data.info().map_err(io::Error::other)?;
    let length = (info.value_size() as usize).next_multiple_of(8) * copies;
    let mut value = vec![0u8; length];
    if let (Some(word), Some(first)) = (word, value.get_mut(..8)) {
        first.copy_from_slice(&word.to_ne_bytes());
    }
    for index in 0..info.max_entries() {
        element(data, BPF_MAP_UPDATE_ELEM, (&raw const index) as u64, value.as_ptr() as u64)?;
    }
    Ok(())
}

fn clear_hash(data: &MapData) -> io::Result<()> {
    let info = data.info().map_err(io::Error::other)?;
    let mut key = vec![0u8; info.key_size() as usize];
    // Programs that add entries meanwhile do not keep this going for ever.
    for _ in 0..info.max_entries() {
        match element(data, BPF_MAP_GET_NEXT_KEY, 0, key.as_mut_ptr() as u64) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(()),
            Err(error) => return Err(error),
        }
        match element(data, BPF_MAP_DELETE_ELEM, key.as_ptr() as u64, 0) {
            // One that makes room for others goes by itself.
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// `key` and `value` are 0 or the addresses of as many bytes as the map's keys and values have.
fn element(data: &MapData, command: libc::c_long, key: u64, value: u64) -> io::Result<()> {
    use std::os::fd::AsFd as _;
    let map = data.fd().as_fd().as_raw_fd().cast_unsigned();
    let attributes = Element { map, reserved: 0, key, value, flags: 0 };
    // SAFETY: the attributes are valid for the call; the callers' buffers are as long as the map's info says.
    let failed = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const attributes, size_of::<Element>()) } != 0;
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}
