//! Tests of the alerts' states, with samples through the real store.

use std::borrow::Cow;

use super::*;
use crate::alerts::rule;
use crate::model::metric::Histogram;
use crate::semconv::DURATION_BOUNDS;
use crate::store::{MetricsConfig, Recent};

static DURATION: Metric = Metric {
    name: "http.server.request.duration",
    unit: "s",
    kind: Kind::Histogram,
    description: "Duration of requests",
    labels: &["service.name", "http.response.status_code"],
};
static LEVEL: Metric =
    Metric { name: "level", unit: "{unit}", kind: Kind::Gauge, description: "Level", labels: &["place"] };

fn requests(code: &'static str, count: u64) -> Sample {
    let mut counts = vec![0; DURATION_BOUNDS.len() + 1];
    counts[5] = count;
    let histogram = Histogram { bounds: Cow::Borrowed(&DURATION_BOUNDS), counts, sum: count as f64 * 0.004 };
    Sample { metric: &DURATION, labels: vec!["shop".into(), code.into()], value: Measured::Histogram(histogram) }
}

fn level(place: &'static str, value: f64) -> Sample {
    Sample { metric: &LEVEL, labels: vec![place.into()], value: Measured::Float(value) }
}

/// An engine with one group, and a store that keeps what it reads.
struct Bench {
    engine: Engine,
    store: Recent,
}

impl Bench {
    fn new(rules: &str) -> Self {
        let text = format!("groups:\n- name: g\n  limit: 3\n  rules:\n{rules}");
        let config = Config { evaluation_interval: crate::section::Interval::secs(1), ..Config::default() };
        let groups = rule::read_text("rules.yml", &text, MetricsConfig::default().history);
        let groups = groups.unwrap_or_else(|error| panic!("{error}"));
        let store = Recent::new(MetricsConfig::default(), rule::selectors(&groups));
        Self { engine: Engine::new(groups, &config), store }
    }

    /// Appends, evaluates and names the changes.
    fn step(&mut self, second: i64, samples: &[Sample]) -> Vec<String> {
        let mut changes = Vec::new();
        self.store.append(second * 1000, samples);
        self.engine.step(second * 1000, &self.store, &mut changes);
        changes.iter().map(|alert| format!("{} {}", alert.state.name(), alert.value)).collect()
    }
}

const ISSUE_RULE: &str = r#"
  - alert: ServerErrors
    expr: rate(http_server_request_duration_seconds_count{http_response_status_code=~"5.."}[30s]) > 0
    for: 5s
    annotations: {summary: "{{ $labels.service_name }} fails {{ $value | humanize }} times a second"}
"#;

/// A server that fails 2 requests a second from second 20 to 40; returns `(second, change)`.
fn failing_server(interval: usize) -> Vec<(i64, String)> {
    let mut bench = Bench::new(ISSUE_RULE);
    let mut seen = Vec::new();
    for second in (0..=120).step_by(interval) {
        let mut samples = vec![requests("200", second as u64 * 10)];
        if second > 20 {
            samples.push(requests("500", (second.min(40) as u64 - 20) * 2));
        }
        let changes = bench.step(second, &samples);
        seen.extend(changes.into_iter().map(|change| (second, change.split(' ').next().unwrap_or("").to_owned())));
    }
    seen
}

#[test]
fn the_first_error_makes_the_alert_pending_it_fires_after_its_time_and_resolves_once() {
    let expected = |times: [i64; 3]| -> Vec<(i64, String)> {
        times.into_iter().zip(["pending", "firing", "resolved"]).map(|(time, state)| (time, state.to_owned())).collect()
    };
    // The last increase is from 39 to 40. The sample at 39 leaves the window, open at its start, at 69.
    assert_eq!(failing_server(1), expected([21, 26, 69]));
    // Here it is from 35 to 40, so 65.
    assert_eq!(failing_server(5), expected([25, 30, 65]));
}

#[test]
fn the_api_shows_a_firing_alert_as_prometheus_does() {
    let mut bench = Bench::new(ISSUE_RULE);
    for second in 0..8 {
        bench.step(second, &[requests("200", 5), requests("503", second as u64)]);
    }
    insta::assert_snapshot!(show(&bench.engine.alerts_json()));
    let rules = bench.engine.rules_json();
    let group = &rules["data"]["groups"][0];
    assert_eq!((&group["interval"], &group["limit"]), (&serde_json::json!(1), &serde_json::json!(3)));
    let mut rule = group["rules"][0].clone();
    rule["alerts"] = serde_json::json!([]);
    insta::assert_snapshot!(show(&rule));
}

fn show(json: &serde_json::Value) -> String {
    serde_json::to_string_pretty(json).unwrap_or_default()
}

#[test]
fn a_pending_alert_that_goes_away_never_notifies() {
    let mut bench = Bench::new("  - {alert: High, expr: level > 5, for: 10s}\n");
    assert_eq!(bench.step(0, &[level("a", 6.0)]), ["pending 6"]);
    assert_eq!(bench.step(5, &[level("a", 7.0)]), [""; 0]);
    assert_eq!(bench.step(9, &[level("a", 1.0)]), ["inactive 7"]);
    assert_eq!(bench.step(11, &[level("a", 8.0)]), ["pending 8"], "its time starts again");
    assert_eq!(bench.step(20, &[level("a", 8.0)]), [""; 0]);
    assert_eq!(bench.step(21, &[level("a", 9.0)]), ["firing 9"]);
}

