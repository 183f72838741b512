//! A span as one JSON object: OTLP/JSON's field names and encodings (hex ids, times as decimal text, enums as
//! numbers), except that attributes and resource are plain objects instead of lists of key-value pairs.

use std::borrow::Cow;

use serde_json::{Map, Value as Json, json};

use super::attributes::Value;
use super::exported::{self, hex};
use super::span::Span;

/// `parentSpanId` is empty for a root, as in OTLP.
pub fn span(span: &Span) -> Json {
    json!({
        "traceId": hex(&span.trace_id.0),
        "spanId": hex(&span.span_id.0),
        "parentSpanId": span.parent_span_id.map(|id| hex(&id.0)).unwrap_or_default(),
        "name": span.name,
        "kind": span.kind as u8,
        "startTimeUnixNano": span.start_ns.to_string(),
        "endTimeUnixNano": span.end_ns.to_string(),
        "status": { "code": span.status as u8 },
        "attributes": object(exported::attributes(span)),
        "resource": object(exported::resource(&span.resource)),
    })
}

fn object<'a>(attributes: impl Iterator<Item = (&'static str, Cow<'a, Value>)>) -> Json {
    let members: Map<_, _> = attributes.map(|(key, value)| (key.to_owned(), plain(&value))).collect();
    Json::Object(members)
}

/// A value as JSON has it.
pub fn plain(value: &Value) -> Json {
    match value {
        Value::Text(text) => json!(text),
        Value::Int(number) => json!(number),
        // JSON has no word for what is not a number; OTLP writes it as text.
        Value::Float(number) if number.is_finite() => json!(number),
        Value::Float(number) => json!(number.to_string()),
        Value::Bool(truth) => json!(truth),
    }
}
