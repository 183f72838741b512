//! The agent's own process, spelled as Prometheus' client libraries spell it (`process_cpu_seconds_total` …).
//!
//! Read from `/proc/self/stat` at each scrape, and once what does not change: when the agent started and how many files it
//! may open. A value that can't be read is an absent series. The spelling is Prometheus' and not OpenTelemetry's on purpose:
//! dashboards for "the process that is scraped" use these names.

use std::fs;

use crate::model::metric::{Kind, Metric, Sample, Source, Value};

const fn metric(name: &'static str, unit: &'static str, kind: Kind, description: &'static str) -> Metric {
    Metric { name, unit, kind, description, labels: &[] }
}

pub static CPU: Metric = metric("process.cpu", "s", Kind::Counter, "User and system CPU time that the agent has spent");
pub static RESIDENT_MEMORY: Metric =
    metric("process.resident_memory", "By", Kind::Gauge, "Resident memory of the agent");
pub static VIRTUAL_MEMORY: Metric = metric("process.virtual_memory", "By", Kind::Gauge, "Virtual memory of the agent");
pub static OPEN_FDS: Metric =
    metric("process.open_fds", "{descriptor}", Kind::Gauge, "File descriptors that the agent has open");
pub static MAX_FDS: Metric =
    metric("process.max_fds", "{descriptor}", Kind::Gauge, "File descriptors that the agent may open");
pub static START_TIME: Metric =
    metric("process.start_time", "s", Kind::Gauge, "When the agent started, seconds since the Unix epoch");
pub static THREADS: Metric = metric("process.threads", "{thread}", Kind::Gauge, "Threads of the agent");

/// `USER_HZ`: the unit of times in `/proc`, 100 on every architecture that the agent runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Bytes of a page, the unit of memory in `stat`: 4096 on the one architecture that the agent runs on.
const PAGE: f64 = 4096.0;

/// `/proc/self` as a source of metrics.
#[derive(Debug)]
pub struct ProcessSource {
    start: Option<f64>,
    max_fds: Option<f64>,
}

impl ProcessSource {
    /// Reads what does not change while the agent runs.
    pub fn new() -> Self {
        let boot = number_after(&read("stat"), "btime");
        let start = stat_field(&read("self/stat"), 22).zip(boot).map(|(ticks, boot)| boot + ticks / TICKS_PER_SECOND);
        Self { start, max_fds: number_after(&read("self/limits"), "Max open files") }
    }
}

impl Default for ProcessSource {
    fn default() -> Self {
        Self::new()
    }
}

impl Source for ProcessSource {
    fn collect(&self, out: &mut Vec<Sample>) {
        let stat = read("self/stat");
        let field = |number| stat_field(&stat, number);
        let cpu = field(14).zip(field(15)).map(|(user, system)| user + system);
        let values = [
            (&CPU, cpu.map(|ticks| ticks / TICKS_PER_SECOND)),
            (&RESIDENT_MEMORY, field(24).map(|pages| pages * PAGE)),
            (&VIRTUAL_MEMORY, field(23)),
            (&OPEN_FDS, open_fds()),
            (&MAX_FDS, self.max_fds),
            (&START_TIME, self.start),
            (&THREADS, field(20)),
        ];
        let samples = values.into_iter().filter_map(|(metric, value)| Some((metric, value?)));
        out.extend(samples.map(|(metric, value)| Sample { metric, labels: vec![], value: Value::Float(value) }));
    }
}

fn read(name: &str) -> String {
    fs::read_to_string(format!("/proc/{name}")).unwrap_or_default()
}

/// Since 6.2 the size of the directory is their number; before, they are counted.
fn open_fds() -> Option<f64> {
    const DESCRIPTORS: &str = "/proc/self/fd";
    match fs::metadata(DESCRIPTORS).ok()?.len() {
        // The descriptor that lists the directory is one of those listed.
        0 => fs::read_dir(DESCRIPTORS).ok().map(|entries| entries.count().saturating_sub(1) as f64),
        open => Some(open as f64),
    }
}

/// Field `number` of `/proc/PID/stat` as proc(5) numbers them; the name in field 2 may hold anything.
fn stat_field(stat: &str, number: usize) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

/// The number that follows `key` at the start of a line; `unlimited` is infinity.
fn number_after(text: &str, key: &str) -> Option<f64> {
    let word = text.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?;
    if word == "unlimited" { Some(f64::INFINITY) } else { word.parse().ok() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_value_of_this_process_can_be_read_and_is_plausible() {
        let mut samples = Vec::new();
        ProcessSource::new().collect(&mut samples);
        let value = |metric: &Metric| {
            samples.iter().find(|sample| sample.metric == metric).map(|sample| match sample.value {
                Value::Float(value) => value,
                _ => f64::NAN,
            })
        };
        assert_eq!(samples.len(), 7);
        assert!(value(&RESIDENT_MEMORY).unwrap() > 1e6);
        assert!(value(&VIRTUAL_MEMORY) > value(&RESIDENT_MEMORY));
        let listed = fs::read_dir("/proc/self/fd").unwrap().count() as f64;
        // Other tests open and close files meanwhile.
        assert!((value(&OPEN_FDS).unwrap() - listed).abs() < 64.0 && value(&OPEN_FDS) <= value(&MAX_FDS));
        assert!(value(&THREADS).unwrap() >= 2.0);
        assert!(value(&START_TIME).unwrap() > 1.6e9);
    }

    #[test]
    fn a_process_name_with_blanks_and_brackets_does_not_move_the_fields() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 9 0 0 0 250 50 0 0 20 0 4 0 1234 1 1";
        assert_eq!(stat_field(stat, 14), Some(250.0));
        assert_eq!(stat_field(stat, 15), Some(50.0));
        assert_eq!(stat_field(stat, 22), Some(1234.0));
        assert_eq!(stat_field("", 14), None);
    }
}
