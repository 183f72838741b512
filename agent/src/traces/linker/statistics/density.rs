//! Lengths of gaps to a density: a histogram on a logarithmic scale, and a small mixture fitted to it by EM.
//!
//! 8 bins an octave from 128 ns to 9 minutes, counts as weights. The fit is three normal distributions on the logarithm
//! over a floor, [`ROUNDS`] rounds over the bins that hold something: some 10 000 steps, whatever the number of gaps.
//! Densities come out per nanosecond and as logarithms, so that they can be held against rates.

pub const BINS: usize = 256;
/// Log2 of the shortest gap told apart, and of the bins in an octave.
const SHORTEST: u32 = 7;
const FINE: u32 = 3;
const PARTS: usize = 3;
const ROUNDS: usize = 12;
/// Share of the floor: a gap of any length may happen.
const FLOOR: f64 = 0.02;
/// Spread of a part that rests on few gaps, in bins, and how many gaps outweigh it.
const PRIOR_SPREAD: f64 = 5.0;
const PRIOR_WEIGHT: f64 = 2.0;
const LEAST_SPREAD: f64 = 0.8;

/// The bin of a gap in ns.
pub fn bin(gap_ns: u64) -> usize {
    let gap = gap_ns.max(1 << SHORTEST);
    let octave = 63 - gap.leading_zeros();
    let fine = (gap >> (octave - FINE)) & ((1 << FINE) - 1);
    ((((octave - SHORTEST) << FINE) as usize) + fine as usize).min(BINS - 1)
}

/// Width of a bin, ns. The first one begins at 0.
pub(super) fn width(bin: usize) -> f64 {
    let octave = (bin >> FINE) as i32 + SHORTEST as i32;
    let width = 2f64.powi(octave - FINE as i32);
    if bin == 0 { width + 2f64.powi(SHORTEST as i32) } else { width }
}

/// The middle of a bin, ns.
pub(super) fn middle(bin: usize) -> f64 {
    let octave = (bin >> FINE) as i32 + SHORTEST as i32;
    let fine = (bin & ((1 << FINE) - 1)) as f64;
    2f64.powi(octave) * (1.0 + (fine + 0.5) / f64::from(1 << FINE))
}

/// Weights of gaps by bin.
#[derive(Clone, Debug)]
pub struct Gaps {
    bins: Box<[f32; BINS]>,
    pub total: f64,
}

impl Default for Gaps {
    fn default() -> Self {
        Self { bins: Box::new([0.0; BINS]), total: 0.0 }
    }
}

impl Gaps {
    pub fn add(&mut self, gap_ns: u64, weight: f64) {
        if let Some(count) = self.bins.get_mut(bin(gap_ns)) {
            *count += weight as f32;
            self.total += weight;
        }
    }

    pub fn add_all(&mut self, other: &Self, factor: f64) {
        for (count, more) in self.bins.iter_mut().zip(other.bins.iter()) {
            *count += *more * factor as f32;
        }
        self.total += other.total * factor;
    }

    pub fn scale(&mut self, factor: f64) {
        self.bins.iter_mut().for_each(|count| *count *= factor as f32);
        self.total *= factor;
    }

    /// Density of the gaps, smoothed; logarithm, per ns.
    pub fn fit(&self) -> Density {
        let seen: Vec<(f64, f64)> = self
            .bins
            .iter()
            .enumerate()
            .filter(|(_, weight)| **weight > 0.0)
            .map(|(bin, weight)| (bin as f64, f64::from(*weight)))
            .collect();
        let parts = if seen.is_empty() { Vec::new() } else { mixture(&seen, self.total) };
        let mut mass = [0.0; BINS];
        for part in &parts {
            let shares: Vec<f64> = (0..BINS).map(|bin| part.at(bin as f64)).collect();
            let sum: f64 = shares.iter().sum();
            for (mass, share) in mass.iter_mut().zip(shares) {
                *mass += part.weight * share / sum.max(1e-300);
            }
        }
        let floor = if parts.is_empty() { 1.0 } else { FLOOR };
        let mut logs = Box::new([0.0; BINS]);
        for (bin, (log, mass)) in logs.iter_mut().zip(mass).enumerate() {
            *log = (((1.0 - floor) * mass + floor / BINS as f64) / width(bin)).ln() as f32;
        }
        Density { logs }
    }
}

