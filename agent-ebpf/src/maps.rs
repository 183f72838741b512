//! Every map of the object, and the read-only globals that the loader fills.
//!
//! All are arrays of fixed size (no allocation, no hash on a hot path) but `SCOPE_TGIDS`, `ADOPT_TGIDS`
//! and `FLOW_CONTROL`, which programs only read. Per-CPU lanes are one
//! value each, so that userspace reads a whole table with one system call.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, RingBuf};
use seismo_common::config::{FLOW_CONTROLS, MAX_CAPTURE, SCOPE_PROCESSES, SYSCALLS, Scope, Settings, THREAD_SLOTS};
use seismo_common::counter::COUNTERS as COUNTER_LANES;
use seismo_common::histogram::BUCKETS;
use seismo_common::offsets::Offsets;
use seismo_common::payload::{FlowControl, PayloadRecord};

/// Field offsets of the running kernel. Frozen before load: constants to the verifier.
#[unsafe(no_mangle)]
pub static OFFSETS: Offsets = Offsets::ABSENT;

/// Settings of this agent. Frozen before load.
#[unsafe(no_mangle)]
pub static SETTINGS: Settings = Settings::DEFAULT;

/// Records for userspace. The loader sets the size.
#[map]
pub static RING: RingBuf = RingBuf::with_byte_size(1 << 23, 0);

/// [`seismo_common::counter`] lanes.
#[map]
pub static COUNTERS: PerCpuArray<[u64; COUNTER_LANES]> = PerCpuArray::with_max_entries(1, 0);

/// Whose payload may be read.
#[map]
pub static SCOPE: Array<Scope> = Array::with_max_entries(1, 0);

/// Processes in or out of scope by pid or executable.
#[map]
pub static SCOPE_TGIDS: HashMap<u32, u8> = HashMap::with_max_entries(SCOPE_PROCESSES as u32, 0);

/// Processes in or out of scope by their cgroup, while open sockets are looked through. Written by userspace alone.
#[map]
pub static ADOPT_TGIDS: HashMap<u32, u8> = HashMap::with_max_entries(SCOPE_PROCESSES as u32, BPF_F_NO_PREALLOC);

/// What userspace wants of single connections, by cookie. Written by userspace alone.
#[map]
pub static FLOW_CONTROL: HashMap<u64, FlowControl> = HashMap::with_max_entries(FLOW_CONTROLS as u32, 0);

/// Bytes captured in the running window of the budget.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Budget {
    pub window: u64,
    pub bytes: u64,
}

#[map]
pub static BUDGET: PerCpuArray<Budget> = PerCpuArray::with_max_entries(1, 0);

/// A payload record being built: the verifier cannot add two bounded lengths, so the room is twice the limit.
#[repr(C, align(8))]
pub struct Scratch {
    pub record: PayloadRecord,
    pub bytes: [u8; 2 * MAX_CAPTURE],
}

#[map]
pub static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// Calls per system call.
#[map]
pub static SYSCALL_COUNTS: PerCpuArray<[u64; SYSCALLS]> = PerCpuArray::with_max_entries(1, 0);

/// A sampled system call under way, in the slot of its thread.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SyscallStart {
    pub tid: u32,
    pub syscall: u32,
    pub ktime_ns: u64,
}

#[map]
pub static SYSCALL_STARTS: Array<SyscallStart> = Array::with_max_entries(THREAD_SLOTS as u32, 0);

/// Sampled durations per system call; the last element is their sum in ns. Shared by all CPUs: sampling makes it rare.
#[map]
pub static SYSCALL_DURATIONS: Array<[u64; BUCKETS + 1]> = Array::with_max_entries(SYSCALLS as u32, 0);

/// What a thread had waited in the run queue when it was last switched out.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct RunDelay {
    pub run_delay_ns: u64,
    pub tid: u32,
    pub reserved: u32,
}

#[map]
pub static RUN_DELAYS: Array<RunDelay> = Array::with_max_entries(THREAD_SLOTS as u32, 0);

/// Run-queue waits; the last element is their sum in ns.
#[map]
pub static RUNQUEUE: PerCpuArray<[u64; BUCKETS + 1]> = PerCpuArray::with_max_entries(1, 0);
