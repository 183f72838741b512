//! Which requests are slow or rare for their route: a decaying histogram and two counts for each route.
//!
//! A route is service, kind and span name. Its durations are counted in buckets of a fifth each (four to the power of
//! two, from 1 µs to over an hour); when [`HALVED_AT`] are counted all are halved, so that the last few thousand weigh.
//! A request is slow where it and all that were at least as slow are no more than the quantile leaves over; it takes
//! [`LEAST`] requests before any is. Bounded: so many routes, one unseen for two half windows is forgotten.

use std::hash::BuildHasher as _;

use super::{Config, KeepReason};
use crate::model::hashing::Map;
use crate::model::span::Span;

const BUCKETS: usize = 128;
const PER_OCTAVE_SHIFT: u32 = 2;
/// Durations below 2^10 ns are in the first bucket.
const FIRST_OCTAVE: u32 = 10;
const HALVED_AT: u32 = 4096;
/// Requests of a route before one of them can be slow for it.
const LEAST: u32 = 100;

#[derive(Debug)]
struct Route {
    durations: [u16; BUCKETS],
    total: u32,
    /// Half window that `now` counts.
    half: u64,
    now: u32,
    before: u32,
}

#[derive(Debug)]
pub(super) struct Routes {
    routes: Map<u64, Route>,
    capacity: usize,
    left_over: f64,
    rare_below: u32,
    half_ns: u64,
    half: u64,
    refused: u64,
}

impl Routes {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            routes: Map::default(),
            capacity: config.routes,
            left_over: 1.0 - config.slow_quantile,
            rare_below: config.rare_below,
            half_ns: (config.rare_window.as_ns() / 2).max(1),
            half: 0,
            refused: 0,
        }
    }

    /// Counts a request; whether it is slow or rare for what was counted before.
    pub(super) fn enter(&mut self, span: &Span, now_ns: u64) -> Option<KeepReason> {
        let key = self.routes.hasher().hash_one((&span.resource.service_name, &span.name, span.kind.name()));
        let half = now_ns / self.half_ns;
        let full = self.routes.len() >= self.capacity;
        let route = match self.routes.get_mut(&key) {
            Some(route) => route,
            None if full => {
                self.refused += 1;
                return None;
            }
            None => {
                let new = Route { durations: [0; BUCKETS], total: 0, half, now: 0, before: 0 };
                self.routes.entry(key).or_insert(new)
            }
        };
        route.turn(half);
        let slow = route.is_slow(bucket(span.duration_ns()), self.left_over);
        let rare = route.now.saturating_add(route.before) < self.rare_below;
        route.count(bucket(span.duration_ns()));
        match (slow, rare) {
            (true, _) => Some(KeepReason::Slow),
            (false, true) => Some(KeepReason::Rare),
            (false, false) => None,
        }
    }

    /// Forgets routes that were not seen in the last whole half window nor since.
    pub(super) fn tick(&mut self, now_ns: u64) {
        let half = now_ns / self.half_ns;
        if half != self.half {
            self.half = half;
            self.routes.retain(|_, route| route.half + 1 >= half);
        }
    }

    /// Requests of routes that there was no room for.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }
}

impl Route {
    fn turn(&mut self, half: u64) {
        if half != self.half {
            self.before = if half == self.half + 1 { self.now } else { 0 };
            (self.half, self.now) = (half, 0);
        }
    }

    fn is_slow(&self, bucket: usize, left_over: f64) -> bool {
        let as_slow: u32 = self.durations.iter().skip(bucket).map(|count| u32::from(*count)).sum();
        self.total >= LEAST && f64::from(as_slow + 1) <= left_over * f64::from(self.total + 1)
    }

    fn count(&mut self, bucket: usize) {
        self.now = self.now.saturating_add(1);
        if let Some(count) = self.durations.get_mut(bucket) {
            *count += 1;
            self.total += 1;
        }
        if self.total >= HALVED_AT {
            self.durations.iter_mut().for_each(|count| *count /= 2);
            self.total = self.durations.iter().map(|count| u32::from(*count)).sum();
        }
    }
}

fn bucket(ns: u64) -> usize {
    let octave = ns.max(1).ilog2();
    if octave < FIRST_OCTAVE {
        return 0;
    }
    let quarter = (ns >> (octave - PER_OCTAVE_SHIFT)) & 3;
    let bucket = u64::from((octave - FIRST_OCTAVE) << PER_OCTAVE_SHIFT) + quarter;
    usize::try_from(bucket).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::{BUCKETS, bucket};

    #[test]
    fn buckets_rise_with_durations_and_end_above_an_hour() {
        let found: Vec<usize> = (0..64).map(|octave| bucket(1 << octave)).collect();
        assert!(found.is_sorted());
        assert_eq!([bucket(0), bucket(1023), bucket(1024), bucket(1279), bucket(1280)], [0, 0, 0, 0, 1]);
        assert!(bucket(3_600_000_000_000) < BUCKETS - 1);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }
}
