//! Probe families switched on and off while the agent runs: from the API, a command or a signal to the programs' links.
//!
//! Off means that no program of the family is attached and that its metrics are absent; its counters go on from where they
//! were once it is on again. A name that is not known changes nothing. Everything was loaded at the start, so no capability
//! is needed that the agent has given up. A switch takes a few milliseconds, during which nothing else waits but another
//! switch.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use super::families::Families;
use super::kernel_files::FileSource;
use super::scope_control::{Change, Refusal, ScopeControl};
use super::tasks::TaskSwitch;
use crate::api::Refused;
use crate::bpf::loader::Programs;
use crate::bpf::plan;
use crate::config::scope::Scope;
use crate::config::{Probes, Wakeups};
use crate::health::{Health, ProbeState, ProbeStatus};
use crate::probes::{FAMILIES, adopt, payload, task, wakeup};

/// Why the agent is not ready when nothing is attached any more.
const BLIND: &str = "every probe family is off";

/// Why nobody is watched waking others.
pub const NOBODY_WAKES: &str = "no process in scope runs Java";

/// The way to the programs' links and to the accounts that are read of files.
pub struct ProbeControl {
    /// Gone once the agent stops.
    programs: Mutex<Option<(Programs, TaskSwitch)>>,
    families: Arc<Families>,
    files: Arc<FileSource>,
    pipeline: Arc<ScopeControl>,
    health: Arc<Health>,
    wakeups: Mutex<Wakeups>,
}

impl ProbeControl {
    pub fn new(
        programs: (Programs, TaskSwitch),
        families: Arc<Families>,
        files: Arc<FileSource>,
        pipeline: Arc<ScopeControl>,
        health: Arc<Health>,
        wakeups: Wakeups,
    ) -> Self {
        let (programs, wakeups) = (Mutex::new(Some(programs)), Mutex::new(wakeups));
        Self { programs, families, files, pipeline, health, wakeups }
    }

    /// The programs, to be detached for good; nothing can be switched afterwards.
    pub fn end(&self) -> Option<Programs> {
        let (programs, tasks) = self.programs.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        tasks.end();
        Some(programs)
    }

    /// Detaches a program for a while; false once the agent stops.
    pub fn pause(&self, program: &str) -> bool {
        let mut held = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        held.as_mut().map(|(programs, _)| programs.pause(program)).is_some()
    }

    /// Attaches it again if its family is on; false once the agent stops, or where the kernel does not take it any more.
    pub fn resume(&self, program: &str) -> bool {
        let mut held = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        match held.as_mut().map(|(programs, _)| programs.resume(program)) {
            Some(Ok(())) => true,
            Some(Err(reason)) => {
                log::error!("{program}: {reason}");
                false
            }
            None => false,
        }
    }

    /// Replaces the scope; the number of connections taken up. What only looks at connections in scope is attached before
    /// there are some, and is not while there are none.
    pub fn change_scope(&self, scope: Scope) -> Result<usize, Refusal> {
        if !scope.include.is_empty() {
            self.resume(payload::LOCKED_SENDS);
        }
        let adopted = self.pipeline.change(scope);
        self.rest();
        adopted
    }

    /// Detaches what has nothing to look at, if nothing is in scope.
    pub fn rest(&self) {
        if self.pipeline.current().include.is_empty() {
            self.pause(payload::LOCKED_SENDS);
        }
    }

