//! Every map of the object.
//!
//! All are arrays of fixed size (no allocation, no hash on a hot path) but `ADOPT_TGIDS`, which
//! programs only read, and two that only UNIX streams and io_uring need. Per-CPU lanes are one
//! value each, so that userspace reads a whole table with one system call. No map type newer than 5.8 (the ring).

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf};
use seismo_common::block::{DEVICE_LANES, DEVICES};
use seismo_common::config::{
    FAULT_THREADS, FLOW_CONTROLS, MAX_CAPTURE, MAX_IOVECS, RECLAIM_SLOTS, REQUESTS as REQUEST_PLACES, SCOPE_PROCESSES,
    SKB_REASONS, SYSCALL_ERRORS, SYSCALL_WORDS, SYSCALLS, Scope, TGID_WORDS, THREAD_SLOTS,
    UNIX_STREAMS as STREAM_PLACES,
};
use seismo_common::counter::COUNTERS as COUNTER_LANES;
use seismo_common::handover::WAKING_PROCESSES;
use seismo_common::histogram::BUCKETS;
use seismo_common::interrupt::LANES as INTERRUPT_LANES;
use seismo_common::lane::{LANE_BYTES, LANE_FRONT, LANE_REST, LANE_SIZE, LANE_TAIL};
use seismo_common::payload::{FlowControl, PayloadRecord};
use seismo_common::task::{RUNTIMES as RUNTIME_PLACES, Runtime};
use seismo_common::tcp::{PASS_WORDS, SOCK_SLOTS};
use seismo_common::workload::{OFF_CPU, WORKLOAD_LANES, WORKLOADS as WORKLOAD_PLACES};

use crate::operation::Asked;
use crate::user::{Place, Want};

/// Records for userspace. The loader sets the size.
#[map]
pub static RING: RingBuf = RingBuf::with_byte_size(1 << 23, 0);

/// [`seismo_common::counter`] lanes.
#[map]
pub static COUNTERS: PerCpuArray<[u64; COUNTER_LANES]> = PerCpuArray::with_max_entries(1, 0);

/// Whose payload may be read.
#[map]
pub static SCOPE: Array<Scope> = Array::with_max_entries(1, 0);

/// Processes in or out of scope by pid or executable, each in its place: a hash took 35 ns more to look into. 1 MiB. Written by
/// userspace alone.
#[map]
pub static SCOPE_TGIDS: Array<u64> = Array::with_max_entries(TGID_WORDS as u32, 0);

/// Processes in or out of scope by their cgroup, while open sockets are looked through. Written by userspace alone.
#[map]
pub static ADOPT_TGIDS: HashMap<u32, u8> = HashMap::with_max_entries(SCOPE_PROCESSES as u32, BPF_F_NO_PREALLOC);

/// What userspace wants of single connections, each in the place of its identity: a hash costs 120 ns where this costs
/// 10. Written by userspace alone.
#[map]
pub static FLOW_CONTROL: Array<FlowControl> = Array::with_max_entries(FLOW_CONTROLS as u32, 0);

/// Bytes captured in the running window of the budget, and those that an operation has to do without while the ring is
/// full to the half.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Budget {
    pub window: u64,
    pub bytes: u64,
    pub held_back: u64,
}

#[map]
pub static BUDGET: PerCpuArray<Budget> = PerCpuArray::with_max_entries(1, 0);

/// `iovec` of a 64-bit process.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Vector {
    pub base: u64,
    pub length: u64,
}

/// See [`Scratch`].
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Steps {
    pub transport: u64,
    pub wake: u64,
    pub limit: u64,
    pub noted: u64,
    pub asked: Asked,
    pub place: Place,
    pub want: Want,
}

/// What building a payload record takes. It is here and not on the stack so that the verifier forgets it: it then walks each
/// step once, not once for every way that led there.
#[repr(C, align(8))]
pub struct Scratch {
    /// What the record is about and where its bytes are.
    pub steps: Steps,
    /// Bytes captured, and above them, from bit 32 on, why it is not all.
    pub outcome: u64,
    /// Vectors in the table, and above them, from bit 32 on, whether there are more.
    pub filled: u64,
    pub table: [Vector; MAX_IOVECS],
    /// What finds no room in a lane.
    pub draft: Draft,
}

/// A record where it is built: the verifier cannot add two bounded lengths, so the room is twice the limit.
#[repr(C, align(8))]
pub struct Draft {
    pub record: PayloadRecord,
    pub bytes: [u8; 2 * MAX_CAPTURE],
}

