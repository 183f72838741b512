//! From measurements to samples: our own table of series, the agent's account of itself, and the registry
//! that knows every definition.
//!
//! Sources (kernel maps, the table, health) are asked at each scrape and each rule evaluation by
//! [`gather`]; nothing is pushed. Cost of a scrape is one clone of each series' label values.
//! It does not format: that is `exporters`.

mod cpu;
mod finer;
mod gather;
mod health;
mod process;
mod registry;
mod requests;
mod table;
mod workloads;

pub use crate::model::spelling::prometheus_name;
pub use cpu::{CPU_TIME, CpuSource};
pub use finer::Finer;
pub use gather::gather;
pub use health::{BuildInfo, CPU_UNCOUNTED, HealthSource, PROBE_MISSED};
pub use process::ProcessSource;
pub use registry::{OWN, check_definitions};
pub use requests::{INCOMPLETE_EXCHANGES, record_exchange, record_exemplar};
pub use table::Table;
pub use workloads::by_workload;

crate::section! {
    /// The table of series that are observed in the agent (requests, exits, bytes by visibility).
    pub struct Config {
        /// Label sets per metric. What is above goes to one series with `otel_metric_overflow="true"`.
        pub series_limit: usize = 2000,
        /// Labels that tell workloads apart in kernel metrics, any of service_name, container_id, k8s_namespace_name,
        /// k8s_pod_name and cgroup. Workloads that have the same labels are added up.
        pub workload_labels: Vec<crate::model::workload::WorkloadLabel> = vec![
            crate::model::workload::WorkloadLabel::ServiceName,
            crate::model::workload::WorkloadLabel::K8sNamespaceName,
            crate::model::workload::WorkloadLabel::K8sPodName,
        ],
        /// Octaves for one classic bucket of the kernel's histograms, 1 to 8: narrower buckets tell more and are more series.
        /// 0: two or one, as each family thinks fit. Native histograms always have all that the kernel tells apart.
        pub octaves_per_bucket: usize = 0,
        /// Name the trace of the newest request of each bucket on pages in OpenMetrics and protobuf, of those traces that are kept.
        pub exemplars: bool = true,
        /// A series that saw nothing for this long is forgotten; should it return, it starts from zero.
        pub ttl: crate::section::Interval = crate::section::Interval::secs(3600),
    }
}
