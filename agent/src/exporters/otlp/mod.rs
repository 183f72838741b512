//! Spans to a collector or backend that speaks OpenTelemetry's protocol: protobuf over HTTP/1.1 or gRPC, gzip, in batches.
//!
//! Spans → batches ([`encode`]) → a queue bounded in bytes ([`outbox`]) → one request after the other ([`transport`]).
//! What a backend that is down or busy does not take is tried again with a growing pause; every span handed over ends as
//! sent or as lost for a reason. Delivery is at least once: an answer that gets lost is a batch sent twice. The queue is
//! memory: 64 MiB hold well over five minutes at 500 spans a second (some 100 bytes a span with gzip), and a stop of the
//! agent loses what is in it, counted. Only `http://`: no TLS in this agent yet. Traces only, no metrics.

mod answer;
mod encode;
mod outbox;
mod proto;
mod target;
mod transport;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::Account;
use crate::clock;
use crate::config::size::ByteSize;
use crate::model::span::Span;
use crate::section::Interval;
use answer::Answer;
use outbox::{Batch, Outbox, Step};
use target::Target;
use transport::Transport;

crate::section! {
    /// OpenTelemetry's protocol.
    pub struct Config {
        /// Where spans are sent (http://HOST:PORT); over HTTP, `/v1/traces` is added. Not set: nowhere. Also
        /// OTEL_EXPORTER_OTLP_ENDPOINT.
        pub endpoint: Option<String> = None,
        /// The same as a whole URL, to which nothing is added; wins. Also OTEL_EXPORTER_OTLP_TRACES_ENDPOINT.
        pub traces_endpoint: Option<String> = None,
        /// http/protobuf or grpc. Also OTEL_EXPORTER_OTLP_PROTOCOL.
        pub protocol: Protocol = Protocol::HttpProtobuf,
        /// Headers of each request, NAME=VALUE, values percent-encoded. Also OTEL_EXPORTER_OTLP_HEADERS.
        pub headers: Vec<String> = Vec::new(),
        /// gzip or none. Also OTEL_EXPORTER_OTLP_COMPRESSION.
        pub compression: Compression = Compression::Gzip,
        /// For one request with its answer. Also OTEL_EXPORTER_OTLP_TIMEOUT, in milliseconds.
        pub timeout: Interval = Interval::secs(10),
        /// Attributes that every resource gets unless it has them, NAME=VALUE, values percent-encoded; `service.name` is left
        /// alone. Also OTEL_RESOURCE_ATTRIBUTES.
        pub resource: Vec<String> = Vec::new(),
        /// Most spans in one request.
        pub batch_spans: usize = 512,
        /// How long a span waits for others to be sent with.
        pub batch_wait: Interval = Interval::secs(1),
        /// Encoded batches that wait while the backend does not take them, bytes. What comes when it is full is lost.
        pub queue_bytes: ByteSize = ByteSize::mib(64),
        /// Pause after the first failure; doubled with each, with up to half of it taken off at random.
        pub retry_wait: Interval = Interval::secs(1),
        /// Longest pause, unless the backend asks for a longer one.
        pub retry_most: Interval = Interval::secs(30),
        /// A batch that the backend has not taken for so long is lost.
        pub retry_for: Interval = Interval::secs(3600),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
    #[serde(rename = "grpc")]
    Grpc,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    Gzip,
    None,
}

impl Config {
    /// Keys with values that cannot work, and why.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let endpoints = [("endpoint", &self.endpoint), ("traces_endpoint", &self.traces_endpoint)];
        for (key, url) in endpoints.into_iter().filter_map(|(key, url)| Some((key, url.as_ref()?))) {
            problems.extend(Target::parse(url, "").err().map(|error| (key, error)));
        }
        problems.extend(target::headers(&self.headers).err().map(|error| ("headers", error)));
        problems.extend(target::attributes(&self.resource).err().map(|error| ("resource", error)));
        if self.batch_spans == 0 {
            problems.push(("batch_spans", "0 is no batch".to_owned()));
        }
        problems
    }

    /// Whether spans are sent anywhere.
    pub fn is_wanted(&self) -> bool {
        self.endpoint.is_some() || self.traces_endpoint.is_some()
    }

    /// Where traces go; `None`: nowhere.
    fn target(&self) -> Option<Result<Target, String>> {
        match (&self.traces_endpoint, &self.endpoint, self.protocol) {
            (Some(url), _, Protocol::HttpProtobuf) => Some(Target::parse(url, "")),
            (None, Some(url), Protocol::HttpProtobuf) => Some(Target::parse(url, "/v1/traces")),
            (Some(url), _, Protocol::Grpc) | (None, Some(url), Protocol::Grpc) => {
                Some(Target::parse(url, "").map(|target| Target { path: transport::METHOD.to_owned(), ..target }))
            }
            (None, None, _) => None,
        }
    }
}

