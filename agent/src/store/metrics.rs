//! Samples of the last minutes in memory: what alert rules and queries look back on.
//!
//! Each append adds one column (a tick) to a matrix of series × ticks, 8 bytes a cell; times are kept once
//! for all series. Histograms are flattened to `_bucket`, `_sum` and `_count` as Prometheus stores them.
//! Bounds: `series_limit` series (default 20 000), `history` (default 15 min) and at most 1024 ticks, so
//! 29 MB at the defaults with every series in use. Unless `keep_all` is set only metrics that the loaded
//! rules name are kept.
//!
//! A counter that appears after the first append gets a zero at the append before: it did start at zero
//! within that interval, and without it the first increase of a new label set (the first 5xx) would show
//! in no rate. A series that is not appended any more gets a staleness marker, as after a Prometheus scrape.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use indexmap::{Equivalent, IndexMap};

use super::query::{BUCKET_LABEL, Label, Labels, METRIC_NAME, Matcher, Query, STALE_MARKER, Visit, selects};
use crate::model::metric::{Kind, LabelValues, Metric, Sample, Source, Value};
use crate::model::spelling::{label_name, labels, prometheus_name};
use crate::section::Interval;

crate::section! {
    /// Samples kept in memory for alert rules and queries.
    pub struct MetricsConfig {
        /// How far back expressions can look.
        pub history: Interval = Interval::secs(15 * 60),
        /// Series kept; samples of further ones are dropped and counted.
        pub series_limit: usize = 20_000,
        /// Keep every metric from the start. Otherwise those that alert rules name are kept, and all of them from the
        /// first query on, until there was none for as long as `history`.
        pub keep_all: bool = false,
    }
}

/// Columns kept at most, whatever the interval.
const TICKS: usize = 1024;
/// A cell without a sample: another NaN that no arithmetic makes.
const ABSENT: f64 = f64::from_bits(0x7ff0_0000_0000_0003);

pub static SERIES: Metric = Metric {
    name: "seismo.store.series",
    unit: "{series}",
    kind: Kind::Gauge,
    description: "Series whose recent samples are kept in memory",
    labels: &[],
};
pub static SAMPLES_DROPPED: Metric = Metric {
    name: "seismo.store.samples.dropped",
    unit: "{sample}",
    kind: Kind::Counter,
    description: "Samples that were not kept in memory, by reason",
    labels: &["reason"],
};

/// The store's account of itself, readable while it is in use.
#[derive(Debug, Default)]
pub struct Account {
    series: AtomicU64,
    over_limit: AtomicU64,
    out_of_order: AtomicU64,
}

impl Source for Account {
    fn collect(&self, out: &mut Vec<Sample>) {
        let count = |counter: &AtomicU64| Value::Count(counter.load(Ordering::Relaxed));
        out.push(Sample { metric: &SERIES, labels: vec![], value: count(&self.series) });
        for (reason, counter) in [("series_limit", &self.over_limit), ("out_of_order", &self.out_of_order)] {
            let labels = vec![Cow::Borrowed(reason)];
            out.push(Sample { metric: &SAMPLES_DROPPED, labels, value: count(counter) });
        }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Recent {
    config: MetricsConfig,
    wanted: Vec<Vec<Matcher>>,
    /// Times of the columns that are kept, Unix ms, ascending.
    ticks: VecDeque<i64>,
    /// Number of the first of them since the store began.
    first_tick: u64,
    groups: IndexMap<Key, Group>,
    series: usize,
    /// Series that the account knows of.
    told: usize,
    families: HashMap<&'static str, Family>,
    interned: HashMap<Arc<str>, ()>,
    account: Arc<Account>,
}

/// What one [`Sample`] becomes: one series, or those of a histogram.
#[derive(Debug)]
struct Group {
    series: Vec<Series>,
    /// Tick of the last sample.
    last_tick: u64,
}

#[derive(Debug)]
struct Series {
    labels: Labels,
    /// Tick of the first value.
    start: u64,
    values: VecDeque<f64>,
}

/// Which series of a metric are wanted, under which names.
#[derive(Clone, Debug)]
struct Family {
    plain: Option<Arc<str>>,
    bucket: Option<Arc<str>>,
    sum: Option<Arc<str>>,
    count: Option<Arc<str>>,
}

#[derive(Debug)]
struct Key {
    metric: &'static Metric,
    labels: LabelValues,
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.metric.name == other.metric.name && self.labels == other.labels
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.metric.name.hash(state);
        self.labels.hash(state);
    }
}

struct Seek<'a>(&'a Sample);

impl Hash for Seek<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.metric.name.hash(state);
        self.0.labels.hash(state);
    }
}

impl Equivalent<Key> for Seek<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.0.metric.name == key.metric.name && self.0.labels == key.labels
    }
}

