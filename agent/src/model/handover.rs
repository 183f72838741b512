//! A thread hands work to another one of its process: it makes it, or wakes it up.

/// How the other thread came to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Made,
    Woke,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handover {
    pub pid: u32,
    /// Thread ids.
    pub from: u32,
    pub to: u32,
    pub how: How,
    /// `CLOCK_MONOTONIC`, ns.
    pub ktime_ns: u64,
}

/// A thread begins to open a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    pub socket: super::connection::Cookie,
    pub pid: u32,
    pub tid: u32,
    /// `CLOCK_MONOTONIC`, ns.
    pub ktime_ns: u64,
}
