//! The API with pages made up here, over real sockets on loopback.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::server::{Limits, bind, serve};
use super::{Api, Definition, ENDPOINTS, Ends, Page, Pages, Read, Refused};
use crate::health::{Health, ProbeState, ProbeStatus, Stage};
use crate::model::attributes::Attributes;
use crate::model::exchange::Incomplete;
use crate::model::metric::{Kind, Metric, Sample, Value as Measured};
use crate::model::process::Resource;
use crate::model::span::{Span, SpanId, SpanKind, StatusCode, TraceId};
use crate::store::spans::Spans;
use crate::store::{MetricsConfig, Recent};

static CALLS: Metric =
    Metric { name: "calls", unit: "{call}", kind: Kind::Counter, description: "Calls", labels: &["code", "route"] };

struct MadeUp;

impl Pages for MadeUp {
    fn metrics(&self, accept: Option<&str>) -> Result<Page, String> {
        match accept {
            Some("break") => Err("the table is gone".to_owned()),
            accept => {
                Ok(Page { content_type: "text/x-test".to_owned(), body: format!("accept {accept:?}\n").into_bytes() })
            }
        }
    }

    /// Two counters, one sample a second from 100 to 160 s: `200` grows by 2, `500` by 1.
    fn samples(&self, read: &mut Read<'_>) {
        let mut store = Recent::new(MetricsConfig { keep_all: true, ..MetricsConfig::default() }, vec![]);
        for second in 100..=160 {
            let sample = |code: &'static str, value: i64| Sample {
                metric: &CALLS,
                labels: vec![code.into(), "/".into()],
                value: Measured::Count(u64::try_from(value).unwrap()),
            };
            store.append(second * 1000, &[sample("200", 2 * second), sample("500", second)]);
        }
        read(&store, store.reach_ms().map(|(oldest_ms, _)| oldest_ms));
    }

    fn definitions(&self) -> Vec<Definition> {
        vec![
            Definition { name: "calls_total".to_owned(), kind: "counter", help: "Calls" },
            Definition { name: "level".to_owned(), kind: "gauge", help: "Level" },
        ]
    }

    fn rules(&self) -> Value {
        json!({ "groups": [] })
    }

    fn alerts(&self) -> Value {
        json!({ "alerts": ["a"] })
    }

    fn flows(&self) -> Value {
        json!({ "connections": 3 })
    }

    fn workloads(&self) -> Value {
        json!([])
    }

    fn scope(&self) -> Value {
        json!({ "include": ["all"] })
    }

    fn set_scope(&self, caller: Ends, wanted: Value) -> Result<Value, Refused> {
        assert!(caller.peer.ip().is_loopback() && caller.local.port() != caller.peer.port());
        match wanted["include"][0].as_str() {
            Some("pid=x") => Err(Refused::Wrong("pid=x: not a process id".to_owned())),
            Some("mine") => Err(Refused::Forbidden("not yours".to_owned())),
            Some("late") => Err(Refused::Failed("stopping".to_owned())),
            _ => Ok(wanted),
        }
    }

    fn switch_probes(&self, _: Ends, wanted: Value) -> Result<Value, Refused> {
        match wanted["family"].as_str() {
            Some("tcp") => Ok(wanted),
            _ => Err(Refused::Unknown("no such family".to_owned())),
        }
    }

    fn kernel(&self) -> Value {
        json!({ "ring_full": 1 })
    }
}

pub(super) struct Agent {
    address: std::net::SocketAddr,
    health: Arc<Health>,
    pub(super) spans: Arc<Spans>,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
}

impl Agent {
    pub(super) async fn start(limits: Limits) -> Self {
        let (stop, stopping) = watch::channel(false);
        let (health, spans) = (Arc::new(Health::new()), Arc::new(Spans::new(10_000)));
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let api = Api::new(Arc::new(MadeUp), Arc::clone(&health), Arc::clone(&spans), stopping);
        Self { address, health, spans, stop, server: tokio::spawn(serve(listener, api, limits)) }
    }

    async fn connect(&self, head: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }

    /// Status and body; the body is read to the end of the connection.
    pub(super) async fn ask(&self, request: &str, headers: &str) -> (u16, String, String) {
        let head = format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
        let mut answer = String::new();
        self.connect(&head).await.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_ascii_lowercase(), body.to_owned())
    }

    pub(super) async fn get(&self, path: &str) -> (u16, String) {
        let (status, head, body) = self.ask(&format!("GET {path}"), "").await;
        // Streams are chunked; the tests ask for little, so that sizes stand on lines of their own.
        if !head.contains("transfer-encoding: chunked") {
            return (status, body);
        }
        let lines = body.lines().filter(|line| line.starts_with('{')).map(|line| format!("{line}\n"));
        (status, lines.collect())
    }
}

