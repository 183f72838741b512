//! Workloads: a cgroup gets its row of counters when it is made, so that its first process is counted where it belongs.
//!
//! Hook: `tp_btf/cgroup_mkdir` (5.5+; the compare-and-swap needs 5.12). Cgroups that are older are told by userspace. Runs
//! once for each new cgroup.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use core::ffi::c_void;

use seismo_common::offsets::ABSENT;
use seismo_common::workload::WORKLOAD_UNPLACED;

use crate::access::{Access as _, Typed};
use crate::kernel::offset;
use crate::workload::{Workload, claim, id_of};

/// `cgroup_mkdir(cgrp, path)`.
#[btf_tracepoint(function = "cgroup_mkdir")]
pub fn workload_made(ctx: BtfTracePointContext) -> i32 {
    if offset!(cgroup_node) == ABSENT || offset!(node_id) == ABSENT || offset!(root_hierarchy) == ABSENT {
        return 0;
    }
    let cgroup = ctx.arg::<*const c_void>(0);
    // SAFETY: a cgroup to the verifier; the offsets are those of its pointers.
    let (hierarchy, id) = unsafe {
        let root: *const c_void = Typed::load(cgroup, offset!(cgroup_root));
        (Typed::load::<u32>(root, offset!(root_hierarchy)), id_of::<Typed>(cgroup))
    };
    if hierarchy == 0
        && !claim(id)
        && let Some(nobody) = Workload::of_id(0)
    {
        nobody.add(WORKLOAD_UNPLACED, 1);
    }
    0
}
