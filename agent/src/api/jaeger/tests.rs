//! Jaeger's query API over real sockets: shapes, searches and errors.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use serde_json::{Value, json};

use crate::api::server::Limits;
use crate::api::tests::Agent;
use crate::model::attributes::Attributes;
use crate::model::exchange::Incomplete;
use crate::model::process::Resource;
use crate::model::span::{Span, SpanId, SpanKind, StatusCode, TraceId};

const START_NS: u64 = 1_700_000_000_000_000_500;

/// Trace `trace` has spans 1 (client), 2 (server, its child) and so on, a µs after each other, of `number` ms.
fn span(trace: u8, number: u8, parent: u8, service: &str) -> Span {
    let mut attributes = Attributes::default();
    attributes.set("http.response.status_code", 200 + i64::from(number));
    Span {
        trace_id: TraceId([trace; 16]),
        span_id: SpanId([number; 8]),
        parent_span_id: (parent > 0).then_some(SpanId([parent; 8])),
        name: format!("GET /{service}").into(),
        kind: if number % 2 == 1 { SpanKind::Client } else { SpanKind::Server },
        start_ns: START_NS + u64::from(number) * 1000,
        end_ns: START_NS + u64::from(number) * 1_001_000,
        status: if number == 4 { StatusCode::Error } else { StatusCode::Unset },
        attributes,
        resource: Arc::new(Resource { service_name: service.to_owned(), pid: 7, ..Resource::default() }),
        incomplete: (number == 4).then_some(Incomplete::Gap),
        time: None,
        counted: None,
    }
}

/// visitor → shop → stock in trace 1, visitor → shop in trace 2.
async fn agent() -> Agent {
    let agent = Agent::start(Limits::default()).await;
    let spans = [(1, 2, 1, "shop"), (1, 1, 0, "visitor"), (1, 4, 3, "stock"), (1, 3, 2, "shop")];
    spans.into_iter().chain([(2, 2, 1, "shop"), (2, 1, 0, "visitor")]).for_each(|(trace, number, parent, service)| {
        agent.spans.push(span(trace, number, parent, service));
    });
    agent
}

async fn ask(agent: &Agent, path: &str) -> (u16, Value) {
    let (status, body) = agent.get(path).await;
    (status, serde_json::from_str(&body).unwrap())
}

#[tokio::test]
async fn services_and_operations_are_those_of_the_ring() {
    let agent = agent().await;
    let whole = |data: Value, total: usize| {
        (200, json!({ "data": data, "total": total, "limit": 0, "offset": 0, "errors": null }))
    };
    assert_eq!(ask(&agent, "/api/services").await, whole(json!(["shop", "stock", "visitor"]), 3));
    assert_eq!(ask(&agent, "/api/services/shop/operations").await, whole(json!(["GET /shop"]), 1));
    assert_eq!(ask(&agent, "/api/services/none/operations").await, whole(json!([]), 0));
    let both = json!([
        { "name": "GET /shop", "spanKind": "client" },
        { "name": "GET /shop", "spanKind": "server" },
    ]);
    assert_eq!(ask(&agent, "/api/operations?service=shop").await, whole(both.clone(), 2));
    let (_, servers) = ask(&agent, "/api/operations?service=shop&spanKind=server").await;
    assert_eq!(servers["data"], json!([both[1]]));
}

#[tokio::test]
async fn a_trace_has_its_spans_by_start_and_each_process_once() {
    let agent = agent().await;
    let (status, found) = ask(&agent, &format!("/api/traces/{}", "01".repeat(16))).await;
    assert_eq!((status, found["total"].as_u64(), found["errors"].is_null()), (200, Some(1), true));
    let trace = &found["data"][0];
    assert_eq!(trace["traceID"], "01".repeat(16));
    let ids: Vec<_> = trace["spans"].as_array().unwrap().iter().map(|span| span["spanID"].as_str().unwrap()).collect();
    assert_eq!(ids, ["01".repeat(8), "02".repeat(8), "03".repeat(8), "04".repeat(8)]);
    let expected = json!({
        "traceID": "01".repeat(16), "spanID": "04".repeat(8), "flags": 1, "operationName": "GET /stock",
        "references": [{ "refType": "CHILD_OF", "traceID": "01".repeat(16), "spanID": "03".repeat(8) }],
        "startTime": 1_700_000_000_000_004_u64, "duration": 4000,
        "tags": [
            { "key": "http.response.status_code", "type": "int64", "value": 204 },
            { "key": "seismo.incomplete", "type": "string", "value": "gap" },
            { "key": "span.kind", "type": "string", "value": "server" },
            { "key": "error", "type": "bool", "value": true },
            { "key": "otel.status_code", "type": "string", "value": "ERROR" },
        ],
        "logs": [], "processID": "p4", "warnings": ["not whole: gap"],
    });
    assert_eq!(trace["spans"][3], expected);
    assert_eq!(trace["spans"][0]["references"], json!([]));
    let process = json!({ "serviceName": "stock", "tags": [{ "key": "process.pid", "type": "int64", "value": 7 }] });
    assert_eq!(trace["processes"]["p4"], process);
}

