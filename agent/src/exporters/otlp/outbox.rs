//! Batches that wait to be sent, and what becomes of them: the queue, the pauses and the counts. Pure: time is a parameter.
//!
//! One batch is under way at a time, the oldest; the others wait behind it, so that their order stays. Bounded by bytes of
//! the batches' bodies: what there is no room for is lost as `queue_full`. Offered = sent + lost + queued, exactly, in spans or in points.

use std::collections::VecDeque;

use bytes::Bytes;

use super::Config;
use super::answer::Answer;
use crate::exporters::{Counts, LossReason};

/// Longest pause that a backend may ask for, ns.
const MOST_ASKED_NS: u64 = 600_000_000_000;

/// One request's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub body: Bytes,
    /// Spans or points in it.
    pub items: u64,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Until something is put in.
    Nothing,
    /// Until this time (`CLOCK_MONOTONIC`, ns), or until something changes.
    Wait(u64),
    Send(Batch),
    /// Closed, and everything was tried.
    End,
}

#[derive(Debug)]
pub(super) struct Outbox {
    queue: VecDeque<Batch>,
    bytes: u64,
    limit_bytes: u64,
    /// What is sent, for the log.
    things: &'static str,
    first_pause_ns: u64,
    most_pause_ns: u64,
    retry_for_ns: u64,
    /// Failures one after the other.
    failures: u32,
    /// Nothing is sent before.
    not_before_ns: u64,
    /// When the batch at the head was first sent.
    first_sent_ns: Option<u64>,
    random: u64,
    closed: bool,
    counts: Counts,
}

impl Outbox {
    pub(super) fn new(config: &Config, limit_bytes: u64, things: &'static str) -> Self {
        Self {
            queue: VecDeque::new(),
            bytes: 0,
            limit_bytes,
            things,
            first_pause_ns: config.retry_wait.as_ns(),
            most_pause_ns: config.retry_most.as_ns(),
            retry_for_ns: config.retry_for.as_ns(),
            failures: 0,
            not_before_ns: 0,
            first_sent_ns: None,
            // Agents that were started together must not come together: their ids of processes differ.
            random: u64::from(std::process::id()) | 1 << 40,
            closed: false,
            counts: Counts::default(),
        }
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// So many were handed over; they will come in a batch.
    pub(super) fn offered(&mut self, items: u64) {
        self.counts.offered += items;
    }

    /// So many of them will not come.
    pub(super) fn lose(&mut self, reason: LossReason, items: u64) {
        self.counts.lose(reason, items);
    }

    /// Queues a batch, or loses it where there is no room.
    pub(super) fn put(&mut self, batch: Batch) {
        let bytes = batch.body.len() as u64;
        if self.bytes + bytes > self.limit_bytes {
            if self.counts.lost_for(LossReason::QueueFull) == 0 {
                log::warn!("the queue of {} for OTLP is full: what comes now is lost, and counted", self.things);
            }
            self.counts.lose(LossReason::QueueFull, batch.items);
            return;
        }
        self.bytes += bytes;
        self.queue.push_back(batch);
    }

    pub(super) fn step(&mut self, now_ns: u64) -> Step {
        match self.queue.front() {
            None if self.closed => Step::End,
            None => Step::Nothing,
            // There is no time for a pause any more: each is tried once, until the first that fails.
            Some(_) if self.closed && self.failures > 0 => Step::End,
            Some(_) if now_ns < self.not_before_ns => Step::Wait(self.not_before_ns),
            Some(batch) => {
                self.first_sent_ns.get_or_insert(now_ns);
                Step::Send(batch.clone())
            }
        }
    }

    /// What the backend said to the batch that was sent.
    pub(super) fn answered(&mut self, answer: Answer, now_ns: u64) {
        self.counts.attempts[answer.kind()] += 1;
        match answer {
            Answer::Taken { rejected, why } => {
                if rejected > 0 {
                    log::warn!("OTLP: the backend rejected {rejected} {} of a batch: {why}", self.things);
                }
                if self.failures > 0 {
                    log::info!("OTLP: the backend takes {} again", self.things);
                }
                self.failures = 0;
                self.not_before_ns = 0;
                if let Some(batch) = self.take_head() {
                    let rejected = rejected.min(batch.items);
                    self.counts.lose(LossReason::Rejected, rejected);
                    self.counts.sent += batch.items - rejected;
                }
            }
            Answer::Refused(why) => {
                if let Some(batch) = self.take_head() {
                    log::warn!("OTLP: the backend refused a batch of {} {}: {why}", batch.items, self.things);
                    self.counts.lose(LossReason::Rejected, batch.items);
                }
            }
            Answer::Later { after, why } => {
                if self.failures == 0 {
                    log::warn!("OTLP: {why}; {} wait and are sent again", self.things);
                }
                let pause_ns = self.pause_ns();
                let asked_ns = after.map_or(0, |after| u64::try_from(after.as_nanos()).unwrap_or(u64::MAX));
                self.not_before_ns = now_ns.saturating_add(pause_ns.max(asked_ns.min(MOST_ASKED_NS)));
                self.failures = self.failures.saturating_add(1);
                let since_ns = self.first_sent_ns.map_or(0, |first_ns| now_ns.saturating_sub(first_ns));
                if since_ns >= self.retry_for_ns
                    && let Some(batch) = self.take_head()
                {
                    log::warn!("OTLP: gave up a batch of {} {}: {why}", batch.items, self.things);
                    self.counts.lose(LossReason::GaveUp, batch.items);
                }
            }
        }
    }

    /// No more is put in, and nothing is waited for any more.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.failures = 0;
        self.not_before_ns = 0;
    }

