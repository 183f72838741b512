//! Acts on a plan: creates the maps, loads and attaches each program on its own, and gives memory back.
//!
//! One program that fails is a verdict, not an end. The programs of families that are off are loaded too and not attached:
//! loading needs capabilities and the kernel's type information, which are both gone afterwards; attaching does not. The
//! kernel's BTF (30 MB parsed) and the loader library's copies of the programs (1.2 MB) are dropped and the allocator
//! trimmed once everything is attached: what is kept are descriptors. Dropping [`Loaded`] detaches everything; so does the
//! kernel when the process dies, because nothing is pinned.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use anyhow::{Context, Result, anyhow, bail};
use aya::maps::Map;
use aya::programs::{BtfTracePoint, FExit, Iter, ProgramError, UProbe};
use aya::{Btf, Ebpf, EbpfLoader};
use seismo_common::block::DEVICES;
use seismo_common::config::Settings;
use seismo_common::offsets::ABSENT;
use seismo_common::workload::WORKLOADS;

use super::capabilities::version;
use super::counts::Counts;
use super::cpus::present;
use super::flow_control::FlowControlMap;
use super::iterate::SocketIterator;
use super::lanes::{self, Lane};
use super::memory;
use super::plan::{self, Decision, Plan, Planned, Wanted};
use super::raw;
use super::registers;
use super::ring::Ring;
use super::rows;
use super::scope::ScopeMaps;
use super::specialise;
use super::support::{Facts, TASK_REGISTERS};
use super::user_load;
use super::user_probes::{RuntimeMap, UserProgram};
use super::waking::WakingMap;
use super::workloads::WorkloadCounts;
use crate::clock;
use crate::health::{ProbeState, ProbeStatus};
use crate::model::probe::{FamilySpec, Hook, Restart};

/// The kernel object, built from `agent-ebpf` by the build script.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/seismo-ebpf"));

/// Programs in the kernel, and the handles to their maps.
pub struct Loaded {
    /// Holds programs and links; dropping it detaches.
    pub programs: Programs,
    pub counts: Counts,
    pub ring: Ring,
    pub lanes: Vec<Lane>,
    pub scope: ScopeMaps,
    /// Where its program was loaded.
    pub sockets: Option<SocketIterator>,
    pub control: FlowControlMap,
    pub workloads: WorkloadCounts,
    pub runtimes: RuntimeMap,
    pub waking: WakingMap,
}

/// Loaded programs, most of them attached. Detached when dropped.
pub struct Programs {
    statuses: Vec<ProbeStatus>,
    /// Programs that can be attached to many places of processes by one link, where the kernel has that.
    many: HashMap<String, OwnedFd>,
    /// What the kernel said to each, in the same order.
    verdicts: Vec<Verdict>,
    /// What [`Restart`] is about, by name.
    restarts: HashMap<&'static str, Map>,
    #[cfg(feature = "kernel-log")]
    log: aya_log::EbpfLogger<&'static dyn log::Log>,
}

/// What the kernel said to a program.
struct Verdict {
    hook: Hook,
    state: ProbeState,
    reason: String,
    /// If it was loaded.
    program: Option<OwnedFd>,
    /// While it is attached.
    link: Option<OwnedFd>,
}

/// Why a program is not attached: its family is off.
pub const OFF: &str = "off in the configuration";

/// What to do with a program that the kernel accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    Yes,
    /// Only the verdict is wanted: nothing runs.
    No,
}

