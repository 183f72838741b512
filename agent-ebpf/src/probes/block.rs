//! Block I/O: what each device did and how long it took; what each workload asked for.
//!
//! Hooks: `tp_btf/block_rq_complete` once for each request (or part of one) that a device has done, and
//! `tp_btf/block_{getrq,bio_backmerge,bio_frontmerge}` where a process hands I/O over (5.15+). No map of requests: the
//! kernel keeps in each when it was made and when the driver got it. A request counts where it does in `/proc/diskstats`.
//! Devices without requests (device mapper, zram) do not come by here; the disks below them do. Where other work wants
//! the CPUs, up to 0.4 % of a loop device's completions, slow ones, were not seen here: a device's totals are therefore
//! read from the kernel's own account, and what is here are distributions. About 240 ns a completion and 140 ns a bio
//! over an empty program (5 s of fio with cold caches on a busy machine).

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use core::ffi::c_void;

use seismo_common::block::{
    BYTES, DEVICE_LANES, DEVICE_PROBES, DEVICES, DIRECTION_LANES, DIRECTIONS, DISCARD, ERRORS, READ, SINCE_ISSUE,
    SINCE_START, SIZES, WRITE, device, place, size_bucket,
};
use seismo_common::histogram::{BUCKETS, bucket};
use seismo_common::offsets::ABSENT;
use seismo_common::workload::{BLOCK_READ_BYTES, BLOCK_READS};

use crate::access::{Access as _, Typed};
use crate::emit;
use crate::kernel::{Task, offset, setting};
use crate::maps::{BLOCK, BLOCK_DEVICES};
use crate::workload::{Workload, cgroup_of_task, compare_exchange, id_of, row};

/// `REQ_OP_MASK` and `REQ_OP_DISCARD` (`blk_types.h`); operations with the lowest bit set write.
const OPERATION_MASK: u32 = 0xff;
const REQ_OP_DISCARD: u32 = 3;

/// `block_rq_complete(request, error, bytes)`.
#[btf_tracepoint(function = "block_rq_complete")]
pub fn block_complete(ctx: BtfTracePointContext) -> i32 {
    let request = ctx.arg::<*const c_void>(0);
    let failed = ctx.arg::<u32>(1) & 0xff != 0;
    let bytes = ctx.arg::<u32>(2);
    // SAFETY: a request to the verifier; the offsets are those of its fields, of its queue's and of its disk's.
    let (flags, operation, left, started, issued, major, minor): (u32, u32, u32, u64, u64, u32, u32) = unsafe {
        let queue: *const c_void = Typed::load(request, offset!(block_queue));
        let disk: *const c_void = Typed::load(queue, offset!(queue_disk));
        (
            Typed::load(request, offset!(block_flags)),
            Typed::load(request, offset!(block_operation)),
            Typed::load(request, offset!(block_left)),
            Typed::load(request, offset!(block_start_time)),
            Typed::load(request, offset!(block_issue_time)),
            Typed::load(disk, offset!(disk_major)),
            Typed::load(disk, offset!(disk_minor)),
        )
    };
    // Commands to the device itself, and the flushes that the kernel makes of other requests.
    if flags & setting!(block_counted) == 0 {
        return 0;
    }
    let Some(row) = row(find(device(major, minor))).and_then(|row| BLOCK.get_ptr_mut(row)) else { return 0 };
    let part = Part { row: row.cast(), first: direction(operation) * DIRECTION_LANES };
    part.add(BYTES, u64::from(bytes));
    if failed {
        part.add(ERRORS, 1);
    }
    // A request may be done in parts; and one that is flushed ends once more, when its flushes have.
    if bytes < left || flags & setting!(block_flushing) != 0 {
        return 0;
    }
    part.add(SIZES + size_bucket(bytes), 1);
    let now = emit::now();
    if started != 0 {
        part.observe(SINCE_START, now.saturating_sub(started));
    }
    if issued != 0 {
        part.observe(SINCE_ISSUE, now.saturating_sub(issued));
    }
    0
}

/// `block_getrq(bio)`: in the thread that asks, a request is made of it.
#[btf_tracepoint(function = "block_getrq")]
pub fn block_begin(ctx: BtfTracePointContext) -> i32 {
    ask(ctx.arg::<*const c_void>(0), 1);
    0
}

