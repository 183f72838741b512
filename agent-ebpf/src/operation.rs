//! One send or receive, whichever hook saw it: counted by workload, and a record of it where it is in scope.
//!
//! [`Operation`] + what its [`Tier`] knows → byte lanes by transport in the row of the running thread's cgroup, then a
//! `PAYLOAD` record with the bytes, or a drop with its reason. Out of scope it costs a look-up of that row and two adds,
//! about 20 ns; `cargo xtask bench` measures a record.

use aya_ebpf::helpers::generated::bpf_get_prandom_u32;

use seismo_common::config::{BUDGET_WINDOW_SHIFT, FLOW_CONTROLS, MAX_CAPTURE};
use seismo_common::counter::{
    PAYLOAD_CAPTURED_BYTES, PAYLOAD_CUT_LIMIT_BYTES, PAYLOAD_DROPPED_BYTES, PAYLOAD_OBSERVED, PAYLOAD_OUT_OF_SCOPE,
    PAYLOAD_SUBMITTED,
};
use seismo_common::drops::{INJECTED, NO_SCRATCH, NOT_TCP_SOCK, RING_FULL};
use seismo_common::histogram::octave;
use seismo_common::lane::LANES_PER_CPU;
use seismo_common::payload::{
    CUT_BUDGET, CUT_COMPAT, CUT_LIMIT, CUT_SKIP, PayloadRecord, RECEIVE, SEND, TCP, UDP, UNIX_DATAGRAM, UNIX_STREAM,
};
use seismo_common::record::PAYLOAD;
use seismo_common::tcp::RTT_ONE_IN;
use seismo_common::workload::{
    OTHER_RECEIVED_BYTES, OTHER_SENT_BYTES, TCP_RECEIVED_BYTES, TCP_RECEIVES, TCP_RTT_BUCKETS, TCP_RTT_EXPONENT,
    TCP_RTT_US, TCP_RTTS, TCP_SENT_BYTES, UDP_RECEIVED_BYTES, UDP_RECEIVES, UDP_SENDS, UDP_SENT_BYTES,
    UNIX_RECEIVED_BYTES, UNIX_SENT_BYTES,
};

use crate::access::Access;
use crate::account::Account;
use crate::emit;
use crate::filter;
use crate::kernel::{Registers, Task, setting};
use crate::lane::Room;
use crate::maps::{BUDGET, FLOW_CONTROL, SCRATCH, UNIX_STREAMS};
use crate::sock::{Checked, OTHER, Sock};
use crate::user::{Place, UPPER, Want, capture};
use crate::workload::Workload;

/// Not captured of an operation longer than the other one while the ring is so many times fuller than where userspace is
/// woken.
const HELD_BACK: u64 = MAX_CAPTURE as u64 - 512;
const SMALL: u32 = 2048;
const HALF_FULL: u64 = 4;
const MSG_OOB: i32 = 1;
const MSG_PEEK: i32 = 2;
const MSG_TRUNC: i32 = 0x20;
const MSG_ERRQUEUE: i32 = 0x2000;
/// Receives that take nothing out of the stream.
pub const ASIDE: i32 = MSG_PEEK | MSG_OOB | MSG_ERRQUEUE;

#[derive(Clone, Copy)]
pub struct Operation<A: Access> {
    pub sock: Sock<A>,
    /// Bytes moved.
    pub length: u32,
    /// [`SEND`] or [`RECEIVE`].
    pub direction: u8,
    /// `MSG_…` of a receive.
    pub flags: i32,
}

/// What a way of seeing operations knows about one.
pub trait Tier {
    type Access: Access;
    /// The program's number among those of its tier: its own scratch where programs can interrupt each other.
    const PROGRAM: u32;
    /// Programs of this tier can do so on every kernel.
    const INTERRUPTIBLE: bool = false;
    /// The program has a lane on each CPU: it runs in process context, on kernels that let no program run twice at once.
    const LANE: bool = false;
    /// One call can move several messages and is told once.
    const MESSAGES: bool = false;

    /// Registers of the running thread's system call.
    fn registers(&self, task: Task) -> Registers;

    /// Where the bytes are.
    fn place(&self, task: Task, registers: Registers, operation: &Operation<Self::Access>) -> Place;

    /// Sequence number of the first byte, where it is known better than from what the socket says afterwards.
    #[inline(always)]
    fn sequence(&self, _: &Operation<Self::Access>) -> Option<u32> {
        None
    }

