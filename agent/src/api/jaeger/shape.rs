//! Traces as Jaeger's pages read them: times in µs, tags as a list with a type each, a table of processes per trace.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use crate::model::attributes::Value;
use crate::model::exported::{self, hex};
use crate::model::span::{Span, StatusCode};
use crate::model::span_json::plain;
use crate::semconv;

/// One object for each trace; none of them is empty.
pub(super) fn traces(traces: &[Vec<Arc<Span>>]) -> Vec<Json> {
    traces.iter().map(|spans| trace(spans)).collect()
}

fn trace(spans: &[Arc<Span>]) -> Json {
    let mut processes = Map::new();
    let mut ids: BTreeMap<*const _, String> = BTreeMap::new();
    let mut found = Vec::with_capacity(spans.len());
    for span in spans {
        let next = ids.len() + 1;
        let process = ids.entry(Arc::as_ptr(&span.resource)).or_insert_with(|| {
            let id = format!("p{next}");
            let tags = exported::resource(&span.resource).filter(|(key, _)| *key != semconv::SERVICE_NAME);
            let tags: Vec<Json> = tags.map(|(key, value)| tag(key, value)).collect();
            processes.insert(id.clone(), json!({ "serviceName": span.resource.service_name, "tags": tags }));
            id
        });
        found.push(one(span, process));
    }
    json!({
        "traceID": spans.first().map(|span| hex(&span.trace_id.0)),
        "spans": found,
        "processes": processes,
        "warnings": null,
    })
}

fn one(span: &Span, process: &str) -> Json {
    let trace = hex(&span.trace_id.0);
    let parent = |id| json!({ "refType": "CHILD_OF", "traceID": trace, "spanID": id });
    let references: Vec<Json> = span.parent_span_id.iter().map(|id| parent(hex(&id.0))).collect();
    let mut tags: Vec<Json> = exported::attributes(span).map(|(key, value)| tag(key, value)).collect();
    tags.push(tag("span.kind", Cow::Owned(span.kind.name().into())));
    if span.status == StatusCode::Error {
        tags.push(tag("error", Cow::Owned(true.into())));
        tags.push(tag("otel.status_code", Cow::Owned("ERROR".into())));
    }
    let warnings = span.incomplete.map(|why| vec![format!("not whole: {}", why.name())]);
    json!({
        "traceID": trace,
        "spanID": hex(&span.span_id.0),
        "flags": 1,
        "operationName": span.name,
        "references": references,
        "startTime": span.start_ns / 1000,
        "duration": span.duration_ns() / 1000,
        "tags": tags,
        "logs": [],
        "processID": process,
        "warnings": warnings,
    })
}

fn tag(key: &str, value: Cow<'_, Value>) -> Json {
    let kind = match &*value {
        Value::Text(_) => "string",
        Value::Int(_) => "int64",
        Value::Float(_) => "float64",
        Value::Bool(_) => "bool",
    };
    json!({ "key": key, "type": kind, "value": plain(&value) })
}