#[test]
fn without_a_time_an_alert_fires_at_once_and_a_vanished_series_resolves_it() {
    let mut bench = Bench::new("  - {alert: High, expr: level > 5}\n");
    assert_eq!(bench.step(0, &[level("a", 6.0), level("b", 6.0), level("c", 1.0)]), ["firing 6", "firing 6"]);
    assert_eq!(bench.step(1, &[level("a", 6.5), level("c", 1.0)]), ["resolved 6"]);
    assert_eq!(bench.step(2, &[level("a", 6.5), level("c", 1.0)]), [""; 0], "told once");
}

#[test]
fn keep_firing_for_bridges_a_gap_and_counts_anew_after_it() {
    let mut bench = Bench::new("  - {alert: High, expr: level > 5, keep_firing_for: 10s}\n");
    assert_eq!(bench.step(0, &[level("a", 6.0)]), ["firing 6"]);
    assert_eq!(bench.step(5, &[level("a", 1.0)]), [""; 0]);
    assert_eq!(bench.engine.alerts_json()["data"]["alerts"][0]["keepFiringSince"], "1970-01-01T00:00:05Z");
    assert_eq!(bench.step(14, &[level("a", 6.0)]), [""; 0]);
    assert_eq!(bench.step(15, &[level("a", 1.0)]), [""; 0]);
    assert_eq!(bench.step(24, &[level("a", 1.0)]), [""; 0]);
    assert_eq!(bench.step(25, &[level("a", 1.0)]), ["resolved 6"]);
}

#[test]
fn a_failed_evaluation_leaves_alerts_alone_and_shows_why() {
    let mut bench = Bench::new("  - {alert: High, expr: level * on() level > 5}\n");
    assert_eq!(bench.step(0, &[level("a", 6.0)]), ["firing 36"]);
    assert_eq!(bench.step(1, &[level("a", 6.0), level("b", 1.0)]), [""; 0]);
    let rules = bench.engine.rules_json();
    let rule = &rules["data"]["groups"][0]["rules"][0];
    assert_eq!((&rule["health"], &rule["state"]), (&"err".into(), &"firing".into()));
    assert!(rule["lastError"].as_str().is_some_and(|error| error.contains("many-to-many")), "{rule}");
    let mut own = Vec::new();
    bench.engine.account().collect(&mut own);
    let own: Vec<String> = own.iter().map(|sample| format!("{} {:?}", sample.labels[0], sample.value)).collect();
    assert_eq!(own, ["success Count(1)", "failure Count(1)", "pending Count(0)", "firing Count(1)"]);
    assert_eq!(bench.step(2, &[level("a", 6.0),]), [""; 0]);
    assert_eq!(bench.engine.rules_json()["data"]["groups"][0]["rules"][0]["health"], "ok");
}

#[test]
fn labels_that_make_two_alerts_the_same_are_an_error() {
    let mut bench = Bench::new("  - {alert: High, expr: level > 5, labels: {place: here}}\n");
    assert_eq!(bench.step(0, &[level("a", 6.0)]), ["firing 6"]);
    assert_eq!(bench.step(1, &[level("a", 6.0), level("b", 6.0)]), [""; 0]);
    let rules = bench.engine.rules_json();
    let error = rules["data"]["groups"][0]["rules"][0]["lastError"].as_str().unwrap_or_default().to_owned();
    assert!(error.contains("same labelset after applying alert labels"), "{error}");
}

#[test]
fn above_a_groups_limit_nothing_fires_and_what_fired_is_resolved() {
    let mut bench = Bench::new("  - {alert: High, expr: level > 5}\n");
    assert_eq!(bench.step(0, &[level("a", 6.0)]), ["firing 6"]);
    let four = ["a", "b", "c", "d"].map(|place| level(place, 7.0));
    assert_eq!(bench.step(1, &four), ["resolved 7"]);
    assert_eq!(bench.engine.alerts_json()["data"]["alerts"], serde_json::json!([]));
}

#[test]
fn a_group_is_evaluated_at_its_own_interval() {
    let mut bench = Bench::new("  - {alert: High, expr: level > 5}\n");
    bench.engine.groups[0].group.interval_ms = Some(10_000);
    assert_eq!(bench.step(0, &[level("a", 1.0)]), [""; 0]);
    assert_eq!(bench.step(9, &[level("a", 6.0)]), [""; 0]);
    assert_eq!(bench.step(10, &[level("a", 6.0)]), ["firing 6"]);
    // A wall clock that was set back does not stop evaluation.
    bench.engine.step(3_000, &bench.store, &mut Vec::new());
    assert_eq!(bench.engine.groups[0].last_ms, Some(3_000));
}

#[test]
fn a_scalar_expression_is_one_alert_without_labels() {
    let mut bench = Bench::new("  - {alert: Always, expr: 1 > bool 0, labels: {a: b}}\n");
    assert_eq!(bench.step(0, &[]), ["firing 1"]);
    let alerts = bench.engine.alerts_json();
    assert_eq!(alerts["data"]["alerts"][0]["labels"], serde_json::json!({"a": "b", "alertname": "Always"}));
}
