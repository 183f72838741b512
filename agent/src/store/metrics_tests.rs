//! Tests of the store of recent samples.

use super::*;
use crate::model::metric::Histogram;

static CALLS: Metric =
    Metric { name: "calls", unit: "{call}", kind: Kind::Counter, description: "Calls", labels: &["code"] };
static LEVEL: Metric =
    Metric { name: "level", unit: "{unit}", kind: Kind::Gauge, description: "Level", labels: &["code"] };
static TIME: Metric = Metric { name: "time", unit: "s", kind: Kind::Histogram, description: "Time", labels: &[] };

fn sample(metric: &'static Metric, code: &'static str, value: u64) -> Sample {
    Sample { metric, labels: vec![Cow::Borrowed(code)], value: Value::Count(value) }
}

fn store(config: MetricsConfig) -> Recent {
    Recent::new(MetricsConfig { keep_all: true, ..config }, vec![])
}

/// One line per series: labels and `time=value` of what is kept.
fn show(store: &Recent, name: &str) -> Vec<String> {
    let mut lines = Vec::new();
    store.select(&[Matcher::equal(METRIC_NAME, name)], i64::MIN, i64::MAX, &mut |labels, samples| {
        let samples: Vec<String> = samples
            .iter()
            .map(|(time, value)| match super::super::query::is_stale(*value) {
                true => format!("{time}=stale"),
                false => format!("{time}={value}"),
            })
            .collect();
        lines.push(format!("{labels} {}", samples.join(" ")));
    });
    lines
}

