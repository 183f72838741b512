//! Whom a cgroup belongs to, as metrics name it: a container, a systemd unit, or the group itself.

/// Names a workload while it is in the table; never used again for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkloadId(pub u32);

impl WorkloadId {
    /// All workloads that the table had no room for.
    pub const OVERFLOW: Self = Self(0);
    /// Groups that were gone before they could be looked at.
    pub const UNKNOWN: Self = Self(1);
}

/// One workload. Text is escaped and bounded; what is not known is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// `service.name`: configured → container → systemd unit → executable → the group's own name.
    pub service_name: String,
    /// `container.id`.
    pub container_id: Option<String>,
    /// `container.runtime.name`.
    pub runtime: Option<&'static str>,
    /// `k8s.pod.uid`.
    pub pod_uid: Option<String>,
    /// `k8s.pod.name`.
    pub pod_name: Option<String>,
    /// `k8s.namespace.name`.
    pub pod_namespace: Option<String>,
    /// systemd unit with its suffix.
    pub unit: Option<String>,
    /// systemd slice.
    pub slice: Option<String>,
    /// Path below the hierarchy's root, without the groups that the workload makes inside of its own.
    pub cgroup: String,
}
