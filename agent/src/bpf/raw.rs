//! bpf(2) and perf_event_open(2) themselves, for what is done while the agent runs: links of programs and iterators,
//! probes in processes, and emptying maps.
//!
//! Descriptors in, descriptors or an error out. None of the bpf commands takes a capability on kernels from 5.19; before
//! that all take CAP_BPF, which the agent then keeps. Probes in processes take CAP_PERFMON. A link lives as long as its
//! descriptor. Emptying takes a system call for each element (about 0.3 µs).

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use aya::maps::{Map, MapData};
use aya_obj::generated::bpf_insn;

/// Commands and a constant of bpf(2) (`linux/bpf.h`).
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_MAP_GET_NEXT_KEY: libc::c_long = 4;
const BPF_RAW_TRACEPOINT_OPEN: libc::c_long = 17;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_ITER_CREATE: libc::c_long = 33;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_PROG_TYPE_KPROBE: u32 = 2;
const BPF_PROG_TYPE_RAW_TRACEPOINT: u32 = 17;
const BPF_TRACE_ITER: u32 = 28;
const BPF_TRACE_UPROBE_MULTI: u32 = 48;

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

/// Number of the kind of event that is a probe in a process; an error where the kernel has none.
pub(super) fn user_probe_type() -> io::Result<u32> {
    let text = std::fs::read_to_string("/sys/bus/event_source/devices/uprobe/type")?;
    text.trim().parse().map_err(io::Error::other)
}

/// Loads a program that one link can attach to many places of processes (6.6+).
pub(super) fn load_user_probe(instructions: &[bpf_insn], license: &CStr) -> io::Result<OwnedFd> {
    load(BPF_PROG_TYPE_KPROBE, BPF_TRACE_UPROBE_MULTI, instructions, license)
}

/// Loads a program that reads the kernel and runs it once; the lower half of what it leaves in its first register (5.10+).
pub(super) fn run(instructions: &[bpf_insn]) -> io::Result<u32> {
    /// `bpf_attr.test`.
    #[repr(C)]
    #[derive(Default)]
    struct Attributes {
        program: u32,
        result: u32,
        sizes: [u32; 2],
        data: [u64; 2],
        repeat_and_duration: [u32; 2],
        context_sizes: [u32; 2],
        contexts: [u64; 2],
        flags_and_cpu: [u32; 2],
    }
    let program = load(BPF_PROG_TYPE_RAW_TRACEPOINT, 0, instructions, c"Dual MIT/GPL")?;
    let mut attributes = Attributes { program: program.as_raw_fd().cast_unsigned(), ..Attributes::default() };
    // SAFETY: the attributes live through the call and none of their pointers is given.
    let failed =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, &raw mut attributes, size_of::<Attributes>()) } != 0;
    if failed { Err(io::Error::last_os_error()) } else { Ok(attributes.result) }
}

fn load(kind: u32, attach_type: u32, instructions: &[bpf_insn], license: &CStr) -> io::Result<OwnedFd> {
    /// `bpf_attr` up to `expected_attach_type`.
    #[repr(C)]
    struct Attributes {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log: [u64; 2],
        version_and_flags: [u32; 2],
        name: [u8; 16],
        interface: u32,
        attach_type: u32,
    }
    let attributes = Attributes {
        kind,
        count: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        instructions: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log: [0; 2],
        version_and_flags: [0; 2],
        name: [0; 16],
        interface: 0,
        attach_type,
    };
    // SAFETY: attributes, instructions and licence live through the call.
    unsafe { opened(libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attributes, size_of::<Attributes>())) }
}

/// Runs a program of [`load_user_probe`] whenever any process comes to one of the instructions at `offsets` of the file, or,
/// at the `end`, when the function that begins there is over.
pub(super) fn probes(program: BorrowedFd<'_>, file: &Path, offsets: &[u64], end: bool) -> io::Result<OwnedFd> {
    /// `bpf_attr.link_create` with its `uprobe_multi`.
    #[repr(C)]
    struct Attributes {
        program: u32,
        target: u32,
        attach_type: u32,
        link_flags: u32,
        path: u64,
        offsets: u64,
        counters: u64,
        cookies: u64,
        count: u32,
        flags: u32,
        pid: u32,
        reserved: u32,
    }
    let path = CString::new(file.as_os_str().as_bytes()).map_err(io::Error::other)?;
    let attributes = Attributes {
        program: program.as_raw_fd().cast_unsigned(),
        target: 0,
        attach_type: BPF_TRACE_UPROBE_MULTI,
        link_flags: 0,
        path: path.as_ptr() as u64,
        offsets: offsets.as_ptr() as u64,
        counters: 0,
        cookies: 0,
        count: u32::try_from(offsets.len()).map_err(io::Error::other)?,
        // `BPF_F_UPROBE_MULTI_RETURN`
        flags: u32::from(end),
        pid: 0,
        reserved: 0,
    };
    // SAFETY: attributes, path and offsets live through the call.
    unsafe { opened(libc::syscall(libc::SYS_bpf, BPF_LINK_CREATE, &raw const attributes, size_of::<Attributes>())) }
}

