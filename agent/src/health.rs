//! The agent's account of itself: records per stage, losses by reason, the state of each probe, readiness.
//!
//! Stage by stage, `in = out + dropped + pending`; the numbers here are what `/metrics`, `/readyz`,
//! `seismo probes` and the tests read. Kernel-side counts are merged in by whoever reads the maps.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

/// A stage that a record passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// A kernel program wanted to write a record.
    Observed,
    /// The drain thread read it from the ring.
    Collected,
    /// The pipeline took it through flows and parsers.
    Analyzed,
    /// A span was made and kept.
    Stored,
}

impl Stage {
    pub const ALL: [Self; 4] = [Self::Observed, Self::Collected, Self::Analyzed, Self::Stored];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Observed => "observed",
            Self::Collected => "collected",
            Self::Analyzed => "analyzed",
            Self::Stored => "stored",
        }
    }
}

/// Counts of one stage.
#[derive(Debug, Default)]
pub struct StageCounts {
    pub entered: AtomicU64,
    pub passed: AtomicU64,
}

/// What became of a probe family's program. Partial failure is a state, not an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProbeState {
    /// Switched off in the configuration.
    Disabled,
    Active,
    /// Works with less than it could.
    Degraded,
    /// The kernel lacks something it needs.
    Unsupported,
    /// Loading or attaching failed.
    Failed,
}

impl ProbeState {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Active => "active",
            Self::Degraded => "degraded",
            Self::Unsupported => "unsupported",
            Self::Failed => "failed",
        }
    }
}

/// One kernel program as `seismo probes` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeStatus {
    /// Family: the file it comes from.
    pub probe: String,
    /// Function in the kernel object.
    pub program: String,
    /// Kind and place of attachment (`tp_btf/sched_switch`).
    pub hook: String,
    pub state: ProbeState,
    /// Which of its family's ways of seeing is used, where it belongs to that one; else empty.
    #[serde(default)]
    pub tier: String,
    /// Why it is not active; empty when it is.
    pub reason: String,
    /// Instructions the verifier walked.
    pub verified_instructions: u32,
    /// Runs since it was attached, where the kernel keeps run statistics (`probes.stats`).
    pub runs: Option<u64>,
    /// Time in those runs, ns.
    pub run_ns: Option<u64>,
}

/// Shared by all stages; cheap to update, locked only where something rare is written.
#[derive(Debug, Default)]
pub struct Health {
    stages: [StageCounts; 4],
    drops: Mutex<BTreeMap<(Stage, &'static str), u64>>,
    probes: RwLock<Vec<ProbeStatus>>,
    /// What is read of files, told like the programs.
    files: RwLock<Vec<ProbeStatus>>,
    /// Why the agent is not ready; empty when it is.
    not_ready: RwLock<Option<String>>,
    /// Heap in use when it was last looked at, bytes; 0 before that.
    heap: AtomicU64,
}

impl Health {
    pub fn new() -> Self {
        let health = Self::default();
        health.set_ready(Err("starting".to_owned()));
        health
    }

    pub fn stage(&self, stage: Stage) -> &StageCounts {
        &self.stages[stage as usize]
    }

    /// So many bytes of the heap are in use.
    pub fn set_heap(&self, in_use: u64) {
        self.heap.store(in_use, Ordering::Relaxed);
    }

    /// Bytes of the heap that were in use when it was last looked at, where the allocator tells.
    pub fn heap(&self) -> Option<u64> {
        Some(self.heap.load(Ordering::Relaxed)).filter(|in_use| *in_use > 0)
    }

    /// `count` records entered the stage.
    pub fn enter(&self, stage: Stage, count: u64) {
        self.stage(stage).entered.fetch_add(count, Ordering::Relaxed);
    }

    /// `count` records left the stage whole.
    pub fn pass(&self, stage: Stage, count: u64) {
        self.stage(stage).passed.fetch_add(count, Ordering::Relaxed);
    }

    /// `count` records were lost in the stage.
    pub fn lose(&self, stage: Stage, reason: &'static str, count: u64) {
        if count > 0 {
            *self.drops.lock().unwrap_or_else(PoisonError::into_inner).entry((stage, reason)).or_default() += count;
        }
    }

    /// Replaces a stage's counts and losses by totals that the kernel programs keep.
    pub fn set(&self, stage: Stage, entered: u64, passed: u64, drops: impl IntoIterator<Item = (&'static str, u64)>) {
        self.stage(stage).entered.store(entered, Ordering::Relaxed);
        self.stage(stage).passed.store(passed, Ordering::Relaxed);
        let mut all = self.drops.lock().unwrap_or_else(PoisonError::into_inner);
        for (reason, count) in drops {
            all.insert((stage, reason), count);
        }
    }

    /// Losses so far, by stage and reason.
    pub fn drops(&self) -> BTreeMap<(Stage, &'static str), u64> {
        self.drops.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_probes(&self, probes: Vec<ProbeStatus>) {
        *self.probes.write().unwrap_or_else(PoisonError::into_inner) = probes;
    }

    /// States of the accounts that are read from files; they stand beside those of the programs.
    pub fn set_files(&self, files: Vec<ProbeStatus>) {
        *self.files.write().unwrap_or_else(PoisonError::into_inner) = files;
    }

    pub fn probes(&self) -> Vec<ProbeStatus> {
        let mut all = self.probes.read().unwrap_or_else(PoisonError::into_inner).clone();
        all.extend_from_slice(&self.files.read().unwrap_or_else(PoisonError::into_inner));
        all
    }

    pub fn set_ready(&self, ready: Result<(), String>) {
        *self.not_ready.write().unwrap_or_else(PoisonError::into_inner) = ready.err();
    }

    /// `Err` says why the agent sees nothing.
    pub fn ready(&self) -> Result<(), String> {
        match self.not_ready.read().unwrap_or_else(PoisonError::into_inner).clone() {
            Some(reason) => Err(reason),
            None => Ok(()),
        }
    }
}
