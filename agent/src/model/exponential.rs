//! Base-2 exponential histograms: counts whose bucket bounds are powers of 2^(2^-schema), as Prometheus' native histograms
//! and OpenTelemetry's exponential ones have them.
//!
//! Schema 0: one bucket an octave; 2: four; -1: one for two octaves. Bucket `index` holds what is above base^(index-1) and at most base^index. The
//! kernel programs count on the same bounds, so nothing is interpolated; a value that lies on a bound exactly is one
//! bucket higher with them. Memory: the buckets between the lowest and the highest in use, at most [`MOST`].

use std::ops::RangeInclusive;

use super::metric::Histogram;

/// Buckets at most: 48 octaves in quarters.
const MOST: usize = 192;
/// Octaves that a value is counted in, at schema 2; above and below it goes to the outermost bucket.
const OCTAVES: RangeInclusive<i32> = -30..=14;
/// 2^(1/4), 2^(2/4), 2^(3/4).
const QUARTERS: [f64; 3] = [1.189_207_115_002_721, std::f64::consts::SQRT_2, 1.681_792_830_507_429];

#[derive(Clone, Debug, PartialEq)]
pub struct Exponential {
    /// Each octave has 2^schema buckets.
    pub schema: i32,
    /// Observations that are at most this, or that are counted with them.
    pub zero_threshold: f64,
    pub zero: u64,
    /// Index of the first of `counts`.
    pub first: i32,
    pub counts: Vec<u64>,
}

impl Exponential {
    /// An empty one for values that are measured in the agent: schema 2, from 2^-30 on.
    pub fn quarters() -> Self {
        Self { schema: 2, zero_threshold: 2f64.powi(*OCTAVES.start()), zero: 0, first: 0, counts: Vec::new() }
    }

    /// Counts of the kernel: the first lane holds everything up to 2^`exponent`, each further one the next bucket, the last
    /// everything above.
    pub fn of_lanes(lanes: &[u64], schema: i32, exponent: i32) -> Self {
        let (zero, counts) = lanes.split_first().map_or((0, lanes), |(zero, counts)| (*zero, counts));
        let used = counts.iter().position(|count| *count > 0).unwrap_or(counts.len());
        let end = counts.iter().rposition(|count| *count > 0).map_or(used, |last| last + 1);
        Self {
            schema,
            zero_threshold: 2f64.powi(exponent),
            zero,
            first: if schema < 0 { exponent >> -schema } else { exponent << schema } + 1 + used as i32,
            counts: counts.get(used..end).unwrap_or_default().to_vec(),
        }
    }

    /// Counts a value; of [`Exponential::quarters`] only.
    pub fn observe(&mut self, value: f64) {
        debug_assert_eq!(self.schema, 2);
        if value <= self.zero_threshold || value.is_nan() {
            self.zero += 1;
        } else if let Some(count) = self.bucket(quarter(value)) {
            *count += 1;
        }
    }

    /// The count of a bucket, which is there afterwards.
    fn bucket(&mut self, index: i32) -> Option<&mut u64> {
        if self.counts.is_empty() {
            self.first = index;
        }
        let before = usize::try_from(self.first - index).unwrap_or(0);
        let length = usize::try_from(index - self.first).map_or(0, |place| place + 1);
        if before + self.counts.len().max(length) > MOST {
            return None;
        }
        if before > 0 {
            self.counts.splice(0..0, std::iter::repeat_n(0, before));
            self.first = index;
        }
        if length > self.counts.len() {
            self.counts.resize(length, 0);
        }
        self.counts.get_mut(usize::try_from(index - self.first).ok()?)
    }

    /// Adds the counts of another one of the same schema.
    pub fn add(&mut self, more: &Self) {
        debug_assert_eq!(self.schema, more.schema);
        self.zero += more.zero;
        for (index, count) in (more.first..).zip(&more.counts) {
            if let Some(sum) = self.bucket(index) {
                *sum += count;
            }
        }
    }

    pub fn count(&self) -> u64 {
        self.zero + self.counts.iter().sum::<u64>()
    }

    /// Octaves that a bucket covers, at least 1.
    pub const fn octaves_per_bucket(&self) -> usize {
        if self.schema < 0 { 1 << -self.schema } else { 1 }
    }

    /// The octave that a bucket ends in, as a power of 2.
    fn octave(&self, index: i32) -> i32 {
        if self.schema < 0 {
            return index << -self.schema;
        }
        let per_octave = 1 << self.schema;
        index.div_euclid(per_octave) + i32::from(index.rem_euclid(per_octave) > 0)
    }

