//! Changing the scope of a running agent: from the API or a signal to the pipeline, which owns it, and back.
//!
//! What is asked for is looked up before anything is touched: a mistake changes nothing and comes back as one line. The
//! pipeline makes the change between two batches and takes up the connections that are in scope now. The same way is for
//! what the pipeline must know of a family that was switched.

use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Mutex, PoisonError, Weak};
use std::time::Duration;

use super::scope::{Resolved, resolve};
use crate::bpf::decode::Batch;
use crate::config::scope::Scope;
use crate::host::procfs::Procfs;

/// Longest wait for the pipeline.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the pipeline is to do.
pub enum Change {
    /// Replace the scope and take up what is in it.
    Scope(Box<Resolved>),
    /// Take up the connections that are in scope and not known.
    TakeUp,
    /// Forget every connection: what comes next of it was not seen.
    Forget,
}

/// A change that the pipeline is to make.
pub struct Request {
    pub change: Change,
    /// Takes the number of connections taken up or forgotten, or why nothing was changed.
    pub answer: SyncSender<Result<usize, String>>,
}

/// Why a change was not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// What was asked for is wrong; nothing was changed.
    Wrong(String),
    /// The agent could not.
    Failed(String),
}

/// The way to the pipeline's scope.
pub struct ScopeControl {
    proc: Procfs,
    changes: Mutex<Sender<Request>>,
    /// To wake the pipeline with; gone when the agent stops.
    batches: Weak<SyncSender<Batch>>,
    current: Mutex<Scope>,
    /// The ring was made small because nothing was in scope.
    ring_is_small: bool,
}

impl ScopeControl {
    /// With the end that the pipeline listens on.
    pub fn new(
        current: Scope,
        batches: Weak<SyncSender<Batch>>,
        proc: Procfs,
        ring_is_small: bool,
    ) -> (Self, Receiver<Request>) {
        let (changes, receiver) = channel();
        let (changes, current) = (Mutex::new(changes), Mutex::new(current));
        (Self { proc, changes, batches, current, ring_is_small }, receiver)
    }

    /// The scope in force, as it was written.
    pub fn current(&self) -> Scope {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the scope and waits until it is in force; the number of connections taken up.
    pub fn change(&self, scope: Scope) -> Result<usize, Refusal> {
        let resolved = resolve(&scope, &self.proc).map_err(|error| Refusal::Wrong(format!("{error:#}")))?;
        let nothing = resolved.is_empty();
        // Held until the scope is in force: of two changes at once the last one is shown.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let adopted = self.ask(Change::Scope(Box::new(resolved)))?;
        *current = scope.clone();
        drop(current);
        log::info!("scope is now {}; {adopted} open connections taken up", shown(&scope));
        if self.ring_is_small && !nothing {
            log::warn!("the ring was made small because the agent started without a scope; a restart makes it larger");
        }
        Ok(adopted)
    }

    /// Asks the pipeline for a change and waits until it is made; the number of connections that were taken up or forgotten.
    pub fn ask(&self, change: Change) -> Result<usize, Refusal> {
        let (answer, answered) = sync_channel(1);
        let stopping = |_| Refusal::Failed("the agent is stopping".to_owned());
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        changes.send(Request { change, answer }).map_err(stopping)?;
        drop(changes);
        if let Some(batches) = self.batches.upgrade() {
            // A full queue needs no wake-up.
            let _ = batches.try_send(Batch::default());
        }
        answered
            .recv_timeout(PATIENCE)
            .map_err(|_| Refusal::Failed("the pipeline did not answer; the change may still come".to_owned()))?
            .map_err(Refusal::Failed)
    }
}

/// `pid=7, port=80 without pid=8`.
fn shown(scope: &Scope) -> String {
    let list = |items: &[crate::config::scope::ScopeItem]| {
        items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    let include = if scope.include.is_empty() { "empty".to_owned() } else { list(&scope.include) };
    if scope.exclude.is_empty() { include } else { format!("{include} without {}", list(&scope.exclude)) }
}
