//! The scope as configured → the kernel's maps, and kept true while processes come and go.
//!
//! Cgroups and namespaces are looked up once, when the scope is set; executables are matched against every process that
//! is there and every one that starts. Too many entries of a kind, or a path that is not there, is an error before
//! anything is changed. May be changed while the agent runs.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use seismo_common::config::{SCOPE_ENTRIES, SCOPE_PROCESSES, Scope as KernelScope, ScopeRules};

use crate::bpf::scope::ScopeMaps;
use crate::config::scope::{Scope, ScopeItem};
use crate::host::cgroup::{self, Hierarchy};
use crate::host::glob::Glob;
use crate::host::netns;
use crate::host::procfs::Procfs;
use crate::model::process::{ProcessEvent, ProcessEventKind};

/// Everything that can be known of a scope before programs are loaded.
#[derive(Debug)]
pub struct Resolved {
    scope: Scope,
    rules: KernelScope,
    pids: Vec<(u32, bool)>,
    globs: Vec<(Glob, bool)>,
    /// Directories of the cgroups.
    groups: Vec<(PathBuf, bool)>,
}

/// Looks up what the items name.
pub fn resolve(scope: &Scope, proc: &Procfs) -> Result<Resolved> {
    let mut resolved = Resolved {
        scope: scope.clone(),
        rules: KernelScope::EMPTY,
        pids: Vec::new(),
        globs: Vec::new(),
        groups: Vec::new(),
    };
    for (items, include) in [(&scope.include, true), (&scope.exclude, false)] {
        for item in items {
            resolved.add(item, include, proc).with_context(|| format!("scope {item}"))?;
        }
    }
    resolved.rules.anything = u32::from(!scope.include.is_empty());
    resolved.rules.processes = u32::from(!resolved.pids.is_empty() || !resolved.globs.is_empty());
    Ok(resolved)
}

impl Resolved {
    fn add(&mut self, item: &ScopeItem, include: bool, proc: &Procfs) -> Result<()> {
        let rules = if include { &mut self.rules.include } else { &mut self.rules.exclude };
        match item {
            ScopeItem::All => rules.all = 1,
            ScopeItem::Pid(pid) => {
                if !proc.path(*pid, "").exists() {
                    bail!("there is no such process");
                }
                self.pids.push((*pid, include));
            }
            ScopeItem::Exe(glob) => self.globs.push((Glob::new(glob.clone()), include)),
            ScopeItem::Cgroup(path) => {
                let hierarchy = Hierarchy::find(Path::new("/proc")).map_err(|error| anyhow!(error))?;
                let cgroup = hierarchy.locate(path).map_err(|error| anyhow!(error))?;
                self.groups.push((hierarchy.directory(path), include));
                let index = next(&mut rules.cgroups)?;
                rules.cgroup_ids[index] = cgroup.id;
                rules.cgroup_levels[index] = cgroup.level;
            }
            ScopeItem::Port(port) => rules.port_values[next(&mut rules.ports)?] = u32::from(*port),
            ScopeItem::Netns(path) => {
                let inode = netns::inode(path).map_err(|error| anyhow!(error))?;
                rules.netns_inodes[next(&mut rules.netns)?] = inode;
            }
        }
        Ok(())
    }

    /// Is nothing in scope, so that no payload will be read?
    pub fn is_empty(&self) -> bool {
        self.rules.include == ScopeRules::EMPTY
            && !self.pids.iter().any(|(_, include)| *include)
            && !self.globs.iter().any(|(_, include)| *include)
    }
}

/// Takes the next free entry of a kind.
fn next(used: &mut u32) -> Result<usize> {
    let index = *used as usize;
    if index >= SCOPE_ENTRIES {
        bail!("more than {SCOPE_ENTRIES} entries of this kind");
    }
    *used += 1;
    Ok(index)
}

/// Keeps the kernel's maps true.
pub struct ScopeKeeper {
    maps: ScopeMaps,
    /// As it was written.
    scope: Scope,
    /// Processes named by their id.
    pids: HashMap<u32, bool>,
    globs: Vec<(Glob, bool)>,
    groups: Vec<(PathBuf, bool)>,
    is_empty: bool,
    /// Processes in the kernel's table: in or out by their id or their executable.
    told: HashMap<u32, bool>,
    proc: Procfs,
    /// Processes whose place in the table could not be had.
    failed: u64,
}

impl ScopeKeeper {
    /// Processes that are told to the kernel at once.
    pub const CAPACITY: usize = SCOPE_PROCESSES;

    /// Writes the scope; processes that are there already are matched now.
    pub fn apply(resolved: Resolved, maps: ScopeMaps, proc: Procfs) -> Result<Self> {
        let mut keeper = Self {
            maps,
            scope: Scope::default(),
            pids: HashMap::new(),
            globs: Vec::new(),
            groups: Vec::new(),
            is_empty: true,
            told: HashMap::new(),
            proc,
            failed: 0,
        };
        keeper.change(resolved)?;
        Ok(keeper)
    }

