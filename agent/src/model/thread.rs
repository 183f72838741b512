//! What a thread's time goes to, and what a span's time went to.

/// What a thread does at a moment: `state` of `seismo.span.time`, last part of `seismo.time.…`.
pub const STATES: [&str; 8] = ["on_cpu", "runqueue", "disk", "network", "futex", "sleep", "throttled", "unknown"];

/// Places in [`STATES`].
pub const ON_CPU: usize = 0;
pub const RUNQUEUE: usize = 1;
pub const DISK: usize = 2;
pub const NETWORK: usize = 3;
pub const FUTEX: usize = 4;
pub const SLEEP: usize = 5;
pub const THROTTLED: usize = 6;
/// Waits for something else, and what cannot be attributed.
pub const UNKNOWN: usize = 7;

/// A thread's waits up to a moment, ns by state. What is between two moments and not here, it was on CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadAccount {
    /// Accounts of one thread with the same epoch can be compared.
    pub epoch: u32,
    pub waits_ns: [u64; STATES.len()],
}

/// Where the time of a span went: ns by state. The parts add up to the span's duration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breakdown(pub [u64; STATES.len()]);

impl Breakdown {
    /// States with their time, ns; those without any are left out.
    pub fn parts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        STATES.into_iter().zip(self.0).filter(|(_, ns)| *ns > 0)
    }

    pub fn total_ns(&self) -> u64 {
        self.0.iter().sum()
    }
}