/// Logarithm of a density by bin, per ns.
#[derive(Clone, Debug)]
pub struct Density {
    logs: Box<[f32; BINS]>,
}

impl Density {
    pub fn logs(&self) -> &[f32; BINS] {
        &self.logs
    }
}

#[derive(Clone, Copy, Debug)]
struct Part {
    weight: f64,
    mean: f64,
    spread: f64,
}

impl Part {
    fn at(&self, bin: f64) -> f64 {
        let far = (bin - self.mean) / self.spread;
        (-0.5 * far * far).exp() / self.spread
    }
}

/// EM from the quantiles; `seen`: bins and their weights, in order.
fn mixture(seen: &[(f64, f64)], total: f64) -> Vec<Part> {
    let mean = seen.iter().map(|(bin, weight)| bin * weight).sum::<f64>() / total;
    let square = seen.iter().map(|(bin, weight)| (bin - mean).powi(2) * weight).sum::<f64>() / total;
    let spread = (square.sqrt() / 2.0).max(LEAST_SPREAD);
    let mut parts: Vec<Part> = (0..PARTS)
        .map(|part| {
            let wanted = total * (2 * part + 1) as f64 / (2 * PARTS) as f64;
            let mut sum = 0.0;
            let quantile = seen.iter().find(|(_, weight)| {
                sum += weight;
                sum >= wanted
            });
            let mean = quantile.or(seen.last()).map_or(mean, |(bin, _)| *bin);
            Part { weight: 1.0 / PARTS as f64, mean, spread }
        })
        .collect();
    for _ in 0..ROUNDS {
        // Weight, sum and sum of squares of each part.
        let mut sums = [[0.0; 3]; PARTS];
        for (bin, weight) in seen {
            let mut shares = [0.0; PARTS];
            for (share, part) in shares.iter_mut().zip(&parts) {
                *share = part.weight * part.at(*bin);
            }
            let all: f64 = shares.iter().sum::<f64>() + FLOOR / BINS as f64;
            for (sum, share) in sums.iter_mut().zip(shares) {
                let share = weight * share / all;
                let [count, first, second] = sum;
                *count += share;
                *first += share * bin;
                *second += share * bin * bin;
            }
        }
        let all: f64 = sums.iter().map(|[count, ..]| count).sum::<f64>().max(1e-9);
        for (part, [count, first, second]) in parts.iter_mut().zip(sums) {
            part.weight = (count / all).max(1e-6);
            if count < 1e-6 {
                continue;
            }
            part.mean = first / count;
            let square = (second / count - part.mean * part.mean).max(0.0);
            let calm = (square * count + PRIOR_SPREAD * PRIOR_SPREAD * PRIOR_WEIGHT) / (count + PRIOR_WEIGHT);
            part.spread = calm.sqrt().max(LEAST_SPREAD);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::{BINS, Gaps, bin, width};

    #[test]
    fn bins_cover_every_gap_and_grow_with_it() {
        let mut last = 0;
        for shift in 0..64 {
            for gap in [1u64 << shift, (1 << shift) + (1 << shift) / 2] {
                assert!(bin(gap) >= last && bin(gap) < BINS, "{gap}");
                last = bin(gap);
            }
        }
        let covered: f64 = (0..bin(1_000_000)).map(width).sum();
        assert!((covered / 1e6 - 1.0).abs() < 0.1, "{covered}");
    }

    #[test]
    fn a_density_sums_to_one_and_is_highest_where_the_gaps_are() {
        let mut gaps = Gaps::default();
        for number in 0..100 {
            gaps.add(100_000 + number * 100, 1.0);
            gaps.add(20_000_000 + number * 10_000, 0.5);
        }
        let density = gaps.fit();
        let sum: f64 = density.logs.iter().enumerate().map(|(bin, log)| f64::from(*log).exp() * width(bin)).sum();
        assert!((sum - 1.0).abs() < 1e-3, "{sum}");
        let [short, between, long] = [105_000, 1_500_000, 20_500_000].map(|gap| density.logs()[bin(gap)]);
        assert!(short > between + 3.0 && long > between, "{short} {between} {long}");
        assert!(Gaps::default().fit().logs().iter().all(|log| log.is_finite()));
    }
}