/// What the two sides of the queue share.
struct Shared {
    outbox: Mutex<Outbox>,
    /// Something was put in, or the end has come.
    changed: Notify,
    account: Arc<Account>,
}

impl Shared {
    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, outbox: &Outbox) {
        self.account.show(outbox.counts(), outbox.bytes());
    }
}

/// The end that spans are handed to.
pub struct Otlp {
    shared: Arc<Shared>,
    encoder: encode::Encoder,
    batch: Vec<Arc<Span>>,
    /// When the oldest span of the batch came.
    since_ns: u64,
    batch_spans: usize,
    batch_wait_ns: u64,
    sending: JoinHandle<()>,
}

impl Otlp {
    /// Starts to send, within a runtime; `None` where nothing is to be sent.
    pub fn start(config: &Config, account: Arc<Account>) -> Result<Option<Self>, String> {
        let Some(target) = config.target().transpose()? else { return Ok(None) };
        log::info!("spans are sent to {target}");
        let shared = Arc::new(Shared { outbox: Mutex::new(Outbox::new(config)), changed: Notify::new(), account });
        let transport = Transport::new(target, config)?;
        let sending = tokio::spawn(send(Arc::clone(&shared), transport, config.timeout.0));
        Ok(Some(Self {
            shared,
            encoder: encode::Encoder::new(config)?,
            batch: Vec::new(),
            since_ns: 0,
            batch_spans: config.batch_spans.max(1),
            batch_wait_ns: config.batch_wait.as_ns(),
            sending,
        }))
    }

    /// Takes a span; never waits.
    pub fn take(&mut self, span: Arc<Span>, now_ns: u64) {
        if self.batch.is_empty() {
            self.since_ns = now_ns;
        }
        self.batch.push(span);
        let mut outbox = self.shared.outbox();
        outbox.offered(1);
        if self.batch.len() < self.batch_spans {
            self.shared.show(&outbox);
            return;
        }
        drop(outbox);
        self.flush();
    }

    /// Sends a batch that has waited long enough.
    pub fn tick(&mut self, now_ns: u64) {
        if !self.batch.is_empty() && now_ns.saturating_sub(self.since_ns) >= self.batch_wait_ns {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let spans = self.batch.len() as u64;
        if spans == 0 {
            return;
        }
        let body = self.encoder.body(&self.batch);
        self.batch.clear();
        let mut outbox = self.shared.outbox();
        outbox.put(Batch { body, spans });
        self.shared.show(&outbox);
        drop(outbox);
        self.shared.changed.notify_one();
    }

    /// Sends what is left, each batch once, within `grace`; counts what could not be sent. Says how many spans that is.
    pub async fn finish(mut self, grace: Duration) -> u64 {
        self.flush();
        self.shared.outbox().close();
        self.shared.changed.notify_one();
        let sending = self.sending.abort_handle();
        if tokio::time::timeout(grace, self.sending).await.is_err() {
            sending.abort();
        }
        let mut outbox = self.shared.outbox();
        let lost = outbox.abandon();
        self.shared.show(&outbox);
        lost
    }
}

/// Sends batch after batch until the outbox is closed and has nothing more to send.
async fn send(shared: Arc<Shared>, mut transport: Transport, limit: Duration) {
    loop {
        let step = shared.outbox().step(clock::monotonic_ns());
        match step {
            Step::Nothing => shared.changed.notified().await,
            Step::End => return,
            Step::Wait(until_ns) => {
                let pause = Duration::from_nanos(until_ns.saturating_sub(clock::monotonic_ns()));
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = shared.changed.notified() => {}
                }
            }
            Step::Send(batch) => {
                let answer = tokio::time::timeout(limit, transport.send(batch.body)).await.unwrap_or_else(|_| {
                    transport.disconnect();
                    Answer::Later { after: None, why: format!("no answer within {} ms", limit.as_millis()) }
                });
                let mut outbox = shared.outbox();
                outbox.answered(answer, clock::monotonic_ns());
                shared.show(&outbox);
            }
        }
    }
}
