//! A change of state as a notification: Alertmanager's webhook payload, version 4.
//!
//! One notification per transition, with one alert: the engine tells each change once, so a receiver gets
//! exactly one `firing` and one `resolved` per alert. Pending alerts notify nobody.

use serde_json::json;

use super::Config;
use super::view::time;
use crate::model::alert::{Alert, AlertState};

/// Name of the receiver in the payload.
const RECEIVER: &str = "webhook";

/// The body to post for a change of state; `None` when it is not one that notifies.
pub fn payload(alert: &Alert, config: &Config) -> Option<String> {
    let status = match alert.state {
        AlertState::Firing => "firing",
        AlertState::Resolved => "resolved",
        AlertState::Inactive | AlertState::Pending => return None,
    };
    let name = alert.labels.get("alertname").map_or("", String::as_str);
    let url = config.external_url.trim_end_matches('/');
    let body = json!({
        "version": "4",
        "groupKey": format!("{{}}:{{{}}}", group_labels(alert)),
        "truncatedAlerts": 0,
        "status": status,
        "receiver": RECEIVER,
        "groupLabels": alert.labels,
        "commonLabels": alert.labels,
        "commonAnnotations": alert.annotations,
        "externalURL": url,
        "alerts": [{
            "status": status,
            "labels": alert.labels,
            "annotations": alert.annotations,
            "startsAt": time(Some(alert.fired_at_ms.unwrap_or(alert.active_at_ms))),
            "endsAt": time(alert.resolved_at_ms),
            "generatorURL": format!("{url}/api/v1/rules?rule_name[]={}", percent_encoded(name)),
            "fingerprint": format!("{:016x}", fingerprint(alert)),
        }],
    });
    Some(body.to_string())
}

fn group_labels(alert: &Alert) -> String {
    alert.labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect::<Vec<_>>().join(", ")
}

/// Prometheus' fingerprint of a label set: FNV-1a over names and values, each followed by 0xff.
fn fingerprint(alert: &Alert) -> u64 {
    let texts = alert.labels.iter().flat_map(|(name, value)| [name, value]);
    let bytes = texts.flat_map(|text| text.bytes().chain([0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn alert(state: AlertState) -> Alert {
        Alert {
            labels: BTreeMap::from([
                ("alertname".to_owned(), "Too many errors".to_owned()),
                ("severity".to_owned(), "page".to_owned()),
            ]),
            annotations: BTreeMap::from([("summary".to_owned(), "it fails".to_owned())]),
            state,
            active_at_ms: 1_700_000_000_000,
            fired_at_ms: Some(1_700_000_005_000),
            resolved_at_ms: (state == AlertState::Resolved).then_some(1_700_000_060_000),
            value: 1.0,
        }
    }

    #[test]
    fn the_payload_is_alertmanagers() {
        let body = payload(&alert(AlertState::Resolved), &Config::default()).unwrap();
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        insta::assert_snapshot!(serde_json::to_string_pretty(&body).unwrap());
        let body = payload(&alert(AlertState::Firing), &Config::default()).unwrap();
        assert!(body.contains(r#""endsAt":"0001-01-01T00:00:00Z""#), "{body}");
    }

    #[test]
    fn only_firing_and_resolved_notify() {
        assert_eq!(payload(&alert(AlertState::Pending), &Config::default()), None);
        assert_eq!(payload(&alert(AlertState::Inactive), &Config::default()), None);
    }

    #[test]
    fn the_fingerprint_is_fnv_1a_as_in_prometheus() {
        // Computed apart, from FNV-1a's definition.
        assert_eq!(fingerprint(&alert(AlertState::Firing)), 0x2358_2296_7773_5dc6);
        let empty = Alert { labels: BTreeMap::new(), ..alert(AlertState::Firing) };
        assert_eq!(fingerprint(&empty), 0xcbf2_9ce4_8422_2325);
    }
}