/// Loads what is wanted, in the best way that the kernel takes: where it refuses a program that a tier cannot do
/// without, the next tier is tried, unless the configuration forces that one. Says which plan it was. Where it refuses
/// any program although addresses are cast in it, all are tried without casts first; who wants every tier wants to know.
/// `ring_bytes` is a power of two and a multiple of the page size.
pub fn load_best(
    facts: &Facts,
    families: &[&'static FamilySpec],
    wanted: &mut Wanted<'_>,
    settings: Settings,
    ring_bytes: u32,
    mode: Attach,
) -> Result<(Plan, Loaded)> {
    let mut facts = Cow::Borrowed(facts);
    loop {
        let plan = plan::plan(&facts, families, wanted).map_err(|error| anyhow!(error))?;
        let loaded = load(&facts, &plan, families, settings, ring_bytes, mode)?;
        let failed = loaded.programs.statuses.iter().find(|status| status.state == ProbeState::Failed);
        if let Some(failed) = failed
            && facts.cast.is_some()
            && !wanted.every_tier
        {
            log::warn!("programs are loaded without casts: {}: {}", failed.hook, failed.reason);
            facts.to_mut().cast = None;
            continue;
        }
        let Some((family, tier, reason)) = refused(&plan, &loaded.programs.statuses) else {
            return Ok((plan, loaded));
        };
        if wanted.forced.contains_key(family) {
            bail!("{family}.tier: {tier} cannot be used here: {reason}");
        }
        log::warn!("{family}: tier {tier} cannot be used: {reason}");
        wanted.refused.insert((family, tier), reason);
    }
}

/// A tier that lacks a program which it cannot do without, and why.
fn refused(plan: &Plan, statuses: &[ProbeStatus]) -> Option<(&'static str, &'static str, String)> {
    plan.programs.iter().zip(statuses).filter(|(planned, _)| planned.wanted).find_map(|(planned, status)| {
        let tried = planned.decision == Decision::Attach && status.state != ProbeState::Active;
        let lost = tried && !planned.tier.is_empty() && planned.program.without.is_none();
        lost.then(|| (planned.family, planned.tier, format!("{}: {}", status.hook, status.reason)))
    })
}

/// Loads what the plan says, and attaches what is wanted if asked to.
fn load(
    facts: &Facts,
    plan: &Plan,
    families: &[&'static FamilySpec],
    settings: Settings,
    ring_bytes: u32,
    mode: Attach,
) -> Result<Loaded> {
    let offsets = &facts.offsets.as_ref().ok_or_else(|| anyhow!("no kernel type information"))?.table;
    let btf = Btf::from_sys_fs().context("kernel type information")?;
    let cpus = present(aya::util::nr_cpus().map_err(|(file, error)| anyhow!("{file}: {error}"))?);
    let lanes = plan::lanes(plan, ring_bytes, cpus);
    let (registers_type, registers_place) = registers(facts, offsets.task_stack).unwrap_or_default();
    let settings = Settings {
        salt: salt()?,
        lanes,
        cpus: u32::try_from(cpus)?,
        registers_type,
        registers_place,
        ..plan::settings(facts, plan, settings)
    };
    let special = specialise::Object::new(OBJECT, offsets, &settings, facts.cast.map(|cast| cast.function));
    let object = special.bytes();
    let mut ebpf = EbpfLoader::new()
        .btf(Some(&btf))
        .map_max_entries("RING", ring_bytes)
        .map_max_entries("SCRATCH", plan::scratches(plan))
        .map_max_entries("LANES", lanes.max(1))
        .map_max_entries("WORKLOAD_COUNTS", rows::size(WORKLOADS, cpus))
        .map_max_entries("BLOCK", rows::size(DEVICES, cpus))
        .load(object)
        .context("creating the maps")?;
    let mut statuses = Vec::new();
    let mut verdicts = Vec::new();
    for planned in &plan.programs {
        let hook = planned.program.hook;
        let mut status = ProbeStatus {
            probe: planned.family.to_owned(),
            program: planned.program.name.to_owned(),
            hook: hook.label(),
            state: ProbeState::Disabled,
            tier: planned.tier.to_owned(),
            reason: OFF.to_owned(),
            verified_instructions: 0,
            runs: None,
            run_ns: None,
        };
        let mut verdict = Verdict { hook, state: ProbeState::Active, reason: String::new(), program: None, link: None };
        let tried = planned.wanted || mode == Attach::Yes;
        match &planned.decision {
            Decision::OtherTier(used) => {
                verdict.state = ProbeState::Disabled;
                verdict.reason = format!("tier {used} is used");
            }
            Decision::Unsupported(fact) => {
                verdict.state = ProbeState::Unsupported;
                verdict.reason.clone_from(fact);
            }
            Decision::Attach if tried => match load_one(&mut ebpf, planned, &btf) {
                Ok((program, verified_instructions)) => {
                    verdict.program = Some(program);
                    status.verified_instructions = verified_instructions;
                }
                Err((state, reason)) => (verdict.state, verdict.reason) = (state, reason),
            },
            Decision::Attach => {}
        }
        if planned.wanted {
            (status.state, status.reason) = match mode {
                Attach::Yes => verdict.attached(),
                Attach::No => (verdict.state, verdict.reason.clone()),
            };
        }
        statuses.push(status);
        verdicts.push(verdict);
    }
    let many = programs_for_many(&ebpf, object, facts, plan);
    drop((btf, special));
    let counts = Counts::take(&mut ebpf, cpus, facts.constants.clone())?;
    let Some(Map::RingBuf(ring)) = ebpf.take_map("RING") else { bail!("the object has no ring RING") };
    let ring = Ring::new(ring).context("mapping the ring")?;
    let Some(Map::Array(map)) = ebpf.take_map("LANES") else { bail!("the object has no array LANES") };
    let lanes = lanes::lanes(map.fd(), lanes).context("mapping the lanes")?;
    let scope = ScopeMaps::take(&mut ebpf)?;
    let sockets = SocketIterator::take(&mut ebpf)?;
    let control = FlowControlMap::take(&mut ebpf)?;
    let workloads = WorkloadCounts::take(&mut ebpf, cpus)?;
    let runtimes = RuntimeMap::take(&mut ebpf)?;
    let waking = WakingMap::take(&mut ebpf)?;
    let programs = Programs {
        statuses,
        many,
        verdicts,
        restarts: restarts(&mut ebpf, families)?,
        #[cfg(feature = "kernel-log")]
        log: aya_log::EbpfLogger::init(&mut ebpf).context("kernel log")?,
    };
    drop(ebpf);
    memory::trim();
    Ok(Loaded { programs, counts, ring, lanes, scope, sockets, control, workloads, runtimes, waking })
}

/// The maps that a family which is switched on again must not find as they were.
fn restarts(ebpf: &mut Ebpf, families: &[&'static FamilySpec]) -> Result<HashMap<&'static str, Map>> {
    let names = families.iter().flat_map(|family| family.restart).map(Restart::map);
    names
        .map(|name| Ok((name, ebpf.take_map(name).with_context(|| format!("the object has no map {name}"))?)))
        .collect()
}

/// As what and where programs find the registers of a thread by themselves; else they ask the kernel's helper, if it has one.
fn registers(facts: &Facts, stack: u32) -> Option<(u32, u32)> {
    let cast = facts.cast.filter(|_| stack != ABSENT && facts.functions.contains_key(TASK_REGISTERS))?;
    match registers::place(stack) {
        Ok(place) => Some((cast.registers, place)),
        Err(error) => {
            log::info!("programs ask a helper for registers: {error}");
            None
        }
    }
}

/// Programs of probes in processes, where the kernel attaches one to many places: none where it is older.
fn programs_for_many(ebpf: &Ebpf, object: &[u8], facts: &Facts, plan: &Plan) -> HashMap<String, OwnedFd> {
    let accepted =
        |planned: &&Planned| matches!(planned.program.hook, Hook::User { .. }) && planned.decision == Decision::Attach;
    let names: Vec<&str> = plan.programs.iter().filter(accepted).map(|planned| planned.program.name).collect();
    if names.is_empty() || version(&facts.kernel_release) < (6, 6) {
        return HashMap::new();
    }
    user_load::load(ebpf, object, &names).unwrap_or_else(|error| {
        log::warn!("probes in processes take a capability here: {error:#}");
        HashMap::new()
    })
}

/// Loads one program; a descriptor of it and the verified instruction count, or what the kernel said.
fn load_one(ebpf: &mut Ebpf, planned: &Planned, btf: &Btf) -> Result<(OwnedFd, u32), (ProbeState, String)> {
    let name = planned.program.name;
    let failed = |reason| (ProbeState::Failed, reason);
    let program = ebpf.program_mut(name).ok_or_else(|| failed(format!("the object has no program {name}")))?;
    let info = match planned.program.hook {
        Hook::TpBtf(tracepoint) | Hook::TpBtfOf { name: tracepoint, .. } => {
            let program: &mut BtfTracePoint = program.try_into().map_err(|error: ProgramError| verdict(&error))?;
            program.load(tracepoint, btf).map_err(|error| verdict(&error))?;
            program.info()
        }
        Hook::FExit(function) => {
            let program: &mut FExit = program.try_into().map_err(|error: ProgramError| verdict(&error))?;
            program.load(function, btf).map_err(|error| verdict(&error))?;
            program.info()
        }
        Hook::Iter { over, .. } => {
            let program: &mut Iter = program.try_into().map_err(|error: ProgramError| verdict(&error))?;
            program.load(over, btf).map_err(|error| verdict(&error))?;
            program.info()
        }
        Hook::User { .. } => {
            let program: &mut UProbe = program.try_into().map_err(|error: ProgramError| verdict(&error))?;
            program.load().map_err(|error| verdict(&error))?;
            program.info()
        }
    };
    let loaded = program.fd().map_err(|error| verdict(&error))?;
    let kept = loaded.as_fd().try_clone_to_owned().map_err(|error| failed(format!("keeping it: {error}")))?;
    Ok((kept, info.ok().and_then(|info| info.verified_instruction_count()).unwrap_or(0)))
}

impl Verdict {
    /// Attaches the program if the kernel accepted it; its state then, and why it is not active.
    fn attached(&mut self) -> (ProbeState, String) {
        if self.state != ProbeState::Active || self.link.is_some() {
            return (self.state, self.reason.clone());
        }
        if let Hook::Iter { .. } | Hook::User { .. } = self.hook {
            // Runs when it is read ([`SocketIterator`]), or in processes as they are found ([`super::user_probes`]).
            return (ProbeState::Active, String::new());
        }
        let Some(program) = &self.program else { return (ProbeState::Failed, "it was not loaded".to_owned()) };
        match raw::attach(program.as_fd()) {
            Ok(link) => {
                self.link = Some(link);
                (ProbeState::Active, String::new())
            }
            Err(error) => (ProbeState::Failed, format!("attaching it: {error}")),
        }
    }
}

/// Secret numbers for one run of the agent.
fn salt() -> Result<[u32; 4]> {
    let mut bytes = [0u8; 16];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).context("/dev/urandom")?;
    let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    Ok([word(0), word(4), word(8), word(12)])
}

/// The kernel's own words, on one line: the error and the last lines of the verifier's log. Who has the capabilities and
/// is refused without a look at the program is on a kernel that does not offer this kind.
fn verdict(error: &ProgramError) -> (ProbeState, String) {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let lines: Vec<&str> = log.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            if lines.is_empty() && io_error.kind() == ErrorKind::PermissionDenied {
                return (ProbeState::Unsupported, format!("this kernel does not allow it: {io_error}"));
            }
            let tail = lines[lines.len().saturating_sub(4)..].join(" | ");
            (ProbeState::Failed, format!("the kernel refused it: {io_error}: {tail}"))
        }
        ProgramError::SyscallError(error) => (ProbeState::Failed, format!("{}: {}", error.call, error.io_error)),
        other => (ProbeState::Failed, other.to_string()),
    }
}

impl Programs {
    /// A program of probes in processes that the kernel accepted.
    pub fn user_program(&self, name: &str) -> Option<UserProgram> {
        if let Some(program) = self.many.get(name) {
            return program.try_clone().ok().map(UserProgram::Many);
        }
        let (_, verdict) = self.statuses.iter().zip(&self.verdicts).find(|(status, _)| status.program == name)?;
        verdict.program.as_ref()?.try_clone().ok().map(UserProgram::Single)
    }

    /// Whether every program of a family is attached.
    pub fn is_active(&self, family: &FamilySpec) -> bool {
        plan::family_state(family, &self.statuses).0 == ProbeState::Active
    }

    /// State of every program.
    pub fn statuses(&self) -> Vec<ProbeStatus> {
        self.statuses.clone()
    }

    /// Detaches the programs of a family, for the reason that `seismo probes` shows.
    pub fn detach(&mut self, family: &FamilySpec, reason: &str) {
        for (status, verdict) in self.statuses.iter_mut().zip(&mut self.verdicts) {
            if status.probe == family.name {
                verdict.link = None;
                status.state = ProbeState::Disabled;
                reason.clone_into(&mut status.reason);
                (status.runs, status.run_ns) = (None, None);
            }
        }
    }

    /// Attaches the programs of a family that are not attached, after what they kept of things under way is gone. An error
    /// says which map could not be emptied; then nothing is attached.
    pub fn attach(&mut self, family: &FamilySpec) -> Result<()> {
        for restart in family.restart {
            let name = restart.map();
            let map = self.restarts.get(name).with_context(|| format!("{name} was not kept"))?;
            match restart {
                Restart::Clear(_) => raw::clear(map),
                Restart::Now(_) => raw::set(map, clock::monotonic_ns()),
            }
            .with_context(|| format!("emptying {name}"))?;
        }
        for (status, verdict) in self.statuses.iter_mut().zip(&mut self.verdicts) {
            if status.probe == family.name {
                (status.state, status.reason) = verdict.attached();
            }
        }
        Ok(())
    }

    /// Detaches a program for a while: it counts as attached.
    pub fn pause(&mut self, program: &str) {
        for (status, verdict) in self.statuses.iter().zip(&mut self.verdicts) {
            if status.program == program {
                verdict.link = None;
            }
        }
    }

    /// Attaches a paused program again, if its family is still on; why that failed.
    pub fn resume(&mut self, program: &str) -> Result<(), String> {
        for (status, verdict) in self.statuses.iter_mut().zip(&mut self.verdicts) {
            if status.program == program && status.state == ProbeState::Active {
                (status.state, status.reason) = verdict.attached();
                if status.state != ProbeState::Active {
                    return Err(status.reason.clone());
                }
            }
        }
        Ok(())
    }

    /// Hands the programs' debug messages to the agent's log; does nothing unless built with the feature `kernel-log`.
    pub fn flush_log(&mut self) {
        #[cfg(feature = "kernel-log")]
        self.log.flush();
    }

    /// State of every program with its runs; right only while the kernel keeps them ([`enable_run_stats`]).
    pub fn statuses_with_runs(&self) -> Vec<ProbeStatus> {
        let mut statuses = self.statuses.clone();
        for (status, verdict) in statuses.iter_mut().zip(&self.verdicts) {
            if status.state == ProbeState::Active {
                (status.runs, status.run_ns) = verdict.program.as_ref().and_then(run_stats).unzip();
            }
        }
        statuses
    }
}

/// `run_cnt` and `run_time_ns` from a program's fdinfo.
fn run_stats(program: &OwnedFd) -> Option<(u64, u64)> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd())).ok()?;
    let field = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok());
    Some((field("run_cnt:")?, field("run_time_ns:")?))
}

/// Keeps run statistics of all programs on while it lives (needs CAP_SYS_ADMIN; costs about 30 ns a run).
pub fn enable_run_stats() -> Result<std::os::fd::OwnedFd> {
    aya::sys::enable_stats(aya::sys::Stats::RunTime)
        .map_err(|error| anyhow!("run statistics need CAP_SYS_ADMIN: {}: {}", error.call, error.io_error))
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
