//! Cgroup ids, as kernel programs count by them, to the workloads that they belong to.
//!
//! `resolve` finds the group in the version 2 tree (walked when an id is new, at most ten times a second), reads who lives
//! there from its path, and asks the container's engine's files for names. Groups that a container or a unit makes inside of
//! its own belong to it. Bound: `capacity` groups; further ones are the overflow workload. A group that is gone keeps its
//! workload for `expire_after`. Time is what [`Workloads::advance`] was told last. On a host with version 1 alone the kernel
//! counts nothing by group, and every id is unknown.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::cgroup::Hierarchy;
use super::names::{ServiceRule, configured, linked};
use super::place::Place;
use super::procfs::Procfs;
use super::tree::Tree;
use super::{container, service};
use crate::model::display::{self, MAX_NAME};
use crate::model::workload::{Workload, WorkloadId};
use crate::section::Interval;

/// Shortest time between two walks, ns.
const WALK_PAUSE_NS: u64 = 100_000_000;
/// How often a known group is looked for, ns, and how many are at once.
const CHECK_NS: u64 = 30_000_000_000;
const CHECKS_AT_ONCE: usize = 256;
/// Processes of a group whose executables are compared.
const MAX_PROCESSES: usize = 64;
/// Digits of a container's id that stand for its name where nobody knows one.
const SHORT_ID: usize = 12;

crate::section! {
    /// Workloads: containers, systemd units and other cgroups, as metrics tell them apart.
    pub struct Config {
        /// Cgroups known at once, 1 to 65536. What is above is one workload with `otel_metric_overflow="true"`. About 500 bytes each.
        pub capacity: usize = 4096,
        /// How long a workload stays on the metrics page after its cgroup is gone.
        pub expire_after: Interval = Interval::secs(300),
        /// Whether the command lines of processes out of scope may be looked at, for the name of the script where neither a
        /// container nor a unit names them. Without, `python3 app.py` is `python3` until it is in scope.
        pub command_lines: bool = false,
    }
}

/// A cgroup in the table.
#[derive(Debug)]
struct Known {
    workload: WorkloadId,
    path: Box<str>,
    checked_ns: u64,
    gone_ns: Option<u64>,
}

/// A workload in the table.
#[derive(Debug)]
struct Entry {
    workload: Arc<Workload>,
    /// Cgroups that belong to it, those below its own too.
    groups: usize,
}

/// What befell lookups, in totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Groups that were gone before they were looked for.
    pub unknown: u64,
    /// Lookups of new groups that came too soon after a walk: unknown until the next.
    pub early: u64,
    /// Lookups that found the table full.
    pub overflowed: u64,
    /// Gone groups that had to make room before their time.
    pub evicted: u64,
    /// Groups that went and whose time was over.
    pub expired: u64,
    /// Walks that did not see the whole tree.
    pub truncated: u64,
}

/// The table. See the module's documentation.
#[derive(Debug)]
pub struct Workloads {
    config: Config,
    services: Vec<ServiceRule>,
    proc: Procfs,
    tree: Option<Tree>,
    known: HashMap<u64, Known>,
    entries: HashMap<WorkloadId, Entry>,
    by_root: HashMap<Box<str>, WorkloadId>,
    /// `(time, id)` of each group's last check.
    checks: BTreeSet<(u64, u64)>,
    /// `(time, id)` of those that are gone.
    gone: BTreeSet<(u64, u64)>,
    /// Ids that a walk after their first sight did not find: they will not be found.
    lost: HashSet<u64>,
    /// Ids that left the table and were not told yet.
    expired: Vec<u64>,
    overflow: Arc<Workload>,
    unknown: Arc<Workload>,
    next_id: u32,
    now_ns: u64,
    walked_ns: Option<u64>,
    counts: Counts,
}

impl Workloads {
    pub fn new(config: Config, services: Vec<ServiceRule>, proc_root: impl Into<PathBuf>) -> Self {
        let proc_root = proc_root.into();
        let tree = match Hierarchy::mounted(&proc_root) {
            Ok(hierarchy) => Some(Tree::new(hierarchy.mount().to_owned())),
            Err(error) => {
                log::warn!("workloads cannot be told apart: {error}");
                None
            }
        };
        let named = |name: &str| Arc::new(Workload { service_name: name.to_owned(), ..Workload::default() });
        Self {
            config,
            services,
            proc: Procfs::new(proc_root),
            tree,
            known: HashMap::new(),
            entries: HashMap::new(),
            by_root: HashMap::new(),
            checks: BTreeSet::new(),
            gone: BTreeSet::new(),
            lost: HashSet::new(),
            expired: Vec::new(),
            overflow: named("overflow"),
            unknown: named("unknown"),
            next_id: WorkloadId::UNKNOWN.0 + 1,
            now_ns: 0,
            walked_ns: None,
            counts: Counts::default(),
        }
    }

