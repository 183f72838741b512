//! The exporter against a backend made up here, over real sockets on loopback: HTTP/1.1 and HTTP/2.
#![allow(clippy::unwrap_used)]

mod outage;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::Read as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use tokio::net::TcpListener;

use super::*;
use crate::exporters::{Account, Items, LossReason};
use crate::model::process::Resource;
use crate::model::span::Span;

/// One answer: HTTP status, headers, gRPC status in the trailers.
type Programmed = (u16, Vec<(&'static str, &'static str)>, &'static str);

#[derive(Clone, Default)]
struct Backend {
    answers: Arc<Mutex<VecDeque<Programmed>>>,
    /// Path, headers and body of each request.
    requests: Arc<Mutex<Vec<(String, HeaderMap, Bytes)>>>,
}

impl Backend {
    /// Listens until the test ends; without a programmed answer it takes what comes.
    async fn start(&self, protocol: Protocol) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        self.serve(listener, protocol);
        url
    }

    fn serve(&self, listener: TcpListener, protocol: Protocol) {
        let backend = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let backend = backend.clone();
                let service = service_fn(move |request| backend.clone().answer(request, protocol));
                let stream = TokioIo::new(stream);
                tokio::spawn(async move {
                    match protocol {
                        Protocol::HttpProtobuf => {
                            hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await
                        }
                        Protocol::Grpc => {
                            let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                            http2.serve_connection(stream, service).await
                        }
                    }
                });
            }
        });
    }

    async fn answer(
        self,
        request: Request<Incoming>,
        protocol: Protocol,
    ) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        self.requests.lock().unwrap().push((head.uri.path().to_owned(), head.headers, body));
        let (status, headers, code) = self.answers.lock().unwrap().pop_front().unwrap_or((200, Vec::new(), "0"));
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(name, value);
        }
        let body = match protocol {
            Protocol::HttpProtobuf => Full::new(Bytes::new()).boxed(),
            Protocol::Grpc => {
                let trailers: HeaderMap =
                    [("grpc-status".parse().unwrap(), code.parse().unwrap())].into_iter().collect();
                let frames = [Frame::data(Bytes::from_static(&[0; 5])), Frame::trailers(trailers)].map(Ok);
                Frames(frames.into_iter().collect()).boxed()
            }
        };
        Ok(response.body(body).unwrap())
    }

    /// Names of the spans that came, batch by batch.
    fn names(&self, protocol: Protocol) -> Vec<Vec<String>> {
        let requests = self.requests.lock().unwrap();
        let names = |body: &Bytes| {
            let framed = if protocol == Protocol::Grpc { 5 } else { 0 };
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(&body[framed..]).read_to_end(&mut plain).unwrap();
            let request = proto::Request::decode(&plain[..]).unwrap();
            let scopes = request.resource_spans.into_iter().flat_map(|group| group.scope_spans);
            scopes.flat_map(|scope| scope.spans).map(|span| span.name).collect()
        };
        requests.iter().map(|(_, _, body)| names(body)).collect()
    }
}

/// Frames that are there already.
struct Frames(VecDeque<Result<Frame<Bytes>, Infallible>>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        std::task::Poll::Ready(self.0.pop_front())
    }
}

fn span(number: usize, resource: &Arc<Resource>) -> Arc<Span> {
    Arc::new(Span {
        name: number.to_string().into(),
        start_ns: 1,
        end_ns: 2,
        resource: Arc::clone(resource),
        ..Span::example()
    })
}

fn config(url: String, protocol: Protocol) -> Config {
    Config {
        endpoint: Some(url),
        protocol,
        headers: vec!["api-key=a%20b".to_owned()],
        batch_spans: 3,
        retry_wait: Interval::millis(2),
        ..Config::default()
    }
}

/// Hands seven spans over and waits until so many are done with.
async fn export(config: &Config, done: u64) -> (Otlp, Arc<Account>) {
    let account = Arc::new(Account::new("otlp", Items::Spans));
    let mut otlp = Otlp::start(config, Arc::clone(&account)).unwrap().unwrap();
    let resource = Arc::new(Resource::default());
    (0..7).for_each(|number| otlp.take(span(number, &resource), 0));
    otlp.tick(config.batch_wait.as_ns());
    let arrived = async {
        while account.counts().sent + account.counts().lost() < done {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), arrived).await.unwrap();
    (otlp, account)
}

