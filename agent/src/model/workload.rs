//! Whom a cgroup belongs to, as metrics name it: a container, a systemd unit, or the group itself.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::metric::Sample;

/// Names a workload while it is in the table; never used again for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkloadId(pub u32);

impl WorkloadId {
    /// All workloads that the table had no room for.
    pub const OVERFLOW: Self = Self(0);
    /// Groups that were gone before they could be looked at.
    pub const UNKNOWN: Self = Self(1);
}

/// Labels of a metric that is told by workload: those of every workload first, then the metric's own.
#[macro_export]
macro_rules! workload_labels {
    ($($own:expr),* $(,)?) => {
        &[
            $crate::semconv::SERVICE_NAME,
            $crate::semconv::CONTAINER_ID,
            $crate::semconv::K8S_NAMESPACE_NAME,
            $crate::semconv::K8S_POD_NAME,
            "cgroup",
            $($own),*
        ]
    };
}

/// A label by which workloads are told apart, in the order of [`workload_labels`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkloadLabel {
    ServiceName,
    ContainerId,
    K8sNamespaceName,
    K8sPodName,
    Cgroup,
}

impl WorkloadLabel {
    pub const ALL: [Self; 5] =
        [Self::ServiceName, Self::ContainerId, Self::K8sNamespaceName, Self::K8sPodName, Self::Cgroup];
}

/// A measured value of one workload. The sample has the metric's own labels only; `None` is the overflow workload.
#[derive(Clone, Debug)]
pub struct WorkloadSample {
    pub workload: Option<Arc<Workload>>,
    pub sample: Sample,
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

impl Workload {
    /// Value of a label; empty where it is not known.
    pub fn label(&self, label: WorkloadLabel) -> &str {
        match label {
            WorkloadLabel::ServiceName => &self.service_name,
            WorkloadLabel::ContainerId => self.container_id.as_deref().unwrap_or_default(),
            WorkloadLabel::K8sNamespaceName => self.pod_namespace.as_deref().unwrap_or_default(),
            WorkloadLabel::K8sPodName => self.pod_name.as_deref().unwrap_or_default(),
            WorkloadLabel::Cgroup => &self.cgroup,
        }
    }
}
