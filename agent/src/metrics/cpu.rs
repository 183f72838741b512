//! What the host's CPUs spent their time on: the first line of `/proc/stat`, read at each scrape.
//!
//! The kernel's own account and no program of ours. Time in interrupts is exact where the kernel takes it at each of them
//! (`CONFIG_IRQ_TIME_ACCOUNTING`); elsewhere all times are a sample, taken at the timer's ticks. A value that can't be
//! read is an absent series.

use std::borrow::Cow;
use std::fs;

use crate::model::metric::{Kind, Metric, Sample, Source, Value};
use crate::semconv::CPU_MODE;

pub static CPU_TIME: Metric = Metric {
    name: "system.cpu.time",
    unit: "s",
    kind: Kind::Counter,
    description: "Time of all CPUs by what they did, by the kernel's own account; interrupts are exact where the kernel \
                  is built to time them, else sampled at ticks",
    labels: &[CPU_MODE],
};

/// Modes in the order of `/proc/stat`; both kinds of interrupts are told apart. Time of guests is in user and nice too.
const MODES: [&str; 8] = ["user", "nice", "system", "idle", "iowait", "interrupt", "softirq", "steal"];
/// `USER_HZ`, 100 on every architecture that the agent runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// `/proc/stat` as a source of metrics.
#[derive(Debug, Default)]
pub struct CpuSource;

impl Source for CpuSource {
    fn collect(&self, out: &mut Vec<Sample>) {
        samples(&fs::read_to_string("/proc/stat").unwrap_or_default(), out);
    }
}

fn samples(stat: &str, out: &mut Vec<Sample>) {
    let Some(total) = stat.lines().find_map(|line| line.strip_prefix("cpu ")) else { return };
    for (mode, word) in MODES.iter().zip(total.split_ascii_whitespace()) {
        if let Ok(ticks) = word.parse::<u64>() {
            let value = Value::Float(ticks as f64 / TICKS_PER_SECOND);
            out.push(Sample { metric: &CPU_TIME, labels: vec![Cow::Borrowed(mode)], value });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mode_has_its_place_and_a_line_that_ends_early_has_fewer() {
        let told = |stat: &str| {
            let mut out = Vec::new();
            samples(stat, &mut out);
            out.iter().map(|sample| (sample.labels.join(","), sample.value.clone())).collect::<Vec<_>>()
        };
        let all = told("cpu  100 200 300 400 500 600 700 800 900 1000\ncpu0 1 2 3 4\n");
        let expected =
            MODES.iter().zip(1..).map(|(mode, seconds)| ((*mode).to_owned(), Value::Float(f64::from(seconds))));
        assert_eq!(all, expected.collect::<Vec<_>>());
        assert_eq!(told("cpu  150\n"), [("user".to_owned(), Value::Float(1.5))]);
        assert_eq!(told("cpu0 1\nintr 5\n"), []);
    }
}
