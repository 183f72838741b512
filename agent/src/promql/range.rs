//! Functions of one series' samples in a window, with Prometheus' extrapolation to the window's ends.

/// Samples with `start_ms < t <= end_ms`, in order, at least one.
pub(super) struct Window<'a> {
    pub start_ms: i64,
    pub end_ms: i64,
    pub samples: &'a [(i64, f64)],
}

impl Window<'_> {
    fn seconds(&self) -> f64 {
        (self.end_ms - self.start_ms) as f64 / 1000.0
    }
}

pub(super) fn rate(window: &Window<'_>) -> Option<f64> {
    Some(extrapolated(window, true)? / window.seconds())
}

pub(super) fn increase(window: &Window<'_>) -> Option<f64> {
    extrapolated(window, true)
}

pub(super) fn delta(window: &Window<'_>) -> Option<f64> {
    extrapolated(window, false)
}

/// Rate between the last two samples; after a reset the counter started from zero.
pub(super) fn irate(window: &Window<'_>) -> Option<f64> {
    let [.., (before_ms, before), (last_ms, last)] = window.samples else { return None };
    let increase = if last < before { *last } else { last - before };
    (last_ms > before_ms).then(|| increase / ((last_ms - before_ms) as f64 / 1000.0))
}

/// The increase over the whole window, as if the samples went on at the same pace to both ends of it, but
/// at most half an average interval further where they stop well inside, and for a counter not to below zero.
fn extrapolated(window: &Window<'_>, counter: bool) -> Option<f64> {
    let [(first_ms, first), .., (last_ms, last)] = window.samples else { return None };
    let mut increase = last - first;
    if counter {
        for pair in window.samples.windows(2) {
            if let [(_, before), (_, after)] = pair
                && after < before
            {
                increase += before;
            }
        }
    }
    let sampled = (last_ms - first_ms) as f64 / 1000.0;
    let average = sampled / (window.samples.len() - 1) as f64;
    let threshold = average * 1.1;
    let reach = |gap: f64| if gap >= threshold { average / 2.0 } else { gap };
    let mut to_start = reach((first_ms - window.start_ms) as f64 / 1000.0);
    let to_end = reach((window.end_ms - last_ms) as f64 / 1000.0);
    if counter && increase > 0.0 && *first >= 0.0 {
        to_start = to_start.min(sampled * (first / increase));
    }
    Some(increase * ((sampled + to_start + to_end) / sampled))
}