    /// Bytes of the operation that were told before it was over.
    #[inline(always)]
    fn told(&self) -> u32 {
        0
    }

    /// The operation is over, told or not.
    #[inline(always)]
    fn done(&self) {}
}

#[inline(always)]
fn count<T: Tier>(lane: usize, amount: u64) -> u64 {
    if T::INTERRUPTIBLE {
        emit::add(lane, amount);
        // Every record looks at the ring.
        0
    } else {
        emit::add_in_process(lane, amount)
    }
}

/// Counts an operation and tells it, if it is in scope. What its tier knows is asked for only where something may be.
#[inline(always)]
pub fn observe<T: Tier>(operation: &Operation<T::Access>, tier: impl FnOnce(Task) -> Option<T>)
where
    Sock<T::Access>: Checked<T::Access>,
{
    let transport = operation.sock.transport();
    let lanes = match transport {
        TCP => [TCP_SENT_BYTES, TCP_RECEIVED_BYTES],
        UDP => [UDP_SENT_BYTES, UDP_RECEIVED_BYTES],
        UNIX_STREAM | UNIX_DATAGRAM => [UNIX_SENT_BYTES, UNIX_RECEIVED_BYTES],
        _ => [OTHER_SENT_BYTES, OTHER_RECEIVED_BYTES],
    };
    let task = Task::current();
    if let Some(workload) = Workload::of_task(task) {
        let sends = operation.direction == SEND;
        let add = |lane: usize, amount: u64| {
            if T::INTERRUPTIBLE { workload.add_shared_at(lane, amount) } else { workload.add_at(lane, amount) }
        };
        add(if sends { lanes[0] } else { lanes[1] }, u64::from(operation.length));
        if transport == UDP {
            add(if sends { UDP_SENDS } else { UDP_RECEIVES }, 1);
        } else if transport == TCP && !sends {
            look_at_round_trip(workload, operation.sock);
        }
    }
    if transport == OTHER {
        return;
    }
    if !filter::is_set() {
        count::<T>(PAYLOAD_OUT_OF_SCOPE, 1);
        return;
    }
    // The places that a tier looks into are always there; what the verifier is not told it would walk twice.
    let Some(tier) = tier(task) else {
        count::<T>(PAYLOAD_OBSERVED, 1);
        emit::dropped(NO_SCRATCH);
        return;
    };
    if task.is_kernel_thread() || !filter::in_scope(task, operation.sock) {
        count::<T>(PAYLOAD_OUT_OF_SCOPE, 1);
    } else {
        let rest = Operation { length: operation.length.saturating_sub(tier.told()), ..*operation };
        if rest.length > 0 {
            tell(&tier, &rest, task, transport);
        }
    }
    tier.done();
}

/// A receive in sixteen of a workload shows how long its connection's round trips are.
#[inline(always)]
fn look_at_round_trip<A: Access>(workload: Workload, sock: Sock<A>)
where
    Sock<A>: Checked<A>,
{
    if workload.next(TCP_RECEIVES) & (RTT_ONE_IN - 1) != 0 {
        return;
    }
    if let Some(us) = sock.tcp().and_then(|tcp| tcp.round_trip_us()) {
        workload.add_shared(TCP_RTT_US, us);
        workload.add_shared_at(TCP_RTTS + octave(us * 1000, TCP_RTT_EXPONENT, TCP_RTT_BUCKETS), 1);
    }
}

/// Tells an operation that is in scope.
#[inline(always)]
pub fn tell<T: Tier>(tier: &T, operation: &Operation<T::Access>, task: Task, transport: u8)
where
    Sock<T::Access>: Checked<T::Access>,
{
    let number = count::<T>(PAYLOAD_OBSERVED, 1);
    if let Err(reason) = record(tier, operation, task, transport, number) {
        emit::dropped(reason);
        emit::add(PAYLOAD_DROPPED_BYTES, u64::from(operation.length));
    }
}

/// Where an operation's first byte is in its streams.
struct Streams {
    position: u64,
    sequence: u32,
    other_sequence: u32,
    moved_before_ns: u32,
    retransmits: u32,
}