/// What a system call that opens something returned.
///
/// # Safety
/// A descriptor that nobody else owns, or negative.
unsafe fn opened(descriptor: libc::c_long) -> io::Result<OwnedFd> {
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: by contract.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as i32) })
}

/// The same as [`probes`] for a program of any other kind and one place: takes CAP_PERFMON or, on most kernels since July
/// 2025, CAP_SYS_ADMIN.
pub(super) fn probe(program: BorrowedFd<'_>, file: &Path, offset: u64, end: bool) -> io::Result<OwnedFd> {
    const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;
    const PERF_EVENT_IOC_ENABLE: libc::c_ulong = 0x2400;
    const PERF_EVENT_IOC_SET_BPF: libc::c_ulong = 0x4004_2408;
    /// `perf_event_attr` up to `config2`.
    const SIZE: u64 = 72;
    let path = CString::new(file.as_os_str().as_bytes()).map_err(io::Error::other)?;
    let mut words = [0u64; SIZE as usize / 8];
    words[0] = u64::from(user_probe_type()?) | SIZE << 32;
    words[1] = u64::from(end);
    (words[7], words[8]) = (path.as_ptr() as u64, offset);
    // SAFETY: the attributes and the path live through the call. Of all processes (-1), which any CPU stands for.
    let event =
        unsafe { opened(libc::syscall(libc::SYS_perf_event_open, words.as_ptr(), -1, 0, -1, PERF_FLAG_FD_CLOEXEC))? };
    for (request, argument) in [(PERF_EVENT_IOC_SET_BPF, program.as_raw_fd()), (PERF_EVENT_IOC_ENABLE, 0)] {
        // SAFETY: neither takes a pointer.
        if unsafe { libc::ioctl(event.as_raw_fd(), request, argument) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(event)
}

/// A command that gives a descriptor; `words` is the beginning of its attributes, the rest is zero.
fn descriptor(command: libc::c_long, words: [u32; 8]) -> io::Result<OwnedFd> {
    // SAFETY: the attributes are valid for the call and no member of them is a pointer.
    unsafe { opened(libc::syscall(libc::SYS_bpf, command, words.as_ptr(), size_of_val(&words))) }
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

/// Reads `count` elements of an array from `first` on.
///
/// # Safety
/// `words` has room for so many elements.
pub(super) unsafe fn read(array: &MapData, first: u32, count: usize, words: &mut [u64]) -> io::Result<()> {
    /// `bpf_attr.batch`.
    #[repr(C)]
    struct Attributes {
        before: u64,
        last: u64,
        keys: u64,
        values: u64,
        count: u32,
        map: u32,
        element_flags: u64,
        flags: u64,
    }
    let before = first.checked_sub(1);
    let (mut last, mut keys) = (0u32, vec![0u32; count]);
    let attributes = Attributes {
        before: before.as_ref().map_or(0, |before| &raw const *before as u64),
        last: &raw mut last as u64,
        keys: keys.as_mut_ptr() as u64,
        values: words.as_mut_ptr() as u64,
        count: u32::try_from(count).map_err(io::Error::other)?,
        map: array.fd().as_fd().as_raw_fd().cast_unsigned(),
        element_flags: 0,
        flags: 0,
    };
    // SAFETY: the attributes live through the call, and so do the buffers, which have room for so many elements by contract.
    let failed = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_MAP_LOOKUP_BATCH, &raw const attributes, size_of::<Attributes>()) != 0
    };
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Writes an element of an array.
///
/// # Safety
/// `words` are as long as an element.
pub(super) unsafe fn write(array: &MapData, index: u32, words: &[u64]) -> io::Result<()> {
    element(array, BPF_MAP_UPDATE_ELEM, (&raw const index) as u64, words.as_ptr() as u64)
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
    let map = data.fd().as_fd().as_raw_fd().cast_unsigned();
    let attributes = Element { map, reserved: 0, key, value, flags: 0 };
    // SAFETY: the attributes are valid for the call; the callers' buffers are as long as the map's info says.
    let failed = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const attributes, size_of::<Element>()) } != 0;
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}
