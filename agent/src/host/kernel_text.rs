//! The kernel's small text files to numbers: pressure (PSI), `cpu.stat`, limits. Pure; bounded by the text.
//!
//! A file that does not read as expected gives `None`, never a zero.

/// Totals of a `*.pressure` file, microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pressure {
    /// Time in which some task waited.
    pub some_us: u64,
    /// Time in which all waited; before 5.13 not told of the CPU.
    pub full_us: Option<u64>,
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=1234`, and a line `full`.
pub fn pressure(text: &str) -> Option<Pressure> {
    let total = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
        line.split(' ').find_map(|word| word.strip_prefix("total="))?.parse().ok()
    };
    Some(Pressure { some_us: total("some")?, full_us: total("full") })
}

/// What `cpu.stat` has; version 1 has throttling alone, version 2 without the controller times alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuStat {
    pub periods: Option<u64>,
    pub throttled_periods: Option<u64>,
    pub throttled_ns: Option<u64>,
    pub user_ns: Option<u64>,
    pub system_ns: Option<u64>,
}

/// `KEY VALUE` lines; microseconds in version 2, nanoseconds in version 1.
pub fn cpu_stat(text: &str) -> CpuStat {
    let value = |key: &str| -> Option<u64> {
        text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?.trim().parse().ok()
    };
    let us = |key: &str| value(key)?.checked_mul(1000);
    CpuStat {
        periods: value("nr_periods"),
        throttled_periods: value("nr_throttled"),
        throttled_ns: us("throttled_usec").or_else(|| value("throttled_time")),
        user_ns: us("user_usec"),
        system_ns: us("system_usec"),
    }
}

/// `QUOTA PERIOD` of version 2 as CPUs; `None` when there is no limit.
pub fn cpu_max(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    cpus(quota, period)
}

/// Quota over period, both in microseconds; a quota of -1 or `max` is no limit.
pub fn cpus(quota: &str, period: &str) -> Option<f64> {
    let (quota, period): (u64, u64) = (quota.trim().parse().ok()?, period.trim().parse().ok()?);
    (period > 0).then(|| quota as f64 / period as f64)
}

/// A limit in bytes; `max`, and what version 1 writes instead of it (nearly 2^63), is none.
pub fn limit(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|bytes| *bytes < 1 << 62)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_totals_are_read_and_a_missing_line_is_none() {
        let text =
            "some avg10=2.08 avg60=2.30 avg300=2.09 total=9120040890\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        assert_eq!(pressure(text), Some(Pressure { some_us: 9_120_040_890, full_us: Some(7) }));
        let some = "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
        assert_eq!(pressure(some), Some(Pressure { some_us: 0, full_us: None }));
        for bad in ["", "full total=1\n", "some total=x\n", "some avg10=0.00\n", "something total=1"] {
            assert_eq!(pressure(bad), None, "{bad}");
        }
    }

    #[test]
    fn cpu_stat_is_in_nanoseconds_whatever_the_version() {
        let two = "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnice_usec 5\nnr_periods 7\nnr_throttled 3\nthrottled_usec 40\n";
        let expected = CpuStat {
            periods: Some(7),
            throttled_periods: Some(3),
            throttled_ns: Some(40_000),
            user_ns: Some(20_000),
            system_ns: Some(10_000),
        };
        assert_eq!(cpu_stat(two), expected);
        let one = "nr_periods 7\nnr_throttled 3\nthrottled_time 40\n";
        assert_eq!(cpu_stat(one), CpuStat { throttled_ns: Some(40), user_ns: None, system_ns: None, ..expected });
        let without = "usage_usec 30\nuser_usec 20\nsystem_usec 10\n";
        assert_eq!(cpu_stat(without).periods, None);
        assert_eq!(cpu_stat("nr_periods x\nuser_usec 18446744073709551615\n"), CpuStat::default());
    }

    #[test]
    fn no_limit_is_none() {
        assert_eq!(
            [cpu_max("50000 100000\n"), cpu_max("max 100000\n"), cpu_max("1 0"), cpu_max("")],
            [Some(0.5), None, None, None]
        );
        assert_eq!([cpus("250000\n", "100000\n"), cpus("-1\n", "100000\n")], [Some(2.5), None]);
        assert_eq!(
            [limit("1048576\n"), limit("max\n"), limit("9223372036854771712\n"), limit("x")],
            [Some(1 << 20), None, None, None]
        );
    }
}
