//! Empty programs on the busiest hooks: the floor that the other families' costs are stated over. Off by default.
//!
//! Kernel programs: `agent-ebpf/src/probes/floor.rs`. No records, no metrics; `seismo probes` shows their run times when
//! run statistics are on.

use crate::model::probe::{FamilySpec, Hook, ProgramSpec};

const fn empty(name: &'static str, tracepoint: &'static str) -> ProgramSpec {
    ProgramSpec {
        name,
        hook: Hook::TpBtf(tracepoint),
        structs: &[],
        fields: &[],
        without: Some("its floor is not measured"),
        tiers: &[],
    }
}

pub static FAMILY: FamilySpec = FamilySpec {
    name: "floor",
    gives: "empty programs, to measure what a hook costs by itself",
    programs: &[
        empty("floor_enter", "sys_enter"),
        empty("floor_exit", "sys_exit"),
        empty("floor_switch", "sched_switch"),
        empty("floor_send", "sock_send_length"),
        empty("floor_receive", "sock_recv_length"),
    ],
    tiers: &[],
    restart: &[],
    beside: &[],
    metrics: &[],
    samples: |_, _| {},
    workload_samples: |_, _| {},
};
