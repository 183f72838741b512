//! In which order a thread reads and writes: what came first is mostly done first.
//!
//! A loop reads all that has come and then does what follows, in that order. So each read has a place in its run of
//! reads, and each write a place in the run of writes behind it; where the two agree they belong together more often than
//! not. How often, each process shows itself: likelihoods are learned by [`Space::fit`] and held against those of any pair.

use super::space::Space;

/// Places further apart than this are the same.
const FAR: i32 = 4;
/// Differences of places in one run, then the run before, then any earlier one.
pub(super) const CLASSES: usize = SAME_RUN + 2;
/// Classes of one run.
pub(super) const SAME_RUN: usize = 2 * FAR as usize + 1;

/// A read or a write of a thread.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    pub tid: u32,
    run: u32,
    place: u32,
}

/// How a write stands to a read before it; `None`: by another thread.
pub(super) fn class(read: Mark, write: Mark) -> Option<usize> {
    if read.tid != write.tid || read.tid == 0 {
        return None;
    }
    let far = usize::try_from(FAR).unwrap_or_default();
    match write.run.checked_sub(read.run)? {
        0 => {
            let apart = i64::from(write.place) - i64::from(read.place);
            Some((apart.clamp(-i64::from(FAR), i64::from(FAR)) + i64::from(FAR)) as usize)
        }
        1 => Some(2 * far + 1),
        _ => Some(2 * far + 2),
    }
}

/// What a mark belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Begun(u32),
    Answered(u32),
    Sent(u32),
    Ended(u32),
}

/// Marks all events of a window.
pub(super) fn mark(space: &mut Space) {
    // Reads before writes where the clock cannot tell.
    let mut events: Vec<(u32, u64, bool, What)> = Vec::new();
    for (place, served) in space.served.iter().enumerate() {
        events.push((served.tid, served.start_ns, false, What::Begun(place as u32)));
        if served.is_over {
            events.push((served.end_tid, served.end_ns, true, What::Answered(place as u32)));
        }
    }
    for (place, sent) in space.sent.iter().enumerate() {
        events.push((sent.tid, sent.start_ns, true, What::Sent(place as u32)));
        events.push((sent.last_tid, sent.end_ns, false, What::Ended(place as u32)));
    }
    events.retain(|(tid, ..)| *tid != 0);
    events.sort_unstable();
    let mut now = Mark::default();
    let mut wrote = false;
    let mut marks: Vec<Mark> = Vec::with_capacity(events.len());
    for (tid, _, is_write, _) in &events {
        let (tid, is_write) = (*tid, *is_write);
        if tid != now.tid {
            now = Mark { tid, run: 0, place: 0 };
        } else if wrote && !is_write {
            now = Mark { tid, run: now.run + 1, place: 0 };
        } else if wrote != is_write {
            now.place = 0;
        } else {
            now.place += 1;
        }
        wrote = is_write;
        marks.push(now);
    }
    // A run of writes may be longer or shorter than the reads before it: its places are theirs, in proportion.
    let mut first = 0;
    while let Some(begin) = marks.get(first).copied() {
        let is_run = |mark: &Mark| mark.tid == begin.tid && mark.run == begin.run;
        let count = marks.get(first..).unwrap_or_default().iter().take_while(|mark| is_run(mark)).count().max(1);
        let writes = events.get(first..first + count).unwrap_or_default().iter().filter(|event| event.2).count();
        let reads = count - writes;
        if reads > 0 && writes > 0 {
            for mark in marks.get_mut(first + reads..first + count).unwrap_or_default() {
                mark.place = ((2 * mark.place + 1) * reads as u32) / (2 * writes as u32);
            }
        }
        first += count;
    }
    for ((.., what), now) in events.into_iter().zip(marks) {
        match what {
            What::Begun(place) => space.served.get_mut(place as usize).map(|served| served.begun = now),
            What::Answered(place) => space.served.get_mut(place as usize).map(|served| served.answered = now),
            What::Sent(place) => space.sent.get_mut(place as usize).map(|sent| sent.begun = now),
            What::Ended(place) => space.sent.get_mut(place as usize).map(|sent| sent.ended = now),
        };
    }
}
