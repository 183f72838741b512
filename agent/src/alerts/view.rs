//! Groups, rules and alerts as Prometheus' HTTP API shows them (`/api/v1/rules`, `/api/v1/alerts`).
//!
//! The fields `evaluationTime` are left out: the engine reads no clock, so it doesn't know them.

use serde_json::{Value, json};

use super::evaluate::{Active, Engine, GroupState, RuleState};
use super::rule::Rule;
use crate::model::alert::{Alert, AlertState};

impl Engine {
    /// `data` of `/api/v1/rules`.
    pub fn rules_json(&self) -> Value {
        let groups: Vec<Value> = self.groups.iter().map(|state| self.group_json(state)).collect();
        json!({ "groups": groups })
    }

    /// `data` of `/api/v1/alerts`.
    pub fn alerts_json(&self) -> Value {
        let rules = self.groups.iter().flat_map(|state| &state.rules);
        let alerts: Vec<Value> = rules.flat_map(|rule| rule.active.values()).map(alert_json).collect();
        json!({ "alerts": alerts })
    }

    /// The alerts that fire now.
    pub fn firing(&self) -> impl Iterator<Item = &Alert> {
        let rules = self.groups.iter().flat_map(|state| &state.rules);
        rules
            .flat_map(|rule| rule.active.values())
            .map(|active| &active.alert)
            .filter(|alert| alert.state == AlertState::Firing)
    }

    fn group_json(&self, state: &GroupState) -> Value {
        let group = &state.group;
        let rules: Vec<Value> =
            group.rules.iter().zip(&state.rules).map(|(rule, state)| rule_json(rule, state)).collect();
        json!({
            "name": group.name,
            "file": group.file,
            "rules": rules,
            "interval": seconds(group.interval_ms.unwrap_or(self.interval_ms)),
            "limit": group.limit,
            "lastEvaluation": time(state.last_ms),
        })
    }
}

fn rule_json(rule: &Rule, state: &RuleState) -> Value {
    let firing = state.active.values().any(|active| active.alert.state == AlertState::Firing);
    let present = match (firing, state.active.is_empty()) {
        (true, _) => AlertState::Firing,
        (false, false) => AlertState::Pending,
        (false, true) => AlertState::Inactive,
    };
    let health = match (&state.error, state.last_ms) {
        (Some(_), _) => "err",
        (None, Some(_)) => "ok",
        (None, None) => "unknown",
    };
    let mut json = json!({
        "type": "alerting",
        "state": present.name(),
        "name": rule.name,
        "query": rule.expr.text(),
        "duration": seconds(rule.hold_ms),
        "keepFiringFor": seconds(rule.keep_firing_ms),
        "labels": rule.labels,
        "annotations": rule.annotations,
        "alerts": state.active.values().map(alert_json).collect::<Vec<_>>(),
        "health": health,
        "lastEvaluation": time(state.last_ms),
    });
    if let Some(error) = &state.error {
        json["lastError"] = json!(error);
    }
    json
}

fn alert_json(active: &Active) -> Value {
    let alert = &active.alert;
    let mut json = json!({
        "labels": alert.labels,
        "annotations": alert.annotations,
        "state": alert.state.name(),
        "activeAt": time(Some(alert.active_at_ms)),
        "value": exponent_form(alert.value),
    });
    if active.kept_since_ms.is_some() {
        json["keepFiringSince"] = json!(time(active.kept_since_ms));
    }
    json
}

/// Whole seconds are whole numbers, as Go writes floats into JSON.
fn seconds(millis: i64) -> Value {
    if millis % 1000 == 0 { json!(millis / 1000) } else { json!(millis as f64 / 1000.0) }
}

/// RFC 3339; Go's zero time stands for never.
pub(super) fn time(unix_ms: Option<i64>) -> String {
    let moment = unix_ms.and_then(|unix_ms| jiff::Timestamp::from_millisecond(unix_ms).ok());
    moment.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |moment| moment.to_string())
}

/// A value as Prometheus puts it into an alert: shortest digits, always with an exponent.
fn exponent_form(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    } else if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("{mantissa}e{sign}{digits:0>2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_an_exponent_of_two_digits() {
        for (value, expected) in [
            (1.0, "1e+00"),
            (0.1, "1e-01"),
            (123.45, "1.2345e+02"),
            (0.0, "0e+00"),
            (-2e100, "-2e+100"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(exponent_form(value), expected);
        }
    }

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(time(Some(1_700_000_000_250)), "2023-11-14T22:13:20.25Z");
        assert_eq!(time(Some(0)), "1970-01-01T00:00:00Z");
        assert_eq!(time(None), "0001-01-01T00:00:00Z");
    }
}
