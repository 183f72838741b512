//! The kernel's files as a metric source: read at most once an interval, labelled by workload; and the workload table's own
//! account.
//!
//! Between two reads the page shows what was read last. A pass took 0.16 ms a workload with its ten
//! series where three hierarchies had to be read, in the thread that gathers.

use std::sync::{Arc, Mutex, PoisonError};

use super::pipeline::{EVENTS, TABLE_CAPACITY, TABLE_ENTRIES};
use crate::clock;
use crate::config::Config;
use crate::health::{ProbeState, ProbeStatus};
use crate::host::kernel_files::{KernelFiles, Wanted};
use crate::host::workloads::{Counts, Workloads};
use crate::metrics::by_workload;
use crate::model::metric::{Metric, Sample, Source, Value};
use crate::model::workload::WorkloadLabel;

const PROC: &str = "/proc";

/// What the configuration wants of this host's files, and whether it can be had.
pub fn open(config: &Config) -> KernelFiles {
    KernelFiles::new(PROC, wanted(config), config.workloads.capacity)
}

fn wanted(config: &Config) -> Wanted {
    Wanted { pressure: config.probes.pressure, cgroup: config.probes.cgroup }
}

/// See the module's documentation.
pub struct FileSource {
    inner: Mutex<Inner>,
    workloads: Arc<Mutex<Workloads>>,
    labels: Vec<WorkloadLabel>,
    series_limit: usize,
    interval_ns: u64,
    /// How many workloads are read.
    capacity: usize,
}

struct Inner {
    wanted: Wanted,
    files: KernelFiles,
    shown: Vec<Sample>,
    next_ns: u64,
}

impl FileSource {
    /// Families without a program: keys of the configuration's `probes`.
    pub const NAMES: [&'static str; 2] = ["pressure", "cgroup"];

    pub fn new(config: &Config, files: KernelFiles, workloads: Arc<Mutex<Workloads>>) -> Self {
        Self {
            inner: Mutex::new(Inner { wanted: wanted(config), files, shown: Vec::new(), next_ns: 0 }),
            workloads,
            labels: config.metrics.workload_labels.clone(),
            series_limit: config.metrics.series_limit,
            interval_ns: config.kernel_files.interval.as_ns(),
            capacity: config.workloads.capacity,
        }
    }

    /// Switches one of [`FileSource::NAMES`]; the states then, with `why` where something is off.
    pub fn want(&self, name: &str, on: bool, why: &str) -> Vec<ProbeStatus> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut wanted = inner.wanted;
        match name {
            "pressure" => wanted.pressure = on,
            "cgroup" => wanted.cgroup = on,
            _ => {}
        }
        if wanted != inner.wanted {
            let files = KernelFiles::new(PROC, wanted, self.capacity);
            *inner = Inner { wanted, files, shown: Vec::new(), next_ns: 0 };
        }
        let mut statuses = inner.files.statuses().to_vec();
        for status in statuses.iter_mut().filter(|status| status.state == ProbeState::Disabled) {
            why.clone_into(&mut status.reason);
        }
        statuses
    }
}

impl Source for FileSource {
    fn collect(&self, out: &mut Vec<Sample>) {
        let now_ns = clock::monotonic_ns();
        let mut workloads = self.workloads.lock().unwrap_or_else(PoisonError::into_inner);
        workloads.advance(now_ns);
        account(&workloads, out);
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if now_ns >= inner.next_ns {
            inner.next_ns = now_ns.saturating_add(self.interval_ns);
            let readings = inner.files.read(&mut |path, directory| workloads.at_path(path, directory));
            inner.shown = readings.host;
            by_workload(readings.workloads, &self.labels, self.series_limit, &mut inner.shown);
        }
        out.extend(inner.shown.iter().cloned());
    }
}

/// How full the table of workloads is, and what befell lookups in it.
fn account(workloads: &Workloads, out: &mut Vec<Sample>) {
    let mut push = |metric: &'static Metric, label: &'static str, count: u64| {
        out.push(Sample { metric, labels: vec![label.into()], value: Value::Count(count) });
    };
    push(&TABLE_ENTRIES, "workloads", workloads.len() as u64);
    push(&TABLE_CAPACITY, "workloads", workloads.capacity() as u64);
    let Counts { unknown, early, overflowed, evicted, expired, truncated } = workloads.counts();
    let counts = [
        ("workload_unknown", unknown),
        ("workload_looked_up_early", early),
        ("workload_overflow", overflowed),
        ("workload_evicted", evicted),
        ("workload_expired", expired),
        ("workload_walk_truncated", truncated),
    ];
    for (reason, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
        push(&EVENTS, reason, count);
    }
}