#[inline(always)]
fn streams<T: Tier>(
    tier: &T,
    operation: &Operation<T::Access>,
    transport: u8,
    (identity, ktime_ns): (u64, u64),
) -> Result<Streams, usize>
where
    Sock<T::Access>: Checked<T::Access>,
{
    let &Operation { sock, length, direction, .. } = operation;
    if transport == UNIX_STREAM {
        let (position, other) = unix_position(identity, length, direction);
        let (sequence, other_sequence) = (position as u32, other as u32);
        return Ok(Streams { position, sequence, other_sequence, moved_before_ns: u32::MAX, retransmits: 0 });
    }
    if transport != TCP {
        return Ok(Streams { position: 0, sequence: 0, other_sequence: 0, moved_before_ns: u32::MAX, retransmits: 0 });
    }
    let tcp = sock.tcp().ok_or(NOT_TCP_SOCK)?;
    let (written, read) = (tcp.write_sequence(), tcp.read_sequence());
    let (end, other_sequence) = if direction == SEND { (written, read) } else { (read, written) };
    let sequence = match tier.sequence(operation) {
        Some(sequence) => sequence,
        None => end.wrapping_sub(length),
    };
    let position = if direction == SEND { tcp.written_position(sequence) } else { tcp.read_position(sequence) };
    let moved_before_ns = if direction == RECEIVE {
        tcp.arrived_before_ns()
    } else {
        match tcp.sent_ns() {
            0 => u32::MAX,
            // The kernel's stamp is in µs: it rounds down.
            sent_ns => ktime_ns.saturating_sub(sent_ns).min(u64::from(u32::MAX)) as u32,
        }
    };
    Ok(Streams { position, sequence, other_sequence, moved_before_ns, retransmits: tcp.retransmits() })
}

/// Takes `length` bytes of a UNIX stream: where they begin, and where the other direction stands. Counted from the first
/// operation that was seen; the kernel keeps no such count.
#[inline(always)]
fn unix_position(identity: u64, length: u32, direction: u8) -> (u64, u64) {
    let positions = match UNIX_STREAMS.get_ptr_mut(identity) {
        Some(positions) => positions,
        None => {
            // Full is not an error: the map forgets who was used longest ago.
            let _ = UNIX_STREAMS.insert(identity, [0; 2], 0);
            let Some(positions) = UNIX_STREAMS.get_ptr_mut(identity) else { return (0, 0) };
            positions
        }
    };
    let (own, other) = if direction == SEND { (0, 1) } else { (1, 0) };
    // SAFETY: both words are inside the value; another thread on the same socket may add in between.
    unsafe {
        let words = positions.cast::<u64>();
        let before = *words.add(own);
        emit::atomic_add(words.add(own), u64::from(length));
        (before, *words.add(other))
    }
}

