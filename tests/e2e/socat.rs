//! socat between TCP and UNIX sockets, and as a client of its own: spans at each end of each connection, linked from the
//! first request on.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seismo_tests::agent::Agent;
use seismo_tests::nginx::Nginx;
use seismo_tests::process::Process;
use seismo_tests::programs;
use seismo_tests::rig::{Rig, free_port};
use seismo_tests::spans::{Kind, Span};

const LIMIT: Duration = Duration::from_secs(30);
/// Connections with a single request, and requests on one more connection.
const SINGLE: usize = 5;
const TOGETHER: usize = 10;

fn socat(rig: &Rig, name: &str, places: [&str; 2]) -> Result<Process> {
    let mut socat = Command::new(programs::find("socat")?);
    socat.args(places).stdin(Stdio::piped());
    rig.inside(name, socat)
}

/// curl's requests for `PREFIX/…`, each of `SINGLE` on a connection of its own, and `TOGETHER` on one.
fn curl(rig: &Rig, prefix: &str, through: &[&str]) -> Result<Vec<String>> {
    let globs = (0..SINGLE).map(|turn| format!("{prefix}/single-{turn}"));
    for glob in globs.chain([format!("{prefix}/together-[1-{TOGETHER}]")]) {
        let mut curl = Command::new(programs::find("curl")?);
        curl.args(["--silent", "--show-error", "--fail", "--output", "/dev/null"]).args(through);
        curl.arg(format!("http://shop{glob}"));
        rig.inside("curl", curl)?.finish(LIMIT)?;
    }
    let single = (0..SINGLE).map(|turn| format!("{prefix}/single-{turn}"));
    Ok(single.chain((1..=TOGETHER).map(|turn| format!("{prefix}/together-{turn}"))).collect())
}

fn linked_pair(spans: &[Span], path: &str, client: &str, server: &str) -> Result<()> {
    let of = |kind: Kind, service: &str| {
        let is = |span: &&Span| span.kind == kind && span.service() == service && span.path() == path;
        let mut of = spans.iter().filter(is);
        let span = of.next().with_context(|| format!("no {kind:?} span of {service} for {path}"))?;
        ensure!(of.next().is_none(), "two {kind:?} spans of {service} for {path}");
        ensure!(span.status() == "200" && span.attribute("seismo.incomplete").is_empty(), "{}", span.json);
        Ok(span)
    };
    let (asked, answered) = (of(Kind::Client, client)?, of(Kind::Server, server)?);
    let id = |span: &Span, key: &str| span.json.get(key).and_then(|id| id.as_str()).unwrap_or("none").to_owned();
    ensure!(id(asked, "traceId") == id(answered, "traceId"), "{path}: {client} and {server}: two traces");
    ensure!(id(answered, "parentSpanId") == id(asked, "spanId"), "{path}: {client} and {server} are not linked");
    Ok(())
}

#[test]
fn a_relay_between_tcp_and_unix_sockets_is_seen_at_all_four_ends_from_the_first_request_on() -> Result<()> {
    Rig::run(|rig| {
        let nginx = Nginx::start(rig, None)?;
        let agent = Agent::start(rig)?;
        let port = free_port()?;
        let socket = rig.dir().join("relay.sock");
        let to_unix =
            [format!("TCP-LISTEN:{port},bind=127.0.0.1,fork"), format!("UNIX-CONNECT:{}", nginx.socket().display())];
        let from_unix = [format!("UNIX-LISTEN:{},fork", socket.display()), format!("TCP:127.0.0.1:{}", nginx.port)];
        let mut relays = Vec::new();
        for (name, [from, to]) in [("to-unix", &to_unix), ("from-unix", &from_unix)] {
            relays.push(socat(rig, name, [from, to])?);
        }
        relays[0].await_ready(LIMIT, || seismo_tests::http::listens(port))?;
        relays[1].await_ready(LIMIT, || socket.exists())?;
        let mut paths = curl(rig, "/a", &["--connect-to", &format!("shop:80:127.0.0.1:{port}")])?;
        paths.extend(curl(rig, "/b", &["--unix-socket", &socket.display().to_string()])?);
        let spans = agent.awaited_spans(4 * paths.len(), |_| true)?;
        for path in &paths {
            linked_pair(&spans, path, "curl", "socat")?;
            linked_pair(&spans, path, "socat", "nginx")?;
        }
        println!("{} requests, {} spans", paths.len(), spans.len());
        ensure!(spans.len() == 4 * paths.len(), "{} spans", spans.len());
        agent.nothing_lost()?;
        agent.stop()
    })
}

