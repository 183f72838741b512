//! Parameters of Jaeger's query API → what is looked for. Times are in µs since 1970 (`endTs` and `lookback` of
//! dependencies in ms), durations as Go writes them (`1.5s`, `250ms`). Unknown parameters are passed over, as Jaeger does:
//! its page sends some that only it reads.

use std::collections::BTreeMap;

use crate::model::attributes::Value;
use crate::model::exported;
use crate::model::span::{Span, StatusCode, TraceId};

const DEFAULT_LIMIT: usize = 100;
const NS_PER_US: u64 = 1000;
const NS_PER_MS: u64 = 1_000_000;
/// How far back dependencies are looked for.
const LOOKBACK_MS: u64 = 24 * 3600 * 1000;

/// What `/api/traces` is asked for: traces of these ids, or those with a span that matches all the rest.
#[derive(Debug, PartialEq)]
pub(super) struct Search {
    pub traces: Vec<TraceId>,
    service: String,
    operation: Option<String>,
    tags: BTreeMap<String, String>,
    duration_ns: (u64, u64),
    period: Period,
    pub limit: usize,
}

/// Unix times, ns, both within.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Period {
    from_ns: u64,
    to_ns: u64,
}

/// The last value of a parameter that is not empty.
fn value<'a>(pairs: &'a [(String, String)], key: &str) -> Option<&'a str> {
    pairs.iter().rev().find(|(name, value)| name == key && !value.is_empty()).map(|(_, value)| value.as_str())
}

fn values<'a>(pairs: &'a [(String, String)], key: &str) -> impl Iterator<Item = &'a str> {
    pairs.iter().filter(move |(name, value)| name == key && !value.is_empty()).map(|(_, value)| value.as_str())
}

fn wrong(key: &str, error: impl std::fmt::Display) -> String {
    format!("unable to parse param '{key}': {error}")
}

fn number(pairs: &[(String, String)], key: &str, default: u64) -> Result<u64, String> {
    let parse = |text: &str| text.parse().map_err(|_| wrong(key, format!("'{text}' is not a whole number")));
    value(pairs, key).map_or(Ok(default), parse)
}

fn duration(pairs: &[(String, String)], key: &str) -> Result<Option<u64>, String> {
    let parse = |text| go_duration(text).ok_or_else(|| wrong(key, format!("'{text}' is not a duration such as 1.5s")));
    value(pairs, key).map(parse).transpose()
}

/// Service and kind that `/api/operations` is asked for.
pub(super) fn operations(pairs: &[(String, String)]) -> Result<(String, Option<String>), String> {
    let service = value(pairs, "service").ok_or("parameter 'service' is required")?;
    Ok((service.to_owned(), value(pairs, "spanKind").map(str::to_ascii_lowercase)))
}

impl Search {
    pub(super) fn parse(pairs: &[(String, String)], now_ns: u64) -> Result<Self, String> {
        let traces: Vec<TraceId> = values(pairs, "traceID").map(str::parse).collect::<Result<_, _>>()?;
        let service = value(pairs, "service").unwrap_or_default().to_owned();
        if service.is_empty() && traces.is_empty() {
            return Err("parameter 'service' is required".to_owned());
        }
        let (least, most) = (duration(pairs, "minDuration")?, duration(pairs, "maxDuration")?);
        if let (Some(least), Some(most)) = (least, most)
            && most < least
        {
            return Err("'maxDuration' should be greater than 'minDuration'".to_owned());
        }
        let period = Period {
            from_ns: number(pairs, "start", 0)?.saturating_mul(NS_PER_US),
            to_ns: number(pairs, "end", now_ns / NS_PER_US + 1)?.saturating_mul(NS_PER_US),
        };
        let limit = number(pairs, "limit", DEFAULT_LIMIT as u64)?;
        Ok(Self {
            traces,
            service,
            operation: value(pairs, "operation").map(str::to_owned),
            tags: tags(pairs)?,
            duration_ns: (least.unwrap_or(0), most.unwrap_or(u64::MAX)),
            period,
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
        })
    }

    pub(super) fn matches(&self, span: &Span) -> bool {
        let (least, most) = self.duration_ns;
        self.service == span.resource.service_name
            && self.operation.as_ref().is_none_or(|name| *name == span.name)
            && self.period.contains(span.start_ns)
            && (least..=most).contains(&span.duration_ns())
            && self.tags.iter().all(|(key, wanted)| has_tag(span, key, wanted))
    }
}

