//! The scope as configured → the kernel's maps, and kept true while processes come and go.
//!
//! Cgroups and namespaces are looked up once, at start; executables are matched against every process that is there and
//! every one that starts. Too many entries of a kind, or a path that is not there, is an error before anything starts.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use seismo_common::config::{SCOPE_ENTRIES, Scope as KernelScope, ScopeRules};

use crate::bpf::scope::ScopeMaps;
use crate::config::scope::{Scope, ScopeItem};
use crate::host::cgroup::Hierarchy;
use crate::host::glob::Glob;
use crate::host::netns;
use crate::host::procfs::Procfs;
use crate::model::process::{ProcessEvent, ProcessEventKind};

/// Everything that can be known of a scope before programs are loaded.
#[derive(Debug)]
pub struct Resolved {
    rules: KernelScope,
    pids: Vec<(u32, bool)>,
    globs: Vec<(Glob, bool)>,
}

/// Looks up what the items name.
pub fn resolve(scope: &Scope, proc: &Procfs) -> Result<Resolved> {
    let mut resolved = Resolved { rules: KernelScope::EMPTY, pids: Vec::new(), globs: Vec::new() };
    for (items, include) in [(&scope.include, true), (&scope.exclude, false)] {
        for item in items {
            resolved.add(item, include, proc).with_context(|| format!("scope {item}"))?;
        }
    }
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
                let cgroup = Hierarchy::find(Path::new("/proc"))
                    .and_then(|hierarchy| hierarchy.locate(path))
                    .map_err(|error| anyhow!(error))?;
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
    globs: Vec<(Glob, bool)>,
    /// Processes that are in or out by their executable.
    by_executable: HashSet<u32>,
    /// Processes that are in or out by their id.
    by_pid: HashSet<u32>,
    proc: Procfs,
    /// Processes whose place in the table could not be had.
    failed: u64,
}

impl ScopeKeeper {
    /// Writes the scope; processes that are there already are matched now.
    pub fn apply(resolved: Resolved, mut maps: ScopeMaps, proc: Procfs) -> Result<Self> {
        maps.set(resolved.rules)?;
        let mut keeper = Self {
            maps,
            globs: resolved.globs,
            by_executable: HashSet::new(),
            by_pid: HashSet::new(),
            proc,
            failed: 0,
        };
        for (pid, include) in resolved.pids {
            keeper.maps.set_process(pid, include)?;
            keeper.by_pid.insert(pid);
        }
        if !keeper.globs.is_empty() {
            for pid in keeper.proc.pids() {
                keeper.match_executable(pid);
            }
        }
        Ok(keeper)
    }

    /// A process began, became another program, or ended.
    pub fn process_event(&mut self, event: &ProcessEvent) {
        match event.kind {
            ProcessEventKind::Fork { parent_pid } if self.by_executable.contains(&parent_pid) => {
                self.match_executable(event.pid);
            }
            ProcessEventKind::Fork { .. } => {}
            ProcessEventKind::Exec if !self.globs.is_empty() && !self.by_pid.contains(&event.pid) => {
                self.match_executable(event.pid);
            }
            ProcessEventKind::Exec => {}
            ProcessEventKind::Exit { .. } => {
                let known = self.by_executable.remove(&event.pid) | self.by_pid.remove(&event.pid);
                if known {
                    self.maps.forget_process(event.pid);
                }
            }
        }
    }

    /// Processes that should be in the table and are not, because it was full.
    pub fn failed(&self) -> u64 {
        self.failed
    }

    fn match_executable(&mut self, pid: u32) {
        let verdict = self.proc.exe(pid).and_then(|exe| {
            // Exclude wins over include.
            let hits: Vec<bool> =
                self.globs.iter().filter(|(glob, _)| glob.matches(&exe)).map(|(_, include)| *include).collect();
            (!hits.is_empty()).then(|| hits.iter().all(|include| *include))
        });
        match verdict {
            Some(include) => match self.maps.set_process(pid, include) {
                Ok(()) => {
                    self.by_executable.insert(pid);
                }
                Err(_) => self.failed += 1,
            },
            None => {
                if self.by_executable.remove(&pid) {
                    self.maps.forget_process(pid);
                }
            }
        }
    }
}