#[test]
fn what_socat_sends_from_its_input_is_a_request_as_any_other() -> Result<()> {
    Rig::run(|rig| {
        let nginx = Nginx::start(rig, None)?;
        let agent = Agent::start(rig)?;
        let unix = format!("UNIX-CONNECT:{}", nginx.socket().display());
        for (name, place) in [("tcp", format!("TCP:127.0.0.1:{}", nginx.port)), ("unix", unix)] {
            let mut socat = socat(rig, name, ["-", &place])?;
            let request = format!("GET /{name} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n");
            socat.input()?.write_all(request.as_bytes())?;
            let answer = socat.finish(LIMIT)?;
            ensure!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        }
        let spans = agent.awaited_spans(4, |_| true)?;
        linked_pair(&spans, "/tcp", "socat", "nginx")?;
        linked_pair(&spans, "/unix", "socat", "nginx")?;
        agent.nothing_lost()?;
        agent.stop()
    })
}

/// Both ends of a UNIX stream in one process; the first request is on its way when the agent comes.
const OLD_PAIR: &str = "\
import socket, sys
client, server = socket.socketpair()
def ask(path):
    client.sendall(f'GET {path} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'.encode())
def answer():
    assert server.recv(4096)
    server.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok')
    assert client.recv(4096)
if sys.argv[1] == 'under-way':
    ask('/old/0')
print('ready', flush=True)
sys.stdin.readline()
if sys.argv[1] == 'under-way':
    answer()
for turn in range(1, 6):
    ask(f'/old/{turn}')
    answer()
print('done', flush=True)
sys.stdin.readline()
";

/// The pairs of spans that are linked, by path, of a stream that is older than the agent.
fn old_pair(case: &str) -> Result<Vec<(String, String)>> {
    let mut linked = Vec::new();
    Rig::run(|rig| {
        let mut python = Command::new(programs::PYTHON);
        python.arg(rig.file("pair.py", OLD_PAIR)?).arg(case).stdin(Stdio::piped());
        let mut pair = rig.inside("pair", python)?;
        let mut input = pair.input()?;
        pair.await_ready(LIMIT, || true)?;
        seismo_tests::wait::until("a request under way", LIMIT, || Ok(pair.out().contains("ready").then_some(())))?;
        let agent = Agent::start(rig)?;
        writeln!(input)?;
        let spans = agent.awaited_spans(10, |span| !span.path().ends_with('0'))?;
        for answered in spans.iter().filter(|span| span.kind == Kind::Server) {
            let parent = answered.json.get("parentSpanId").filter(|id| id.as_str() != Some(""));
            let asked = spans.iter().find(|span| span.kind == Kind::Client && span.json.get("spanId") == parent);
            linked.extend(asked.map(|asked| (asked.path(), answered.path())));
        }
        println!("{case}: {linked:?}");
        drop(input);
        pair.finish(LIMIT)?;
        agent.nothing_lost()
    })?;
    Ok(linked)
}

#[test]
fn a_unix_stream_older_than_the_agent_is_linked_where_nothing_was_under_way_and_never_wrongly() -> Result<()> {
    ensure!(old_pair("idle")?.len() == 5, "an idle stream is not linked");
    let linked = old_pair("under-way")?;
    ensure!(linked.iter().all(|(asked, answered)| asked == answered), "linked wrongly: {linked:?}");
    Ok(())
}
