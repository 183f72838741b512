//! How many pairs of a span and a request that was open statistics may weigh, by the time that has passed.
//!
//! In: the time of the events, not of a clock, so that the same spans always get the same answers; out: pairs that may be
//! weighed now. [`PER_SECOND`] come in each second, at most [`MOST`] are saved. A window that has more is not weighed at all:
//! its spans have [`super::Missed::Unweighed`]. So statistics costs at most that many pairs, whatever is open at once.

/// Pairs that come in with each second. Some 5 µs each where many are open at once, with all rounds.
pub const PER_SECOND: u64 = 200_000;
/// Most that one window may have.
pub const MOST: u64 = 100_000;

const SECOND_NS: u128 = 1_000_000_000;

#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    pairs: u64,
    /// Until when pairs have come in; 0: it has not begun.
    at_ns: u64,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { pairs: MOST, at_ns: 0 }
    }
}

impl Allowance {
    /// What may be weighed at this time. A time before the last one brings nothing.
    pub fn at(&mut self, now_ns: u64) -> u64 {
        let passed_ns = now_ns.saturating_sub(self.at_ns);
        let more = u64::try_from(u128::from(passed_ns) * u128::from(PER_SECOND) / SECOND_NS).unwrap_or(u64::MAX);
        // What is less than a pair comes in later.
        if more > 0 {
            (self.pairs, self.at_ns) = (self.pairs.saturating_add(more).min(MOST), now_ns);
        }
        self.pairs
    }

    pub fn spend(&mut self, pairs: u64) {
        self.pairs = self.pairs.saturating_sub(pairs);
    }
}

#[cfg(test)]
mod tests {
    use super::{Allowance, MOST, PER_SECOND};

    #[test]
    fn pairs_come_in_with_time_and_no_more_are_saved_than_one_window_may_have() {
        let mut allowance = Allowance::default();
        assert_eq!(allowance.at(1_000_000_000), MOST);
        allowance.spend(MOST);
        assert_eq!(allowance.at(1_000_000_000), 0);
        assert_eq!(allowance.at(1_000_000_001), 0);
        assert_eq!(allowance.at(1_100_000_000), PER_SECOND / 10);
        assert_eq!(allowance.at(500_000_000), PER_SECOND / 10, "a clock that goes back brings nothing");
        allowance.spend(MOST);
        let little: u64 = (1..=1_000u64).map(|step| allowance.at(1_100_000_000 + step * 1_000_000)).last().unwrap();
        assert_eq!(little, PER_SECOND.min(MOST));
        assert_eq!(allowance.at(u64::MAX), MOST);
    }
}