    /// Cgroups in the table.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    pub fn capacity(&self) -> usize {
        self.config.capacity
    }

    pub fn counts(&self) -> Counts {
        Counts { truncated: self.tree.as_ref().map_or(0, Tree::truncated), ..self.counts }
    }

    /// Whether there is a version 2 tree to find groups in.
    pub fn is_supported(&self) -> bool {
        self.tree.is_some()
    }

    /// The workload that a group belongs to. Costs a hash lookup when it is known; else up to a walk of the tree.
    pub fn resolve(&mut self, cgroup_id: u64) -> WorkloadId {
        if let Some(known) = self.known.get(&cgroup_id) {
            return known.workload;
        }
        let Some(path) = self.path(cgroup_id) else { return WorkloadId::UNKNOWN };
        if self.known.len() >= self.config.capacity.max(1) && !self.evict() {
            self.counts.overflowed += 1;
            return WorkloadId::OVERFLOW;
        }
        self.admit(cgroup_id, path)
    }

    /// The workload itself. One that has left the table is unknown.
    pub fn get(&self, id: WorkloadId) -> Arc<Workload> {
        match self.entries.get(&id) {
            Some(entry) => Arc::clone(&entry.workload),
            None if id == WorkloadId::OVERFLOW => Arc::clone(&self.overflow),
            None => Arc::clone(&self.unknown),
        }
    }

    /// Was the group gone before it was looked for? Then it will never be known, and what is counted by it can be let go.
    pub fn is_lost(&self, cgroup_id: u64) -> bool {
        self.lost.contains(&cgroup_id)
    }

    /// Takes in a group that a kernel program told of when it was made; `path` begins at the hierarchy's root.
    pub fn learn(&mut self, cgroup_id: u64, path: &str) {
        if let Some(tree) = &mut self.tree {
            self.lost.remove(&cgroup_id);
            tree.learn(cgroup_id, path);
        }
    }

    /// Moves time on (`CLOCK_MONOTONIC`, ns) and lets groups go that have been gone for long. A few stats each time.
    pub fn advance(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
        self.check();
        while let Some((gone_ns, id)) = self.gone.first().copied() {
            if self.now_ns.saturating_sub(gone_ns) < self.config.expire_after.as_ns() {
                break;
            }
            self.counts.expired += 1;
            self.forget(id);
        }
    }

    /// Looks whether the groups that were not looked at for longest are still there.
    fn check(&mut self) {
        let Some(tree) = &self.tree else { return };
        let pause_ns = CHECK_NS.min(self.config.expire_after.as_ns());
        let due: Vec<(u64, u64)> = self
            .checks
            .iter()
            .take(CHECKS_AT_ONCE)
            .take_while(|(checked_ns, _)| self.now_ns.saturating_sub(*checked_ns) >= pause_ns)
            .copied()
            .collect();
        for (checked_ns, id) in due {
            let Some(known) = self.known.get_mut(&id) else { continue };
            known.checked_ns = self.now_ns;
            self.checks.remove(&(checked_ns, id));
            self.checks.insert((self.now_ns, id));
            if known.gone_ns.is_none() && !tree.holds(&known.path, id) {
                known.gone_ns = Some(self.now_ns);
                self.gone.insert((self.now_ns, id));
            }
        }
    }

    /// Ids of groups that have left the table since the last call: what is counted by them can be let go.
    pub fn drain_expired(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.expired)
    }

    /// The workload at a path of any hierarchy; `directory` is the group's there. Nothing is remembered.
    pub fn at_path(&self, path: &str, directory: &Path) -> Arc<Workload> {
        let place = Place::of(path);
        let root = place.root(path);
        match self.by_root.get(root) {
            Some(id) => self.get(*id),
            None => Arc::new(self.describe(&place, root, directory)),
        }
    }

    /// Ids of all groups that there are now. Walks the tree.
    pub fn groups(&mut self) -> Vec<u64> {
        self.walk();
        self.tree.as_ref().map_or_else(Vec::new, |tree| tree.ids().collect())
    }

    fn path(&mut self, cgroup_id: u64) -> Option<Box<str>> {
        let tree = self.tree.as_ref()?;
        if let Some(path) = tree.get(cgroup_id) {
            return Some(path.into());
        }
        if self.lost.contains(&cgroup_id) {
            return None;
        }
        if !self.walk() {
            self.counts.early += 1;
            return None;
        }
        if let Some(path) = self.tree.as_ref()?.get(cgroup_id) {
            return Some(path.into());
        }
        if self.lost.len() >= self.config.capacity.max(1) {
            self.lost.clear();
        }
        self.lost.insert(cgroup_id);
        self.counts.unknown += 1;
        None
    }

    /// Walks the tree unless that was done a moment ago; says whether.
    fn walk(&mut self) -> bool {
        let Some(tree) = &mut self.tree else { return false };
        let early = self.walked_ns.is_some_and(|walked_ns| self.now_ns.saturating_sub(walked_ns) < WALK_PAUSE_NS);
        if !early {
            self.walked_ns = Some(self.now_ns);
            // Where the whole tree was seen, what is not in it is gone.
            if tree.walk() {
                let now_ns = self.now_ns;
                for (id, known) in &mut self.known {
                    if known.gone_ns.is_none() && tree.get(*id).is_none() {
                        known.gone_ns = Some(now_ns);
                        self.gone.insert((now_ns, *id));
                    }
                }
            }
        }
        !early
    }

    fn admit(&mut self, cgroup_id: u64, path: Box<str>) -> WorkloadId {
        let place = Place::of(&path);
        let root = place.root(&path);
        let id = match self.by_root.get(root) {
            Some(id) => *id,
            None => {
                let directory = self.tree.as_ref().map(|tree| tree.directory(root)).unwrap_or_default();
                let workload = Arc::new(self.describe(&place, root, &directory));
                let id = WorkloadId(self.next_id);
                self.next_id = self.next_id.checked_add(1).unwrap_or(WorkloadId::UNKNOWN.0 + 1);
                self.by_root.insert(root.into(), id);
                self.entries.insert(id, Entry { workload, groups: 0 });
                id
            }
        };
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.groups += 1;
        }
        self.checks.insert((self.now_ns, cgroup_id));
        self.known.insert(cgroup_id, Known { workload: id, path, checked_ns: self.now_ns, gone_ns: None });
        id
    }

    fn describe(&self, place: &Place, root: &str, directory: &Path) -> Workload {
        let engine = place.container_id.as_deref().map(|id| container::describe(&self.proc.host_root(), id));
        let container::Description { name, pod_name, pod_namespace } = engine.unwrap_or_default();
        let pids = processes(directory);
        let service_name = pids
            .iter()
            .find_map(|pid| configured(&self.proc, &self.services, *pid, self.proc.exe(*pid).as_deref()))
            .or(name)
            .or_else(|| place.own_name().map(str::to_owned))
            .or_else(|| place.service().filter(|_| place.container_id.is_none()).map(str::to_owned))
            .or_else(|| self.shared_name(&pids).filter(|_| root != "/"))
            .or_else(|| place.container_id.as_deref().map(|id| id.get(..SHORT_ID).unwrap_or(id).to_owned()))
            .unwrap_or_else(|| own_name(root));
        let shown = |text: String| display::escaped(text.as_bytes(), MAX_NAME);
        Workload {
            service_name: shown(service_name),
            container_id: place.container_id.clone(),
            runtime: place.runtime,
            pod_uid: place.pod_uid.clone(),
            pod_name: pod_name.map(shown),
            pod_namespace: pod_namespace.map(shown),
            unit: place.unit.clone(),
            slice: place.slice.clone(),
            cgroup: root.to_owned(),
        }
    }

    /// What all processes of a group are called alike. No command line is read unless that is allowed.
    fn shared_name(&self, pids: &[u32]) -> Option<String> {
        let mut shared: Option<String> = None;
        for pid in pids {
            let exe = self.proc.exe(*pid)?;
            let name = match linked(&self.proc, *pid, &exe) {
                Some(name) => name,
                None => exe.file_name()?.to_string_lossy().into_owned(),
            };
            let name = match (service::is_interpreter(&name), self.config.command_lines) {
                (true, true) => service::name(&name, &self.proc.arguments(*pid)),
                _ => name,
            };
            if *shared.get_or_insert_with(|| name.clone()) != name {
                return None;
            }
        }
        shared
    }

    /// Makes room: the group that has been gone for longest.
    fn evict(&mut self) -> bool {
        let Some((_, id)) = self.gone.first().copied() else { return false };
        self.counts.evicted += 1;
        self.forget(id);
        true
    }

    fn forget(&mut self, cgroup_id: u64) {
        let Some(known) = self.known.remove(&cgroup_id) else { return };
        self.checks.remove(&(known.checked_ns, cgroup_id));
        if let Some(gone_ns) = known.gone_ns {
            self.gone.remove(&(gone_ns, cgroup_id));
        }
        if self.expired.len() < self.config.capacity {
            self.expired.push(cgroup_id);
        }
        let Some(entry) = self.entries.get_mut(&known.workload) else { return };
        entry.groups -= 1;
        if entry.groups == 0 {
            self.by_root.remove(entry.workload.cgroup.as_str());
            self.entries.remove(&known.workload);
        }
    }
}

/// Processes in the group itself, the first few.
fn processes(directory: &Path) -> Vec<u32> {
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    text.lines().take(MAX_PROCESSES).filter_map(|line| line.parse().ok()).collect()
}

/// Name of a group that neither a container, a unit nor its processes name: the last part of its path.
fn own_name(root: &str) -> String {
    let last = Path::new(root).file_name().map(|name| name.to_string_lossy().into_owned());
    match last {
        Some(name) => name.strip_suffix(".scope").map_or_else(|| name.clone(), str::to_owned),
        None => "host".to_owned(),
    }
}

#[cfg(test)]
mod tests;
