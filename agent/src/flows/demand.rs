//! What the kernel should capture of one connection: enough for the heads of its messages, and no bodies.
//!
//! Everything up to the default limit until the connection has shown what it needs. Then: nothing of a body that is
//! passed over, nothing of a protocol that cannot be read, fewer bytes per operation where heads are short, more where
//! one was cut off, and little while the connection is above its budget. Changes are rare: each is a system call.

use crate::model::connection::Direction;
use crate::model::payload::{CaptureDemand, MAX_CAPTURE as MOST_BYTES};

/// A limit is never set below this: heads vary.
const LEAST_BYTES: u32 = 512;
/// Operations that are looked at before a limit is set.
const SAMPLE: u32 = 64;
/// A body is worth a system call from here on.
const LONG_BODY_BYTES: u64 = 64 * 1024;
/// How far ahead a sequence number can lie without being mistaken for one behind.
const AHEAD_BYTES: u64 = 1 << 30;
const WINDOW_NS: u64 = 1_000_000_000;

#[derive(Debug, Default)]
struct Lane {
    limit: Option<u32>,
    /// End of the body that is passed over.
    until: Option<u64>,
    /// Where the operation before began and how much of it was captured.
    last: Option<(u64, usize)>,
    operations: u32,
    captured: u64,
    most_needed: u64,
    /// A head was cut off once: no less than the most is asked for again.
    missed: bool,
}

#[derive(Debug, Default)]
pub struct Demand {
    lanes: [Lane; 2],
    nothing: bool,
    /// Beginning of the running second, and what was captured in it.
    window_ns: u64,
    window_bytes: u64,
    over_budget: bool,
    set: Option<CaptureDemand>,
}

impl Demand {
    /// An operation came, and the one before it has been read: the parser looked at bytes before `looked_at`.
    pub fn operation(&mut self, direction: Direction, position: u64, captured: usize, looked_at: u64) {
        self.window_bytes += captured as u64;
        let lane = &mut self.lanes[direction as usize];
        if let Some((began, captured)) = lane.last.replace((position, captured)) {
            let captured = captured as u64;
            lane.operations += 1;
            lane.captured += captured;
            lane.most_needed = lane.most_needed.max(looked_at.saturating_sub(began).min(captured));
        }
        if lane.operations >= SAMPLE {
            let limit = u32::try_from(lane.most_needed).unwrap_or(MOST_BYTES).next_power_of_two().max(LEAST_BYTES);
            // Worth it where most of what is captured is not needed.
            if !lane.missed && lane.limit.is_none() && lane.captured > 2 * u64::from(limit) * u64::from(SAMPLE) {
                lane.limit = Some(limit);
            }
            (lane.operations, lane.captured, lane.most_needed) = (0, 0, 0);
        }
    }

    /// Bytes that were not captured were needed.
    pub fn missed(&mut self, direction: Direction) {
        let lane = &mut self.lanes[direction as usize];
        lane.missed = true;
        lane.limit = Some(MOST_BYTES);
    }

    /// Nothing on the connection can be read.
    pub fn nothing(&mut self) {
        self.nothing = true;
    }

    /// A body ends at `until`; the stream has come to `furthest`.
    pub fn pass_over(&mut self, direction: Direction, until: Option<u64>, furthest: u64) {
        let lane = &mut self.lanes[direction as usize];
        match until {
            Some(until) if until.saturating_sub(furthest) >= LONG_BODY_BYTES => {
                // Far ends are asked for step by step.
                let step = until.min(furthest + AHEAD_BYTES);
                if lane.until.is_none_or(|asked| asked != until && asked < furthest + AHEAD_BYTES / 2) {
                    lane.until = Some(step);
                }
            }
            // One that is passed stays until another takes its place, but not until it looks as if it lay ahead.
            _ => {
                if lane.until.is_some_and(|asked| asked + AHEAD_BYTES < furthest) {
                    lane.until = None;
                }
            }
        }
    }

    pub fn is_set(&self) -> bool {
        self.set.is_some()
    }

    /// What to ask of the kernel, if it is not what was asked last.
    pub fn changed(&mut self, now_ns: u64, budget_bytes: u64) -> Option<Option<CaptureDemand>> {
        if now_ns.saturating_sub(self.window_ns) >= WINDOW_NS {
            (self.window_ns, self.window_bytes, self.over_budget) = (now_ns, 0, false);
        }
        self.over_budget |= budget_bytes > 0 && self.window_bytes > budget_bytes;
        let wanted = self.wanted();
        if wanted == self.set {
            return None;
        }
        self.set = wanted;
        Some(wanted)
    }

    fn wanted(&self) -> Option<CaptureDemand> {
        if self.nothing {
            return Some(CaptureDemand { bytes: [Some(0); 2], from: [None; 2] });
        }
        let plain = self.lanes.iter().all(|lane| lane.limit.is_none() && lane.until.is_none());
        if plain && !self.over_budget {
            return None;
        }
        let limit = |lane: &Lane| if self.over_budget { Some(LEAST_BYTES) } else { lane.limit };
        let from = |lane: &Lane| lane.until.map(|until| until as u32);
        let [send, receive] = &self.lanes;
        Some(CaptureDemand { bytes: [limit(send), limit(receive)], from: [from(send), from(receive)] })
    }
}
