//! Finds the language runtimes of processes whose payload is read, and probes them or asks for their wake-ups: from the
//! pipeline and from who switches families to a thread of its own.
//!
//! A process is looked at once, when its first record comes; the pipeline does not wait. Before 6.6 the thread is the only
//! one that keeps CAP_PERFMON and, where it has it, CAP_SYS_ADMIN, which attaching takes there. Bounded: processes that were
//! looked at ([`Finder::CAPACITY`]), questions that wait.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use tokio::sync::Notify;

use crate::bpf::capabilities::{Capability, drop_all_but};
use crate::bpf::loader::Programs;
use crate::bpf::user_probes::{Refusal, RuntimeMap, UserProbes};
use crate::host::procfs::Procfs;
use crate::host::runtime::{Runtimes, java};
use crate::model::hashing::Set;
use crate::model::task::TaskPoint;
use crate::probes::task::{ASKS, BEGINS, BEGUN, BOUND, COPIED, WOKEN_BY};
use crate::run::wakers::Wakers;

/// Processes that wait to be looked at.
const WAITING: usize = 1024;
/// Reasons that are told once each.
const REASONS: usize = 64;

/// What the thread is to do.
enum Ask {
    Look(u32),
    Answer(Sender<()>),
    Forget(u32),
    Switch(bool),
    /// The wake-ups of every process, or of those that run Java.
    Wakes(bool),
    End,
}

/// Sums since the start.
#[derive(Debug, Default)]
struct Counts {
    found: AtomicU64,
    unsupported: AtomicU64,
    no_room: AtomicU64,
    refused: AtomicU64,
    no_place_to_wake: AtomicU64,
    tracked: AtomicUsize,
    java: AtomicUsize,
    /// There is Java, or there is none any more.
    java_changed: Notify,
    waiting: AtomicUsize,
}

const fn program(point: TaskPoint) -> &'static str {
    match point {
        TaskPoint::Copied => COPIED,
        TaskPoint::Begins => BEGINS,
        TaskPoint::Begun => BEGUN,
        TaskPoint::Asks => ASKS,
        TaskPoint::Bound => BOUND,
        TaskPoint::Woken => WOKEN_BY,
    }
}

/// The pipeline's end.
pub struct Finder {
    asks: Sender<Ask>,
    looked: Set<u32>,
    counts: Arc<Counts>,
}

impl Finder {
    /// Processes that can have been looked at.
    pub const CAPACITY: usize = UserProbes::CAPACITY;

    /// A process in scope moves bytes.
    pub fn look(&mut self, pid: u32) {
        if self.looked.contains(&pid) {
            return;
        }
        if self.looked.len() >= 4 * Self::CAPACITY || self.counts.waiting.load(Ordering::Relaxed) >= WAITING {
            // Its next record asks again.
            return;
        }
        self.counts.waiting.fetch_add(1, Ordering::Relaxed);
        if self.asks.send(Ask::Look(pid)).is_ok() {
            self.looked.insert(pid);
        }
    }

    /// Answers once every process has been looked at that was asked for up to now.
    pub fn looked(&self) -> Receiver<()> {
        let (answer, answered) = channel();
        if self.asks.send(Ask::Answer(answer)).is_err() {
            log::error!("the thread that looks at processes is gone");
        }
        answered
    }

    /// The process is gone, or runs another program.
    pub fn forget(&mut self, pid: u32) {
        if self.looked.remove(&pid) && self.asks.send(Ask::Forget(pid)).is_err() {
            log::debug!("the agent stops: process {pid} is not forgotten any more");
        }
    }

    /// No process is known to be in scope any more.
    pub fn forget_all(&mut self) {
        let looked: Vec<u32> = self.looked.iter().copied().collect();
        looked.into_iter().for_each(|pid| self.forget(pid));
    }

    /// Processes whose tasks are read.
    pub fn len(&self) -> usize {
        self.counts.tracked.load(Ordering::Relaxed)
    }

    /// What came of the processes that were looked at, by reason.
    pub fn counts(&self) -> [(&'static str, u64); 5] {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [
            ("task_runtime_found", of(&self.counts.found)),
            ("task_runtime_unsupported", of(&self.counts.unsupported)),
            ("task_runtime_no_room", of(&self.counts.no_room)),
            ("task_probe_refused", of(&self.counts.refused)),
            ("wakeup_process_no_room", of(&self.counts.no_place_to_wake)),
        ]
    }
}

/// The end of who switches families and stops the agent.
pub struct TaskSwitch {
    asks: Sender<Ask>,
    counts: Arc<Counts>,
    thread: JoinHandle<()>,
}

