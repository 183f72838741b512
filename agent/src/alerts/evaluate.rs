//! The state of every alert, stepped from one evaluation to the next exactly as Prometheus does.
//!
//! inactive → pending → firing → resolved, with `for` and `keep_firing_for`. A step is given the time it
//! was scheduled for, not the time it ran: with a late timer `for: 5s` would else miss by a millisecond
//! and wait another interval. An evaluation that fails leaves its alerts as they are and is shown as the
//! rule's health. Every change of state goes out exactly once, and to the log.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Config;
use super::rule::{Group, Rule};
use crate::model::alert::{Alert, AlertState};
use crate::model::metric::{Kind, Metric, Sample, Source, Value as Measured};
use crate::promql::{EvalError, Point, Value, eval_instant};
use crate::store::query::METRIC_NAME;
use crate::store::{Labels, Query};

pub static EVALUATIONS: Metric = Metric {
    name: "seismo.rule.evaluations",
    unit: "{evaluation}",
    kind: Kind::Counter,
    description: "Evaluations of alert rules, by outcome",
    labels: &["outcome"],
};
pub static ALERTS: Metric = Metric {
    name: "seismo.alerts",
    unit: "{alert}",
    kind: Kind::Gauge,
    description: "Alerts that are pending or firing",
    labels: &["state"],
};

/// The engine's account of itself, readable while it is in use.
#[derive(Debug, Default)]
pub struct Account {
    succeeded: AtomicU64,
    failed: AtomicU64,
    pending: AtomicU64,
    firing: AtomicU64,
}

impl Source for Account {
    fn collect(&self, out: &mut Vec<Sample>) {
        let rows = [
            (&EVALUATIONS, "success", &self.succeeded),
            (&EVALUATIONS, "failure", &self.failed),
            (&ALERTS, "pending", &self.pending),
            (&ALERTS, "firing", &self.firing),
        ];
        out.extend(rows.map(|(metric, label, count)| Sample {
            metric,
            labels: vec![label.into()],
            value: Measured::Count(count.load(Ordering::Relaxed)),
        }));
    }
}

/// All groups with the state of their alerts.
#[derive(Debug)]
pub struct Engine {
    pub(super) groups: Vec<GroupState>,
    pub(super) interval_ms: i64,
    account: Arc<Account>,
}

#[derive(Debug)]
pub(super) struct GroupState {
    pub group: Group,
    pub last_ms: Option<i64>,
    /// One for each rule of the group.
    pub rules: Vec<RuleState>,
}

#[derive(Debug, Default)]
pub(super) struct RuleState {
    /// By their labels.
    pub active: BTreeMap<BTreeMap<String, String>, Active>,
    pub last_ms: Option<i64>,
    /// Why the last evaluation failed.
    pub error: Option<String>,
}

#[derive(Debug)]
pub(super) struct Active {
    pub alert: Alert,
    /// Since when it fires only because of `keep_firing_for`.
    pub kept_since_ms: Option<i64>,
}

impl Engine {
    pub fn new(groups: Vec<Group>, config: &Config) -> Self {
        let state = |group: Group| {
            let rules = group.rules.iter().map(|_| RuleState::default()).collect();
            GroupState { group, last_ms: None, rules }
        };
        let interval_ms = i64::try_from(config.evaluation_interval.0.as_millis()).unwrap_or(i64::MAX);
        Self { groups: groups.into_iter().map(state).collect(), interval_ms, account: Arc::default() }
    }

    /// Evaluations and alerts, as a source of metrics.
    pub fn account(&self) -> Arc<Account> {
        Arc::clone(&self.account)
    }

    /// Evaluates every group that is due at `now_ms` (Unix time, as scheduled) and appends each alert whose
    /// state changed: pending, firing, resolved, or inactive when a pending one went away.
    pub fn step(&mut self, now_ms: i64, query: &dyn Query, out: &mut Vec<Alert>) {
        let before = out.len();
        for state in &mut self.groups {
            let interval_ms = state.group.interval_ms.unwrap_or(self.interval_ms);
            if state.last_ms.is_some_and(|last| (last..last.saturating_add(interval_ms)).contains(&now_ms)) {
                continue;
            }
            state.last_ms = Some(now_ms);
            let GroupState { group, rules, .. } = state;
            for (rule, state) in group.rules.iter().zip(rules) {
                state.last_ms = Some(now_ms);
                let stepped = evaluate(rule, query, now_ms.saturating_sub(group.query_offset_ms))
                    .and_then(|points| state.step(rule, group.limit, points, now_ms, out));
                let counter = if stepped.is_ok() { &self.account.succeeded } else { &self.account.failed };
                counter.fetch_add(1, Ordering::Relaxed);
                if let Err(error) = &stepped
                    && state.error.as_ref() != Some(error)
                {
                    log::warn!("alert rule {} of {}: {error}", rule.name, group.file);
                }
                state.error = stepped.err();
            }
        }
        out.iter().skip(before).for_each(log_change);
        let count = |wanted: AlertState| {
            let rules = self.groups.iter().flat_map(|state| &state.rules);
            rules.flat_map(|rule| rule.active.values()).filter(|active| active.alert.state == wanted).count() as u64
        };
        self.account.pending.store(count(AlertState::Pending), Ordering::Relaxed);
        self.account.firing.store(count(AlertState::Firing), Ordering::Relaxed);
    }
}

