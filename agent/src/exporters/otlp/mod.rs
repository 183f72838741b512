//! Spans and metrics to a collector or backend that speaks OpenTelemetry's protocol: protobuf over HTTP/1.1 or gRPC, gzip.
//!
//! Spans ([`spans`]) and looks at all metrics ([`points`]) → batches → a queue each, bounded in bytes ([`outbox`]) → one
//! request after the other ([`sender`], [`transport`]). What a backend that is down or busy does not take is tried again
//! with a growing pause; every span and point handed over ends as sent or as lost for a reason. Delivery is at least once:
//! an answer that gets lost is a batch sent twice. The queues are memory: 64 MiB hold twice five minutes at 500 spans a
//! second with gzip (a test of [`encode`] holds that), and a stop of the agent loses what is in them, counted. Metrics are
//! cumulative or deltas ([`starts`]).

mod answer;
mod encode;
mod outbox;
mod points;
mod proto;
mod proto_metrics;
mod sender;
mod settings;
mod spans;
mod starts;
mod target;
mod transport;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::size::ByteSize;
use crate::section::Interval;
use settings::Signal;
use target::Target;
use transport::Transport;

pub use points::OtlpMetrics;
pub use spans::Otlp;

crate::section! {
    /// OpenTelemetry's protocol.
    pub struct Config {
        /// Where spans and metrics are sent (http[s]://HOST:PORT); over HTTP, `/v1/traces` and `/v1/metrics` are added. Not set:
        /// nowhere. Also OTEL_EXPORTER_OTLP_ENDPOINT.
        pub endpoint: Option<String> = None,
        /// http/protobuf or grpc. Also OTEL_EXPORTER_OTLP_PROTOCOL.
        pub protocol: Protocol = Protocol::HttpProtobuf,
        /// Headers of each request, NAME=VALUE, values percent-encoded. Also OTEL_EXPORTER_OTLP_HEADERS.
        pub headers: Vec<String> = Vec::new(),
        /// gzip or none. Also OTEL_EXPORTER_OTLP_COMPRESSION.
        pub compression: Compression = Compression::Gzip,
        /// For one request with its answer. Also OTEL_EXPORTER_OTLP_TIMEOUT, in milliseconds.
        pub timeout: Interval = Interval::secs(10),
        /// PEM file of who may vouch for an https endpoint, instead of the system's. Also OTEL_EXPORTER_OTLP_CERTIFICATE.
        pub certificate: Option<PathBuf> = None,
        /// PEM file of the certificate by which an https endpoint knows the agent, with the chain above it. Also
        /// OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE.
        pub client_certificate: Option<PathBuf> = None,
        /// PEM file of its private key. Also OTEL_EXPORTER_OTLP_CLIENT_KEY.
        pub client_key: Option<PathBuf> = None,
        /// Attributes that every resource gets unless it has them, NAME=VALUE, values percent-encoded; `service.name` is left
        /// alone. Also OTEL_RESOURCE_ATTRIBUTES.
        pub resource: Vec<String> = Vec::new(),
        /// Most spans in one request.
        pub batch_spans: usize = 512,
        /// How long a span waits for others to be sent with.
        pub batch_wait: Interval = Interval::secs(1),
        /// Encoded batches of spans that wait while the backend does not take them, bytes. What comes when it is full is lost.
        pub queue_bytes: ByteSize = ByteSize::mib(64),
        /// Pause after the first failure; doubled with each, with up to half of it taken off at random.
        pub retry_wait: Interval = Interval::secs(1),
        /// Longest pause, unless the backend asks for a longer one.
        pub retry_most: Interval = Interval::secs(30),
        /// A batch that the backend has not taken for so long is lost.
        pub retry_for: Interval = Interval::secs(3600),
    }
    sections {
        /// Spans, where they differ from the above.
        pub traces: Traces,
        /// Metrics: all of the metrics page, and where they differ from the above.
        pub metrics: Metrics,
    }
}

crate::section! {
    /// How spans are sent, where it differs.
    pub struct Traces {
        /// Send spans, where there is an endpoint. Also OTEL_TRACES_EXPORTER: otlp or none.
        pub enabled: bool = true,
        /// A whole URL for spans, to which nothing is added. Also OTEL_EXPORTER_OTLP_TRACES_ENDPOINT.
        pub endpoint: Option<String> = None,
        /// Also OTEL_EXPORTER_OTLP_TRACES_PROTOCOL.
        pub protocol: Option<Protocol> = None,
        /// Instead of the above. Also OTEL_EXPORTER_OTLP_TRACES_HEADERS.
        pub headers: Vec<String> = Vec::new(),
        /// Also OTEL_EXPORTER_OTLP_TRACES_COMPRESSION.
        pub compression: Option<Compression> = None,
        /// Also OTEL_EXPORTER_OTLP_TRACES_TIMEOUT, in milliseconds.
        pub timeout: Option<Interval> = None,
        /// Also OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE.
        pub certificate: Option<PathBuf> = None,
        /// Also OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE.
        pub client_certificate: Option<PathBuf> = None,
        /// Also OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY.
        pub client_key: Option<PathBuf> = None,
    }
}

