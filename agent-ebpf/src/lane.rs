//! Room for a record in the lane of its program and CPU ([`seismo_common::lane`]), and telling that it is whole.
//!
//! A lane has one writer: no program runs twice at once on a CPU (`bpf_prog.active`, 6.1). That it is whole is told by a
//! plain store behind those of the record; x86 shows stores to other CPUs in their order.

use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use seismo_common::lane::{LANE_BYTES, LANES_PER_CPU, behind};
use seismo_common::payload::PayloadRecord;

use crate::kernel::{opaque, setting};
use crate::maps::{Draft, LANES, Lane};

/// Room for a record: in a lane, or nowhere. One shape for both, so that the verifier walks what follows twice and no more.
#[derive(Clone, Copy)]
pub struct Room {
    /// Null: nowhere.
    lane: *mut Lane,
    position: u64,
}

impl Room {
    pub const NONE: Self = Self { lane: core::ptr::null_mut(), position: 0 };

    /// For a record with at most `captured` bytes, in the lane of program number `program` on this CPU; nowhere where that is
    /// full, or there is none.
    #[inline(always)]
    pub fn find(program: u32, captured: u64) -> Self {
        if setting!(lanes) == 0 {
            return Self::NONE;
        }
        // SAFETY: no arguments.
        let cpu = unsafe { bpf_get_smp_processor_id() };
        let Some(lane) = LANES.get_ptr_mut(cpu * LANES_PER_CPU + program) else { return Self::NONE };
        // SAFETY: words of the lane; userspace moves the tail.
        let (position, taken) = unsafe { ((*lane).head[0], (&raw const (*lane).tail[0]).read_volatile()) };
        let most = size_of::<PayloadRecord>() as u64 + captured;
        if behind(position, most).wrapping_sub(taken) > LANE_BYTES as u64 {
            return Self::NONE;
        }
        Self { lane, position }
    }

    #[inline(always)]
    pub fn is_none(self) -> bool {
        self.lane.is_null()
    }

    /// Where the record is built; there must be room.
    #[inline(always)]
    pub fn draft(self) -> *mut Draft {
        let at = opaque(self.position) & (LANE_BYTES as u64 - 8);
        // SAFETY: behind the end of a lap there is room for a draft.
        unsafe { (&raw mut (*self.lane).records).cast::<u8>().add(at as usize).cast() }
    }

    /// The draft is a record of `length` bytes.
    #[inline(always)]
    pub fn tell(self, length: u64) {
        let head = behind(self.position, length);
        // SAFETY: this program's word. Not before what was written until here: to the compiler, it may touch anything.
        unsafe {
            core::arch::asm!("*(u64 *)({0} + 0) = {1}", in(reg) &raw mut (*self.lane).head, in(reg) head,
                options(nostack));
        }
    }
}
