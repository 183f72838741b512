//! Probe families: one file each, same stem as in the agent. No family uses another.

mod adopt;
mod floor;
mod payload;
mod process;
mod scheduler;
mod syscall;
mod tcp;