#[test]
fn samples_are_kept_per_series_and_window_ends_are_open_and_closed() {
    let mut store = store(MetricsConfig::default());
    for (time, value) in [(1000, 5), (2000, 6), (3000, 9)] {
        store.append(time, &[sample(&CALLS, "200", value)]);
    }
    assert_eq!(show(&store, "calls_total"), [r#"calls_total{code="200"} 1000=5 2000=6 3000=9"#]);
    let mut seen = Vec::new();
    store.select(&[], 1000, 3000, &mut |_, samples| seen.extend_from_slice(samples));
    assert_eq!(seen, [(2000, 6.0), (3000, 9.0)]);
}

#[test]
fn a_counter_born_later_starts_with_a_zero_at_the_append_before_and_a_gauge_does_not() {
    let mut store = store(MetricsConfig::default());
    store.append(1000, &[sample(&CALLS, "200", 5)]);
    store.append(2000, &[sample(&CALLS, "200", 6), sample(&CALLS, "500", 3), sample(&LEVEL, "x", 4)]);
    assert_eq!(
        show(&store, "calls_total"),
        [r#"calls_total{code="200"} 1000=5 2000=6"#, r#"calls_total{code="500"} 1000=0 2000=3"#]
    );
    assert_eq!(show(&store, "level"), [r#"level{code="x"} 2000=4"#]);
}

#[test]
fn a_series_that_vanishes_is_marked_stale_once_and_returns_without_a_zero() {
    let mut store = store(MetricsConfig::default());
    store.append(1000, &[sample(&CALLS, "200", 5)]);
    store.append(2000, &[]);
    store.append(3000, &[]);
    store.append(4000, &[sample(&CALLS, "200", 7)]);
    assert_eq!(show(&store, "calls_total"), [r#"calls_total{code="200"} 1000=5 2000=stale 4000=7"#]);
}

#[test]
fn a_histogram_is_flattened_with_cumulative_buckets() {
    let mut store = store(MetricsConfig::default());
    let histogram = Histogram { bounds: Cow::Borrowed(&[0.005, 1.0]), counts: vec![1, 2, 4], sum: 9.5 };
    store.append(1000, &[Sample { metric: &TIME, labels: vec![], value: Value::Histogram(histogram) }]);
    assert_eq!(
        show(&store, "time_seconds_bucket"),
        [
            r#"time_seconds_bucket{le="0.005"} 1000=1"#,
            r#"time_seconds_bucket{le="1.0"} 1000=3"#,
            r#"time_seconds_bucket{le="+Inf"} 1000=7"#,
        ]
    );
    assert_eq!(show(&store, "time_seconds_sum"), ["time_seconds_sum{} 1000=9.5"]);
    assert_eq!(show(&store, "time_seconds_count"), ["time_seconds_count{} 1000=7"]);
}

#[test]
fn only_metrics_that_a_selector_names_are_kept() {
    let named = vec![Matcher::equal(METRIC_NAME, "time_seconds_count"), Matcher::equal("code", "nothing")];
    let mut store = Recent::new(MetricsConfig::default(), vec![named]);
    let histogram = Histogram { bounds: Cow::Borrowed(&[1.0]), counts: vec![1, 2], sum: 9.5 };
    store.append(
        1000,
        &[sample(&CALLS, "200", 5), Sample { metric: &TIME, labels: vec![], value: Value::Histogram(histogram) }],
    );
    assert_eq!(show(&store, "time_seconds_count").len(), 1);
    assert_eq!(store.series, 1);
}

#[test]
fn old_columns_and_series_without_samples_are_forgotten() {
    let mut store = store(MetricsConfig { history: Interval::secs(10), ..MetricsConfig::default() });
    store.append(0, &[sample(&CALLS, "200", 1), sample(&CALLS, "500", 1)]);
    for second in 1..=20 {
        store.append(second * 1000, &[sample(&CALLS, "200", 1)]);
    }
    assert_eq!(show(&store, "calls_total").len(), 1);
    assert_eq!(store.ticks.len(), 11);
    assert_eq!((store.series, store.groups[0].series[0].values.len()), (1, 11));
    assert!(!store.interned.contains_key("500"), "label values go with their last series");
}

#[test]
fn columns_are_bounded_whatever_the_interval() {
    let mut store = store(MetricsConfig::default());
    for time in 0..2000 {
        store.append(time, &[sample(&CALLS, "200", 1)]);
    }
    assert_eq!(store.groups[0].series[0].values.len(), TICKS);
}

#[test]
fn what_is_above_the_limit_or_out_of_order_is_counted() {
    let mut store = store(MetricsConfig { series_limit: 1, ..MetricsConfig::default() });
    store.append(2000, &[sample(&CALLS, "200", 1), sample(&CALLS, "500", 1)]);
    store.append(2000, &[sample(&CALLS, "200", 1), sample(&CALLS, "500", 1), sample(&CALLS, "404", 1)]);
    let mut own = Vec::new();
    store.account().collect(&mut own);
    let own: Vec<String> = own.iter().map(|sample| format!("{:?} {:?}", sample.labels, sample.value)).collect();
    assert_eq!(own, [r#"[] Count(1)"#, r#"["series_limit"] Count(1)"#, r#"["out_of_order"] Count(3)"#]);
    assert_eq!(show(&store, "calls_total"), [r#"calls_total{code="200"} 2000=1"#]);
}

#[test]
fn two_stores_side_by_side_have_one_account_and_each_takes_its_series_with_it() {
    let mut one = store(MetricsConfig::default());
    let mut other = one.beside(MetricsConfig { keep_all: true, series_limit: 1, ..MetricsConfig::default() });
    let both = [sample(&CALLS, "200", 5), sample(&CALLS, "500", 1)];
    one.append(1000, &both);
    other.append(1000, &both);
    other.append(2000, &both);
    let account = one.account();
    let series = || account.series.load(Ordering::Relaxed);
    assert_eq!((series(), account.over_limit.load(Ordering::Relaxed)), (3, 2));
    assert_eq!((one.reach_ms(), other.reach_ms()), (Some((1000, 1000)), Some((1000, 2000))));
    drop(other);
    assert_eq!((series(), account.over_limit.load(Ordering::Relaxed)), (2, 2));
}
