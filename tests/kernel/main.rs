//! The kernel programs against this kernel: what each hook saw and counted against what a small client did.
//!
//! Needs root (or what the agent itself needs) and a build of the agent; no server beyond the test's own.
#![cfg(test)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod adopt;
mod block;
mod bounds;
mod capabilities;
mod configuration;
mod coverage;
mod crowd;
mod drop;
mod families;
mod hostile;
mod interrupt;
mod leaks;
mod leftovers;
mod memory;
mod paths;
mod payload;
mod process;
mod sched;
mod scope;
mod scope_change;
mod storm;
mod syscall;
mod tcp;
mod tcp_links;
mod udp;
