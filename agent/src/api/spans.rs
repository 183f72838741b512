//! `/api/seismo/spans`: the span store as NDJSON, recent spans and, with `follow=true`, those to come.
//!
//! Without `follow` newest first; with it oldest first, as they came. A follower holds at most `QUEUE` blocks
//! in memory; what it is too slow for is lost and shown as a line `{"lost": n}`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::extract::{Query, State, rejection::QueryRejection};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use hyper::body::Frame;
use tokio::sync::mpsc;

use super::{Api, answer, stopped};
use crate::model::span::{Span, StatusCode};
use crate::model::span_json;
use crate::section::Interval;
use crate::store::spans::{Followed, Follower, SpanFilter};

const DEFAULT_LIMIT: usize = 100;
/// Spans written in one block.
const BLOCK: usize = 64;
/// Blocks between the store and the connection.
const QUEUE: usize = 4;

/// What was asked for.
#[derive(Debug, PartialEq)]
struct Question {
    filter: SpanFilter,
    limit: usize,
    follow: bool,
}

pub(super) async fn spans(
    State(api): State<Api>,
    parameters: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Response {
    let question = match parameters {
        Ok(Query(pairs)) => match question(&pairs) {
            Ok(question) => question,
            Err(message) => return answer::bad_request(&message),
        },
        Err(rejection) => return answer::bad_request(&rejection.body_text()),
    };
    let (lines, queue) = mpsc::channel(QUEUE);
    tokio::spawn(write(api, question, lines));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::new(Lines(queue))).into_response()
}

fn question(pairs: &[(String, String)]) -> Result<Question, String> {
    let mut question = Question { filter: SpanFilter::default(), limit: DEFAULT_LIMIT, follow: false };
    for (index, (key, value)) in pairs.iter().enumerate() {
        if pairs.iter().take(index).any(|(earlier, _)| earlier == key) {
            return Err(format!("parameter '{key}' is given twice"));
        }
        let wrong = |expected: &str| format!("{key}: '{value}' is not {expected}");
        match key.as_str() {
            "service" => question.filter.service = Some(value.clone()),
            "name" => question.filter.name = Some(value.clone()),
            "status" => {
                question.filter.status = Some(match value.as_str() {
                    "error" => StatusCode::Error,
                    "unset" => StatusCode::Unset,
                    _ => return Err(wrong("error or unset")),
                });
            }
            "min_duration" => {
                question.filter.min_duration_ns = value.parse::<Interval>().map_err(|e| format!("{key}: {e}"))?.as_ns();
            }
            "trace" => question.filter.trace = Some(value.parse().map_err(|error| format!("{key}: {error}"))?),
            "limit" => question.limit = value.parse().map_err(|_| wrong("a whole number"))?,
            "follow" => question.follow = value.parse().map_err(|_| wrong("true or false"))?,
            _ => {
                let known = "service, name, status, min_duration, trace, limit, follow";
                return Err(format!("unknown parameter '{key}' (known: {known})"));
            }
        }
    }
    Ok(question)
}

/// Feeds one response until all is said, the reader has gone, or the agent stops.
async fn write(api: Api, question: Question, lines: mpsc::Sender<Bytes>) {
    let Question { filter, limit, follow } = question;
    if !follow {
        let recent = api.spans.recent(&filter, limit);
        let _reader_gone = send(&recent, &lines).await;
        return;
    }
    let (recent, follower) = api.spans.follow(filter, limit);
    let mut stopping = api.stopping.clone();
    tokio::select! {
        () = stream(&recent, follower, &lines) => {}
        () = lines.closed() => {}
        () = stopped(&mut stopping) => {}
    }
}

async fn stream(recent: &[Arc<Span>], mut follower: Follower, lines: &mpsc::Sender<Bytes>) {
    let mut open = send(recent, lines).await;
    while open.is_ok() {
        open = match follower.next().await {
            Followed::Span(span) => send(&[span], lines).await,
            Followed::Lost(count) => lines.send(format!("{{\"lost\":{count}}}\n").into()).await.map_err(|_| Gone),
        };
    }
}

/// The reader has closed the connection.
struct Gone;

async fn send(spans: &[Arc<Span>], lines: &mpsc::Sender<Bytes>) -> Result<(), Gone> {
    for block in spans.chunks(BLOCK) {
        let text: String = block.iter().map(|span| format!("{}\n", span_json::span(span))).collect();
        lines.send(text.into()).await.map_err(|_| Gone)?;
    }
    Ok(())
}

/// A response body fed by a queue.
struct Lines(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|block| block.map(|block| Ok(Frame::data(block))))
    }
}