    /// As classic buckets, one for so many octaves, between two powers of 2.
    pub fn classic(&self, exponents: RangeInclusive<i32>, octaves: usize, sum: f64) -> Histogram {
        let (lowest, step) = (*exponents.start(), octaves.max(1));
        let bounds: Vec<f64> = exponents.step_by(step).map(|exponent| 2f64.powi(exponent)).collect();
        let mut counts = vec![0; bounds.len() + 1];
        // What is below the first bucket ends where that begins: at the threshold.
        let zero = (self.zero_threshold.log2().round() as i32, &self.zero);
        let ends = (self.first..).map(|index| self.octave(index));
        for (octave, count) in ends.zip(&self.counts).chain([zero]).filter(|(_, count)| **count > 0) {
            let place = usize::try_from(octave - lowest).unwrap_or(0).div_ceil(step).min(bounds.len());
            if let Some(sum) = counts.get_mut(place) {
                *sum += count;
            }
        }
        Histogram { bounds: bounds.into(), counts, sum }
    }
}

/// Index of the bucket of a value above zero, at schema 2.
fn quarter(value: f64) -> i32 {
    let bits = value.to_bits();
    let octave = (bits >> 52 & 0x7ff) as i32 - 1023;
    if octave >= *OCTAVES.end() {
        return OCTAVES.end() * 4 + i32::from(value > 2f64.powi(*OCTAVES.end()));
    }
    // Between 1 and 2.
    let mantissa = f64::from_bits(bits & 0x000f_ffff_ffff_ffff | 0x3ff0_0000_0000_0000);
    octave * 4 + i32::from(mantissa > 1.0) + QUARTERS.iter().filter(|quarter| mantissa > **quarter).count() as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_above_the_bound_below_its_bucket_and_at_most_the_buckets_own() {
        let mut value = 1.0e-9;
        while value < 10_000.0 {
            let index = quarter(value);
            let bound = |index: i32| 2f64.powf(f64::from(index) / 4.0);
            assert!(value <= bound(index) * (1.0 + 1e-12), "{value} in {index}");
            assert!(value > bound(index - 1) * (1.0 - 1e-12), "{value} in {index}");
            value *= 1.003;
        }
        assert_eq!([quarter(1.0), quarter(1.0 + 1e-15), quarter(2.0), quarter(0.25)], [0, 1, 4, -8]);
        assert_eq!([quarter(1e9), quarter(f64::INFINITY), quarter(16_384.0)], [57, 57, 56]);
    }

    #[test]
    fn buckets_are_made_as_they_are_needed_and_their_number_is_bounded() {
        let mut histogram = Exponential::quarters();
        for value in [1.0, 0.5, 4.0, 0.0, 1e-12, f64::NAN, 1e300] {
            histogram.observe(value);
        }
        assert_eq!((histogram.zero, histogram.first, histogram.counts.len()), (3, -4, 62));
        assert_eq!((histogram.counts[0], histogram.counts[4], histogram.counts[12]), (1, 1, 1));
        assert_eq!(histogram.count(), 7);
        for exponent in -400..400 {
            histogram.observe(2f64.powi(exponent));
        }
        assert!(histogram.counts.len() <= MOST && histogram.count() == 807);
    }

    #[test]
    fn sums_of_histograms_have_the_counts_of_both_wherever_they_begin() {
        let (mut one, mut other) = (Exponential::quarters(), Exponential::quarters());
        one.observe(1.0);
        [0.001, 100.0, 1.0].iter().for_each(|value| other.observe(*value));
        let mut sum = one.clone();
        sum.add(&other);
        other.add(&one);
        assert_eq!(sum, other);
        assert_eq!((sum.count(), sum.counts.first(), sum.counts.last()), (4, Some(&1), Some(&1)));
        let mut empty = Exponential::quarters();
        empty.add(&sum);
        assert_eq!(empty, sum);
    }

    #[test]
    fn lanes_of_the_kernel_begin_with_what_is_shorter_than_the_first_bound() {
        let histogram = Exponential::of_lanes(&[7, 0, 0, 5, 0, 1, 0], 0, -20);
        assert_eq!((histogram.zero, histogram.first, &histogram.counts[..]), (7, -17, &[5, 0, 1][..]));
        let classic = histogram.classic(-20..=-16, 2, 0.5);
        assert_eq!(classic.bounds.to_vec(), [2f64.powi(-20), 2f64.powi(-18), 2f64.powi(-16)]);
        assert_eq!((classic.counts, classic.sum), (vec![7, 0, 5, 1], 0.5));
        assert!(Exponential::of_lanes(&[0, 0], 2, -30).counts.is_empty());
    }
}