    /// Counts what is left as lost; how many spans or points.
    pub(super) fn abandon(&mut self) -> u64 {
        let mut lost = 0;
        while let Some(batch) = self.take_head() {
            lost += batch.items;
        }
        self.counts.lose(LossReason::Shutdown, lost);
        lost
    }

    fn take_head(&mut self) -> Option<Batch> {
        let batch = self.queue.pop_front()?;
        self.bytes -= batch.body.len() as u64;
        self.first_sent_ns = None;
        Some(batch)
    }

    /// Doubles with each failure; up to half of it is taken off at random.
    fn pause_ns(&mut self) -> u64 {
        let whole = self.first_pause_ns.saturating_mul(1 << self.failures.min(32)).min(self.most_pause_ns);
        // SplitMix64: any spread will do.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        whole - ((u128::from(whole / 2) * u128::from(mixed >> 32)) >> 32) as u64
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};

    use super::*;
    use crate::section::Interval;

    const SECOND: u64 = 1_000_000_000;

    fn batch(spans: u64) -> Batch {
        Batch { body: Bytes::from(vec![0; 100]), items: spans }
    }

    fn put(outbox: &mut Outbox, spans: u64) {
        outbox.offered(spans);
        outbox.put(batch(spans));
    }

    fn later() -> Answer {
        Answer::Later { after: None, why: "down".to_owned() }
    }

    fn taken() -> Answer {
        Answer::Taken { rejected: 0, why: String::new() }
    }

    fn outbox(limit_bytes: u64) -> Outbox {
        Outbox::new(&Config::default(), limit_bytes, "spans")
    }

    #[test]
    fn batches_are_sent_one_after_the_other_in_their_order() {
        let mut outbox = outbox(1000);
        assert_eq!(outbox.step(0), Step::Nothing);
        [1, 2].into_iter().for_each(|spans| put(&mut outbox, spans));
        for spans in [1, 2] {
            assert_eq!(outbox.step(0), Step::Send(batch(spans)));
            outbox.answered(taken(), 0);
        }
        assert_eq!((outbox.step(0), outbox.counts().sent, outbox.bytes()), (Step::Nothing, 3, 0));
    }

