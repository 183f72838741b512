//! Checks against servers in this process, on loopback.
#![allow(clippy::unwrap_used)]

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};

use super::{Check, Config, Failure, Findings, Resolver, Trusts, once};

/// Serves one connection with these bytes and closes it.
async fn server(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let read = stream.read(&mut request).await.unwrap();
        assert!(request[..read].starts_with(b"GET /health?x=1 HTTP/1.1\r\n"), "{:?}", &request[..read]);
        stream.write_all(answer).await.unwrap();
    });
    port
}

fn check(target: &str) -> Check {
    let config: Config = serde_saphyr::from_str(&format!("targets: [{target}]")).unwrap();
    assert_eq!(config.problems(), []);
    config.checks().remove(0)
}

async fn run(target: &str) -> (Result<(), Failure>, Findings) {
    let mut findings = Findings::default();
    let result = once(&check(target), &mut Resolver::default(), &Trusts::default(), &mut findings).await;
    (result, findings)
}

#[tokio::test]
async fn an_http_answer_is_judged_by_its_status_and_its_body() {
    let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfine!";
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nfin\r\n2\r\ne!\r\n0\r\n\r\n";
    let missing = b"HTTP/1.0 404 No\r\n\r\nnothing";
    type Case = (&'static [u8], &'static str, Result<(), Failure>, u16, f64, usize);
    let cases: [Case; 6] = [
        (ok, "", Ok(()), 200, 5.0, 5),
        (ok, ", fail_if_not_matches: '^fine'", Ok(()), 200, 5.0, 5),
        (ok, ", fail_if_not_matches: bad", Err(Failure::Match), 200, 5.0, 5),
        (chunked, ", fail_if_not_matches: 'fine!$'", Ok(()), 200, -1.0, 5),
        (missing, "", Err(Failure::Status(404)), 404, -1.0, 7),
        (missing, ", status: [200, 404]", Ok(()), 404, -1.0, 7),
    ];
    for (answer, more, expected, status, length, body) in cases {
        let port = server(answer).await;
        let (result, findings) = run(&format!("{{name: x, http: 'http://127.0.0.1:{port}/health?x=1'{more}}}")).await;
        assert_eq!(result, expected, "{more}");
        let found = findings.http.unwrap();
        assert_eq!((found.status, found.content_length, found.body_bytes), (status, length, body), "{more}");
        assert_eq!(findings.ip_protocol, Some(4));
        assert!(findings.connect_seconds.is_some() && findings.lookup_seconds.is_some());
    }
}

#[tokio::test]
async fn what_is_no_http_and_what_ends_too_early_is_not_understood() {
    for answer in [&b"SSH-2.0-x\r\n"[..], b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", b""] {
        let port = server(answer).await;
        let (result, _) = run(&format!("{{name: x, http: 'http://127.0.0.1:{port}/health?x=1'}}")).await;
        assert!(matches!(result, Err(Failure::Protocol(_))), "{answer:?}: {result:?}");
    }
}

#[tokio::test]
async fn a_name_is_looked_up_and_a_port_where_nobody_listens_refuses() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (result, findings) = run(&format!("{{name: x, tcp: 'localhost:{port}'}}")).await;
    // The system may name the host by its IPv6 address first.
    assert!(
        matches!((&result, findings.ip_protocol), (Ok(()), Some(4)) | (Err(Failure::Refused), Some(6))),
        "{result:?}"
    );
    drop(listener);
    let (result, findings) = run(&format!("{{name: x, tcp: '127.0.0.1:{port}'}}")).await;
    assert_eq!((result, findings.connect_seconds), (Err(Failure::Refused), None));
    let (result, findings) = run("{name: x, tcp: 'no.such.name.invalid:1'}").await;
    assert!(matches!(result, Err(Failure::Resolve(_))), "{result:?}");
    assert_eq!(findings.ip_protocol, None);
}

#[tokio::test]
async fn a_dns_server_s_code_decides_and_answers_to_others_are_passed_over() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut question = [0; 512];
        for _ in 0..2 {
            let (length, asker) = socket.recv_from(&mut question).await.unwrap();
            let mut answer = question[..length].to_vec();
            // NXDOMAIN, with one record in the authority section.
            (answer[2], answer[3], answer[9]) = (0x81, 0x83, 1);
            let mut stray = answer.clone();
            stray[0] ^= 1;
            socket.send_to(&stray, asker).await.unwrap();
            socket.send_to(&answer, asker).await.unwrap();
        }
    });
    let (result, findings) = run(&format!("{{name: x, dns: '127.0.0.1:{port}', query: a.example}}")).await;
    assert_eq!(result, Err(Failure::Status(3)));
    let answer = findings.dns.unwrap();
    assert_eq!((answer.rcode, answer.answers, answer.authorities, answer.additional), (3, 0, 1, 0));
    let (result, _) = run(&format!("{{name: x, dns: '127.0.0.1:{port}', query: a.example, status: [3]}}")).await;
    assert_eq!(result, Ok(()));
}