    /// Replaces the scope. What is in the old and in the new one stays in meanwhile (but for a process that was named
    /// and now is in by a rule, or the other way round: a few microseconds); what is in neither is at no time.
    pub fn change(&mut self, resolved: Resolved) -> Result<()> {
        self.is_empty = resolved.is_empty();
        let Resolved { scope, rules, pids, globs, groups } = resolved;
        (self.scope, self.globs, self.groups) = (scope, globs, groups);
        self.pids = HashMap::new();
        for (pid, include) in pids {
            let stays = self.pids.entry(pid).or_insert(include);
            *stays &= include;
        }
        let mut wanted = self.pids.clone();
        if !self.globs.is_empty() {
            for pid in self.proc.pids() {
                wanted.extend(self.verdict(pid).map(|include| (pid, include)));
            }
        }
        // Each step leaves at most the old scope, and from the rules on at most the new one.
        let gone = |told: &HashMap<u32, bool>, included: bool| -> Vec<u32> {
            let of = told.iter().filter(|(pid, was)| **was == included && wanted.get(*pid) != Some(&included));
            of.map(|(pid, _)| *pid).collect()
        };
        for pid in gone(&self.told, true) {
            self.forget(pid);
        }
        self.tell(&wanted, false);
        self.maps.set(rules)?;
        self.tell(&wanted, true);
        for pid in gone(&self.told, false) {
            self.forget(pid);
        }
        Ok(())
    }

    fn tell(&mut self, wanted: &HashMap<u32, bool>, included: bool) {
        for (pid, include) in wanted.iter().filter(|(_, include)| **include == included) {
            self.set(*pid, *include);
        }
    }

    /// A process began, became another program, or ended.
    pub fn process_event(&mut self, event: &ProcessEvent) {
        match event.kind {
            ProcessEventKind::Fork { parent_pid } if !self.globs.is_empty() && self.told.contains_key(&parent_pid) => {
                self.match_process(event.pid);
            }
            ProcessEventKind::Fork { .. } => {}
            ProcessEventKind::Exec if !self.globs.is_empty() => self.match_process(event.pid),
            ProcessEventKind::Exec => {}
            ProcessEventKind::Exit { .. } => {
                self.pids.remove(&event.pid);
                self.forget(event.pid);
            }
        }
    }

    /// Forgets processes whose end was not told (its record was lost, or they were gone before they were looked at).
    /// Costs a look at procfs for each process in the table; call it rarely.
    pub fn sweep(&mut self) {
        let gone: Vec<u32> = self.told.keys().copied().filter(|pid| !self.proc.path(*pid, "").exists()).collect();
        for pid in gone {
            self.pids.remove(&pid);
            self.forget(pid);
        }
    }

    /// Processes that are in or out of scope by their cgroup now; out wins.
    pub fn members(&self) -> Vec<(u32, bool)> {
        let mut members = HashMap::new();
        for (directory, include) in &self.groups {
            for pid in cgroup::members(directory) {
                *members.entry(pid).or_insert(*include) &= *include;
            }
        }
        members.into_iter().collect()
    }

    /// Is nothing in scope?
    pub fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// The scope as it was written.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Processes in the kernel's table: nobody else writes to it.
    pub fn processes(&self) -> usize {
        self.told.len()
    }

    /// Processes that should be in the table and are not, because it was full.
    pub fn failed(&self) -> u64 {
        self.failed
    }

    /// In or out by id or executable; exclude wins over include.
    fn verdict(&self, pid: u32) -> Option<bool> {
        let by_id = self.pids.get(&pid).copied();
        let exe = if self.globs.is_empty() { None } else { self.proc.exe(pid) };
        let by_executable = exe
            .iter()
            .flat_map(|exe| self.globs.iter().filter(|(glob, _)| glob.matches(exe)).map(|(_, include)| *include));
        by_id.into_iter().chain(by_executable).reduce(|all, one| all && one)
    }

    fn match_process(&mut self, pid: u32) {
        match self.verdict(pid) {
            Some(include) => self.set(pid, include),
            None => self.forget(pid),
        }
    }

    fn set(&mut self, pid: u32, include: bool) {
        if self.told.get(&pid) == Some(&include) {
            return;
        }
        let has_room = self.told.len() < Self::CAPACITY || self.told.contains_key(&pid);
        if has_room && self.maps.set_process(pid, include).is_ok() {
            self.told.insert(pid, include);
        } else {
            self.failed += 1;
        }
    }

    fn forget(&mut self, pid: u32) {
        if self.told.remove(&pid).is_some() {
            self.maps.forget_process(pid);
        }
    }
}