impl Recent {
    /// `wanted`: the selectors of every expression that will be evaluated (see `promql::Expr::selectors`).
    pub fn new(config: MetricsConfig, wanted: Vec<Vec<Matcher>>) -> Self {
        Self {
            config,
            wanted,
            ticks: VecDeque::new(),
            first_tick: 0,
            groups: IndexMap::new(),
            series: 0,
            told: 0,
            families: HashMap::new(),
            interned: HashMap::new(),
            account: Arc::default(),
        }
    }

    /// Another store that counts its losses together with this one.
    pub fn beside(&self, config: MetricsConfig) -> Self {
        let mut store = Self::new(config, vec![]);
        store.account = Arc::clone(&self.account);
        store
    }

    /// Times of the oldest and the newest column, Unix ms.
    pub fn reach_ms(&self) -> Option<(i64, i64)> {
        self.ticks.front().copied().zip(self.ticks.back().copied())
    }

    /// Series kept and samples dropped, as a source of metrics.
    pub fn account(&self) -> Arc<Account> {
        Arc::clone(&self.account)
    }

    /// Adds a column. A time that is not after the last one is dropped as a whole, and counted.
    pub fn append(&mut self, now_ms: i64, samples: &[Sample]) {
        if self.ticks.back().is_some_and(|last| *last >= now_ms) {
            self.account.out_of_order.fetch_add(samples.len() as u64, Ordering::Relaxed);
            return;
        }
        self.ticks.push_back(now_ms);
        let tick = self.first_tick + self.ticks.len() as u64 - 1;
        let mut values = Vec::new();
        for sample in samples {
            self.append_sample(tick, sample, &mut values);
        }
        for group in self.groups.values_mut().filter(|group| group.last_tick + 1 == tick) {
            group.series.iter_mut().for_each(|series| series.push(tick, STALE_MARKER));
        }
        self.forget(now_ms);
        // In this order the sum never passes below zero.
        self.account.series.fetch_add(self.series as u64, Ordering::Relaxed);
        self.account.series.fetch_sub(self.told as u64, Ordering::Relaxed);
        self.told = self.series;
    }

    fn append_sample(&mut self, tick: u64, sample: &Sample, values: &mut Vec<f64>) {
        let family = match self.families.get(sample.metric.name) {
            Some(family) => family.clone(),
            None => self.learn(sample.metric),
        };
        values.clear();
        family.flatten(&sample.value, values);
        if values.is_empty() {
            return;
        }
        let index = match self.groups.get_index_of(&Seek(sample)) {
            Some(index) => index,
            None if self.series + values.len() > self.config.series_limit => {
                self.account.over_limit.fetch_add(values.len() as u64, Ordering::Relaxed);
                return;
            }
            None => self.admit(tick, sample, &family),
        };
        let group = &mut self.groups[index];
        group.last_tick = tick;
        for (series, value) in group.series.iter_mut().zip(values) {
            series.push(tick, *value);
        }
    }

    /// Index of a new group, its counters with a zero at the column before.
    fn admit(&mut self, tick: u64, sample: &Sample, family: &Family) -> usize {
        let born_counting = sample.metric.kind != Kind::Gauge && tick > 0;
        let start = if born_counting { tick - 1 } else { tick };
        let zeros: &[f64] = if born_counting { &[0.0] } else { &[] };
        let mut base: Vec<Label> = Vec::new();
        for (name, value) in labels(sample) {
            let (name, value) = (self.intern(&label_name(name)), self.intern(value));
            base.push(Label { name, value });
        }
        let mut series = Vec::new();
        let name_label = self.intern(METRIC_NAME);
        let bucket_label = self.intern(BUCKET_LABEL);
        for (name, bound) in family.names(&sample.value) {
            let bound = bound.map(|bound| (bucket_label.clone(), self.intern(&bound_text(bound))));
            let all = base.iter().map(|label| (label.name.clone(), label.value.clone()));
            let all = all.chain([(name_label.clone(), name)]).chain(bound);
            series.push(Series { labels: Labels::new(all), start, values: zeros.iter().copied().collect() });
        }
        self.series += series.len();
        let key = Key { metric: sample.metric, labels: sample.labels.clone() };
        self.groups.insert_full(key, Group { series, last_tick: tick }).0
    }

    /// Drops columns that are too old and the series that have no sample left.
    fn forget(&mut self, now_ms: i64) {
        let history_ms = i64::try_from(self.config.history.0.as_millis()).unwrap_or(i64::MAX);
        let oldest_ms = now_ms.saturating_sub(history_ms);
        while self.ticks.front().is_some_and(|tick| *tick < oldest_ms) || self.ticks.len() > TICKS {
            self.ticks.pop_front();
            self.first_tick += 1;
        }
        let first = self.first_tick;
        let before = self.series;
        self.groups.retain(|_, group| {
            let keep = group.last_tick >= first;
            if !keep {
                self.series -= group.series.len();
            }
            group.series.iter_mut().for_each(|series| series.forget(first));
            keep
        });
        if self.series < before {
            self.interned.retain(|text, ()| Arc::strong_count(text) > 1);
        }
    }

