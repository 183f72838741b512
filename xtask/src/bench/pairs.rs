//! Interleaved pairs: one burst bare, one attached, in alternating order, and the ratio of their costs.
//!
//! Machines drift by more than what is measured here, so nothing is compared across pairs. A first bare burst is
//! thrown away: it pays for cold caches.

use anyhow::Result;

/// The two halves of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Bare,
    Attached,
}

/// CPU time per operation in one burst.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    pub workload_ns: f64,
    /// The load generator's own, where it is not the workload.
    pub client_ns: Option<f64>,
}

/// Attached over bare, one per pair.
#[derive(Debug, Default, PartialEq)]
pub struct Ratios {
    pub workload: Vec<f64>,
    pub client: Vec<f64>,
}

/// Measures `count` pairs; the first burst that fails ends the series.
pub fn measure(count: usize, mut burst: impl FnMut(Side) -> Result<Cost>) -> Result<Ratios> {
    burst(Side::Bare)?;
    let mut ratios = Ratios::default();
    for pair in 0..count {
        let (bare, attached) = if pair % 2 == 0 {
            let bare = burst(Side::Bare)?;
            (bare, burst(Side::Attached)?)
        } else {
            let attached = burst(Side::Attached)?;
            (burst(Side::Bare)?, attached)
        };
        ratios.workload.push(attached.workload_ns / bare.workload_ns);
        ratios.client.extend(attached.client_ns.zip(bare.client_ns).map(|(attached, bare)| attached / bare));
    }
    Ok(ratios)
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::{Cost, Side, measure};

    #[test]
    fn pairs_alternate_their_order_after_one_burst_to_warm_up() {
        let mut seen = Vec::new();
        measure(3, |side| {
            seen.push(side);
            Ok(Cost { workload_ns: 1.0, client_ns: None })
        })
        .unwrap();
        use Side::{Attached, Bare};
        assert_eq!(seen, [Bare, Bare, Attached, Attached, Bare, Bare, Attached]);
    }

    #[test]
    fn a_machine_that_slows_down_during_the_run_gives_the_same_ratios() {
        let (mut bursts, mut drift) = (0, 100.0);
        let ratios = measure(4, |side| {
            // Between pairs only: the first burst is the warm-up.
            if bursts % 2 == 1 {
                drift *= 1.5;
            }
            bursts += 1;
            let slowdown = if side == Side::Attached { 1.25 } else { 1.0 };
            Ok(Cost { workload_ns: drift * slowdown, client_ns: Some(drift) })
        })
        .unwrap();
        assert_eq!(ratios.workload.len(), 4);
        assert!(ratios.workload.iter().all(|ratio| (ratio - 1.25).abs() < 1e-9), "{ratios:?}");
        assert!(ratios.client.iter().all(|ratio| (ratio - 1.0).abs() < 1e-9), "{ratios:?}");
    }

    #[test]
    fn a_burst_that_fails_is_the_result_of_its_series() {
        let mut bursts = 0;
        let error = measure(5, |_| {
            bursts += 1;
            if bursts == 3 {
                bail!("agent gone");
            }
            Ok(Cost { workload_ns: 1.0, client_ns: None })
        })
        .unwrap_err();
        assert_eq!((error.to_string().as_str(), bursts), ("agent gone", 3));
    }
}
