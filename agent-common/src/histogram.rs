//! Base-2 exponential buckets, the same in the kernel, on the page and in OTLP (schema 2: four per octave).
//!
//! A duration in nanoseconds is scaled to units of 2^-30 s, so that bucket bounds are exact powers of
//! 2^(1/4) *seconds*, as Prometheus native histograms (schema 2) and OTLP exponential histograms want them.
//! Cost: a multiply, a leading-zero count and three comparisons; no clock, no division, no loop. Whole octaves are found four
//! at a time instead of by the count.

/// Buckets per octave.
pub const PER_OCTAVE: u32 = 4;
/// Binary exponent (of seconds) of the smallest bound: 2^-30 s, about 0.93 ns.
pub const MIN_EXPONENT: i32 = -30;
/// Binary exponent (of seconds) of the largest finite bound: 2^6 s = 64 s.
pub const MAX_EXPONENT: i32 = 6;
/// Bucket 0 holds everything up to 2^-30 s; the last bucket everything above 64 s.
pub const BUCKETS: usize = ((MAX_EXPONENT - MIN_EXPONENT) as u32 * PER_OCTAVE) as usize + 2;

/// Thresholds 2^(1/4), 2^(2/4), 2^(3/4) in 1.31 fixed point (rounded down).
const QUARTERS: [u64; 3] = [2_553_802_833, 3_037_000_499, 3_611_622_602];

/// Bucket of a duration: `i` such that `upper_bound(i - 1) < ns <= upper_bound(i)` within 1e-6 relative.
#[inline(always)]
pub const fn bucket(ns: u64) -> usize {
    // 2^30 / 10^9 = 1 + 1237182 / 2^24 (low by 2e-8, so that a duration equal to a bound is inside it). Above 2^38 ns
    // (4.6 min) everything is in the last bucket.
    if ns >= 1 << 38 {
        return BUCKETS - 1;
    }
    if ns == 0 {
        return 0;
    }
    // Units of 2^-54 s. Upper bounds are inclusive, so the octave is that of one unit less.
    let below = (ns << 24) + ns * 1_237_182 - 1;
    let exponent = 63 - below.leading_zeros();
    let mantissa = if exponent >= 31 { below >> (exponent - 31) } else { below << (31 - exponent) };
    let quarter =
        (mantissa >= QUARTERS[0]) as u32 + (mantissa >= QUARTERS[1]) as u32 + (mantissa >= QUARTERS[2]) as u32;
    let index = 1 + (exponent - 24) * PER_OCTAVE + quarter;
    if index as usize >= BUCKETS - 1 { BUCKETS - 1 } else { index as usize }
}

/// The same in whole octaves: the first of `buckets` ends at 2^`exponent` s, the last has no end.
#[inline(always)]
pub const fn octave(ns: u64, exponent: i32, buckets: usize) -> usize {
    if ns >= 1 << 38 {
        return buckets - 1;
    }
    if ns == 0 {
        return 0;
    }
    // As in `bucket`; what is left of it above the first bound, which ends octave 0.
    let mut above = ((ns << 24) + ns * 1_237_182 - 1) >> (54 + exponent);
    let mut octave = 0;
    while above >= 16 {
        above >>= 4;
        octave += 4;
    }
    octave += (LENGTHS >> (above * 4)) as usize & 0xf;
    if octave >= buckets { buckets - 1 } else { octave }
}

/// Lengths of the numbers below 16 in bits, four bits each: short numbers are told at once where a leading-zero count takes
/// 40 instructions, as in the kernel.
const LENGTHS: u64 = 0x4444_4444_3333_2210;

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    /// Upper bound of a bucket in seconds.
    fn upper_bound(index: usize) -> f64 {
        2f64.powf(MIN_EXPONENT as f64 + index as f64 / PER_OCTAVE as f64)
    }

    #[test]
    fn a_duration_lies_within_its_buckets_bounds() {
        let mut ns = 1u64;
        while ns < 60_000_000_000 {
            let index = bucket(ns);
            let seconds = ns as f64 * 1e-9;
            let slack = seconds * 1e-6;
            assert!(seconds <= upper_bound(index) + slack, "{ns} ns in bucket {index}");
            assert!(seconds >= upper_bound(index - 1) - slack, "{ns} ns in bucket {index}");
            ns += ns / 97 + 1;
        }
    }

    #[test]
    fn zero_and_huge_durations_take_the_outer_buckets() {
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(bucket(65_000_000_000), BUCKETS - 1);
    }

    #[test]
    fn octaves_end_at_powers_of_two() {
        let (second, buckets) = (1_000_000_000, 18);
        for (ns, expected) in [
            (0, 0),
            (30_517, 0),
            (30_519, 1),
            (61_035, 1),
            (61_037, 2),
            (second, 15),
            (second + 10_000, 16),
            (2 * second, 16),
            (2 * second + 10_000, 17),
            (u64::MAX, 17),
        ] {
            assert_eq!(octave(ns, -15, buckets), expected, "{ns}");
        }
    }

    #[test]
    fn octaves_are_of_whole_buckets() {
        let mut ns = 1u64;
        while ns < u64::MAX / 128 {
            for near in [ns - 1, ns, ns + 1, ns + ns / 3] {
                let whole = bucket(near).div_ceil(PER_OCTAVE as usize);
                assert_eq!(octave(near, MIN_EXPONENT, 38), whole, "{near} ns");
                assert_eq!(
                    octave(near, -15, 18),
                    whole.saturating_sub((-15 - MIN_EXPONENT) as usize).min(17),
                    "{near} ns"
                );
            }
            ns += ns / 61 + 1;
        }
    }

    #[test]
    fn buckets_never_decrease() {
        let mut last = 0;
        for ns in 0..2_000_000u64 {
            let index = bucket(ns);
            assert!(index >= last, "{ns}");
            last = index;
        }
    }
}