#[tokio::test]
async fn spans_arrive_in_batches_over_both_protocols() {
    for (protocol, path) in [(Protocol::HttpProtobuf, "/v1/traces"), (Protocol::Grpc, Signal::Traces.method())] {
        let backend = Backend::default();
        let config = config(backend.start(protocol).await, protocol);
        let (otlp, account) = export(&config, 7).await;
        assert_eq!(otlp.finish(Duration::from_secs(10)).await, 0);
        assert_eq!(backend.names(protocol), [vec!["0", "1", "2"], vec!["3", "4", "5"], vec!["6"]]);
        assert_eq!((account.counts().sent, account.counts().attempts), (7, [3, 0, 0]));
        let requests = backend.requests.lock().unwrap();
        let (asked, headers, _) = &requests[0];
        assert_eq!((asked.as_str(), headers["api-key"].to_str().unwrap()), (path, "a b"));
        let expected: &[(&str, &str)] = match protocol {
            Protocol::HttpProtobuf => &[("content-type", "application/x-protobuf"), ("content-encoding", "gzip")],
            Protocol::Grpc => &[("content-type", "application/grpc"), ("grpc-encoding", "gzip"), ("te", "trailers")],
        };
        expected.iter().for_each(|(name, value)| assert_eq!(headers[*name], value, "{name}"));
    }
}

#[tokio::test]
async fn what_a_busy_backend_does_not_take_comes_again_and_what_it_refuses_does_not() {
    let http = [(503, vec![("retry-after", "0")], ""), (200, vec![], ""), (429, vec![], ""), (400, vec![], "")];
    let grpc = [(200, vec![], "14"), (200, vec![], "0"), (503, vec![], "0"), (200, vec![], "3")];
    for (protocol, answers) in [(Protocol::HttpProtobuf, http), (Protocol::Grpc, grpc)] {
        let backend = Backend { answers: Arc::new(Mutex::new(answers.into())), ..Backend::default() };
        let (otlp, account) = export(&config(backend.start(protocol).await, protocol), 7).await;
        assert_eq!(otlp.finish(Duration::from_secs(10)).await, 0);
        let [first, second, third] = [["0", "1", "2"].as_slice(), &["3", "4", "5"], &["6"]];
        assert_eq!(backend.names(protocol), [first, first, second, second, third]);
        let counts = account.counts();
        assert_eq!((counts.sent, counts.lost_for(LossReason::Rejected), counts.attempts), (4, 3, [2, 1, 2]));
    }
}

#[tokio::test]
async fn a_backend_that_comes_up_late_gets_everything() {
    for protocol in [Protocol::HttpProtobuf, Protocol::Grpc] {
        // Bound and closed at once: nobody listens on this port until the backend does.
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let (otlp, account) = export(&config(format!("http://{address}"), protocol), 0).await;
        while account.counts().attempts[2] < 3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (backend, counts) = (Backend::default(), account.counts());
        assert_eq!((counts.sent, counts.lost(), counts.queued()), (0, 0, 7));
        backend.serve(TcpListener::bind(address).await.unwrap(), protocol);
        let arrived = async {
            while account.counts().sent < 7 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), arrived).await.unwrap();
        assert_eq!(backend.names(protocol).concat(), ["0", "1", "2", "3", "4", "5", "6"]);
        assert_eq!(otlp.finish(Duration::ZERO).await, 0);
    }
}

#[tokio::test]
async fn the_end_does_not_wait_for_a_dead_backend_and_counts_what_is_left() {
    // Takes connections and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for protocol in [Protocol::HttpProtobuf, Protocol::Grpc] {
        let (otlp, account) = export(&config(format!("http://{}", listener.local_addr().unwrap()), protocol), 0).await;
        let begin = Instant::now();
        assert_eq!(otlp.finish(Duration::from_millis(50)).await, 7);
        assert!(begin.elapsed() < Duration::from_secs(5));
        assert_eq!(account.counts().lost_for(LossReason::Shutdown), 7);
    }
}

#[tokio::test]
async fn a_backend_that_hangs_is_left_after_the_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let config = Config { timeout: Interval::millis(20), ..config(url, Protocol::HttpProtobuf) };
    let (otlp, account) = export(&config, 0).await;
    while account.counts().attempts[2] < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(otlp.finish(Duration::ZERO).await, 7);
}

#[test]
fn a_configuration_that_cannot_work_names_its_keys() {
    let config = Config {
        endpoint: Some("grpc://x".to_owned()),
        traces: Traces { endpoint: Some("x".to_owned()), ..Traces::default() },
        metrics: Metrics { interval: Interval::millis(1), batch_points: 0, ..Metrics::default() },
        headers: vec!["secret".to_owned()],
        resource: vec!["=".to_owned()],
        batch_spans: 0,
        ..Config::default()
    };
    let keys: Vec<_> = config.problems().into_iter().map(|(key, _)| key).collect();
    assert_eq!(
        keys,
        [
            "endpoint",
            "traces.endpoint",
            "headers",
            "resource",
            "batch_spans",
            "metrics.batch_points",
            "metrics.interval"
        ]
    );
    assert!(Config::default().problems().is_empty());
}
