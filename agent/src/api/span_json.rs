//! A span as one JSON object: OTLP/JSON's field names and encodings (hex ids, times as decimal text, enums as
//! numbers), except that attributes and resource are plain objects instead of lists of key-value pairs.

use serde_json::{Map, Value as Json, json};

use crate::model::attributes::Value;
use crate::model::process::Resource;
use crate::model::span::Span;
use crate::model::thread::Breakdown;
use crate::semconv;

/// Where a span's time went, ns: one attribute for each state.
const TIME: &str = "seismo.time";
/// Why a span is not whole.
const INCOMPLETE: &str = "seismo.incomplete";

/// `parentSpanId` is empty for a root, as in OTLP.
pub fn span(span: &Span) -> Json {
    let mut attributes: Map<_, _> = span.attributes.iter().map(|(key, value)| (key.to_owned(), plain(value))).collect();
    if let Some(incomplete) = span.incomplete {
        attributes.insert(INCOMPLETE.to_owned(), json!(incomplete.name()));
    }
    for (state, ns) in span.time.iter().flat_map(Breakdown::parts) {
        attributes.insert(format!("{TIME}.{state}"), json!(ns));
    }
    json!({
        "traceId": hex(&span.trace_id.0),
        "spanId": hex(&span.span_id.0),
        "parentSpanId": span.parent_span_id.map(|id| hex(&id.0)).unwrap_or_default(),
        "name": span.name,
        "kind": span.kind as u8,
        "startTimeUnixNano": span.start_ns.to_string(),
        "endTimeUnixNano": span.end_ns.to_string(),
        "status": { "code": span.status as u8 },
        "attributes": attributes,
        "resource": resource(&span.resource),
    })
}

fn resource(resource: &Resource) -> Json {
    let mut found = Map::new();
    found.insert(semconv::SERVICE_NAME.to_owned(), json!(resource.service_name));
    found.insert(semconv::PROCESS_PID.to_owned(), json!(resource.pid));
    let texts = [
        (semconv::PROCESS_EXECUTABLE_NAME, resource.executable_name.as_str()),
        (semconv::CONTAINER_ID, resource.container_id.as_deref().unwrap_or_default()),
        (semconv::HOST_NAME, &resource.host_name),
    ];
    for (key, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        found.insert(key.to_owned(), json!(text));
    }
    Json::Object(found)
}

fn plain(value: &Value) -> Json {
    match value {
        Value::Text(text) => json!(text),
        Value::Int(number) => json!(number),
        // JSON has no word for what is not a number; OTLP writes it as text.
        Value::Float(number) if number.is_finite() => json!(number),
        Value::Float(number) => json!(number.to_string()),
        Value::Bool(truth) => json!(truth),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
