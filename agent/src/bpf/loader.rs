//! Acts on a plan: creates the maps, loads and attaches each program on its own, and gives memory back.
//!
//! One program that fails is a verdict, not an end. The kernel's BTF (30 MB parsed) is dropped and the allocator
//! trimmed once everything is attached. Dropping [`Loaded`] detaches everything; so does the kernel when the process
//! dies, because nothing is pinned.

use anyhow::{Context, Result, anyhow};
use aya::maps::RingBuf;
use aya::programs::{BtfTracePoint, Iter, ProgramError};
use aya::{Btf, Ebpf, EbpfLoader};
use seismo_common::Wire;
use seismo_common::config::Settings;
use seismo_common::offsets::Offsets;

use super::control::FlowControlMap;
use super::counts::Counts;
use super::iterate::SocketIterator;
use super::plan::{Decision, Planned};
use super::scope::ScopeMaps;
use super::support::Facts;
use crate::health::{ProbeState, ProbeStatus};
use crate::model::probe::Hook;

/// The kernel object, built from `agent-ebpf` by the build script.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/seismo-ebpf"));

/// Programs in the kernel, and the handles to their maps.
pub struct Loaded {
    /// Holds programs and links; dropping it detaches.
    pub programs: Programs,
    pub counts: Counts,
    pub ring: RingBuf<aya::maps::MapData>,
    pub scope: ScopeMaps,
    /// Where its program was loaded.
    pub sockets: Option<SocketIterator>,
    pub control: FlowControlMap,
}

/// Attached programs. Detached when dropped.
pub struct Programs {
    ebpf: Ebpf,
    statuses: Vec<ProbeStatus>,
    #[cfg(feature = "kernel-log")]
    log: aya_log::EbpfLogger<&'static dyn log::Log>,
}

/// What to do with a program that the kernel accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    Yes,
    /// Only the verdict is wanted: nothing runs.
    No,
}

/// Loads what the plan says, and attaches it if asked to. `ring_bytes` is a power of two and a multiple of the page size.
pub fn load(facts: &Facts, plan: &[Planned], settings: Settings, ring_bytes: u32, mode: Attach) -> Result<Loaded> {
    let offsets = &facts.offsets.as_ref().ok_or_else(|| anyhow!("no kernel type information"))?.table;
    let btf = Btf::from_sys_fs().context("kernel type information")?;
    let mut ebpf = EbpfLoader::new()
        .btf(Some(&btf))
        .override_global("OFFSETS", bytes_of::<Offsets>(offsets), true)
        .override_global("SETTINGS", bytes_of::<Settings>(&settings), true)
        .map_max_entries("RING", ring_bytes)
        .load(OBJECT)
        .context("creating the maps")?;
    let mut statuses = Vec::new();
    for planned in plan {
        let mut status = ProbeStatus {
            probe: planned.family.to_owned(),
            program: planned.program.name.to_owned(),
            hook: planned.program.hook.label(),
            state: ProbeState::Active,
            reason: String::new(),
            verified_instructions: 0,
            runs: None,
            run_ns: None,
        };
        match &planned.decision {
            Decision::Disabled => status.state = ProbeState::Disabled,
            Decision::Unsupported(fact) => {
                status.state = ProbeState::Unsupported;
                status.reason.clone_from(fact);
            }
            Decision::Attach => match attach(&mut ebpf, planned, &btf, mode) {
                Ok(verified_instructions) => status.verified_instructions = verified_instructions,
                Err(error) => {
                    status.state = ProbeState::Failed;
                    status.reason = error;
                }
            },
        }
        statuses.push(status);
    }
    drop(btf);
    let counts = Counts::take(&mut ebpf)?;
    let ring = RingBuf::try_from(ebpf.take_map("RING").context("the object has no map RING")?)?;
    let scope = ScopeMaps::take(&mut ebpf)?;
    let sockets = SocketIterator::take(&mut ebpf)?;
    let control = FlowControlMap::take(&mut ebpf)?;
    trim();
    Ok(Loaded {
        programs: Programs {
            #[cfg(feature = "kernel-log")]
            log: aya_log::EbpfLogger::init(&mut ebpf).context("kernel log")?,
            ebpf,
            statuses,
        },
        counts,
        ring,
        scope,
        sockets,
        control,
    })
}

