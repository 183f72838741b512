//! Kernel counts as a metric source: the active families' samples, and the kernel side of the agent's own account.

use std::borrow::Cow;
use std::sync::Arc;

use seismo_common::counter::{
    CPU_WITHOUT_ROWS, DROPS, EVENTS_OBSERVED, EVENTS_SUBMITTED, FAULTS_UNTRACKED, PAYLOAD_DROPPED_BYTES,
    PAYLOAD_OBSERVED, PAYLOAD_SUBMITTED, RECLAIM_UNKNOWN, RUNQUEUE_UNKNOWN, SYSCALL_ERRORS_UNPLACED,
    SYSCALL_SAMPLE_LOST, TCP_CONNECT_UNKNOWN,
};
use seismo_common::drops::DROP_NAMES;

use super::families::Families;
use crate::bpf::counts::Counts;
use crate::health::{Health, Stage};
use crate::metrics::{CPU_UNCOUNTED, PROBE_MISSED};
use crate::model::metric::{Sample, Source, Value};
use crate::model::probe::KernelCounts;
use crate::probes::FAMILIES;

/// Reads the maps at every scrape: about ten system calls, and one more per system call number in use.
pub struct KernelSource {
    pub counts: Counts,
    pub families: Arc<Families>,
    pub health: Arc<Health>,
}

impl Source for KernelSource {
    fn collect(&self, out: &mut Vec<Sample>) {
        if let Some(lanes) = self.account() {
            let value = Value::Count(lanes[CPU_WITHOUT_ROWS]);
            out.push(Sample { metric: &CPU_UNCOUNTED, labels: Vec::new(), value });
        }
        for family in self.families.list() {
            (family.samples)(&self.counts, out);
        }
        for (program, count) in self.counts.missed.read() {
            let family = FAMILIES.iter().find(|family| family.programs.iter().any(|each| each.name == program));
            let labels = vec![Cow::Borrowed(family.map_or("", |family| family.name)), Cow::Owned(program.to_owned())];
            out.push(Sample { metric: &PROBE_MISSED, labels, value: Value::Count(count) });
        }
    }
}

impl KernelSource {
    /// The kernel side of the record path by name: observed, submitted, bytes of dropped records, drops by reason.
    pub fn lanes(&self) -> Vec<(&'static str, u64)> {
        let Some(lanes) = self.counts.lanes("COUNTERS") else { return Vec::new() };
        let named = [
            ("payload_observed", PAYLOAD_OBSERVED),
            ("payload_submitted", PAYLOAD_SUBMITTED),
            ("events_observed", EVENTS_OBSERVED),
            ("events_submitted", EVENTS_SUBMITTED),
            ("dropped_bytes", PAYLOAD_DROPPED_BYTES),
            ("runqueue_waits_unknown", RUNQUEUE_UNKNOWN),
            ("syscall_samples_lost", SYSCALL_SAMPLE_LOST),
            ("syscall_errors_unplaced", SYSCALL_ERRORS_UNPLACED),
            ("fault_threads_untracked", FAULTS_UNTRACKED),
            ("reclaims_unknown", RECLAIM_UNKNOWN),
            ("tcp_connects_unknown", TCP_CONNECT_UNKNOWN),
        ];
        let drops = DROP_NAMES.iter().enumerate().map(|(reason, name)| (*name, DROPS + reason));
        named.into_iter().chain(drops).map(|(name, lane)| (name, lanes[lane])).collect()
    }

    /// Brings the `observed` stage up to date, and gives what was read. Drops are read with the totals, in one lookup: the
    /// sums agree.
    pub fn account(&self) -> Option<Vec<u64>> {
        let lanes = self.counts.lanes("COUNTERS")?;
        let drops = DROP_NAMES.iter().enumerate().map(|(reason, name)| (*name, lanes[DROPS + reason]));
        let observed = lanes[PAYLOAD_OBSERVED] + lanes[EVENTS_OBSERVED];
        let submitted = lanes[PAYLOAD_SUBMITTED] + lanes[EVENTS_SUBMITTED];
        self.health.set(Stage::Observed, observed, submitted, drops);
        Some(lanes)
    }
}