/// See [`seismo_common::lane`].
#[repr(C, align(8))]
pub struct Lane {
    pub head: [u64; LANE_TAIL / 8],
    pub tail: [u64; (LANE_FRONT - LANE_TAIL) / 8],
    pub records: [u8; LANE_BYTES + LANE_REST],
}

const _: () = assert!(size_of::<Lane>() == LANE_SIZE);

/// Those of a CPU together; the loader makes it as large as there are lanes.
#[map]
pub static LANES: Array<Lane> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// One for all programs that cannot interrupt each other, else one each; the loader makes it as large as the tier wants.
#[map]
pub static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// Bytes that UNIX stream sockets have sent and received since they were first seen, by identity.
#[map]
pub static UNIX_STREAMS: LruHashMap<u64, [u64; 2]> = LruHashMap::with_max_entries(STREAM_PLACES as u32, 0);

/// A send under way, as its iterator was when the socket's lock was taken; in the slot of its thread.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SendStart {
    pub sock: u64,
    /// Address of the `msghdr`.
    pub message: u64,
    pub tid: u32,
    /// Of the first byte that the iterator still had.
    pub sequence: u32,
    /// Kind of iterator as in `enum iter_type`.
    pub kind: u32,
    /// Bytes told in earlier records of the same send.
    pub told: u32,
    pub base: u64,
    pub offset: u64,
    pub count: u64,
    pub segments: u64,
}

#[map]
pub static SEND_STARTS: Array<SendStart> = Array::with_max_entries(THREAD_SLOTS as u32, 0);

/// The io_uring request that was last submitted for a socket and direction.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Request {
    /// Address of the `io_kiocb`.
    pub request: u64,
    /// Submitted less those seen to move bytes: where it is not one, nobody knows whose turn it is.
    pub pending: u64,
}

/// By socket and direction.
#[map]
pub static REQUESTS: LruHashMap<u64, Request> = LruHashMap::with_max_entries(REQUEST_PLACES as u32, 0);

/// Address of the io_uring request that a thread began last; in the slot of the thread.
#[map]
pub static THREAD_REQUESTS: Array<u64> = Array::with_max_entries(THREAD_SLOTS as u32, 0);

/// Processes whose tasks can be read, each in the place that its id names. Written by userspace alone.
#[map]
pub static RUNTIMES: Array<Runtime> = Array::with_max_entries(RUNTIME_PLACES as u32, 0);

/// A goroutine that begins another one, in the slot of its thread.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TaskStart {
    pub tid: u64,
    pub task: u64,
}

#[map]
pub static TASK_STARTS: Array<TaskStart> = Array::with_max_entries(THREAD_SLOTS as u32, 0);

/// Processes whose wake-ups are told, each in the place that its id names. Written by userspace alone.
#[map]
pub static WAKING: Array<u32> = Array::with_max_entries(WAKING_PROCESSES as u32, 0);

/// Wake-ups that a CPU has told in the running window.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Told {
    pub window: u64,
    pub count: u64,
}

#[map]
pub static WAKES_TOLD: PerCpuArray<Told> = PerCpuArray::with_max_entries(1, 0);

/// Calls per system call, and all of them.
#[map]
pub static SYSCALL_COUNTS: PerCpuArray<[u64; SYSCALL_WORDS]> = PerCpuArray::with_max_entries(1, 0);

/// Sum of a CPU's calls when it last went to another thread; 0: not known.
#[map]
pub static SYSCALLS_TOLD: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Failed calls: kind ([`seismo_common::syscall::failure`]; 0: free) and count in turn. A kind has one of several places on
/// each CPU, which only that CPU takes.
#[map]
pub static SYSCALL_FAILED: PerCpuArray<[[u64; 2]; SYSCALL_ERRORS]> = PerCpuArray::with_max_entries(1, 0);

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

/// A thread as it was when it was last switched out.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ThreadLeft {
    /// What the kernel had counted for it: waits in the run queue, time on CPU.
    pub run_delay_ns: u64,
    pub run_ns: u64,
    /// When it left, on the scheduler's clock; 0: not known.
    pub left_ns: u64,
    /// Address of its `css_set`, of which `place` is; 0: to be looked up at its next switch.
    pub cgroups: u64,
    /// Its time on CPU by the kernel's ticks.
    pub ticks_ns: u64,
    pub place: u32,
    pub tid: u32,
    pub migrations: u32,
    /// What it waits for, as a lane of its workload; 0: for a CPU.
    pub reason: u32,
    /// How often it had got a CPU (lower half).
    pub runs: u32,
    /// Another one whenever a wait could not be accounted; never 0 where `left_ns` is known.
    pub epoch: u32,
}

