//! The `seismo` command from outside: exit codes, what goes to which stream, and the client commands against an API.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use seismo::api::server::{Limits, bind, serve};
use seismo::api::{Api, Definition, Ends, Page, Pages, Read, Refused};
use seismo::health::{Health, ProbeState, ProbeStatus};
use seismo::model::attributes::Attributes;
use seismo::model::metric::{Kind, Metric, Sample, Value as Measured};
use seismo::model::process::Resource;
use seismo::model::span::{Span, SpanId, SpanKind, StatusCode, TraceId};
use seismo::model::thread::Breakdown;
use seismo::store::spans::Spans;
use seismo::store::{MetricsConfig, Recent};
use serde_json::Value;

fn seismo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seismo"));
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SEISMO_")) {
        command.env_remove(name);
    }
    command
}

fn told(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    told(&seismo(arguments).output().unwrap())
}

/// A file that goes away with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("seismo-cli-{name}-{}.yaml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _best_effort = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_wrong_file_is_one_line_and_exit_code_2_and_nothing_starts() {
    let cases = [
        ("spans:\n  capacity: 5\n  capcity: 6\n", "3: spans.capcity: unknown key (known here: capacity)"),
        ("capture: {bytes: lots}\n", "1: capture.bytes: 'lots' is not a size such as 4096, 64KiB or 8MiB"),
        ("scope:\n  include: [pid=abc]\n", "2: scope.include[0]: pid=abc: not a process id"),
        (
            "export:\n  otlp:\n    endpoint: ftp://x\n",
            "3: export.otlp.endpoint: \"ftp://x\" does not begin with http:// or https://",
        ),
        ("sampling: {share: 1.5}\n", "1: sampling.share: 1.5 is not between 0 and 1"),
        ("scope: [\n", ""),
    ];
    for (text, expected) in cases {
        let file = Scratch::new("wrong", text);
        for arguments in [&["config", "check", file.path()][..], &["run", "--config", file.path()]] {
            let (code, out, err) = run(arguments);
            assert_eq!((code, out.as_str()), (Some(2), ""), "{text:?}: {err}");
            assert!(err.starts_with(&format!("{}:{expected}", file.path())), "{err}");
            assert_eq!(err.matches('\n').count(), 1, "{err}");
        }
    }
    let (code, _, err) = run(&["config", "check", "/nonexistent.yaml"]);
    assert_eq!(code, Some(2));
    assert!(err.starts_with("/nonexistent.yaml: No such file"), "{err}");
}

#[test]
fn a_wrong_variable_is_named() {
    let output = seismo(&["config", "print"]).env("SEISMO_SPANS_CAPACITY", "x").output().unwrap();
    let (code, _, err) = told(&output);
    assert_eq!(code, Some(2));
    assert_eq!(err, "SEISMO_SPANS_CAPACITY: spans.capacity: expected a whole number, found text 'x'\n");
}

#[test]
fn what_config_print_prints_config_check_accepts() {
    let output = seismo(&["config", "print"]).env("SEISMO_SCOPE_INCLUDE", "pid=1,exe=*/a b").output().unwrap();
    let (code, printed, _) = told(&output);
    assert_eq!(code, Some(0));
    let file = Scratch::new("printed", &printed);
    let (code, out, err) = run(&["config", "check", file.path()]);
    assert_eq!((code, out, err), (Some(0), format!("{}: ok\n", file.path()), String::new()));
    assert_eq!(run(&["config", "print", "--config", file.path()]).1, printed);
}

#[test]
fn wrong_usage_is_exit_code_2_with_what_is_wrong() {
    let cases: [(&[&str], &str); 10] = [
        (&["run", "--scope", "pid=abc"], "pid=abc: not a process id"),
        (&["run", "--listen", "localhost"], "'localhost' is not IP:PORT"),
        (&["run", "--duration", "5"], "'5' is not a duration"),
        (&["spans", "--status", "bad"], "[possible values: error, unset]"),
        (&["spans", "--agent", "https://x"], "only http:// is spoken"),
        (&["spans", "--limit", "-1"], "unexpected argument"),
        (&["probes", "set", "tcp", "maybe"], "[possible values: on, off]"),
        (&["rules", "check"], "required arguments"),
        (&["frobnicate"], "unrecognized subcommand"),
        (&[], "Usage: seismo"),
    ];
    for (arguments, expected) in cases {
        let (code, out, err) = run(arguments);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(err.contains(expected), "{arguments:?}: {err}");
    }
    assert_eq!(run(&["--version"]).0, Some(0));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = seismo(&["config", "print"]).stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(told(&output), (Some(0), String::new(), String::new()));
}