    /// Hands on what the programs have to say; with `stats`, brings their runs up to date.
    pub fn look_after(&self, stats: bool) {
        if let Some((programs, _)) = self.programs.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            programs.flush_log();
            if stats {
                self.health.set_probes(programs.statuses_with_runs());
            }
        }
    }

    /// Returns when wake-ups are to be tended.
    pub async fn wakeups_changed(&self) {
        let changed = {
            let held = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
            held.as_ref().map(|(_, tasks)| tasks.java_changed())
        };
        match changed {
            Some(changed) => changed.await,
            None => std::future::pending().await,
        }
    }

    /// Watches who wakes whom while a process in scope needs it, where nobody said that it is to be on or off.
    pub fn tend_wakeups(&self) {
        if *self.wakeups.lock().unwrap_or_else(PoisonError::into_inner) != Wakeups::Auto {
            return;
        }
        let held = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(wanted) = held.as_ref().map(|(_, tasks)| tasks.sees_java()) else { return };
        drop(held);
        if wanted != self.families.is_on(wakeup::FAMILY.name)
            && let Err(refused) = self.switch(wakeup::FAMILY.name, wanted, NOBODY_WAKES)
        {
            // As at every try.
            *self.wakeups.lock().unwrap_or_else(PoisonError::into_inner) = Wakeups::Off;
            log::warn!("{}", refused.reason());
        }
    }

    /// Who is to be watched from now on.
    fn want_wakeups(&self, wanted: Wakeups) {
        *self.wakeups.lock().unwrap_or_else(PoisonError::into_inner) = wanted;
        if let Some((_, tasks)) = self.programs.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            tasks.wakes_of_all(wanted == Wakeups::On);
        }
    }

    /// Switches the family `name`; what it is now. `why` is shown where it is off.
    pub fn set(&self, name: &str, on: bool, why: &str) -> Result<Value, Refused> {
        if name == wakeup::FAMILY.name {
            self.want_wakeups(if on { Wakeups::On } else { Wakeups::Off });
        }
        self.switch(name, on, why)
    }

    fn switch(&self, name: &str, on: bool, why: &str) -> Result<Value, Refused> {
        if FileSource::NAMES.contains(&name) {
            self.health.set_files(self.files.want(name, on, why));
            log::info!("{name} is {}", if on { "on" } else { "off" });
            return Ok(self.shown(name, on));
        }
        let Some(family) = FAMILIES.iter().find(|family| family.name == name) else {
            let known: Vec<_> = FAMILIES.iter().map(|family| family.name).chain(FileSource::NAMES).collect();
            return Err(Refused::Unknown(format!("there is no probe family '{name}'; there are {}", known.join(", "))));
        };
        let mut held = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        let (programs, tasks) = held.as_mut().ok_or_else(|| Refused::Failed("the agent is stopping".to_owned()))?;
        if self.families.is_on(name) == on {
            drop(held);
            return Ok(self.shown(name, on));
        }
        if on {
            programs.attach(family).map_err(|error| Refused::Failed(format!("{name}: {error:#}")))?;
        } else {
            self.families.set(name, false);
            programs.detach(family, why);
        }
        let statuses = programs.statuses();
        let (state, reasons) = plan::family_state(family, &statuses);
        let attached = matches!(state, ProbeState::Active | ProbeState::Degraded);
        if on && !attached {
            programs.detach(family, &format!("could not be switched on: {}", reasons.join("; ")));
        }
        self.families.set(name, attached);
        if name == task::FAMILY.name {
            tasks.set(attached);
        }
        self.health.set_probes(programs.statuses());
        self.tell_readiness();
        drop(held);
        if on && !attached {
            return Err(Refused::Failed(format!("{name} is {}: {}", state.name(), reasons.join("; "))));
        }
        log::info!("probe family {name} is {}", if on { "on" } else { "off" });
        self.rest();
        self.tell_pipeline(name, on)?;
        Ok(self.shown(name, on))
    }

    /// Brings every family to what a configuration says; how many could not be.
    pub fn apply(&self, probes: &Probes) -> usize {
        let wanted = super::families_of(probes).into_iter().chain(super::files_of(probes));
        if probes.wakeup == Wakeups::Auto {
            self.want_wakeups(Wakeups::Auto);
        }
        let failed = wanted
            .filter(|(name, _)| *name != wakeup::FAMILY.name || probes.wakeup != Wakeups::Auto)
            .filter(|(name, on)| match self.set(name, *on, crate::bpf::loader::OFF) {
                Ok(_) => false,
                Err(refused) => {
                    log::error!("{}", refused.reason());
                    true
                }
            })
            .count();
        self.tend_wakeups();
        failed
    }

    /// Connections are read on from where they were only while nothing of them was missed.
    fn tell_pipeline(&self, name: &str, on: bool) -> Result<(), Refused> {
        let change = match (name, on) {
            (name, false) if name == payload::FAMILY.name => Change::Forget,
            (name, true) if name == payload::FAMILY.name || name == adopt::FAMILY.name => Change::TakeUp,
            _ => return Ok(()),
        };
        match self.pipeline.ask(change) {
            Ok(_) => Ok(()),
            Err(Refusal::Wrong(message) | Refusal::Failed(message)) => {
                Err(Refused::Failed(format!("{name} is {}, but: {message}", if on { "on" } else { "off" })))
            }
        }
    }

    fn tell_readiness(&self) {
        if self.families.list().is_empty() {
            self.health.set_ready(Err(BLIND.to_owned()));
        } else if self.health.ready() == Err(BLIND.to_owned()) {
            self.health.set_ready(Ok(()));
        }
    }

    fn shown(&self, name: &str, on: bool) -> Value {
        let programs: Vec<ProbeStatus> =
            self.health.probes().into_iter().filter(|status| status.probe == name).collect();
        json!({ "family": name, "enabled": on, "programs": programs })
    }
}