fn evaluate(rule: &Rule, query: &dyn Query, at_ms: i64) -> Result<Vec<Point>, String> {
    match eval_instant(&rule.expr, query, at_ms) {
        Ok(Value::Vector(points)) => Ok(points),
        Ok(Value::Scalar(value)) => Ok(vec![Point { labels: Labels::default(), value }]),
        Ok(Value::Matrix(_)) => Err("the expression is a range vector".to_owned()),
        Err(EvalError(message)) => Err(message),
    }
}

impl RuleState {
    fn step(
        &mut self,
        rule: &Rule,
        limit: usize,
        points: Vec<Point>,
        now_ms: i64,
        out: &mut Vec<Alert>,
    ) -> Result<(), String> {
        let mut present = BTreeMap::new();
        for point in points {
            let alert = alert(rule, &point, now_ms);
            if let Some(twice) = present.insert(alert.labels.clone(), alert) {
                return Err(format!(
                    "vector contains metrics with the same labelset after applying alert labels: {:?}",
                    twice.labels
                ));
            }
        }
        let mut changed = Vec::new();
        self.active.retain(|labels, active| {
            let alert = &mut active.alert;
            if let Some(now) = present.get(labels) {
                (alert.value, alert.annotations) = (now.value, now.annotations.clone());
                active.kept_since_ms = None;
                return true;
            }
            if alert.state == AlertState::Firing && rule.keep_firing_ms > 0 {
                let since = *active.kept_since_ms.get_or_insert(now_ms);
                if now_ms - since < rule.keep_firing_ms {
                    return true;
                }
            }
            changed.push(ended(alert, now_ms));
            false
        });
        for (labels, alert) in present {
            let active = match self.active.entry(labels) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    // A rule without `for` goes to firing at once.
                    if rule.hold_ms > 0 {
                        changed.push(alert.clone());
                    }
                    new.insert(Active { alert, kept_since_ms: None })
                }
            };
            let alert = &mut active.alert;
            if alert.state == AlertState::Pending && now_ms - alert.active_at_ms >= rule.hold_ms {
                alert.state = AlertState::Firing;
                alert.fired_at_ms = Some(now_ms);
                changed.push(alert.clone());
            }
        }
        if limit > 0 && self.active.len() > limit {
            let alerts = self.active.len();
            out.extend(changed.into_iter().filter(|alert| alert.state == AlertState::Resolved));
            // Who heard that an alert fires hears that it does no more.
            let told = |active: &&Active| active.alert.fired_at_ms.is_some_and(|fired| fired < now_ms);
            out.extend(self.active.values().filter(told).map(|active| ended(&active.alert, now_ms)));
            self.active.clear();
            return Err(format!("exceeded limit of {limit} with {alerts} alerts"));
        }
        out.append(&mut changed);
        Ok(())
    }
}

/// The alert that an element of the result stands for, pending as of now.
fn alert(rule: &Rule, point: &Point, now_ms: i64) -> Alert {
    let texts: BTreeMap<String, String> =
        point.labels.iter().map(|label| (label.name.to_string(), label.value.to_string())).collect();
    let expand = |template: &super::template::Template| template.expand(&texts, point.value);
    let annotations = rule.annotation_templates.iter().map(|(name, text)| (name.clone(), expand(text))).collect();
    let own: Vec<(String, String)> =
        rule.label_templates.iter().map(|(name, text)| (name.clone(), expand(text))).collect();
    let mut labels = texts;
    labels.remove(METRIC_NAME);
    labels.extend(own);
    labels.insert("alertname".to_owned(), rule.name.clone());
    labels.retain(|_, value| !value.is_empty());
    Alert {
        labels,
        annotations,
        state: AlertState::Pending,
        active_at_ms: now_ms,
        fired_at_ms: None,
        resolved_at_ms: None,
        value: point.value,
    }
}

fn ended(alert: &Alert, now_ms: i64) -> Alert {
    let fired = alert.state == AlertState::Firing;
    let state = if fired { AlertState::Resolved } else { AlertState::Inactive };
    Alert { state, resolved_at_ms: fired.then_some(now_ms), ..alert.clone() }
}

fn log_change(alert: &Alert) {
    let level = if alert.state == AlertState::Firing { log::Level::Warn } else { log::Level::Info };
    log::log!(level, "alert {} {:?} value {}", alert.state.name(), alert.labels, alert.value);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
#[path = "evaluate_tests.rs"]
mod tests;