impl TaskSwitch {
    /// Detaches every probe in a process, or attaches them again; soon.
    pub fn set(&self, on: bool) {
        if self.asks.send(Ask::Switch(on)).is_err() {
            log::error!("the thread that probes processes is gone");
        }
    }

    /// Wants the wake-ups of every process in scope, or of those that run Java.
    pub fn wakes_of_all(&self, all: bool) {
        if self.asks.send(Ask::Wakes(all)).is_err() {
            log::error!("the thread that looks at processes is gone");
        }
    }

    /// Returns when [`TaskSwitch::sees_java`] says something else.
    pub fn java_changed(&self) -> impl Future<Output = ()> + use<> {
        let counts = Arc::clone(&self.counts);
        async move { counts.java_changed.notified().await }
    }

    /// Whether a process in scope runs Java.
    pub fn sees_java(&self) -> bool {
        self.counts.java.load(Ordering::Relaxed) > 0
    }

    /// Detaches every probe in a process for good.
    pub fn end(self) {
        if self.asks.send(Ask::End).is_err() || self.thread.join().is_err() {
            log::error!("the thread that probes processes panicked");
        }
    }
}

/// Starts the thread; it keeps these of the capabilities that the caller still has.
pub fn start(
    programs: &Programs,
    map: RuntimeMap,
    wakers: Wakers,
    on: bool,
    proc: Procfs,
    keep: Vec<Capability>,
) -> Result<(Finder, TaskSwitch)> {
    let accepted: HashMap<_, _> =
        TaskPoint::ALL.into_iter().filter_map(|point| Some((point, programs.user_program(program(point))?))).collect();
    let probes = UserProbes::new(map, accepted, on);
    let (asks, asked) = channel();
    let counts = Arc::new(Counts::default());
    let thread = std::thread::Builder::new()
        .name("seismo-tasks".to_owned())
        .stack_size(256 << 10)
        .spawn({
            let counts = Arc::clone(&counts);
            move || {
                if let Err(error) = drop_all_but(&keep) {
                    log::error!("capabilities of the thread that probes processes: {error}");
                }
                serve(&asked, (probes, wakers), &proc, &counts);
            }
        })
        .context("starting to look for tasks")?;
    let finder = Finder { asks: asks.clone(), looked: Set::default(), counts: Arc::clone(&counts) };
    Ok((finder, TaskSwitch { asks, counts, thread }))
}

fn serve(asked: &Receiver<Ask>, parts: (UserProbes, Wakers), proc: &Procfs, counts: &Counts) {
    let (mut probes, mut wakers) = parts;
    let (mut runtimes, mut told) = (Runtimes::default(), Set::default());
    let add = |count: &AtomicU64| _ = count.fetch_add(1, Ordering::Relaxed);
    let mut tell = |reason: String| {
        if told.len() < REASONS && !told.contains(&reason) {
            log::warn!("tasks are not read: {reason}");
            told.insert(reason);
        }
    };
    for ask in asked {
        match ask {
            Ask::Look(pid) => {
                counts.waiting.fetch_sub(1, Ordering::Relaxed);
                if !wakers.add(pid, java::runs_in(proc, pid)) {
                    add(&counts.no_place_to_wake);
                }
                match runtimes.find(proc, pid) {
                    Ok(None) => {}
                    Ok(Some(found)) => {
                        let language = found.language;
                        add(&counts.found);
                        match probes.track(pid, found) {
                            Ok(()) => log::debug!("process {pid}: tasks of {language} are read"),
                            Err(Refusal::NoRoom) => add(&counts.no_room),
                            Err(Refusal::Probe(error)) => {
                                add(&counts.refused);
                                tell(format!("{language}: {error}"));
                            }
                        }
                    }
                    Err(unsupported) => {
                        add(&counts.unsupported);
                        tell(unsupported.0);
                    }
                }
            }
            // Who asked may have waited long enough.
            Ask::Answer(asked) => _ = asked.send(()),
            Ask::Forget(pid) => {
                probes.forget(pid);
                wakers.forget(pid);
            }
            Ask::Wakes(all) => _ = counts.no_place_to_wake.fetch_add(wakers.want(all), Ordering::Relaxed),
            Ask::Switch(on) => {
                for (pid, error) in probes.switch(on) {
                    add(&counts.refused);
                    tell(format!("process {pid}: {error}"));
                }
            }
            Ask::End => return,
        }
        counts.tracked.store(probes.processes(), Ordering::Relaxed);
        let java = wakers.java();
        if (counts.java.swap(java, Ordering::Relaxed) == 0) != (java == 0) {
            counts.java_changed.notify_one();
        }
    }
}