    fn learn(&mut self, metric: &'static Metric) -> Family {
        let name = prometheus_name(metric);
        let want = |name: String| {
            let named = |selector: &Vec<Matcher>| {
                selector.iter().filter(|matcher| matcher.name == METRIC_NAME).all(|matcher| matcher.matches(&name))
            };
            (self.config.keep_all || self.wanted.iter().any(named)).then(|| Arc::from(name.as_str()))
        };
        let histogram = metric.kind == Kind::Histogram;
        let part = |suffix| if histogram { want(format!("{name}_{suffix}")) } else { None };
        let (bucket, sum, count) = (part("bucket"), part("sum"), part("count"));
        let plain = if histogram { None } else { want(name.clone()) };
        let family = Family { plain, bucket, sum, count };
        self.families.insert(metric.name, family.clone());
        family
    }

    fn intern(&mut self, text: &str) -> Arc<str> {
        if let Some((known, ())) = self.interned.get_key_value(text) {
            return Arc::clone(known);
        }
        let text: Arc<str> = Arc::from(text);
        self.interned.insert(Arc::clone(&text), ());
        text
    }
}

impl Drop for Recent {
    fn drop(&mut self) {
        self.account.series.fetch_sub(self.told as u64, Ordering::Relaxed);
    }
}

impl Query for Recent {
    /// Cost: the matchers on every series, so a few ms at the series limit.
    fn select(&self, matchers: &[Matcher], after_ms: i64, until_ms: i64, visit: &mut Visit<'_>) {
        let from = self.first_tick + self.ticks.partition_point(|tick| *tick <= after_ms) as u64;
        let until = self.first_tick + self.ticks.partition_point(|tick| *tick <= until_ms) as u64;
        let mut samples = Vec::new();
        for series in self.groups.values().flat_map(|group| &group.series) {
            if !selects(matchers, &series.labels) {
                continue;
            }
            samples.clear();
            for tick in from.max(series.start)..until.min(series.end()) {
                let time = self.ticks.get((tick - self.first_tick) as usize);
                let value = series.values.get((tick - series.start) as usize);
                samples.extend(time.copied().zip(value.copied()).filter(|(_, value)| !is_absent(*value)));
            }
            if !samples.is_empty() {
                visit(&series.labels, &samples);
            }
        }
    }
}

impl Series {
    fn end(&self) -> u64 {
        self.start + self.values.len() as u64
    }

    fn push(&mut self, tick: u64, value: f64) {
        while self.end() < tick {
            self.values.push_back(ABSENT);
        }
        self.values.push_back(value);
    }

    fn forget(&mut self, first: u64) {
        while self.start < first && self.values.pop_front().is_some() {
            self.start += 1;
        }
    }
}

impl Family {
    /// The values of the wanted series, in the order of [`Family::names`].
    fn flatten(&self, value: &Value, out: &mut Vec<f64>) {
        match value {
            Value::Count(count) if self.plain.is_some() => out.push(*count as f64),
            Value::Float(number) if self.plain.is_some() => out.push(*number),
            Value::Count(_) | Value::Float(_) => {}
            Value::Histogram(histogram) | Value::Exponential(_, histogram) => {
                if self.bucket.is_some() {
                    out.extend(histogram.counts.iter().scan(0u64, |sum, count| {
                        *sum += count;
                        Some(*sum as f64)
                    }));
                }
                if self.sum.is_some() {
                    out.push(histogram.sum);
                }
                if self.count.is_some() {
                    out.push(histogram.counts.iter().sum::<u64>() as f64);
                }
            }
        }
    }

    /// Name and bucket bound of each wanted series.
    fn names(&self, value: &Value) -> Vec<(Arc<str>, Option<f64>)> {
        let mut names = Vec::new();
        match value {
            Value::Count(_) | Value::Float(_) => names.extend(self.plain.clone().map(|name| (name, None))),
            Value::Histogram(histogram) | Value::Exponential(_, histogram) => {
                if let Some(name) = &self.bucket {
                    let bounds = histogram.bounds.iter().copied().chain([f64::INFINITY]);
                    let bounds = bounds.take(histogram.counts.len());
                    names.extend(bounds.map(|bound| (Arc::clone(name), Some(bound))));
                }
                names.extend(self.sum.clone().into_iter().chain(self.count.clone()).map(|name| (name, None)));
            }
        }
        names
    }
}

/// A bucket's bound as the page writes it (the same library, for the same digits).
fn bound_text(bound: f64) -> String {
    if bound == f64::INFINITY { "+Inf".to_owned() } else { dtoa::Buffer::new().format(bound).to_owned() }
}

fn is_absent(value: f64) -> bool {
    value.to_bits() == ABSENT.to_bits()
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
