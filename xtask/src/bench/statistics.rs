//! Median and quartiles of what was measured, and ratios within pairs.
//!
//! Quartiles interpolate linearly between neighbours, so that few pairs still give a spread. No mean, no deviation:
//! one disturbed burst must not move the result.

use serde::{Deserialize, Serialize};

/// A result with its spread.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quartiles {
    pub lower: f64,
    pub median: f64,
    pub upper: f64,
}

impl Quartiles {
    /// `None` when there is nothing, or something that is not a number.
    pub fn of(values: &[f64]) -> Option<Self> {
        if values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        Some(Self { lower: quantile(&sorted, 0.25)?, median: quantile(&sorted, 0.5)?, upper: quantile(&sorted, 0.75)? })
    }
}

impl Quartiles {
    /// In another unit; `factor` is positive.
    pub fn times(self, factor: f64) -> Self {
        Self { lower: self.lower * factor, median: self.median * factor, upper: self.upper * factor }
    }
}

fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let position = sorted.len().checked_sub(1)? as f64 * share;
    let (below, above) = (sorted.get(position.floor() as usize)?, sorted.get(position.ceil() as usize)?);
    Some(below + (above - below) * position.fract())
}

#[cfg(test)]
mod tests {
    use super::Quartiles;

    #[test]
    fn quartiles_lie_on_the_values_or_halfway_between_them() {
        let cases: [(&[f64], [f64; 3]); 5] = [
            (&[2.0], [2.0, 2.0, 2.0]),
            (&[1.0, 2.0], [1.25, 1.5, 1.75]),
            (&[3.0, 1.0, 2.0], [1.5, 2.0, 2.5]),
            (&[5.0, 1.0, 4.0, 2.0, 3.0], [2.0, 3.0, 4.0]),
            (&[4.0, 1.0, 3.0, 2.0], [1.75, 2.5, 3.25]),
        ];
        for (values, [lower, median, upper]) in cases {
            assert_eq!(Quartiles::of(values), Some(Quartiles { lower, median, upper }), "{values:?}");
        }
    }

    #[test]
    fn one_disturbed_burst_does_not_move_the_median() {
        let calm = Quartiles::of(&[1.00, 1.01, 1.01, 1.01, 1.02]).unwrap();
        let disturbed = Quartiles::of(&[1.00, 1.01, 1.01, 1.01, 9.0]).unwrap();
        assert_eq!(calm.median, disturbed.median);
    }

    #[test]
    fn nothing_and_division_by_nothing_have_no_quartiles() {
        assert_eq!(Quartiles::of(&[]), None);
        assert_eq!(Quartiles::of(&[1.0, f64::NAN]), None);
        assert_eq!(Quartiles::of(&[1.0, f64::INFINITY]), None);
    }
}
