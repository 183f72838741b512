//! Kernel counters by workload as a metric source: rows of cgroups → names → series with the labels that were chosen.
//!
//! Cgroups that are older than the agent get their rows when it starts; those that the kernel could not give one, when a
//! page is made. A row is read in one system call, and let go when its workload has expired.

use std::sync::{Arc, Mutex, PoisonError};

use seismo_common::workload::WORKLOAD_LANES;

use super::families::{Families, still};
use crate::bpf::workloads::WorkloadCounts;
use crate::clock;
use crate::config::Config;
use crate::host::workloads::Workloads;
use crate::metrics::by_workload;
use crate::model::metric::{Sample, Source};
use crate::model::workload::{WorkloadId, WorkloadLabel, WorkloadSample};

/// Reads the rows at every scrape.
pub struct WorkloadSource {
    counts: WorkloadCounts,
    families: Arc<Families>,
    names: Arc<Mutex<Workloads>>,
    /// What cgroups counted that were gone before they had a name.
    lost: Mutex<[u64; WORKLOAD_LANES]>,
    labels: Vec<WorkloadLabel>,
    series_limit: usize,
}

impl WorkloadSource {
    /// Gives every cgroup that there is a row.
    pub fn new(
        config: &Config,
        counts: WorkloadCounts,
        families: Arc<Families>,
        names: &Arc<Mutex<Workloads>>,
    ) -> Self {
        let groups = {
            let mut names = names.lock().unwrap_or_else(PoisonError::into_inner);
            names.advance(clock::monotonic_ns());
            names.groups()
        };
        let unplaced = groups.into_iter().filter(|id| !counts.claim(*id)).count();
        if unplaced > 0 {
            log::warn!("{unplaced} cgroups have no row of counters: what they do is counted under no name");
        }
        Self {
            counts,
            families,
            names: Arc::clone(names),
            lost: Mutex::new([0; WORKLOAD_LANES]),
            labels: config.metrics.workload_labels.clone(),
            series_limit: config.metrics.series_limit,
        }
    }

    fn release(&self, place: usize, cgroup_id: u64) {
        if let Err(error) = self.counts.release(place, cgroup_id) {
            log::warn!("the row of cgroup {cgroup_id} cannot be given back: {error}");
        }
    }
}

impl Source for WorkloadSource {
    fn collect(&self, out: &mut Vec<Sample>) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.advance(clock::monotonic_ns());
        let expired = names.drain_expired();
        let attached = self.families.list();
        let still: Vec<_> = attached.iter().flat_map(|family| still(family, &attached)).collect();
        let mut samples = Vec::new();
        let mut own = Vec::new();
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = self.counts.taken();
        // Those that are nobody's come last: others join them.
        taken.reverse();
        for (place, cgroup_id) in taken {
            if expired.contains(&cgroup_id) {
                self.release(place, cgroup_id);
                continue;
            }
            let mut row = match self.counts.row(place) {
                Ok(row) => row,
                Err(error) => {
                    log::warn!("the counters of cgroup {cgroup_id} are not on this page: {error}");
                    continue;
                }
            };
            let workload = match cgroup_id {
                0 => WorkloadId::UNKNOWN,
                id => names.resolve(id),
            };
            // Gone before anybody could see who it was: the row is given back, what it counted stays with the unknown.
            if names.is_lost(cgroup_id) {
                lost.iter_mut().zip(row).for_each(|(sum, count)| *sum += count);
                self.release(place, cgroup_id);
                continue;
            }
            if cgroup_id == 0 {
                row.iter_mut().zip(lost.iter()).for_each(|(sum, count)| *sum += count);
            }
            let workload = (workload != WorkloadId::OVERFLOW).then(|| names.get(workload));
            for family in &attached {
                (family.workload_samples)(&row, &mut own);
            }
            own.retain(|sample| !still.iter().any(|metric| std::ptr::eq(*metric, sample.metric)));
            samples.extend(
                own.drain(..).map(|sample| WorkloadSample { workload: workload.as_ref().map(Arc::clone), sample }),
            );
        }
        by_workload(samples, &self.labels, self.series_limit, out);
    }
}