crate::section! {
    /// How metrics are sent, where it differs.
    pub struct Metrics {
        /// Send metrics, where there is an endpoint. Also OTEL_METRICS_EXPORTER: otlp or none.
        pub enabled: bool = true,
        /// A whole URL for metrics, to which nothing is added. Also OTEL_EXPORTER_OTLP_METRICS_ENDPOINT.
        pub endpoint: Option<String> = None,
        /// Also OTEL_EXPORTER_OTLP_METRICS_PROTOCOL.
        pub protocol: Option<Protocol> = None,
        /// Instead of the above. Also OTEL_EXPORTER_OTLP_METRICS_HEADERS.
        pub headers: Vec<String> = Vec::new(),
        /// Also OTEL_EXPORTER_OTLP_METRICS_COMPRESSION.
        pub compression: Option<Compression> = None,
        /// Also OTEL_EXPORTER_OTLP_METRICS_TIMEOUT, in milliseconds.
        pub timeout: Option<Interval> = None,
        /// Also OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE.
        pub certificate: Option<PathBuf> = None,
        /// Also OTEL_EXPORTER_OTLP_METRICS_CLIENT_CERTIFICATE.
        pub client_certificate: Option<PathBuf> = None,
        /// Also OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY.
        pub client_key: Option<PathBuf> = None,
        /// How often all metrics are looked at and sent. Also OTEL_METRIC_EXPORT_INTERVAL, in milliseconds.
        pub interval: Interval = Interval::secs(60),
        /// base2_exponential_bucket_histogram: histograms that are counted in such buckets are sent with all of them, the others
        /// with explicit bounds; explicit_bucket_histogram: all with explicit bounds, as on a text page. Also
        /// OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION.
        pub histograms: Histograms = Histograms::Exponential,
        /// cumulative: counters and histograms since the agent began; delta: since the look before; lowmemory: histograms since
        /// the look before, counters cumulative. What is lost of a delta is missing for good. Also
        /// OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE.
        pub temporality: Temporality = Temporality::Cumulative,
        /// Most points in one request.
        pub batch_points: usize = 2000,
        /// Encoded batches of points that wait while the backend does not take them, bytes. What comes when it is full is lost.
        pub queue_bytes: ByteSize = ByteSize::mib(16),
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

/// Names as in OpenTelemetry's specification of the variable, which takes them in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Temporality {
    Cumulative,
    Delta,
    LowMemory,
}

/// Names as in OpenTelemetry's specification of the variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Histograms {
    #[serde(rename = "base2_exponential_bucket_histogram")]
    Exponential,
    #[serde(rename = "explicit_bucket_histogram")]
    Explicit,
}

/// Shortest interval at which metrics are sent.
const SHORTEST: Interval = Interval::millis(100);

impl Config {
    /// Keys with values that cannot work, and why.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let endpoints = [
            ("endpoint", &self.endpoint),
            ("traces.endpoint", &self.traces.endpoint),
            ("metrics.endpoint", &self.metrics.endpoint),
        ];
        for (key, url) in endpoints.into_iter().filter_map(|(key, url)| Some((key, url.as_ref()?))) {
            problems.extend(Target::parse(url, "").err().map(|error| (key, error)));
        }
        let headers = [
            ("headers", &self.headers),
            ("traces.headers", &self.traces.headers),
            ("metrics.headers", &self.metrics.headers),
        ];
        for (key, headers) in headers {
            problems.extend(target::headers(headers).err().map(|error| (key, error)));
        }
        // Said of either signal, once.
        let own = [Signal::Traces, Signal::Metrics].into_iter().find_map(|signal| {
            let tls = self.settings(signal)?.ok()?.tls;
            match (tls.certificate, tls.key) {
                (Some(_), None) => Some(("client_key", "client_certificate")),
                (None, Some(_)) => Some(("client_certificate", "client_key")),
                _ => None,
            }
        });
        problems.extend(own.map(|(missing, given)| (missing, format!("is needed beside {given}"))));
        problems.extend(target::attributes(&self.resource).err().map(|error| ("resource", error)));
        for (key, most) in [("batch_spans", self.batch_spans), ("metrics.batch_points", self.metrics.batch_points)] {
            if most == 0 {
                problems.push((key, "0 is no batch".to_owned()));
            }
        }
        if self.metrics.interval < SHORTEST {
            problems.push(("metrics.interval", format!("{} is less than {SHORTEST}", self.metrics.interval)));
        }
        problems
    }

    /// Why what is configured cannot be sent: a file of certificates, which is read here.
    pub fn impediment(&self) -> Option<String> {
        let of = |signal| self.settings(signal)?.and_then(|settings| Transport::new(settings).map(drop)).err();
        of(Signal::Traces).or_else(|| of(Signal::Metrics))
    }

    /// Whether spans are sent anywhere.
    pub fn takes_spans(&self) -> bool {
        self.settings(Signal::Traces).is_some()
    }

    /// Whether metrics are sent anywhere.
    pub fn takes_metrics(&self) -> bool {
        self.settings(Signal::Metrics).is_some()
    }
}
