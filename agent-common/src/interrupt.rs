//! Interrupts: lanes of each CPU.
//!
//! Runs and ns of devices' handlers together, and of each kind of soft interrupt; the lanes with `START` in their name
//! hold the time at which the one under way began, 0 for none, and mean nothing added up.

/// Kinds of soft interrupts, in the kernel's order (`enum` in `linux/interrupt.h`; no kernel since 5.10 has others).
pub const VECTOR_NAMES: [&str; VECTORS] =
    ["hi", "timer", "net_tx", "net_rx", "block", "irq_poll", "tasklet", "sched", "hrtimer", "rcu"];
pub const VECTORS: usize = 10;

pub const HARD_START: usize = 0;
pub const SOFT_START: usize = 1;
pub const HARD_RUNS: usize = 2;
pub const HARD_NS: usize = 3;
pub const SOFT_RUNS: usize = 4;
pub const SOFT_NS: usize = SOFT_RUNS + VECTORS;
pub const LANES: usize = SOFT_NS + VECTORS;
