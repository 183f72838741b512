//! Process life as the kernel tells it, and who a process is to a reader of spans.

use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessEventKind {
    Fork {
        parent_pid: u32,
    },
    Exec,
    /// Wait status as in `wait(2)`.
    Exit {
        status: u32,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessEvent {
    pub pid: u32,
    /// The kernel's name of it, at most 15 bytes: what is left of a process that is gone before it is looked at.
    pub command: String,
    /// `CLOCK_MONOTONIC`, ns.
    pub ktime_ns: u64,
    pub kind: ProcessEventKind,
    /// In scope by cgroup, pid or executable: only then may more than its name be read.
    pub in_scope: bool,
}

/// OTel resource of a process. Shared by all its spans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    /// `service.name`: configured → container → systemd unit → script or executable name.
    pub service_name: String,
    /// `process.pid`.
    pub pid: u32,
    /// `process.executable.name`.
    pub executable_name: String,
    /// `container.id`, where the cgroup path names one.
    pub container_id: Option<String>,
    /// `host.name`.
    pub host_name: Arc<str>,
}

/// Finds who a process is; implemented by `host`, faked in tests.
pub trait Resources {
    /// Never fails: a process that is gone gets a name of what is still known (`pid:N`).
    fn resource(&mut self, pid: u32) -> Arc<Resource>;
}
