//! Names processes for spans and metrics: process events and pids → OTel resources, out of procfs.
//!
//! `service.name` is, first that is known: configured → container → systemd unit → script or executable.
//! A name is read once per program run (about 40 µs) and checked against pid reuse at most once a second.
//! An exited process keeps its name for a while, for spans that come late. The cache is bounded; the least
//! recently checked goes first. Time is what the caller says it is.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::glob::Glob;
use super::place::Place;
use super::procfs::Procfs;
use super::{ports, service};
use crate::model::display::{self, MAX_NAME};
use crate::model::hashing::Map;
use crate::model::process::{ProcessEvent, ProcessEventKind, Resource, Resources};
use crate::section::Interval;

/// How often a cached process is compared with what procfs says now.
const RECHECK_NS: u64 = 1_000_000_000;

crate::section! {
    /// What is remembered about processes.
    pub struct Config {
        /// Processes whose names are remembered, 1 to 1048576. About 300 bytes each.
        pub capacity: usize = 16_384,
        /// How long the name of an exited process is kept for spans that come late.
        pub linger: Interval = Interval::secs(10),
    }
}

/// A configured service name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceRule {
    #[serde(rename = "match")]
    pub matches: ServiceMatch,
    pub name: String,
}

/// Which processes a rule names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceMatch {
    Exe(Glob),
    /// Listens on this TCP port when it is first seen.
    Port(u16),
}

impl FromStr for ServiceMatch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some(("exe", glob)) if !glob.is_empty() => Ok(Self::Exe(Glob::new(glob))),
            Some(("port", port)) => match port.parse() {
                Ok(port) if port > 0 => Ok(Self::Port(port)),
                _ => Err(format!("{text}: not a port (1 to 65535)")),
            },
            _ => Err(format!("'{text}' is neither exe=GLOB nor port=N")),
        }
    }
}

impl Serialize for ServiceMatch {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Exe(glob) => to.collect_str(&format_args!("exe={}", glob.as_str())),
            Self::Port(port) => to.collect_str(&format_args!("port={port}")),
        }
    }
}

impl<'de> Deserialize<'de> for ServiceMatch {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

#[derive(Debug)]
struct Entry {
    resource: Arc<Resource>,
    /// Start time in procfs' ticks; unknown for a child that took its parent's name.
    start_ticks: Option<u64>,
    checked_ns: u64,
    /// Key in `ages`.
    age: u64,
    exited_ns: Option<u64>,
}

/// The cache of names.
#[derive(Debug)]
pub struct Names {
    config: Config,
    services: Vec<ServiceRule>,
    proc: Procfs,
    host_name: Arc<str>,
    entries: Map<u32, Entry>,
    /// Least recently checked first.
    ages: BTreeMap<u64, u32>,
    next_age: u64,
    /// `(time, pid)` of exited processes that still have an entry.
    exited: BTreeSet<(u64, u32)>,
    now_ns: u64,
    evicted: u64,
}

impl Names {
    pub fn new(config: Config, services: Vec<ServiceRule>, proc_root: impl Into<PathBuf>) -> Self {
        let proc = Procfs::new(proc_root);
        let host_name = proc.host_name().unwrap_or_default().into();
        Self {
            config,
            services,
            proc,
            host_name,
            entries: Map::default(),
            ages: BTreeMap::new(),
            next_age: 0,
            exited: BTreeSet::new(),
            now_ns: 0,
            evicted: 0,
        }
    }

    /// Names remembered now.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Names that can be remembered.
    pub fn capacity(&self) -> usize {
        self.config.capacity
    }

    /// Names given up because the cache was full.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Moves time on (`CLOCK_MONOTONIC`, ns) and forgets processes that exited long ago. Events do so too.
    pub fn advance(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
        while let Some((exited_ns, pid)) = self.exited.first().copied() {
            if exited_ns.saturating_add(self.config.linger.as_ns()) > self.now_ns {
                break;
            }
            self.forget(pid);
        }
    }

    /// A process began, became another program, or ended.
    pub fn process_event(&mut self, event: &ProcessEvent) {
        self.advance(event.ktime_ns);
        match event.kind {
            ProcessEventKind::Fork { parent_pid } => {
                self.forget(event.pid);
                // A child is what its parent is until it executes something: no file need be read.
                if let Some(parent) = self.entries.get(&parent_pid) {
                    let resource = Resource { pid: event.pid, ..(*parent.resource).clone() };
                    self.remember(event.pid, resource, None);
                }
            }
            // Read at once: a short-lived client is gone before its first span is made. Only in scope: of others
            // not even the command line is looked at before they have a span.
            ProcessEventKind::Exec => {
                self.forget(event.pid);
                if event.in_scope {
                    match self.identify(event.pid) {
                        Some((resource, start_ticks)) => self.remember(event.pid, resource, Some(start_ticks)),
                        None => self.remember(event.pid, self.gone(event.pid, &event.command), None),
                    };
                }
            }
            ProcessEventKind::Exit { .. } => self.mark_exited(event.pid, event.ktime_ns),
        }
    }

    fn mark_exited(&mut self, pid: u32, at_ns: u64) {
        if let Some(entry) = self.entries.get_mut(&pid)
            && entry.exited_ns.is_none()
        {
            entry.exited_ns = Some(at_ns);
            self.exited.insert((at_ns, pid));
        }
    }

    fn forget(&mut self, pid: u32) {
        if let Some(entry) = self.entries.remove(&pid) {
            self.ages.remove(&entry.age);
            if let Some(exited_ns) = entry.exited_ns {
                self.exited.remove(&(exited_ns, pid));
            }
        }
    }

