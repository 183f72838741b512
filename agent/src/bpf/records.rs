//! Records out of all the places that kernel programs write them to, as one stream in the order of their time.
//!
//! Each [`Source`] gives its own in the order in which they became whole. What is later than the look at the sources waits
//! for the next one: by then everything is there that became whole before it was begun, in whichever source.

use super::lanes::Lane;
use super::ring::Ring;

/// Where programs write records: the ring, or a lane.
pub trait Source {
    /// Sees what is there by now.
    fn look(&mut self);
    /// When the next record was written (`CLOCK_MONOTONIC`, ns), if there is a whole one of those that were seen.
    fn next(&mut self) -> Option<u64>;
    /// Copies it to the end of `out`, padded to eight bytes.
    fn take(&mut self, out: &mut Vec<u8>);
    /// Gives the room of what was taken to the programs.
    fn give_back(&mut self);
    /// Places where no record was and one should have been, since this was asked last.
    fn take_torn(&mut self) -> u64 {
        0
    }
}

pub struct Records {
    sources: Vec<Box<dyn Source + Send>>,
    /// Time of the next record of a source, and which one it is.
    fronts: Vec<(u64, usize)>,
}

impl Records {
    /// Out of the ring and the lanes.
    pub fn of(ring: Ring, lanes: Vec<Lane>) -> Self {
        let lanes = lanes.into_iter().map(|lane| Box::new(lane) as Box<dyn Source + Send>);
        Self::new(lanes.chain([Box::new(ring) as _]).collect())
    }

    fn new(sources: Vec<Box<dyn Source + Send>>) -> Self {
        Self { sources, fronts: Vec::new() }
    }

    /// Sees what is in every source by now. The time at which this begins is the bound for [`Records::read`].
    pub fn look(&mut self) {
        self.sources.iter_mut().for_each(|source| source.look());
    }

    /// Copies whole records that were seen and are older than `until_ns` to the end of `out`, each padded to eight bytes, until it
    /// holds `limit` bytes or there are none left. How many there were.
    pub fn read(&mut self, out: &mut Vec<u8>, limit: usize, until_ns: u64) -> u64 {
        let Self { sources, fronts } = self;
        let next = |source: &mut Box<dyn Source + Send>| source.next().filter(|time| *time < until_ns);
        fronts.clear();
        let there = sources.iter_mut().enumerate().filter_map(|(place, source)| Some((next(source)?, place)));
        fronts.extend(there);
        let mut count = 0;
        while out.len() < limit
            && let Some((at, place, others)) = first(fronts)
            && let Some(source) = sources.get_mut(place)
        {
            // One source often has several in a row.
            let time = loop {
                source.take(out);
                count += 1;
                match next(source) {
                    Some(time) if time <= others && out.len() < limit => {}
                    time => break time,
                }
            };
            match (time, fronts.get_mut(at)) {
                (Some(time), Some(front)) => front.0 = time,
                _ => _ = fronts.swap_remove(at),
            }
        }
        if count > 0 {
            sources.iter_mut().for_each(|source| source.give_back());
        }
        count
    }

    /// As of all sources.
    pub fn take_torn(&mut self) -> u64 {
        self.sources.iter_mut().map(|source| source.take_torn()).sum()
    }
}

/// Where the earliest is, its source, and the time of the next one after it.
fn first(fronts: &[(u64, usize)]) -> Option<(usize, usize, u64)> {
    let mut found: Option<(u64, usize, usize)> = None;
    let mut others = u64::MAX;
    for (at, (time, place)) in fronts.iter().copied().enumerate() {
        match found {
            Some((earliest, ..)) if earliest <= time => others = others.min(time),
            before => {
                others = before.map_or(u64::MAX, |(earliest, ..)| earliest);
                found = Some((time, at, place));
            }
        }
    }
    found.map(|(_, at, place)| (at, place, others))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    use super::{Records, Source};

    /// Records that are but their time; those behind the number that was seen are not there yet.
    #[derive(Clone, Default)]
    struct Fake(Arc<Mutex<(VecDeque<u64>, usize)>>);

    impl Fake {
        fn write(&self, times: &[u64]) {
            self.0.lock().unwrap().0.extend(times);
        }
    }

    impl Source for Fake {
        fn look(&mut self) {
            let (records, seen) = &mut *self.0.lock().unwrap();
            *seen = records.len();
        }

        fn next(&mut self) -> Option<u64> {
            let (records, seen) = &*self.0.lock().unwrap();
            records.front().copied().filter(|_| *seen > 0)
        }

        fn take(&mut self, out: &mut Vec<u8>) {
            let (records, seen) = &mut *self.0.lock().unwrap();
            *seen -= 1;
            out.extend(records.pop_front().unwrap().to_ne_bytes());
        }

        fn give_back(&mut self) {}
    }

    fn records(count: usize) -> (Vec<Fake>, Records) {
        let fakes: Vec<Fake> = (0..count).map(|_| Fake::default()).collect();
        let sources: Vec<Box<dyn Source + Send>> = fakes.iter().map(|fake| Box::new(fake.clone()) as _).collect();
        (fakes, Records::new(sources))
    }

    fn read(records: &mut Records, limit: usize, until: u64) -> Vec<u64> {
        let mut out = Vec::new();
        let count = records.read(&mut out, limit * 8, until);
        assert_eq!(out.len() as u64, 8 * count);
        out.chunks(8).map(|time| u64::from_ne_bytes(time.try_into().unwrap())).collect()
    }

    #[test]
    fn records_of_all_sources_come_in_the_order_of_their_time() {
        let (fakes, mut records) = records(4);
        fakes[0].write(&[3, 4, 9]);
        fakes[1].write(&[1, 2, 8, 10]);
        fakes[3].write(&[5, 5, 6]);
        records.look();
        assert_eq!(read(&mut records, 4, u64::MAX), [1, 2, 3, 4]);
        assert_eq!(read(&mut records, 100, u64::MAX), [5, 5, 6, 8, 9, 10]);
        assert!(read(&mut records, 100, u64::MAX).is_empty());
    }

    #[test]
    fn what_a_source_has_in_another_order_stays_in_its_order() {
        let (fakes, mut records) = records(2);
        fakes[0].write(&[7, 2, 3]);
        fakes[1].write(&[5, 8]);
        records.look();
        assert_eq!(read(&mut records, 100, u64::MAX), [5, 7, 2, 3, 8]);
    }

    #[test]
    fn what_is_not_older_than_the_look_waits_for_what_may_come_before_it() {
        let (fakes, mut records) = records(2);
        fakes[0].write(&[1, 6]);
        records.look();
        // Became whole after the look, and before the one that was seen.
        fakes[1].write(&[5]);
        assert_eq!(read(&mut records, 100, 5), [1]);
        records.look();
        assert_eq!(read(&mut records, 100, 7), [5, 6]);
    }

    #[test]
    fn any_number_of_sources_gives_every_record_once_in_order() {
        let (fakes, mut records) = records(29);
        (0..10_000u64).for_each(|time| fakes[(time * time % 29) as usize].write(&[time]));
        let mut got = Vec::new();
        records.look();
        while got.len() < 10_000 {
            let batch = read(&mut records, 37, u64::MAX);
            assert!(batch.len() == 37 || got.len() + batch.len() == 10_000);
            got.extend(batch);
        }
        assert!(got.into_iter().eq(0..10_000));
    }
}
