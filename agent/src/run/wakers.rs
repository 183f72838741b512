//! Which of the processes in scope have their wake-ups told: those that run Java, or all of them.
//!
//! Owned by the thread that looks at processes; it learns of each once. Bounded by who asks it to look.

use std::collections::HashMap;

use crate::bpf::waking::WakingMap;

pub struct Wakers {
    map: WakingMap,
    /// Processes in scope, and whether each runs Java.
    processes: HashMap<u32, bool>,
    all: bool,
}

impl Wakers {
    /// `all`: of every process, else of those that run Java.
    pub fn new(map: WakingMap, all: bool) -> Self {
        Self { map, processes: HashMap::new(), all }
    }

    /// A process in scope. False where it found no place.
    pub fn add(&mut self, pid: u32, is_java: bool) -> bool {
        self.processes.insert(pid, is_java);
        !(self.all || is_java) || self.tell(pid, true)
    }

    /// The process is gone, or runs another program.
    pub fn forget(&mut self, pid: u32) {
        if self.processes.remove(&pid).is_some_and(|is_java| self.all || is_java) {
            self.tell(pid, false);
        }
    }

    /// Every process, or those that run Java; how many found no place.
    pub fn want(&mut self, all: bool) -> u64 {
        if self.all == all {
            return 0;
        }
        self.all = all;
        let others: Vec<u32> = self.processes.iter().filter(|(_, is_java)| !**is_java).map(|(pid, _)| *pid).collect();
        others.into_iter().map(|pid| u64::from(!self.tell(pid, all) && all)).sum()
    }

    /// Processes in scope that run Java.
    pub fn java(&self) -> usize {
        self.processes.values().filter(|is_java| **is_java).count()
    }

    fn tell(&mut self, pid: u32, wanted: bool) -> bool {
        self.map.set(pid, wanted).unwrap_or_else(|error| {
            log::error!("process {pid}: {error:#}");
            false
        })
    }
}