#[tokio::test]
async fn a_search_finds_whole_traces_newest_first() {
    let agent = agent().await;
    let cases: [(&str, &[u8]); 17] = [
        ("service=shop", &[2, 1]),
        ("service=shop&limit=1", &[2]),
        ("service=stock", &[1]),
        ("service=none", &[]),
        ("service=shop&operation=GET+/shop", &[2, 1]),
        ("service=shop&operation=GET+/stock", &[]),
        ("service=shop&minDuration=2.5ms", &[1]),
        ("service=shop&maxDuration=1ms", &[]),
        ("service=stock&tags=%7B%22error%22:%22true%22%7D", &[1]),
        ("service=visitor&tag=error:true", &[]),
        ("service=shop&tag=http.response.status_code:203", &[1]),
        ("service=shop&tag=process.pid:7&tag=span.kind:client", &[1]),
        ("service=shop&start=1700000000000003", &[1]),
        ("service=shop&end=1700000000000001", &[]),
        ("service=shop&start=1700000000000000&end=1700000000000003&lookback=1h", &[2, 1]),
        ("traceID=01010101010101010101010101010101&limit=0", &[1]),
        ("traceID=abc", &[]),
    ];
    for (query, expected) in cases {
        let (status, found) = ask(&agent, &format!("/api/traces?{query}")).await;
        let traces = found["data"].as_array().unwrap();
        let ids: Vec<_> = traces.iter().map(|trace| trace["traceID"].as_str().unwrap().to_owned()).collect();
        let expected: Vec<_> = expected.iter().map(|trace| format!("{trace:02}").repeat(16)).collect();
        assert_eq!((status, ids), (200, expected), "{query}");
        let spans = |trace: &Value| trace["spans"].as_array().unwrap().len();
        assert!(traces.iter().all(|trace| spans(trace) == if trace["traceID"] == "01".repeat(16) { 4 } else { 2 }));
    }
}

#[tokio::test]
async fn dependencies_are_calls_between_services() {
    let agent = agent().await;
    let (_, found) = ask(&agent, "/api/dependencies?endTs=1700000000001&lookback=1000").await;
    let expected = json!([
        { "parent": "shop", "child": "stock", "callCount": 1 },
        { "parent": "visitor", "child": "shop", "callCount": 2 },
    ]);
    assert_eq!(found["data"], expected);
    assert_eq!(ask(&agent, "/api/dependencies?endTs=1699999999999&lookback=1000").await.1["data"], json!([]));
}

#[tokio::test]
async fn refusals_have_jaegers_shape() {
    let agent = agent().await;
    for (path, code, message) in [
        ("/api/traces", 400, "parameter 'service' is required"),
        ("/api/operations", 400, "parameter 'service' is required"),
        ("/api/traces?service=a&limit=x", 400, "unable to parse param 'limit': 'x' is not a whole number"),
        ("/api/traces/77", 404, "trace not found"),
        ("/api/dependencies?endTs=x", 400, "unable to parse param 'endTs': 'x' is not a whole number"),
    ] {
        let errors = json!([{ "code": code, "msg": message }]);
        let body = json!({ "data": null, "total": 0, "limit": 0, "offset": 0, "errors": errors });
        assert_eq!(ask(&agent, path).await, (code, body), "{path}");
    }
    assert_eq!(ask(&agent, "/api/traces/xyz").await.0, 400);
}
