//! Records that mean nothing, to measure the ring and what is behind it. Off by default.
//!
//! Kernel program: `agent-ebpf/src/probes/records.rs`, which writes as many as a process asks for. They are counted like
//! any record at each stage and come to nothing in the last; no metrics of their own.

use crate::model::probe::{FamilySpec, Hook, ProgramSpec};

pub static FAMILY: FamilySpec = FamilySpec {
    name: "records",
    gives: "records that mean nothing, to measure how many can be taken",
    programs: &[ProgramSpec {
        name: "records_write",
        hook: Hook::TpBtf("sys_enter"),
        structs: &[],
        fields: &["regs_di", "regs_si"],
        without: Some("the rate of records is not measured"),
        tiers: &[],
    }],
    tiers: &[],
    restart: &[],
    beside: &[],
    metrics: &[],
    samples: |_, _| {},
    workload_samples: |_, _| {},
};
