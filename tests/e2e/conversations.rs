//! Rare but right HTTP, played byte by byte: each conversation gives exactly its spans.

use anyhow::{Result, ensure};
use seismo_tests::agent::Agent;
use seismo_tests::conversation::{Step, client, client_closes, server, server_closes, to_json};
use seismo_tests::rig::Rig;
use seismo_tests::spans::{Kind, Span};
use std::io::Write;
use std::time::Duration;

const CLIENT: &str = env!("CARGO_BIN_EXE_seismo-testclient");
const GET: &str = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

struct Case {
    /// Also the service's name: at most 15 letters, so that it is whole wherever the kernel keeps names.
    name: &'static str,
    steps: Vec<Step>,
    /// Method, path and status of each exchange, in order.
    exchanges: &'static [(&'static str, &'static str, &'static str)],
}

fn cases() -> Vec<Case> {
    let chunked =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nHTTP\r\n6;x=y\r\n/1.1 2\r\n0\r\nT: v\r\n\r\n";
    let post = "POST /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    let large = [b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n".to_vec(), vec![b'z'; 1_000_000]].concat();
    // A body that looks like another exchange must stay a body.
    let nested = format!("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{GET}", GET.len());
    vec![
        Case {
            name: "chunked",
            steps: vec![client(GET), server(chunked), client(GET), server(OK)],
            exchanges: &[("GET", "/a", "200"), ("GET", "/a", "200")],
        },
        Case {
            name: "chunked-bytes",
            steps: vec![client(GET).by(1), server(chunked).by(1), client(GET).by(1), server(OK).by(1)],
            exchanges: &[("GET", "/a", "200"), ("GET", "/a", "200")],
        },
        Case {
            name: "head",
            steps: vec![
                client("HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n"),
                server("HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n"),
                client(GET),
                server(OK),
            ],
            exchanges: &[("HEAD", "/a", "200"), ("GET", "/a", "200")],
        },
        Case {
            name: "not-modified",
            steps: vec![
                client(GET),
                server("HTTP/1.1 304 Not Modified\r\nContent-Length: 900\r\n\r\n"),
                client(GET),
                server("HTTP/1.1 204 No Content\r\n\r\n"),
                client(GET),
                server(OK),
            ],
            exchanges: &[("GET", "/a", "304"), ("GET", "/a", "204"), ("GET", "/a", "200")],
        },
        Case {
            name: "continue",
            steps: vec![client(post), server("HTTP/1.1 100 Continue\r\n\r\n"), client("12345"), server(OK)],
            exchanges: &[("POST", "/a", "200")],
        },
        Case {
            name: "early-hints",
            steps: vec![client(GET), server("HTTP/1.1 103 Early Hints\r\nLink: </s>\r\n\r\n"), server(OK)],
            exchanges: &[("GET", "/a", "200")],
        },
        Case {
            name: "until-closed",
            steps: vec![client(GET), server("HTTP/1.0 200 OK\r\n\r\nsome"), server("thing"), server_closes()],
            exchanges: &[("GET", "/a", "200")],
        },
        Case {
            name: "pipelined",
            steps: vec![
                client(GET.repeat(3)),
                server(OK),
                server("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
                server(OK),
            ],
            exchanges: &[("GET", "/a", "200"), ("GET", "/a", "404"), ("GET", "/a", "200")],
        },
        Case {
            name: "large-body",
            steps: vec![client(GET), server(large), client(GET), server(OK)],
            exchanges: &[("GET", "/a", "200"), ("GET", "/a", "200")],
        },
        Case { name: "nested", steps: vec![client(nested), server(OK)], exchanges: &[("POST", "/a", "200")] },
        Case {
            name: "closed-early",
            steps: vec![client(GET), server(OK), client(GET), server_closes(), client_closes()],
            exchanges: &[("GET", "/a", "200"), ("GET", "/a", "")],
        },
    ]
}

fn play(rig: &Rig, case: &Case) -> Result<()> {
    let mut process = rig.start_client(CLIENT, case.name, &["play"])?;
    process.input()?.write_all(to_json(&case.steps).as_bytes())?;
    process.finish(Duration::from_secs(30))?;
    Ok(())
}

fn exchanges(spans: &[Span], kind: Kind) -> Vec<(String, String, String)> {
    let mut mine: Vec<&Span> = spans.iter().filter(|span| span.kind == kind).collect();
    mine.sort_by_key(|span| (span.start_ns, span.end_ns));
    mine.iter().map(|span| (span.attribute("http.request.method"), span.path(), span.status())).collect()
}

#[test]
fn each_conversation_gives_exactly_its_spans_on_both_ends() -> Result<()> {
    Rig::run(|rig| {
        let agent = Agent::start(rig)?;
        let mut wrong = Vec::new();
        for case in cases() {
            play(rig, &case)?;
            let expected: Vec<(String, String, String)> =
                case.exchanges.iter().map(|(a, b, c)| ((*a).to_owned(), (*b).to_owned(), (*c).to_owned())).collect();
            // What is missing or too much is shown below, for all cases at once.
            let spans = agent
                .awaited_spans(2 * expected.len(), |span| span.service() == case.name)
                .or_else(|_| anyhow::Ok(agent.spans()?.into_iter().filter(|s| s.service() == case.name).collect()))?;
            for kind in [Kind::Client, Kind::Server] {
                let mut found = exchanges(&spans, kind);
                let mut expected = expected.clone();
                // Pipelined requests start in one operation: only the set is certain.
                found.sort();
                expected.sort();
                println!("{:14} {kind:?}: {found:?}", case.name);
                if found != expected {
                    wrong.push(format!("{} {kind:?}: {found:?}, expected {expected:?}", case.name));
                }
            }
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        agent.nothing_lost()
    })
}
