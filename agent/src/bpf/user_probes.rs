//! Probes in the executables and libraries of processes, and how their tasks are read: attached with the first process
//! that uses a file, detached with the last.
//!
//! A probe is in all processes that run the file; those that are not told to the programs leave it at once. Bounded: a
//! place for each process ([`RUNTIMES`]), [`MAX_FILES`] files. What finds no room is counted, and linked by what else is
//! known.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context, Result};
use aya::maps::{Array, MapData};
use aya::{Ebpf, Pod};
use seismo_common::task::{RUNTIMES, Runtime};

use super::raw;
use crate::model::task::{TaskPoint, TaskReads, TaskRuntime};

/// Files with probes at once.
pub const MAX_FILES: usize = 256;

#[repr(transparent)]
#[derive(Clone, Copy)]
struct Value(Runtime);

// SAFETY: `Runtime` is a wire struct: integers, no padding.
unsafe impl Pod for Value {}

/// The map that tells the programs how the tasks of a process are read.
pub struct RuntimeMap(Array<MapData, Value>);

impl RuntimeMap {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self> {
        let map = ebpf.take_map("RUNTIMES").context("the object has no map RUNTIMES")?;
        Ok(Self(Array::try_from(map)?))
    }
}

/// A program of probes in processes.
pub enum UserProgram {
    /// Attached to many places at once, without a capability (6.6+).
    Many(OwnedFd),
    /// To one place at a time.
    Single(OwnedFd),
}

impl UserProgram {
    fn attach(&self, runtime: &TaskRuntime, point: TaskPoint) -> io::Result<Vec<OwnedFd>> {
        let end = point == TaskPoint::Copied;
        let offsets: Vec<u64> =
            runtime.places.iter().filter(|place| place.point == point).map(|place| place.offset).collect();
        match self {
            _ if offsets.is_empty() => Ok(Vec::new()),
            Self::Many(program) => Ok(vec![raw::probes(program.as_fd(), &runtime.file, &offsets, end)?]),
            Self::Single(program) => {
                offsets.into_iter().map(|offset| raw::probe(program.as_fd(), &runtime.file, offset, end)).collect()
            }
        }
    }
}

/// Why a process is not told to the programs.
#[derive(Debug)]
pub enum Refusal {
    /// Another process has its place, or there are too many files.
    NoRoom,
    Probe(io::Error),
}

/// A file as long as it is there: device and inode.
type FileId = (u64, u64);

struct Probed {
    /// Processes that use it.
    users: usize,
    /// Detached when dropped.
    _links: Vec<OwnedFd>,
}

struct Tracked {
    runtime: TaskRuntime,
    file: FileId,
    attached: bool,
}

/// Owned by a thread that may attach probes.
pub struct UserProbes {
    map: Array<MapData, Value>,
    programs: HashMap<TaskPoint, UserProgram>,
    on: bool,
    /// By place in the map.
    holders: HashMap<u32, u32>,
    processes: HashMap<u32, Tracked>,
    files: HashMap<FileId, Probed>,
}

impl UserProbes {
    /// Processes whose tasks can be read at once.
    pub const CAPACITY: usize = RUNTIMES;

    /// `programs`: those that the kernel accepted.
    pub fn new(map: RuntimeMap, programs: HashMap<TaskPoint, UserProgram>, on: bool) -> Self {
        let (holders, processes, files) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { map: map.0, programs, on, holders, processes, files }
    }

    /// Reads the tasks of a process from now on, and probes where they begin.
    pub fn track(&mut self, pid: u32, runtime: TaskRuntime) -> Result<(), Refusal> {
        self.forget(pid);
        // A task whose beginning is not told could be taken for an older one of the same name.
        if runtime.places.iter().any(|place| !self.programs.contains_key(&place.point)) {
            return Err(Refusal::Probe(io::Error::other("one of its probes is not to be had on this kernel")));
        }
        let meta = std::fs::metadata(&runtime.file).map_err(Refusal::Probe)?;
        let file = (meta.dev(), meta.ino());
        if self.holders.contains_key(&place(pid)) || (!self.files.contains_key(&file) && self.files.len() >= MAX_FILES)
        {
            return Err(Refusal::NoRoom);
        }
        self.holders.insert(place(pid), pid);
        self.processes.insert(pid, Tracked { runtime, file, attached: false });
        if self.on { self.attach(pid).map_err(Refusal::Probe) } else { Ok(()) }
    }

    /// The process is gone, or runs another program.
    pub fn forget(&mut self, pid: u32) {
        self.detach(pid);
        if self.processes.remove(&pid).is_some() {
            self.holders.remove(&place(pid));
        }
    }

    /// Detaches everything, or attaches it again; the processes for which that failed.
    pub fn switch(&mut self, on: bool) -> Vec<(u32, io::Error)> {
        self.on = on;
        let pids: Vec<u32> = self.processes.keys().copied().collect();
        if on {
            return pids.into_iter().filter_map(|pid| Some((pid, self.attach(pid).err()?))).collect();
        }
        pids.into_iter().for_each(|pid| self.detach(pid));
        Vec::new()
    }

    /// Processes whose tasks can be read.
    pub fn processes(&self) -> usize {
        self.processes.len()
    }

    fn attach(&mut self, pid: u32) -> io::Result<()> {
        let Some(tracked) = self.processes.get_mut(&pid).filter(|tracked| !tracked.attached) else { return Ok(()) };
        let runtime = &tracked.runtime;
        // The probes first: of a task that can be read and whose beginning was not told nobody knows where it came from.
        match self.files.entry(tracked.file) {
            Entry::Occupied(mut probed) => probed.get_mut().users += 1,
            Entry::Vacant(free) => {
                let mut links = Vec::new();
                for (point, program) in &self.programs {
                    links.extend(program.attach(runtime, *point)?);
                }
                free.insert(Probed { users: 1, _links: links });
            }
        }
        tracked.attached = true;
        self.map.set(place(pid), Value(told(pid, &runtime.reads)), 0).map_err(io::Error::other)
    }

    fn detach(&mut self, pid: u32) {
        let Some(tracked) = self.processes.get_mut(&pid).filter(|tracked| tracked.attached) else { return };
        tracked.attached = false;
        if let Err(error) = self.map.set(place(pid), Value(Runtime::NOBODY), 0) {
            log::error!("the tasks of process {pid} are read on: {error}");
        }
        if let Entry::Occupied(mut probed) = self.files.entry(tracked.file) {
            probed.get_mut().users -= 1;
            if probed.get().users == 0 {
                probed.remove();
            }
        }
    }
}

const fn place(pid: u32) -> u32 {
    pid & (RUNTIMES as u32 - 1)
}

fn told(pid: u32, reads: &TaskReads) -> Runtime {
    let TaskReads { is_structure, thread_offset, task_offset, kind, connection_offset } = *reads;
    Runtime { tgid: pid, is_structure: is_structure.into(), thread_offset, task_offset, kind, connection_offset }
}
