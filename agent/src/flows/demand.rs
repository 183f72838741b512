//! What the kernel should capture of one connection: enough for the heads of its messages, and no bodies.
//!
//! Everything up to the default limit until the connection has shown what it needs. Then: nothing of a body that is
//! passed over, nothing of a protocol that cannot be read, fewer bytes per operation where one request is in flight at
//! a time and heads are short, more where one was cut off, and little while the connection is above its budget. A
//! change reaches the kernel some milliseconds late, and each is a system call: they are rare.

use crate::model::connection::Direction;
use crate::model::payload::{CaptureDemand, MAX_CAPTURE as MOST_BYTES};

/// A limit is never set below this, nor below twice what was needed: heads vary.
const LEAST_BYTES: u32 = 1024;
/// Operations that are looked at before a limit is set.
const SAMPLE: u32 = 128;
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
}

#[derive(Debug, Default)]
pub struct Demand {
    lanes: [Lane; 2],
    nothing: bool,
    /// Several messages may lie in one operation, or a head was cut off: less than usual is never asked for again.
    greedy: bool,
    /// Beginning of the running second, and what was captured in it.
    window_ns: u64,
    window_bytes: u64,
    over_budget: bool,
    set: Option<CaptureDemand>,
}

impl Demand {
    /// Several requests were in flight at once.
    pub fn pipelined(&mut self) {
        if !self.greedy {
            self.greedy = true;
            for lane in &mut self.lanes {
                lane.limit = None;
            }
        }
    }

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
            let needed = u32::try_from(lane.most_needed).unwrap_or(MOST_BYTES).min(MOST_BYTES);
            let limit = (2 * needed).next_power_of_two().max(LEAST_BYTES);
            // Worth it where most of what is captured is not needed.
            if !self.greedy && lane.limit.is_none() && lane.captured > 2 * u64::from(limit) * u64::from(SAMPLE) {
                lane.limit = Some(limit);
            }
            (lane.operations, lane.captured, lane.most_needed) = (0, 0, 0);
        }
    }

    /// Bytes that were not captured were needed.
    pub fn missed(&mut self, direction: Direction) {
        self.greedy = true;
        self.lanes[direction as usize].limit = Some(MOST_BYTES);
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

#[cfg(test)]
mod tests {
    use super::{AHEAD_BYTES, CaptureDemand, Demand, LEAST_BYTES, MOST_BYTES, SAMPLE};
    use crate::model::connection::Direction::{Receive, Send};

    /// Operations of 4000 captured bytes of which the parser looked at the first `needed`.
    fn play(demand: &mut Demand, needed: u64) {
        for number in 0..=u64::from(SAMPLE) {
            let before = (number.max(1) - 1) * 10_000;
            demand.operation(Send, number * 10_000, 4000, before + needed);
        }
    }

    #[test]
    fn a_connection_is_captured_as_any_other_until_it_has_shown_what_it_needs() {
        let mut demand = Demand::default();
        demand.operation(Send, 0, 100, 0);
        assert_eq!(demand.changed(1, 0), None);
        play(&mut demand, 300);
        let short = CaptureDemand { bytes: [Some(LEAST_BYTES), None], from: [None; 2] };
        assert_eq!(demand.changed(2, 0), Some(Some(short)));
        assert_eq!(demand.changed(3, 0), None, "asked twice");
        demand.missed(Send);
        let most = CaptureDemand { bytes: [Some(MOST_BYTES), None], from: [None; 2] };
        assert_eq!(demand.changed(4, 0), Some(Some(most)));
        play(&mut demand, 300);
        assert_eq!(demand.changed(5, 0), None, "less again after a head was cut off");
    }

    #[test]
    fn heads_that_need_what_is_captured_or_share_operations_keep_it() {
        let mut demand = Demand::default();
        play(&mut demand, 3000);
        assert_eq!(demand.changed(1, 0), None);
        let mut demand = Demand::default();
        demand.pipelined();
        play(&mut demand, 300);
        assert_eq!(demand.changed(1, 0), None);
    }

    #[test]
    fn a_long_body_is_asked_for_once_and_a_very_long_one_step_by_step() {
        let mut demand = Demand::default();
        demand.pass_over(Receive, Some(1000), 500);
        assert_eq!(demand.changed(1, 0), None, "a short body is not worth it");
        demand.pass_over(Receive, Some(1_000_000), 500);
        let from = |until: u64| Some(Some(CaptureDemand { bytes: [None; 2], from: [None, Some(until as u32)] }));
        assert_eq!(demand.changed(2, 0), from(1_000_000));
        demand.pass_over(Receive, Some(1_000_000), 800_000);
        assert_eq!(demand.changed(3, 0), None);
        let end = 5 * AHEAD_BYTES;
        demand.pass_over(Receive, Some(end), 1_000_000);
        assert_eq!(demand.changed(4, 0), from(1_000_000 + AHEAD_BYTES));
        demand.pass_over(Receive, Some(end), AHEAD_BYTES);
        assert_eq!(demand.changed(5, 0), from(2 * AHEAD_BYTES));
        // Long passed: it must not come to lie ahead when sequence numbers wrap.
        demand.pass_over(Receive, None, 4 * AHEAD_BYTES);
        assert_eq!(demand.changed(6, 0), Some(None));
    }

    #[test]
    fn above_its_budget_a_connection_gets_beginnings_only_until_the_second_is_over() {
        let mut demand = Demand::default();
        assert_eq!(demand.changed(0, 5000), None);
        demand.operation(Send, 0, 6000, 0);
        let little = CaptureDemand { bytes: [Some(LEAST_BYTES); 2], from: [None; 2] };
        assert_eq!(demand.changed(1, 5000), Some(Some(little)));
        assert_eq!(demand.changed(2_000_000_000, 5000), Some(None));
    }

    #[test]
    fn nothing_is_captured_where_nothing_can_be_read() {
        let mut demand = Demand::default();
        demand.nothing();
        assert_eq!(demand.changed(1, 0), Some(Some(CaptureDemand { bytes: [Some(0); 2], from: [None; 2] })));
        assert!(demand.is_set());
    }
}