impl Period {
    pub(super) fn parse(pairs: &[(String, String)], now_ns: u64) -> Result<Self, String> {
        let to_ms = number(pairs, "endTs", now_ns / NS_PER_MS + 1)?;
        let back_ms = number(pairs, "lookback", LOOKBACK_MS)?;
        let from_ms = to_ms.saturating_sub(back_ms);
        Ok(Self { from_ns: from_ms.saturating_mul(NS_PER_MS), to_ns: to_ms.saturating_mul(NS_PER_MS) })
    }

    pub(super) fn contains(&self, unix_ns: u64) -> bool {
        (self.from_ns..=self.to_ns).contains(&unix_ns)
    }
}

/// `tag=key:value` and `tags={"key": "value"}`, both any number of times.
fn tags(pairs: &[(String, String)]) -> Result<BTreeMap<String, String>, String> {
    let mut tags = BTreeMap::new();
    for tag in values(pairs, "tag") {
        let malformed = || format!("malformed 'tag' parameter, expecting key:value, received: {tag}");
        let (key, wanted) = tag.split_once(':').ok_or_else(malformed)?;
        tags.insert(key.to_owned(), wanted.to_owned());
    }
    for text in values(pairs, "tags") {
        let malformed = |error| format!("malformed 'tags' parameter, cannot unmarshal JSON: {error}");
        tags.extend(serde_json::from_str::<BTreeMap<String, String>>(text).map_err(malformed)?);
    }
    Ok(tags)
}

/// Tags of the span and of its process, those among them that Jaeger makes of kind and status.
fn has_tag(span: &Span, key: &str, wanted: &str) -> bool {
    match key {
        "error" => wanted == if span.status == StatusCode::Error { "true" } else { "false" },
        "span.kind" => wanted == span.kind.name(),
        _ => {
            let mut all = exported::attributes(span).chain(exported::resource(&span.resource));
            all.any(|(name, value)| name == key && reads(&value, wanted))
        }
    }
}

fn reads(value: &Value, wanted: &str) -> bool {
    match value {
        Value::Text(text) => text == wanted,
        Value::Int(number) => number.to_string() == wanted,
        Value::Float(number) => number.to_string() == wanted,
        Value::Bool(truth) => truth.to_string() == wanted,
    }
}

/// A duration as Go reads it (`1h2m`, `1.5s`, `300us`), ns; not below zero.
fn go_duration(text: &str) -> Option<u64> {
    const UNITS: [(&str, f64); 7] =
        [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];
    if text == "0" {
        return Some(0);
    }
    let (mut rest, mut sum) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !(letter.is_ascii_digit() || letter == '.'))?;
        let (number, behind) = rest.split_at_checked(digits)?;
        let letters = behind.find(|letter: char| letter.is_ascii_digit() || letter == '.').unwrap_or(behind.len());
        let (unit, behind) = behind.split_at_checked(letters)?;
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
        sum += number.parse::<f64>().ok()? * factor;
        rest = behind;
    }
    (!text.is_empty()).then_some(sum as u64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Search, go_duration};

    #[test]
    fn durations_are_read_as_go_writes_them() {
        let cases = [
            ("1.5s", Some(1_500_000_000)),
            ("250ms", Some(250_000_000)),
            ("300us", Some(300_000)),
            ("300µs", Some(300_000)),
            ("1h2m3s", Some(3_723_000_000_000)),
            ("0", Some(0)),
            ("", None),
            ("5", None),
            ("s", None),
            ("-1s", None),
            ("1.2.3s", None),
            ("1 s", None),
            ("1d", None),
        ];
        for (text, expected) in cases {
            assert_eq!(go_duration(text), expected, "{text}");
        }
    }

    #[test]
    fn a_search_that_cannot_be_meant_is_refused_in_jaegers_words() {
        let cases = [
            ("", "parameter 'service' is required"),
            ("service=", "parameter 'service' is required"),
            ("service=a&limit=x", "unable to parse param 'limit'"),
            ("service=a&start=-1", "unable to parse param 'start'"),
            ("service=a&minDuration=5", "unable to parse param 'minDuration'"),
            ("service=a&minDuration=2s&maxDuration=1s", "'maxDuration' should be greater than 'minDuration'"),
            ("service=a&tag=x", "malformed 'tag' parameter, expecting key:value, received: x"),
            ("service=a&tags=x", "malformed 'tags' parameter, cannot unmarshal JSON"),
            ("traceID=xyz", "'xyz' is not a trace id"),
        ];
        for (query, message) in cases {
            let pairs: Vec<(String, String)> = query
                .split('&')
                .filter_map(|pair| pair.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())))
                .collect();
            let refused = Search::parse(&pairs, 0).unwrap_err();
            assert!(refused.starts_with(message), "{query}: {refused}");
        }
    }
}