/// Loads (and attaches) one program; the verified instruction count, or what the kernel said.
fn attach(ebpf: &mut Ebpf, planned: &Planned, btf: &Btf, mode: Attach) -> Result<u32, String> {
    let name = planned.program.name;
    let program = ebpf.program_mut(name).ok_or_else(|| format!("the object has no program {name}"))?;
    let wrong_kind = |error: ProgramError| error.to_string();
    let info = match planned.program.hook {
        Hook::TpBtf(tracepoint) => {
            let program: &mut BtfTracePoint = program.try_into().map_err(wrong_kind)?;
            program.load(tracepoint, btf).map_err(|error| verdict(&error))?;
            if mode == Attach::Yes {
                program.attach().map_err(|error| verdict(&error))?;
            }
            program.info()
        }
        // Runs when it is read ([`SocketIterator`]): there is nothing to attach it to.
        Hook::Iter { over, .. } => {
            let program: &mut Iter = program.try_into().map_err(wrong_kind)?;
            program.load(over, btf).map_err(|error| verdict(&error))?;
            program.info()
        }
    };
    Ok(info.ok().and_then(|info| info.verified_instruction_count()).unwrap_or(0))
}

/// The kernel's own words, on one line: the error and the last lines of the verifier's log.
fn verdict(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let lines: Vec<&str> = log.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            let tail = lines[lines.len().saturating_sub(4)..].join(" | ");
            format!("the kernel refused it: {io_error}: {tail}")
        }
        ProgramError::SyscallError(error) => format!("{}: {}", error.call, error.io_error),
        other => other.to_string(),
    }
}

impl Programs {
    /// State of every program.
    pub fn statuses(&self) -> Vec<ProbeStatus> {
        self.statuses.clone()
    }

    /// Hands the programs' debug messages to the agent's log; does nothing unless built with the feature `kernel-log`.
    pub fn flush_log(&mut self) {
        #[cfg(feature = "kernel-log")]
        self.log.flush();
    }

    /// State of every program with its runs; right only while the kernel keeps them ([`enable_run_stats`]).
    pub fn statuses_with_runs(&self) -> Vec<ProbeStatus> {
        let mut statuses = self.statuses.clone();
        for status in statuses.iter_mut().filter(|status| status.state == ProbeState::Active) {
            (status.runs, status.run_ns) = self.run_stats(&status.program).unzip();
        }
        statuses
    }

    /// `run_cnt` and `run_time_ns` from the program's fdinfo.
    fn run_stats(&self, name: &str) -> Option<(u64, u64)> {
        use std::os::fd::{AsFd as _, AsRawFd as _};
        let fd = self.ebpf.program(name)?.fd().ok()?.as_fd().as_raw_fd();
        let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
        let field = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok());
        Some((field("run_cnt:")?, field("run_time_ns:")?))
    }
}

/// Keeps run statistics of all programs on while it lives (needs CAP_SYS_ADMIN; costs about 30 ns a run).
pub fn enable_run_stats() -> Result<std::os::fd::OwnedFd> {
    aya::sys::enable_stats(aya::sys::Stats::RunTime)
        .map_err(|error| anyhow!("run statistics need CAP_SYS_ADMIN: {}: {}", error.call, error.io_error))
}

/// A wire struct as the bytes that the kernel side reads.
fn bytes_of<T: Wire>(value: &T) -> &[u8] {
    // SAFETY: `Wire` promises no padding, so every byte is initialised; the slice borrows the value.
    unsafe { std::slice::from_raw_parts((&raw const *value).cast::<u8>(), size_of::<T>()) }
}

/// Keeps the allocator to two arenas: one per allocating thread would double the agent's memory, and contention for them
/// is not what it waits for. Call before threads start.
pub fn limit_arenas() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt only sets a parameter of the allocator.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// Gives freed heap back to the system: parsing the kernel's BTF took 30 MB.
fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim touches only the allocator's own free lists.
    unsafe {
        libc::malloc_trim(0);
    }
}