/// A thread by its slot: two lines of memory, of which most switches need the first and a word of the second.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ThreadRun {
    pub left: ThreadLeft,
    /// That of it in user mode.
    pub user_ns: u64,
    pub reserved: u64,
    /// Time off CPU by reason since `left.epoch` began, ns.
    pub off_cpu_ns: [u64; OFF_CPU.len()],
}

#[map]
pub static THREAD_RUNS: Array<ThreadRun> = Array::with_max_entries(THREAD_SLOTS as u32, BPF_F_MMAPABLE);

// What can be mapped begins at a page, so that slots begin at lines.
const _: () = assert!(size_of::<ThreadLeft>() == 64 && size_of::<ThreadRun>() == 128);

/// Cgroup ids, each in one of its places; 0: free. Places are taken by compare-and-swap and given back by userspace.
#[map]
pub static WORKLOADS: Array<u64> = Array::with_max_entries(WORKLOAD_PLACES as u32, BPF_F_MMAPABLE);

/// A row for each place on each CPU ([`crate::workload::row`]). The loader makes it as large as there are CPUs.
#[map]
pub static WORKLOAD_COUNTS: Array<[u64; WORKLOAD_LANES]> = Array::with_max_entries(WORKLOAD_PLACES as u32, 0);

/// Block devices, each in one of its places; 0: free. Places are taken by compare-and-swap and never given back.
#[map]
pub static BLOCK_DEVICES: Array<[u64; DEVICES]> = Array::with_max_entries(1, 0);

/// [`seismo_common::block`] lanes of each place on each CPU, like [`WORKLOAD_COUNTS`].
#[map]
pub static BLOCK: Array<[u64; DEVICE_LANES]> = Array::with_max_entries(DEVICES as u32, 0);

/// Page faults, minor and major, that are counted already, by the address of the thread. Not on the way of a fault: the
/// end of a thread and each iteration over all threads look here.
#[map]
pub static FAULTS: HashMap<u64, [u64; 2]> = HashMap::with_max_entries(FAULT_THREADS as u32, BPF_F_NO_PREALLOC);

/// When faults were last begun to be counted again, ns of the monotonic clock. Written by userspace alone.
#[map]
pub static FAULTS_SINCE: Array<u64> = Array::with_max_entries(1, 0);

/// A reclaim under way, in the slot of its thread.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ReclaimStart {
    pub ktime_ns: u64,
    pub tid: u32,
    pub reserved: u32,
}

#[map]
pub static RECLAIM_STARTS: Array<ReclaimStart> = Array::with_max_entries(RECLAIM_SLOTS as u32, 0);

/// Time that threads spent on reclaiming memory, for the host and for a cgroup's limit; the last element is their sum in ns.
#[map]
pub static RECLAIM: PerCpuArray<[u64; BUCKETS + 1]> = PerCpuArray::with_max_entries(2, 0);

/// Packets dropped, by the kernel's number of the reason.
#[map]
pub static SKB_DROPS: PerCpuArray<[u64; SKB_REASONS]> = PerCpuArray::with_max_entries(1, 0);

/// [`seismo_common::interrupt`] lanes.
#[map]
pub static INTERRUPTS: PerCpuArray<[u64; INTERRUPT_LANES]> = PerCpuArray::with_max_entries(1, 0);

/// What is remembered of a socket, in the slot that its address names.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SockSlot {
    /// Its address.
    pub sock: u64,
    pub value: u64,
}

/// When the first SYN of a connection went, of those that were sent again: µs on the clock of `tcp_mstamp`.
#[map]
pub static CONNECT_STARTS: Array<SockSlot> = Array::with_max_entries(SOCK_SLOTS as u32, 0);

/// How many of the segments that a socket sent again are counted.
#[map]
pub static RESENT: Array<SockSlot> = Array::with_max_entries(SOCK_SLOTS as u32, 0);

/// What a pass over all TCP sockets counts, see [`seismo_common::tcp`].
#[map]
pub static TCP_PASS: Array<[u64; PASS_WORDS]> = Array::with_max_entries(1, 0);