#[test]
fn without_an_agent_a_client_command_says_how_to_start_one() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for command in [&["spans"][..], &["probes"], &["scope"], &["query", "up"]] {
        let output = seismo(command).env("SEISMO_AGENT", format!("http://{free}")).output().unwrap();
        let expected = format!("seismo: no agent listens at http://{free} (start one with: seismo run)\n");
        assert_eq!(told(&output), (Some(1), String::new(), expected));
    }
}

static CALLS: Metric =
    Metric { name: "calls", unit: "{call}", kind: Kind::Counter, description: "Calls", labels: &["code"] };

struct NoPages;

impl Pages for NoPages {
    fn metrics(&self, _accept: Option<&str>) -> Result<Page, String> {
        Err("none".to_owned())
    }

    fn samples(&self, read: &mut Read<'_>) {
        let config = MetricsConfig { keep_all: true, ..MetricsConfig::default() };
        let mut store = Recent::new(config, vec![]);
        for (second, count) in [(100, 5), (110, 25)] {
            let value = Measured::Count(count);
            store.append(second * 1000, &[Sample { metric: &CALLS, labels: vec!["200".into()], value }]);
        }
        read(&store, store.reach_ms().map(|(oldest_ms, _)| oldest_ms));
    }

    fn definitions(&self) -> Vec<Definition> {
        Vec::new()
    }

    fn rules(&self) -> Value {
        Value::Null
    }

    fn alerts(&self) -> Value {
        Value::Null
    }

    fn flows(&self) -> Value {
        Value::Null
    }

    fn workloads(&self) -> Value {
        Value::Null
    }

    fn scope(&self) -> Value {
        serde_json::json!({ "include": ["port=80"], "exclude": ["pid=7"] })
    }

    fn set_scope(&self, _caller: Ends, wanted: Value) -> Result<Value, Refused> {
        match wanted["include"].as_array() {
            Some(items) if items.is_empty() => Err(Refused::Wrong("that is not enough".to_owned())),
            _ => Ok(serde_json::json!({ "scope": wanted, "adopted": 3 })),
        }
    }

    fn switch_probes(&self, _caller: Ends, wanted: Value) -> Result<Value, Refused> {
        match wanted["family"].as_str() {
            Some("tcp") => {
                let state = if wanted["enabled"] == true { "active" } else { "disabled" };
                let program = serde_json::json!({
                    "probe": "tcp", "program": "tcp_state", "hook": "tp_btf/x", "state": state, "reason": "",
                    "verified_instructions": 10, "runs": null, "run_ns": null,
                });
                Ok(serde_json::json!({ "family": "tcp", "enabled": wanted["enabled"], "programs": [program] }))
            }
            Some("late") => Err(Refused::Failed("it is stopping".to_owned())),
            _ => Err(Refused::Unknown("there is no such family".to_owned())),
        }
    }

    fn kernel(&self) -> Value {
        Value::Null
    }
}

