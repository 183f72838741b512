//! System calls are timed for a share of the time: the program at their beginning is attached then, and only then.
//!
//! A thread that attaches and detaches it: twice in [`PERIOD`]. Calls that begin in between are timed to their end, however
//! long they take. Where every call is to be timed it stays attached and there is no thread.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::probe_control::ProbeControl;
use crate::probes::syscall::TIMED;

/// From one look to the next, where the share allows [`SHORTEST`].
const PERIOD: Duration = Duration::from_secs(1);
/// The least time that is worth the change, which has to reach every CPU.
const SHORTEST: Duration = Duration::from_millis(2);

/// How long the program is attached, and then not.
fn turns(one_in: u32) -> (Duration, Duration) {
    let on = (PERIOD / one_in.max(1)).max(SHORTEST);
    (on, on * one_in.saturating_sub(1))
}

/// Begins to look for one in `one_in` of the time; ends with the programs.
pub fn start(control: &Arc<ProbeControl>, one_in: u32) -> io::Result<()> {
    let (on, off) = turns(one_in);
    if off.is_zero() {
        return Ok(());
    }
    let control = Arc::clone(control);
    let looking = move || loop {
        thread::sleep(on);
        if !control.pause(TIMED) {
            return;
        }
        thread::sleep(off);
        if !control.resume(TIMED) {
            return;
        }
    };
    thread::Builder::new().name("seismo-sampling".to_owned()).stack_size(64 << 10).spawn(looking).map(drop)
}

#[cfg(test)]
mod tests {
    use super::{PERIOD, SHORTEST, turns};

    #[test]
    fn the_share_is_as_configured_and_no_turn_too_short() {
        for one_in in [2, 16, 500, 1024, 65_536] {
            let (on, off) = turns(one_in);
            assert_eq!(on + off, on * one_in);
            assert!(on >= SHORTEST && on + off >= PERIOD.mul_f64(0.999), "{one_in}: {on:?} {off:?}");
        }
        assert!(turns(1).1.is_zero());
    }
}