    #[test]
    fn pauses_double_up_to_the_longest_with_at_most_half_taken_off() {
        let mut outbox = outbox(1000);
        put(&mut outbox, 1);
        let (mut now_ns, mut pauses) = (0, Vec::new());
        for _ in 0..8 {
            assert!(matches!(outbox.step(now_ns), Step::Send(_)));
            outbox.answered(later(), now_ns);
            let Step::Wait(until_ns) = outbox.step(now_ns) else { panic!("no pause") };
            pauses.push((until_ns - now_ns) as f64 / 1e9);
            now_ns = until_ns;
        }
        for (pause, whole) in pauses.iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]) {
            assert!((whole / 2.0..=whole).contains(pause), "{pauses:?}");
        }
        outbox.answered(taken(), now_ns);
        put(&mut outbox, 1);
        assert!(matches!(outbox.step(now_ns), Step::Send(_)), "after a success there is no pause");
    }

    #[test]
    fn a_pause_that_the_backend_asks_for_is_kept_within_reason() {
        for (asked, least, most) in [(60, 60, 60), (1_000_000, 600, 600), (0, 0, 1)] {
            let mut outbox = outbox(1000);
            put(&mut outbox, 1);
            outbox.step(0);
            outbox.answered(Answer::Later { after: Some(Duration::from_secs(asked)), why: String::new() }, 0);
            let Step::Wait(until_ns) = outbox.step(0) else { panic!("no pause") };
            assert!((least * SECOND..=most * SECOND).contains(&until_ns), "{asked}: {until_ns}");
        }
    }

    #[test]
    fn every_way_to_lose_a_span_is_counted_by_its_reason() {
        let config = Config { retry_for: Interval::secs(10), ..Config::default() };
        let mut outbox = Outbox::new(&config, 300, "spans");
        (1..=5).for_each(|spans| put(&mut outbox, spans));
        outbox.step(0);
        outbox.answered(Answer::Taken { rejected: 1, why: "bad".to_owned() }, 0);
        outbox.step(0);
        outbox.answered(Answer::Refused("400".to_owned()), 0);
        outbox.step(0);
        outbox.answered(later(), 5 * SECOND);
        outbox.step(100 * SECOND);
        outbox.answered(later(), 100 * SECOND);
        put(&mut outbox, 6);
        outbox.close();
        assert!(matches!(outbox.step(100 * SECOND), Step::Send(_)), "a closed outbox tries once more");
        outbox.answered(later(), 100 * SECOND);
        assert_eq!(outbox.step(100 * SECOND), Step::End);
        assert_eq!(outbox.abandon(), 6);
        let counts = outbox.counts();
        let reasons = [LossReason::QueueFull, LossReason::Rejected, LossReason::GaveUp, LossReason::Shutdown];
        assert_eq!(reasons.map(|reason| counts.lost_for(reason)), [4 + 5, 1 + 2, 3, 6]);
        assert_eq!((counts.sent, counts.queued(), outbox.bytes()), (0, 0, 0));
    }

    #[test]
    fn an_outage_of_five_minutes_at_500_spans_a_second_loses_nothing() {
        let config = Config::default();
        let mut outbox = Outbox::new(&config, config.queue_bytes.0, "spans");
        let (mut now_ns, mut sent_at) = (0_u64, Vec::new());
        // A batch of 500 spans a second, 200 bytes each; the backend is down from 10 s to 310 s.
        for second in 0..400_u64 {
            outbox.offered(500);
            outbox.put(Batch { body: Bytes::from(vec![0; 100_000]), items: 500 });
            now_ns = second * SECOND;
            while let Step::Send(_) = outbox.step(now_ns) {
                let up = !(10..310).contains(&second);
                outbox.answered(if up { taken() } else { later() }, now_ns);
                sent_at.push(up);
            }
        }
        let counts = outbox.counts();
        assert_eq!((counts.sent, counts.queued(), counts.offered), (200_000, 0, 200_000), "at {now_ns}");
        let tries = sent_at.iter().filter(|up| !**up).count();
        assert!((10..40).contains(&tries), "{tries} tries of a backend that is down");
    }

    proptest! {
        #[test]
        fn offered_is_sent_and_lost_and_queued_whatever_happens(
            steps in prop::collection::vec((0_u8..6, 1_u64..9), 0..200)
        ) {
            let mut outbox = outbox(700);
            let mut now_ns = 0;
            for (what, number) in steps {
                match what {
                    0 | 1 => put(&mut outbox, number),
                    2 => now_ns += number * SECOND,
                    _ => {
                        if let Step::Send(_) = outbox.step(now_ns) {
                            let answer = match what {
                                3 => Answer::Taken { rejected: number / 4, why: String::new() },
                                4 => later(),
                                _ => Answer::Refused(String::new()),
                            };
                            outbox.answered(answer, now_ns);
                        }
                    }
                }
                let counts = outbox.counts();
                let waiting: u64 = outbox.queue.iter().map(|batch| batch.items).sum();
                prop_assert_eq!(counts.offered, counts.sent + counts.lost() + waiting);
                prop_assert!(outbox.bytes() <= 700);
            }
        }
    }
}