fn span(number: u64) -> Span {
    let mut attributes = Attributes::default();
    attributes.set("http.request.method", "GET");
    attributes.set("http.response.status_code", 500);
    Span {
        trace_id: TraceId([0xab; 16]),
        span_id: SpanId(number.to_be_bytes()),
        parent_span_id: (number == 1).then_some(SpanId([0xcd; 8])),
        name: "GET /user/{id}".into(),
        kind: SpanKind::Server,
        start_ns: 1_700_000_000_000_000_001,
        end_ns: 1_700_000_000_000_000_001 + number * 1_000_000,
        status: if number == 1 { StatusCode::Error } else { StatusCode::Unset },
        attributes,
        resource: Arc::new(Resource { service_name: format!("s{number}"), pid: 7, ..Resource::default() }),
        incomplete: (number == 2).then_some(Incomplete::Gap),
        time: None,
        counted: None,
    }
}

#[tokio::test]
async fn every_endpoint_of_the_index_answers() {
    let agent = Agent::start(Limits::default()).await;
    agent.health.set_ready(Ok(()));
    let (status, index) = agent.get("/").await;
    assert_eq!(status, 200);
    for (path, about) in ENDPOINTS {
        assert!(index.contains(&format!("href=\"{path}\"")) && index.contains(about), "{path}");
        assert_eq!(agent.get(path).await.0, 200, "{path}");
    }
}

