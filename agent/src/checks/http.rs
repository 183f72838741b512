//! HTTP/1.1 check: one GET on a connection of its own; status, and the body against an expression.
//!
//! At most the first MiB of the body is read and looked at. Redirects are answers like any other.

use std::time::Instant;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_LENGTH, HOST, USER_AGENT};
use hyper::{Request, Response, Version};
use hyper_util::rt::TokioIo;
use regex::bytes::Regex;
use tokio::io::{AsyncRead, AsyncWrite};

use super::run::{Failure, Findings};

const MAX_BODY: usize = 1 << 20;

/// What an answer was like.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Answer {
    pub status: u16,
    /// 1.0 or 1.1.
    pub version: f64,
    /// As the head says; -1 where it does not.
    pub content_length: f64,
    /// Bytes of the body that were read.
    pub body_bytes: usize,
    /// From the request to the first byte of the answer.
    pub processing_seconds: f64,
    /// From there to the end of the body.
    pub transfer_seconds: f64,
    /// Whether the expression was there; none without one.
    pub matched: Option<bool>,
}

pub(super) async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    (authority, path): (&str, &str),
    (status, expression): (&[u16], Option<&Regex>),
    findings: &mut Findings,
) -> Result<(), Failure> {
    let protocol = |error: hyper::Error| Failure::Protocol(error.to_string());
    let began = Instant::now();
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(protocol)?;
    let request = Request::get(path)
        .header(HOST, authority)
        .header(USER_AGENT, concat!("seismo/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| Failure::Protocol(error.to_string()))?;
    {
        let exchange = exchange(sender, request, expression, began, findings);
        tokio::pin!(exchange, connection);
        // The connection does the work, and may end in the moment in which the answer is complete.
        tokio::select! {
            biased;
            done = &mut exchange => done,
            ended = &mut connection => match ended {
                Ok(()) => exchange.await,
                Err(error) => Err(error),
            },
        }
        .map_err(protocol)?;
    }
    let Some(answer) = &findings.http else { return Err(Failure::Protocol("no answer".to_owned())) };
    let expected =
        if status.is_empty() { (200..300).contains(&answer.status) } else { status.contains(&answer.status) };
    if !expected {
        return Err(Failure::Status(answer.status));
    }
    if answer.matched == Some(false) { Err(Failure::Match) } else { Ok(()) }
}

/// What is found before it fails or is given up stays.
async fn exchange(
    mut sender: http1::SendRequest<Empty<Bytes>>,
    request: Request<Empty<Bytes>>,
    expression: Option<&Regex>,
    began: Instant,
    findings: &mut Findings,
) -> Result<(), hyper::Error> {
    let response = sender.send_request(request).await?;
    let first = Instant::now();
    let answer = findings.http.insert(Answer {
        status: response.status().as_u16(),
        version: if response.version() == Version::HTTP_10 { 1.0 } else { 1.1 },
        content_length: content_length(&response),
        processing_seconds: (first - began).as_secs_f64(),
        ..Answer::default()
    });
    let body = read(response).await;
    answer.transfer_seconds = first.elapsed().as_secs_f64();
    let body = body?;
    answer.body_bytes = body.len();
    answer.matched = expression.map(|expression| expression.is_match(&body));
    Ok(())
}

fn content_length(response: &Response<Incoming>) -> f64 {
    let value = response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    value.map_or(-1.0, |length: u64| length as f64)
}

async fn read(response: Response<Incoming>) -> Result<Vec<u8>, hyper::Error> {
    let mut body = response.into_body();
    let mut read = Vec::new();
    while read.len() < MAX_BODY
        && let Some(frame) = body.frame().await
    {
        if let Some(bytes) = frame?.data_ref() {
            read.extend_from_slice(bytes.get(..bytes.len().min(MAX_BODY - read.len())).unwrap_or_default());
        }
    }
    Ok(read)
}
