//! Runs iterators by reading them: that over all open files gives a record per TCP socket that is a listener or in scope;
//! that over all threads only counts.
//!
//! Reading runs the kernel program once for each open file of the host (about 50 ns each) in the reader's own thread.
//! At most [`MAX_RECORDS`] records are kept, the rest is counted. A program is linked only while it is read, which takes no
//! capability on kernels from 5.19 and CAP_BPF before. What the records mean is not known here.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::maps::{HashMap, MapData};
use aya::programs::Iter;
use seismo_common::adopt::SocketRecord;
use seismo_common::config::{TGID_EXCLUDED, TGID_INCLUDED};

use super::{decode, raw};

/// Name of the program and of the map that tells it about control groups.
const PROGRAM: &str = "adopt_files";
const GROUPS: &str = "ADOPT_TGIDS";
/// Open sockets that are kept of one pass.
pub const MAX_RECORDS: usize = 131_072;
/// The kernel hands over at most this much at once.
const CHUNK: usize = 32 << 10;

/// The loaded program.
pub struct SocketIterator {
    program: OwnedFd,
    groups: HashMap<MapData, u32, u8>,
}

/// A loaded program that writes nothing to its reader.
pub struct Iterator(OwnedFd);

impl Iterator {
    /// `None` where it was not loaded.
    pub(super) fn take(ebpf: &Ebpf, name: &str) -> Result<Option<Self>> {
        Ok(descriptor(ebpf, name)?.map(Self))
    }

    /// Goes over everything once, in the calling thread.
    pub fn run(&self) -> Result<()> {
        let mut file = File::from(raw::iterator(self.0.as_fd()).context("opening the iterator")?);
        let mut byte = [0; 16];
        while file.read(&mut byte).context("reading the iterator")? > 0 {}
        Ok(())
    }
}

/// What one pass gave.
#[derive(Debug, Default)]
pub struct Pass {
    pub records: Vec<SocketRecord>,
    /// Records beyond [`MAX_RECORDS`].
    pub too_many: u64,
    /// Processes whose group could not be told to the kernel program: the table was full.
    pub untold: u64,
}

impl SocketIterator {
    /// `None` where it was not loaded.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Option<Self>> {
        let groups = HashMap::try_from(ebpf.take_map(GROUPS).context("the object has no map ADOPT_TGIDS")?)?;
        Ok(descriptor(ebpf, PROGRAM)?.map(|program| Self { program, groups }))
    }

    /// One pass over every open file. `members`: processes that are in or out of scope by their control group.
    pub fn read(&mut self, members: &[(u32, bool)]) -> Result<Pass> {
        let mut pass = Pass::default();
        for (tgid, included) in members {
            let value = if *included { TGID_INCLUDED } else { TGID_EXCLUDED };
            pass.untold += u64::from(self.groups.insert(tgid, value, 0).is_err());
        }
        let read = self.read_files(&mut pass);
        for (tgid, _) in members {
            // One that did not fit is not there.
            let _ = self.groups.remove(tgid);
        }
        read.map(|()| pass)
    }

    fn read_files(&self, pass: &mut Pass) -> Result<()> {
        let mut file = File::from(raw::iterator(self.program.as_fd()).context("opening the iterator over files")?);
        let mut buffer = vec![0; CHUNK];
        let mut filled = 0;
        loop {
            let free = buffer.get_mut(filled..).unwrap_or_default();
            let count = file.read(free).context("reading the iterator over files")?;
            filled += count;
            let whole = filled - filled % size_of::<SocketRecord>();
            for bytes in buffer.get(..whole).unwrap_or_default().chunks_exact(size_of::<SocketRecord>()) {
                match decode::read(bytes) {
                    Some(record) if pass.records.len() < MAX_RECORDS => pass.records.push(record),
                    _ => pass.too_many += 1,
                }
            }
            buffer.copy_within(whole..filled, 0);
            filled -= whole;
            if count == 0 {
                return Ok(());
            }
        }
    }
}

/// A descriptor of an iterator program, if it was loaded.
fn descriptor(ebpf: &Ebpf, name: &str) -> Result<Option<OwnedFd>> {
    let program: Option<&Iter> = ebpf.program(name).and_then(|program| program.try_into().ok());
    let Some(program) = program.and_then(|program| program.fd().ok()) else { return Ok(None) };
    Ok(Some(program.as_fd().try_clone_to_owned().with_context(|| format!("keeping {name}"))?))
}