/// An API on a thread of its own; stops when dropped.
struct Agent {
    url: String,
    spans: Arc<Spans>,
    stop: tokio::sync::watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Agent {
    fn start() -> Self {
        let (stop, stopping) = tokio::sync::watch::channel(false);
        let (health, spans) = (Arc::new(Health::new()), Arc::new(Spans::new(1000)));
        health.set_probes(vec![ProbeStatus {
            probe: "tcp".to_owned(),
            program: "tcp_state".to_owned(),
            hook: "tp_btf/x".to_owned(),
            state: ProbeState::Active,
            tier: String::new(),
            reason: String::new(),
            verified_instructions: 10,
            runs: Some(2),
            run_ns: Some(300),
        }]);
        let api = Api::new(Arc::new(NoPages), health, Arc::clone(&spans), stopping);
        let (address, begun) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
                address.send(listener.local_addr().unwrap()).unwrap();
                serve(listener, api, Limits::default()).await;
            });
        });
        let url = format!("http://{}/", begun.recv().unwrap());
        Self { url, spans, stop, thread: Some(thread) }
    }

    fn ask(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        told(&seismo(arguments).args(["--agent", &self.url]).env("TZ", "UTC").output().unwrap())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn span(service: &str, status: StatusCode) -> Span {
    Span {
        trace_id: TraceId([0xab; 16]),
        span_id: SpanId([1; 8]),
        parent_span_id: None,
        name: "GET /a\x1b[2Jb".into(),
        kind: SpanKind::Server,
        start_ns: 1_700_000_000_000_000_000,
        end_ns: 1_700_000_000_001_500_000,
        status,
        attributes: Attributes::default(),
        resource: Arc::new(Resource { service_name: service.to_owned(), pid: 5, ..Resource::default() }),
        incomplete: None,
        time: None,
        counted: None,
    }
}

#[test]
fn a_query_prints_its_result_and_says_on_standard_error_what_else_there_is() {
    let agent = Agent::start();
    let instant = agent.ask(&["query", "calls_total * 2", "--time", "111"]);
    assert_eq!(instant, (Some(0), "{code=\"200\"} => 50 @[111]\n".to_owned(), String::new()));
    let (code, out, err) = agent.ask(&["query", "irate(calls_total[30s])", "--start", "110", "--end", "110"]);
    assert_eq!((code, out.as_str()), (Some(0), "{code=\"200\"} =>\n2 @[110]\n"));
    assert_eq!(err, "seismo: samples are kept in memory; the oldest is of 1970-01-01T00:01:40Z\n");
    let (code, out, err) = agent.ask(&["query", "rate(calls_total)"]);
    assert!((code, out.as_str()) == (Some(2), "") && err.contains("parse error: expected type"), "{err}");
    assert_eq!(agent.ask(&["query", "nothing", "--json"]), (Some(0), String::new(), String::new()));
}

#[test]
fn spans_are_aligned_lines_newest_first() {
    let agent = Agent::start();
    agent.spans.push(span("shop", StatusCode::Unset));
    agent.spans.push(span("storefront", StatusCode::Error));
    let trace = "ab".repeat(16);
    let expected = format!(
        "22:13:20.000  storefront  server  GET /a·[2Jb  error  1.50ms  {trace}\n\
         22:13:20.000  shop        server  GET /a·[2Jb  ok     1.50ms  {trace}\n"
    );
    assert_eq!(agent.ask(&["spans"]), (Some(0), expected, String::new()));
    assert_eq!(agent.ask(&["spans", "--status", "error"]).1.lines().count(), 1);
    assert_eq!(agent.ask(&["spans", "--min-duration", "2ms"]).1, "");
    assert_eq!(agent.ask(&["spans", "--limit", "1"]).1.lines().count(), 1);
    assert_eq!(agent.ask(&["spans", "--name", "GET /a\x1b[2Jb", "--service", "shop"]).1.lines().count(), 1);
}

#[test]
fn spans_as_json_are_one_object_a_line() {
    let agent = Agent::start();
    agent.spans.push(span("shop", StatusCode::Error));
    let (code, out, _) = agent.ask(&["spans", "--json"]);
    assert_eq!((code, out.matches('\n').count()), (Some(0), 1));
    let found: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(found["status"]["code"], 2);
    assert_eq!(found["resource"]["service.name"], "shop");
    assert_eq!(found["startTimeUnixNano"], "1700000000000000000");
}

#[test]
fn a_trace_is_a_waterfall_or_json_lines_from_the_top_down() {
    let agent = Agent::start();
    let mut child = span("shop", StatusCode::Error);
    (child.span_id, child.parent_span_id) = (SpanId([2; 8]), Some(SpanId([1; 8])));
    child.start_ns += 500_000;
    child.time = Some(Breakdown([400_000, 0, 0, 600_000, 0, 0, 0, 0]));
    agent.spans.push(span("visitor", StatusCode::Unset));
    agent.spans.push(child);
    let id = "ab".repeat(16);
    let (code, out, err) = agent.ask(&["trace", &id.to_uppercase()]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines[0], format!("trace {id}: 2 spans of 2 services in 1.50ms"));
    assert!(lines[1].starts_with("visitor server GET /a·[2Jb ") && lines[1].contains("===="), "{out}");
    assert!(lines[2].starts_with("  shop server GET /a·[2Jb ") && lines[2].contains("#n"), "{out}");
    let (_, out, _) = agent.ask(&["trace", &id, "--json"]);
    let services: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(services.iter().map(|span| &span["resource"]["service.name"]).collect::<Vec<_>>(), ["visitor", "shop"]);
    let (code, out, err) = agent.ask(&["trace", "77"]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.starts_with("seismo: the agent holds no span of trace 00000000000000000000000000000077"), "{err}");
    assert_eq!(agent.ask(&["trace", "xyz"]).0, Some(2));
    assert_eq!(agent.ask(&["spans", "--trace", &id]).1.lines().count(), 2);
}

#[test]
fn following_shows_spans_as_they_come_until_the_agent_stops() {
    let agent = Agent::start();
    agent.spans.push(span("before", StatusCode::Unset));
    let mut following = seismo(&["spans", "--follow", "--agent", &agent.url]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    assert!(first.contains("before"), "{first}");
    agent.spans.push(span("after", StatusCode::Unset));
    let second = lines.next().unwrap().unwrap();
    assert!(second.contains("after"), "{second}");
    drop(agent);
    assert!(lines.next().is_none());
    assert_eq!(following.wait().unwrap().code(), Some(0));
}

#[test]
fn probes_are_a_table_or_json() {
    let agent = Agent::start();
    let (code, out, _) = agent.ask(&["probes"]);
    assert_eq!(code, Some(0));
    assert!(out.ends_with("tcp    -     tcp_state  tp_btf/x  active  10     2     150\n"), "{out}");
    let listed: Vec<ProbeStatus> = serde_json::from_str(&agent.ask(&["probes", "--json"]).1).unwrap();
    assert_eq!(listed.len(), 1);
}

#[test]
fn a_family_is_switched_and_one_that_is_not_there_is_wrong_usage() {
    let agent = Agent::start();
    let run = |arguments: &[&str]| told(&seismo(arguments).env("SEISMO_AGENT", &agent.url).output().unwrap());
    let (code, out, err) = run(&["probes", "set", "tcp", "off"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.contains("tcp_state  tp_btf/x  disabled"), "{out}");
    assert!(run(&["probes", "set", "tcp", "on"]).1.contains("  active  "));
    let url = agent.url.trim_end_matches('/');
    let told = format!("seismo: {url}/api/seismo/probes: there is no such family\n");
    assert_eq!(run(&["probes", "set", "tpc", "off"]), (Some(2), String::new(), told));
    assert_eq!(run(&["probes", "set", "late", "off"]).0, Some(1));
}

#[test]
fn the_scope_is_shown_and_replaced_and_a_refusal_is_told() {
    let agent = Agent::start();
    let run = |arguments: &[&str]| told(&seismo(arguments).env("SEISMO_AGENT", &agent.url).output().unwrap());
    let shown = |text: &str| (Some(0), text.to_owned(), String::new());
    assert_eq!(run(&["scope"]), shown("include port=80\nexclude pid=7\n"));
    let set = run(&["scope", "set", "exe=nginx", "--exclude", "port=22"]);
    assert_eq!(set, shown("include exe=nginx\nexclude port=22\n3 open connections taken up\n"));
    let refused = format!("seismo: {}/api/seismo/scope: that is not enough\n", agent.url.trim_end_matches('/'));
    assert_eq!(run(&["scope", "set"]), (Some(2), String::new(), refused));
    assert_eq!(run(&["scope", "set", "user=root"]).0, Some(2));
}
