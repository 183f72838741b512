//! System calls are timed for a share of the time: the program at their beginning is attached then, and only then.
//!
//! A thread that attaches and detaches it: each change reaches every CPU and takes nearly a millisecond of one. Where there
//! are few calls, turns are longer by [`CALM`], so that an idle machine pays next to nothing; the share is the same. Where it gets
//! busy in such a long turn, the turn ends. Calls that begin in a turn are timed to their end, however long they take. Where
//! every call is to be timed it stays attached and there is no thread.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::probe_control::ProbeControl;
use crate::probes::syscall::TIMED;

/// From one turn to the next, where the share allows [`SHORTEST`].
const PERIOD: Duration = Duration::from_secs(1);
/// Periods between two turns while there are few calls.
const CALM: u32 = 32;
/// Calls a second from which there is a turn in each period.
const BUSY: f64 = 10_000.0;
/// The least time that is worth the change, which has to reach every CPU.
const SHORTEST: Duration = Duration::from_millis(2);

/// How long the program is attached, and then not.
fn turns(one_in: u32, busy: bool) -> (Duration, Duration) {
    let on = (PERIOD / one_in.max(1)).max(SHORTEST) * if busy { 1 } else { CALM };
    (on, on * one_in.saturating_sub(1))
}

/// How many calls there are.
struct Rate<F> {
    calls: F,
    last: (Instant, u64),
}

impl<F: Fn() -> u64> Rate<F> {
    fn new(calls: F) -> Self {
        let last = (Instant::now(), calls());
        Self { calls, last }
    }

    /// Whether there were many since it was asked last.
    fn busy(&mut self) -> bool {
        let (then, before) = std::mem::replace(&mut self.last, (Instant::now(), (self.calls)()));
        let calls = self.last.1.saturating_sub(before) as f64;
        calls >= BUSY * self.last.0.duration_since(then).as_secs_f64()
    }
}

/// Begins to look for one in `one_in` of the time; ends with the programs. `calls`: all since the start.
pub fn start(control: &Arc<ProbeControl>, one_in: u32, calls: impl Fn() -> u64 + Send + 'static) -> io::Result<()> {
    if one_in <= 1 {
        return Ok(());
    }
    let control = Arc::clone(control);
    let mut rate = Rate::new(calls);
    let mut busy = false;
    let looking = move || {
        // It was attached to see that it can be.
        let mut on = Duration::ZERO;
        loop {
            // A long turn ends when there turns out to be much to time: looked at after what a busy machine's turn takes,
            // then more seldom.
            let mut look = turns(one_in, true).0;
            while !on.is_zero() {
                let step = on.min(look);
                look = (look * 2).min(PERIOD);
                thread::sleep(step);
                on -= step;
                busy = rate.busy();
                if busy {
                    break;
                }
            }
            if !control.pause(TIMED) {
                return;
            }
            let mut off = turns(one_in, busy).1;
            while !off.is_zero() {
                let step = off.min(PERIOD);
                thread::sleep(step);
                off -= step;
                let was = std::mem::replace(&mut busy, rate.busy());
                if busy && !was {
                    // The next turn is a short one and need not be waited for.
                    break;
                }
            }
            on = turns(one_in, busy).0;
            if !control.resume(TIMED) {
                return;
            }
        }
    };
    thread::Builder::new().name("seismo-sampling".to_owned()).stack_size(64 << 10).spawn(looking).map(drop)
}

#[cfg(test)]
mod tests {
    use super::{CALM, PERIOD, SHORTEST, turns};

    #[test]
    fn the_share_is_as_configured_and_no_turn_too_short() {
        for one_in in [2, 16, 500, 1024, 65_536] {
            let (on, off) = turns(one_in, true);
            assert_eq!(on + off, on * one_in);
            assert!(on >= SHORTEST && on + off >= PERIOD.mul_f64(0.999), "{one_in}: {on:?} {off:?}");
            assert_eq!(turns(one_in, false), (on * CALM, off * CALM));
        }
    }
}