/// `block_bio_backmerge(bio)`: it goes behind a request that waits.
#[btf_tracepoint(function = "block_bio_backmerge")]
pub fn block_append(ctx: BtfTracePointContext) -> i32 {
    ask(ctx.arg::<*const c_void>(0), 0);
    0
}

/// `block_bio_frontmerge(bio)`: it goes in front of a request that waits.
#[btf_tracepoint(function = "block_bio_frontmerge")]
pub fn block_prepend(ctx: BtfTracePointContext) -> i32 {
    ask(ctx.arg::<*const c_void>(0), 0);
    0
}

/// Adds a bio to the account of whoever it is for.
#[inline(always)]
fn ask(bio: *const c_void, requests: u64) {
    // SAFETY: a bio to the verifier; the offsets are those of its fields.
    let (operation, bytes): (u32, u32) =
        unsafe { (Typed::load(bio, offset!(bio_operation)), Typed::load(bio, offset!(bio_bytes))) };
    let owner = owner(bio);
    let Some(workload) = Workload::of_id(if owner != 0 { owner } else { cgroup_of_task(Task::current()) }) else {
        return;
    };
    let direction = direction(operation);
    workload.add(BLOCK_READ_BYTES + direction, u64::from(bytes));
    if requests != 0 {
        workload.add(BLOCK_READS + direction, requests);
    }
}

/// Cgroup that the kernel itself charges, which is also right for what is written back later; 0 where the controller is
/// not in the version 2 hierarchy: then it is the running thread's.
#[inline(always)]
fn owner(bio: *const c_void) -> u64 {
    if offset!(bio_group) == ABSENT
        || offset!(group_account) == ABSENT
        || offset!(account_cgroup) == ABSENT
        || offset!(cgroup_root) == ABSENT
        || offset!(root_hierarchy) == ABSENT
        || offset!(cgroup_node) == ABSENT
        || offset!(node_id) == ABSENT
    {
        return 0;
    }
    // SAFETY: a bio to the verifier; the offsets are those of pointers. What is behind a null pointer reads as zero.
    unsafe {
        let group: *const c_void = Typed::load(bio, offset!(bio_group));
        let account: *const c_void = Typed::load(group, offset!(group_account));
        let cgroup: *const c_void = Typed::load(account, offset!(account_cgroup));
        let root: *const c_void = Typed::load(cgroup, offset!(cgroup_root));
        let hierarchy: u32 = Typed::load(root, offset!(root_hierarchy));
        if hierarchy == 0 { id_of::<Typed>(cgroup) } else { 0 }
    }
}

#[inline(always)]
fn direction(operation: u32) -> usize {
    match operation & OPERATION_MASK {
        REQ_OP_DISCARD => DISCARD,
        other if other & 1 == 1 => WRITE,
        _ => READ,
    }
}

/// The place of a device, which takes one if it has none; 0 if all of its places are taken.
#[inline(always)]
fn find(device: u64) -> u32 {
    let Some(table) = BLOCK_DEVICES.get_ptr_mut(0) else { return 0 };
    let first = place(device);
    for step in 0..DEVICE_PROBES as u32 {
        let at = (first + step) & (DEVICES as u32 - 1);
        // Place 0 is nobody's.
        if at == 0 {
            continue;
        }
        // SAFETY: at < DEVICES, the length of the value; words are aligned.
        let holder = unsafe {
            let word = table.cast::<u64>().add(at as usize);
            let holder = *word;
            if holder == 0 { compare_exchange(word, 0, device) } else { holder }
        };
        if holder == device || holder == 0 {
            return at;
        }
    }
    0
}

/// The lanes of one direction of a device.
struct Part {
    row: *mut u64,
    first: usize,
}

impl Part {
    #[inline(always)]
    fn add(&self, lane: usize, amount: u64) {
        let at = self.first + lane;
        if at < DEVICE_LANES {
            // SAFETY: inside the row.
            unsafe { emit::atomic_add(self.row.add(at), amount) };
        }
    }

    #[inline(always)]
    fn observe(&self, histogram: usize, ns: u64) {
        self.add(histogram + bucket(ns), 1);
        self.add(histogram + BUCKETS, ns);
    }
}

const _: () = assert!(DIRECTIONS * DIRECTION_LANES == DEVICE_LANES);