    fn remember(&mut self, pid: u32, resource: Resource, start_ticks: Option<u64>) -> Arc<Resource> {
        self.forget(pid);
        while self.entries.len() >= self.config.capacity.max(1) {
            let Some((_, oldest)) = self.ages.pop_first() else { break };
            self.forget(oldest);
            self.evicted += 1;
        }
        let resource = Arc::new(resource);
        let age = self.next_age;
        self.next_age += 1;
        self.ages.insert(age, pid);
        let entry =
            Entry { resource: Arc::clone(&resource), start_ticks, checked_ns: self.now_ns, age, exited_ns: None };
        self.entries.insert(pid, entry);
        resource
    }

    /// The cached name, unless the pid belongs to another process now.
    fn cached(&mut self, pid: u32) -> Option<Arc<Resource>> {
        let now_ns = self.now_ns;
        let entry = self.entries.get_mut(&pid)?;
        if entry.exited_ns.is_some() || now_ns.saturating_sub(entry.checked_ns) < RECHECK_NS {
            return Some(Arc::clone(&entry.resource));
        }
        match (self.proc.stat(pid), entry.start_ticks) {
            (Some((_, ticks)), Some(known)) if ticks != known => return None,
            (Some((_, ticks)), _) => entry.start_ticks = Some(ticks),
            // Gone without an exit event (it was lost): late spans may follow, a new process may not have come yet.
            (None, _) => {
                let resource = Arc::clone(&entry.resource);
                self.mark_exited(pid, now_ns);
                return Some(resource);
            }
        }
        entry.checked_ns = now_ns;
        self.ages.remove(&entry.age);
        entry.age = self.next_age;
        self.next_age += 1;
        self.ages.insert(entry.age, pid);
        Some(Arc::clone(&entry.resource))
    }

    fn identify(&self, pid: u32) -> Option<(Resource, u64)> {
        let (comm, start_ticks) = self.proc.stat(pid)?;
        // Kernel threads have no executable; of another user's process we may not be told.
        let exe = self.proc.exe(pid);
        let executable_name = exe
            .as_ref()
            .and_then(|path| Some(display::escaped(path.file_name()?.as_bytes(), MAX_NAME)))
            .unwrap_or_else(|| comm.clone());
        let cgroups = self.proc.cgroups(pid).unwrap_or_default();
        let place = Place::of_process(&cgroups);
        let service_name = configured(&self.proc, &self.services, pid, exe.as_deref())
            .or_else(|| place.named_by_engine(&self.proc.host_root()))
            .or_else(|| place.service().filter(|_| place.container_id.is_none()).map(str::to_owned))
            .unwrap_or_else(|| {
                let program = exe.as_deref().and_then(|exe| linked(&self.proc, pid, exe));
                service::name(program.as_ref().unwrap_or(&executable_name), &self.proc.arguments(pid))
            });
        let service_name = display::escaped(service_name.as_bytes(), MAX_NAME);
        let container_id = place.container_id;
        let host_name = Arc::clone(&self.host_name);
        Some((Resource { service_name, pid, executable_name, container_id, host_name }, start_ticks))
    }

    /// A process that procfs no longer has, by the kernel's name of it.
    fn gone(&self, pid: u32, command: &str) -> Resource {
        let service_name = if command.is_empty() { format!("pid:{pid}") } else { command.to_owned() };
        let host_name = Arc::clone(&self.host_name);
        Resource { service_name, pid, executable_name: command.to_owned(), host_name, ..Resource::default() }
    }
}

/// Name by the first rule that fits a process.
pub(super) fn configured(proc: &Procfs, services: &[ServiceRule], pid: u32, exe: Option<&Path>) -> Option<String> {
    // Listening ports are only looked for when a rule asks for them.
    let mut listening = None;
    let rule = services.iter().find(|rule| match &rule.matches {
        ServiceMatch::Exe(glob) => exe.is_some_and(|path| glob.matches(path)),
        ServiceMatch::Port(port) => listening.get_or_insert_with(|| ports::listening(proc, pid)).contains(port),
    });
    rule.map(|rule| rule.name.clone())
}

/// The link that a process was started by, if that is another name of its executable in the same directory: Debian's
/// `redis-server` is a link to `redis-check-rdb`, and every program of busybox is one to busybox.
pub(super) fn linked(proc: &Procfs, pid: u32, exe: &Path) -> Option<String> {
    // The kernel calls a process by what was to be executed, cut to 15 bytes.
    let (command, _) = proc.stat(pid)?;
    let is_name = !command.is_empty() && !command.contains('/');
    // What an interpreter is called says nothing.
    if !is_name || exe.file_name()?.as_bytes().starts_with(command.as_bytes()) || service::is_interpreter(&command) {
        return None;
    }
    let beside = proc.path(pid, "root").join(exe.strip_prefix("/").unwrap_or(exe)).with_file_name(&command);
    let file = |path: &Path| std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    (file(&beside)? == file(&proc.path(pid, "exe"))?).then_some(command)
}

impl Resources for Names {
    fn resource(&mut self, pid: u32) -> Arc<Resource> {
        if let Some(resource) = self.cached(pid) {
            return resource;
        }
        match self.identify(pid) {
            Some((resource, start_ticks)) => self.remember(pid, resource, Some(start_ticks)),
            None => {
                let resource = self.remember(pid, self.gone(pid, ""), None);
                self.mark_exited(pid, self.now_ns);
                resource
            }
        }
    }
}

#[cfg(test)]
mod tests;
