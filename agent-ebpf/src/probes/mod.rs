//! Probe families: the same stem as in the agent; a family of several files begins each with its name. No family uses
//! another.

mod adopt;
mod block;
mod drop;
mod floor;
mod interrupt;
mod memory;
mod payload;
mod payload_exit;
mod payload_locked;
mod payload_requests;
mod payload_syscall;
mod process;
mod records;
mod scheduler;
mod syscall;
mod task;
mod tcp;
mod udp;
mod wakeup;
mod workload;
