//! Waits for conditions instead of sleeping for them.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at.
const PAUSE: Duration = Duration::from_millis(20);

/// A limit as it is on this machine: where everything is emulated, `SEISMOTEST_PATIENCE` says how many times longer.
pub fn patient(limit: Duration) -> Duration {
    let factor = std::env::var("SEISMOTEST_PATIENCE").ok().and_then(|text| text.parse::<u32>().ok());
    limit * factor.unwrap_or(1)
}

/// Asks until there is an answer; after `limit` fails with the words of `what`.
pub fn until<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let (start, limit) = (Instant::now(), patient(limit));
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if start.elapsed() >= limit {
            bail!("waited {} s in vain: {what}", limit.as_secs());
        }
        sleep(PAUSE);
    }
}

/// Reads a value until it is `expected` or `limit` has passed, and then until it has stood still for `still`;
/// so a count that overshoots is seen, and one that falls short does not wait for ever.
pub fn settled<T: PartialEq>(
    expected: &T,
    limit: Duration,
    still: Duration,
    mut read: impl FnMut() -> Result<T>,
) -> Result<T> {
    let (start, limit) = (Instant::now(), patient(limit));
    let mut value = read()?;
    while value != *expected && start.elapsed() < limit {
        sleep(PAUSE);
        value = read()?;
    }
    stood_still(value, limit.saturating_sub(start.elapsed()) + still * 10, still, read)
}

/// Reads a value until it has been the same for `still`, at most for `limit`; `value` is what it was last.
pub fn stood_still<T: PartialEq>(
    mut value: T,
    limit: Duration,
    still: Duration,
    mut read: impl FnMut() -> Result<T>,
) -> Result<T> {
    let (start, limit) = (Instant::now(), patient(limit));
    let mut since = start;
    while since.elapsed() < still {
        sleep(PAUSE);
        let next = read()?;
        if next != value {
            (value, since) = (next, Instant::now());
        }
        if start.elapsed() > limit {
            bail!("a value does not stand still");
        }
    }
    Ok(value)
}