#[tokio::test]
async fn pages_come_in_prometheus_envelopes_and_the_metrics_page_as_asked() {
    let agent = Agent::start(Limits::default()).await;
    let (status, head, body) = agent.ask("GET /metrics", "Accept: application/openmetrics-text\r\n").await;
    assert_eq!((status, body.as_str()), (200, "accept Some(\"application/openmetrics-text\")\n"));
    assert!(head.contains("content-type: text/x-test"), "{head}");
    assert_eq!(agent.get("/metrics").await.1, "accept None\n");
    let (status, _, body) = agent.ask("GET /metrics", "Accept: break\r\n").await;
    assert_eq!(status, 500);
    assert!(body.contains("the table is gone"), "{body}");
    assert_eq!(agent.get("/api/v1/rules").await.1, r#"{"data":{"groups":[]},"status":"success"}"#);
    assert_eq!(agent.get("/api/v1/alerts").await.1, r#"{"data":{"alerts":["a"]},"status":"success"}"#);
    assert_eq!(agent.get("/api/seismo/flows").await.1, r#"{"connections":3}"#);
    assert!(agent.get("/api/v1/status/buildinfo").await.1.contains(env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn readiness_is_503_with_the_reason_until_it_is_not() {
    let agent = Agent::start(Limits::default()).await;
    assert_eq!(agent.get("/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(agent.get("/readyz").await, (503, "starting\n".to_owned()));
    agent.health.set_ready(Err("no probe is attached".to_owned()));
    let (status, _, body) = agent.ask("GET /readyz", "Accept: application/json\r\n").await;
    assert_eq!((status, body.as_str()), (503, r#"{"ready":false,"reason":"no probe is attached"}"#));
    agent.health.set_ready(Ok(()));
    assert_eq!(agent.get("/readyz").await, (200, "ready\n".to_owned()));
}

#[tokio::test]
async fn the_pipeline_shows_what_entered_passed_and_was_lost() {
    let agent = Agent::start(Limits::default()).await;
    agent.health.enter(Stage::Collected, 10);
    agent.health.pass(Stage::Collected, 6);
    Health::lose(&agent.health, Stage::Collected, "queue_full", 3);
    agent.spans.push(span(1));
    let page: Value = serde_json::from_str(&agent.get("/api/seismo/pipeline").await.1).unwrap();
    let expected =
        json!({ "stage": "collected", "entered": 10, "passed": 6, "dropped": { "queue_full": 3 }, "pending": 1 });
    assert_eq!(page["stages"][1], expected);
    assert_eq!(page["spans"], json!({ "kept": 1, "stored": 1, "evicted": 0, "lost_by_followers": 0 }));
    assert_eq!(page["kernel"]["ring_full"], 1);
}

#[tokio::test]
async fn probes_are_listed_as_the_agent_knows_them() {
    let agent = Agent::start(Limits::default()).await;
    let probe = ProbeStatus {
        probe: "tcp".into(),
        program: "tcp_close".into(),
        hook: "tp_btf/x".into(),
        state: ProbeState::Failed,
        reason: "no".into(),
        tier: String::new(),
        verified_instructions: 5,
        runs: Some(1),
        run_ns: Some(2),
    };
    agent.health.set_probes(vec![probe.clone()]);
    let listed: Vec<ProbeStatus> = serde_json::from_str(&agent.get("/api/seismo/probes").await.1).unwrap();
    assert_eq!(listed, [probe]);
}

#[tokio::test]
async fn spans_have_the_names_of_otlp_json() {
    let agent = Agent::start(Limits::default()).await;
    agent.spans.push(span(1));
    let (_, lines) = agent.get("/api/seismo/spans").await;
    let found: Value = serde_json::from_str(lines.trim()).unwrap();
    let expected = json!({
        "traceId": "ab".repeat(16), "spanId": "0000000000000001", "parentSpanId": "cd".repeat(8),
        "name": "GET /user/{id}", "kind": 2,
        "startTimeUnixNano": "1700000000000000001", "endTimeUnixNano": "1700000000001000001",
        "status": { "code": 2 },
        "attributes": { "http.request.method": "GET", "http.response.status_code": 500 },
        "resource": { "service.name": "s1", "process.pid": 7 },
    });
    assert_eq!(found, expected);
}

#[tokio::test]
async fn spans_are_filtered_newest_first() {
    let agent = Agent::start(Limits::default()).await;
    for number in 0..4 {
        agent.spans.push(span(number));
    }
    let cases: [(&str, &[&str]); 9] = [
        ("", &["s3", "s2", "s1", "s0"]),
        ("?limit=2", &["s3", "s2"]),
        ("?limit=0", &[]),
        ("?status=error", &["s1"]),
        ("?service=s2", &["s2"]),
        ("?trace=abababababababababababababababab&limit=2", &["s3", "s2"]),
        ("?trace=ab", &[]),
        ("?min_duration=2ms&limit=9", &["s3", "s2"]),
        ("?name=GET+/user/%7Bid%7D&status=unset&limit=1", &["s3"]),
    ];
    for (query, expected) in cases {
        let (status, lines) = agent.get(&format!("/api/seismo/spans{query}")).await;
        let found: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let services: Vec<_> = found.iter().map(|span| span["resource"]["service.name"].as_str().unwrap()).collect();
        assert_eq!((status, services.as_slice()), (200, expected), "{query}");
    }
    let (_, line) = agent.get("/api/seismo/spans?service=s2").await;
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["attributes"]["seismo.incomplete"], "gap");
}

#[tokio::test]
async fn wrong_requests_get_one_clear_error() {
    let agent = Agent::start(Limits::default()).await;
    let cases = [
        ("GET /api/seismo/spans?limit=-1", 400, "limit: '-1' is not a whole number"),
        ("GET /api/seismo/spans?limit=", 400, "limit: '' is not a whole number"),
        ("GET /api/seismo/spans?status=bad", 400, "status: 'bad' is not error or unset"),
        ("GET /api/seismo/spans?min_duration=5", 400, "min_duration: '5' is not a duration such as 5s or 250ms"),
        ("GET /api/seismo/spans?trace=x", 400, "trace: 'x' is not a trace id"),
        ("GET /api/seismo/spans?follow=1", 400, "follow: '1' is not true or false"),
        ("GET /api/seismo/spans?limt=1", 400, "unknown parameter 'limt' (known: service, "),
        ("GET /api/seismo/spans?limit=1&limit=2", 400, "parameter 'limit' is given twice"),
        ("GET /nothing/here", 404, "there is nothing at /nothing/here"),
        ("POST /metrics", 405, "POST is not allowed here"),
        ("DELETE /api/seismo/spans", 405, "DELETE is not allowed here"),
    ];
    for (request, expected, message) in cases {
        let (status, _, body) = agent.ask(request, "").await;
        assert_eq!(status, expected, "{request}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["status"], "error");
        assert!(body["error"].as_str().unwrap().starts_with(message), "{request}: {body}");
    }
}

#[tokio::test]
async fn the_scope_is_replaced_as_a_whole_or_refused_with_what_is_wrong() {
    let agent = Agent::start(Limits::default()).await;
    let put = async |body: &str| {
        let head = format!("Content-Length: {}\r\n\r\n{body}", body.len());
        let (status, _, body) = agent.ask("PUT /api/seismo/scope", &head).await;
        (status, body)
    };
    assert_eq!(agent.get("/api/seismo/scope").await.1, r#"{"include":["all"]}"#);
    assert_eq!(put(r#"{"include":["pid=1"]}"#).await, (200, r#"{"include":["pid=1"]}"#.to_owned()));
    for (body, status, word) in [
        (r#"{"include":["pid=x"]}"#, 400, "pid=x: not a process id"),
        (r#"{"include":["mine"]}"#, 403, "not yours"),
        (r#"{"include":["late"]}"#, 503, "stopping"),
        ("include: all", 400, "not JSON"),
    ] {
        let (answered, text) = put(body).await;
        assert!(answered == status && text.contains(word), "{body}: {answered} {text}");
    }
    let switch = async |body: &str| {
        let head = format!("Content-Length: {}\r\n\r\n{body}", body.len());
        agent.ask("PUT /api/seismo/probes", &head).await.0
    };
    assert_eq!(switch(r#"{"family":"tcp","enabled":false}"#).await, 200);
    assert_eq!(switch(r#"{"family":"tpc","enabled":false}"#).await, 404);
    let huge = format!("[{}]", "1,".repeat(40_000));
    assert_eq!(put(&huge).await.0, 400);
}

#[tokio::test]
async fn a_follower_gets_recent_spans_then_new_ones_and_ends_when_the_agent_stops() {
    let agent = Agent::start(Limits::default()).await;
    for number in 0..3 {
        agent.spans.push(span(number));
    }
    let request = "GET /api/seismo/spans?follow=true&limit=2 HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut lines = BufReader::new(agent.connect(request).await).lines();
    let mut next = async || loop {
        let line = lines.next_line().await.unwrap()?;
        if line.starts_with('{') {
            let span: Value = serde_json::from_str(&line).unwrap();
            return Some(span["resource"]["service.name"].as_str().unwrap().to_owned());
        }
    };
    assert_eq!(next().await.as_deref(), Some("s1"));
    assert_eq!(next().await.as_deref(), Some("s2"));
    agent.spans.push(span(9));
    assert_eq!(next().await.as_deref(), Some("s9"));

    let begin = Instant::now();
    agent.stop.send_replace(true);
    assert_eq!(next().await, None);
    agent.server.await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_follower_that_does_not_read_holds_up_neither_the_writer_nor_the_stop() {
    let agent = Agent::start(Limits::default()).await;
    let stuck = agent.connect("GET /api/seismo/spans?follow=true HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut pushed = 0;
    // Until the sockets' buffers and the follower's queue are full and it loses spans.
    while agent.spans.lost_by_followers() == 0 && pushed < 400_000 {
        for number in 0..200 {
            agent.spans.push(span(number));
        }
        pushed += 200;
        tokio::task::yield_now().await;
    }
    let mut reading = BufReader::new(stuck).lines();
    let mut lost = 0;
    while lost == 0 {
        let line = tokio::time::timeout(Duration::from_secs(10), reading.next_line()).await.unwrap().unwrap().unwrap();
        lost = line.strip_prefix("{\"lost\":").map_or(0, |rest| rest.trim_end_matches('}').parse().unwrap());
    }
    assert!(lost > 0 && lost <= agent.spans.lost_by_followers());
    let begin = Instant::now();
    agent.stop.send_replace(true);
    agent.server.await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn slow_and_oversized_heads_are_cut_off() {
    let limits = Limits { head_timeout: Duration::from_millis(200), ..Limits::default() };
    let agent = Agent::start(limits).await;
    for begun in ["", "GET /metr", "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let mut stream = agent.connect(begun).await;
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "{begun:?} keeps its connection");
    }
    let mut stream = agent.connect("GET /metrics HTTP/1.1\r\n").await;
    // The agent may close while we still write: both ends of that are right.
    let _cut_off = stream.write_all(format!("X: {}\r\n\r\n", "x".repeat(1 << 20)).as_bytes()).await;
    let mut answer = Vec::new();
    let _reset = stream.read_to_end(&mut answer).await;
    assert!(!String::from_utf8_lossy(&answer).contains("200 OK"));
    assert_eq!(agent.get("/healthz").await.0, 200);
}

#[tokio::test]
async fn connections_over_the_limit_wait_for_a_place() {
    let agent = Agent::start(Limits { connections: 1, ..Limits::default() }).await;
    let first = agent.connect("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let second = agent.get("/healthz");
    tokio::pin!(second);
    assert!(tokio::time::timeout(Duration::from_millis(200), second.as_mut()).await.is_err());
    drop(first);
    assert_eq!(tokio::time::timeout(Duration::from_secs(5), second).await.unwrap().0, 200);
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_cut_off() {
    let agent = Agent::start(Limits { stall_timeout: Duration::from_millis(200), connections: 1, ..Limits::default() });
    let agent = agent.await;
    for number in 0..10_000 {
        agent.spans.push(span(number));
    }
    let path = "GET /api/seismo/spans?follow=true&limit=10000 HTTP/1.1\r\nHost: x\r\n\r\n";
    let _stuck = agent.connect(path).await;
    for number in 0..40_000 {
        agent.spans.push(span(number));
        if number.is_multiple_of(100) {
            tokio::task::yield_now().await;
        }
    }
    // The only place is free again.
    assert_eq!(tokio::time::timeout(Duration::from_secs(5), agent.get("/healthz")).await.unwrap().0, 200);
}

#[tokio::test]
async fn a_port_in_use_is_said_in_one_line() {
    let agent = Agent::start(Limits::default()).await;
    let refused = bind(agent.address).await.unwrap_err().to_string();
    assert_eq!(refused, format!("listen {}: address in use (another agent?)", agent.address));
}