/// Builds and submits the record of this CPU's `number`th operation; `Err` is the drop reason.
#[inline(always)]
fn record<T: Tier>(
    tier: &T,
    operation: &Operation<T::Access>,
    task: Task,
    transport: u8,
    number: u64,
) -> Result<(), usize>
where
    Sock<T::Access>: Checked<T::Access>,
{
    let &Operation { sock, length, direction, .. } = operation;
    let own = T::INTERRUPTIBLE || setting!(preemptible) != 0;
    let scratch = SCRATCH.get_ptr_mut(if own { T::PROGRAM } else { 0 }).ok_or(NO_SCRATCH)?;
    // SAFETY: the scratch is this CPU's and this program's.
    let steps = unsafe { &raw mut (*scratch).steps };
    let (transport_at, wake_at, limit_at) =
        // SAFETY: as above; only addresses are taken.
        unsafe { (&raw mut (*steps).transport, &raw mut (*steps).wake, &raw mut (*steps).limit) };
    let transport = forgotten(transport_at, u64::from(transport)) as u8;
    // One look at the ring's fill in sixteen records, and so at most one wake-up in sixteen.
    let wake = forgotten(wake_at, u64::from(number & 15 == 0 && look_at_ring()));
    let most = forgotten(limit_at, most_captured(length));
    let one_in = setting!(drop_every);
    // Named also where the record is lost, so that its end is told. And a stream's count goes on.
    let identity = sock.identity();
    let ktime_ns = emit::now();
    let streams = streams(tier, operation, transport, (identity, ktime_ns))?;
    // SAFETY: no arguments.
    if one_in != 0 && unsafe { bpf_get_prandom_u32() }.is_multiple_of(one_in) {
        return Err(INJECTED);
    }
    let registers = tier.registers(task);
    // SAFETY: as above.
    let asked = forgotten(unsafe { &raw mut (*steps).asked }, asked(identity, direction));
    let want = wanted(asked, streams.sequence, length, most as u32);
    // SAFETY: as above.
    let want = forgotten(unsafe { &raw mut (*steps).want }, want);
    // Another one would be on the next CPU's lane.
    const { assert!(!T::LANE || T::PROGRAM < LANES_PER_CPU) };
    let room = if T::LANE { Room::find(T::PROGRAM, want.length) } else { Room::NONE };
    // SAFETY: as above; only the address is taken.
    let draft = if room.is_none() { unsafe { &raw mut (*scratch).draft } } else { room.draft() };
    // SAFETY: the scratch is this CPU's and this program's.
    let cut_at = |cut: u16| unsafe { (*scratch).outcome = u64::from(cut) << UPPER };
    if want.length == 0 {
        cut_at(0);
    } else if task.is_compat() {
        cut_at(CUT_COMPAT);
    } else if over_budget(ktime_ns, want.length) {
        cut_at(CUT_BUDGET);
    } else {
        // TCP throws the bytes away that are received with this flag; the buffer holds something else.
        let discarded = direction == RECEIVE && transport == TCP && operation.flags & MSG_TRUNC != 0;
        let place = if discarded { Place::NOWHERE } else { tier.place(task, registers, operation) };
        // SAFETY: as above.
        let place = forgotten(unsafe { &raw mut (*steps).place }, place);
        capture(scratch, draft, &place, &want, T::MESSAGES);
    }
    // SAFETY: as above; written on every way here.
    let outcome = unsafe { core::ptr::read_volatile(&raw const (*scratch).outcome) };
    let (captured, cut) = (outcome & (2 * MAX_CAPTURE as u64 - 1), (outcome >> UPPER | want.cut) as u16);
    let tuple = sock.tuple();
    let peer = if transport == UNIX_STREAM || transport == UNIX_DATAGRAM { [sock.unix_peer(), 0] } else { tuple.peer };
    let account = Account::of(task);
    let total = size_of::<PayloadRecord>() as u64 + captured;
    // SAFETY: the draft is this CPU's and this program's; every field is written.
    unsafe {
        (*draft).record = PayloadRecord {
            header: emit::header_at(PAYLOAD, cut, total as u32, ktime_ns),
            cookie: identity,
            position: streams.position,
            account: account.ns,
            task: crate::task::of(task),
            account_epoch: account.epoch,
            sequence: streams.sequence,
            other_sequence: streams.other_sequence,
            length,
            skipped: if captured == 0 { 0 } else { want.skip as u32 },
            captured: captured as u32,
            tgid: task.tgid(),
            tid: task.tid(),
            syscall: registers.syscall() as i32,
            moved_before_ns: streams.moved_before_ns,
            retransmits: streams.retransmits,
            direction,
            transport,
            family: tuple.family,
            local_port: tuple.local_port,
            peer_port: tuple.peer_port,
            local_address: core::mem::transmute::<[u64; 2], [u8; 16]>(tuple.local),
            peer_address: core::mem::transmute::<[u64; 2], [u8; 16]>(peer),
            reserved: 0,
        };
    }
    if !room.is_none() {
        room.tell(total);
    // SAFETY: the scratch's draft, just written.
    } else if !unsafe { emit::output(draft.cast(), total, wake != 0) } {
        return Err(RING_FULL);
    }
    count::<T>(PAYLOAD_SUBMITTED, 1);
    count::<T>(PAYLOAD_CAPTURED_BYTES, captured);
    if cut != 0 {
        let missing = u64::from(length).saturating_sub(captured);
        count::<T>(PAYLOAD_CUT_LIMIT_BYTES + first_bit(cut), missing);
    }
    Ok(())
}

/// Index of the lowest bit that is set, of the seven there are. By multiplication (each power of two times 0x1d has
/// other upper bits): branches would double the verifier's work each, and the instruction set counts no zeroes.
#[inline(always)]
fn first_bit(bits: u16) -> usize {
    const INDICES: u32 = 0x3450_2610;
    let bits = u32::from(bits);
    let lowest = bits & bits.wrapping_neg();
    let hash = ((lowest * 0x1d) & 0xff) >> 5;
    ((INDICES >> (hash * 4)) & 7) as usize
}

/// Takes a value by way of the scratch, so that the verifier no longer knows which of the ways before led here and walks
/// what follows once for all of them.
#[inline(always)]
pub fn forgotten<V: Copy>(place: *mut V, value: V) -> V {
    // SAFETY: the place is in a map value that only this program writes.
    unsafe {
        place.write_volatile(value);
        place.read_volatile()
    }
}

/// Does more wait in the ring than userspace's timer should find? Where it is half full, operations are captured with less
/// from now on: bytes of bodies go before records do.
#[inline(always)]
fn look_at_ring() -> bool {
    let (waiting, wake) = (emit::ring_waiting(), u64::from(setting!(wake_bytes)));
    if let Some(budget) = BUDGET.get_ptr_mut(0) {
        // SAFETY: this CPU's own value.
        unsafe { (*budget).held_back = if waiting >= HALF_FULL * wake { HELD_BACK } else { 0 } };
    }
    waiting >= wake
}

/// Most bytes to capture of an operation: less of long ones, which are bodies with at most a head in front, while there
/// is too much.
#[inline(always)]
fn most_captured(length: u32) -> u64 {
    // SAFETY: this CPU's own value.
    let held_back = BUDGET.get_ptr(0).map_or(0, |budget| unsafe { (*budget).held_back });
    if held_back != 0 && length > SMALL { MAX_CAPTURE as u64 - HELD_BACK } else { MAX_CAPTURE as u64 }
}

/// What userspace asked of one direction of a connection.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Asked {
    /// Most bytes of an operation; `u32::MAX`: as of any other.
    capture_bytes: u32,
    /// Nothing before this sequence number,
    skip_until: u32,
    /// where this is not 0.
    skips: u64,
}

#[inline(always)]
fn asked(identity: u64, direction: u8) -> Asked {
    let nothing = Asked { capture_bytes: u32::MAX, skip_until: 0, skips: 0 };
    let Some(control) = FLOW_CONTROL.get(identity as u32 & (FLOW_CONTROLS as u32 - 1)) else { return nothing };
    // Userspace replaces a value as a whole; one that is half old only captures more or less.
    if control.identity != identity {
        return nothing;
    }
    let skips = u64::from(control.skips & (1 << direction));
    if direction == SEND {
        Asked { capture_bytes: control.capture_bytes[0], skip_until: control.skip_until[0], skips }
    } else {
        Asked { capture_bytes: control.capture_bytes[1], skip_until: control.skip_until[1], skips }
    }
}

/// What was asked of the connection, else everything up to the limit.
#[inline(always)]
fn wanted(asked: Asked, sequence: u32, length: u32, most: u32) -> Want {
    let mut limit = setting!(capture_bytes).min(MAX_CAPTURE as u32);
    let mut skip = 0;
    if asked.capture_bytes != u32::MAX {
        limit = asked.capture_bytes.min(MAX_CAPTURE as u32);
    }
    let ahead = asked.skip_until.wrapping_sub(sequence);
    if asked.skips != 0 && ahead.cast_signed() > 0 {
        skip = ahead.min(length);
    }
    let rest = length - skip;
    let wanted = rest.min(limit).min(most);
    let short = if most < MAX_CAPTURE as u32 { CUT_BUDGET } else { CUT_LIMIT };
    let cut = if skip > 0 { CUT_SKIP } else { 0 } | if rest > wanted { short } else { 0 };
    Want { skip: u64::from(skip), length: u64::from(wanted), cut: u64::from(cut) }
}

/// Takes `bytes` out of this CPU's budget of the running window; true if they are not left.
#[inline(always)]
fn over_budget(ktime_ns: u64, bytes: u64) -> bool {
    let most = u64::from(setting!(budget_bytes));
    if most == 0 {
        return false;
    }
    let Some(budget) = BUDGET.get_ptr_mut(0) else { return false };
    let window = ktime_ns >> BUDGET_WINDOW_SHIFT;
    // SAFETY: this CPU's own value; who interrupts another in between only shifts the limit.
    unsafe {
        if (*budget).window != window {
            ((*budget).window, (*budget).bytes) = (window, 0);
        }
        (*budget).bytes += bytes;
        // Long operations go without first; all do when they alone were not enough.
        if (*budget).bytes > most {
            (*budget).held_back = HELD_BACK;
        }
        (*budget).bytes > 2 * most
    }
}
