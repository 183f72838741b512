//! The configuration → what one signal's requests need: where to, how, with which headers, for how long.
//!
//! As OpenTelemetry has it: what is said of one signal wins over what is said of both; a signal's own endpoint is a whole
//! URL, to the common one the signal's path is added. gRPC has its method for a path.

use super::target::Target;
use super::{Compression, Config, Protocol};
use crate::section::Interval;
use crate::tls::Files;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    Traces,
    Metrics,
}

impl Signal {
    /// Of HTTP, behind the common endpoint.
    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::Traces => "/v1/traces",
            Self::Metrics => "/v1/metrics",
        }
    }

    /// The gRPC method that takes them.
    pub(super) const fn method(self) -> &'static str {
        match self {
            Self::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Self::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        }
    }

    /// What is sent, in the plural.
    pub(super) const fn things(self) -> &'static str {
        match self {
            Self::Traces => "spans",
            Self::Metrics => "points of metrics",
        }
    }
}

/// What the requests of one signal need.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub signal: Signal,
    pub target: Target,
    pub protocol: Protocol,
    pub compression: Compression,
    pub headers: Vec<String>,
    pub timeout: Interval,
    pub tls: Files,
}

impl Config {
    /// `None`: this signal is not sent.
    pub(super) fn settings(&self, signal: Signal) -> Option<Result<Settings, String>> {
        let (traces, metrics) = (&self.traces, &self.metrics);
        let (enabled, endpoint, protocol, compression, headers, timeout, files) = match signal {
            Signal::Traces => (
                traces.enabled,
                &traces.endpoint,
                traces.protocol,
                traces.compression,
                &traces.headers,
                traces.timeout,
                [&traces.certificate, &traces.client_certificate, &traces.client_key],
            ),
            Signal::Metrics => (
                metrics.enabled,
                &metrics.endpoint,
                metrics.protocol,
                metrics.compression,
                &metrics.headers,
                metrics.timeout,
                [&metrics.certificate, &metrics.client_certificate, &metrics.client_key],
            ),
        };
        let [authority, certificate, key] = files.map(Clone::clone);
        let tls = Files {
            authority: authority.or_else(|| self.certificate.clone()),
            certificate: certificate.or_else(|| self.client_certificate.clone()),
            key: key.or_else(|| self.client_key.clone()),
        };
        let protocol = protocol.unwrap_or(self.protocol);
        let target = match (endpoint, &self.endpoint) {
            _ if !enabled => return None,
            (Some(url), _) => Target::parse(url, ""),
            (None, Some(url)) => Target::parse(url, if protocol == Protocol::Grpc { "" } else { signal.path() }),
            (None, None) => return None,
        };
        let target = target.map(|target| match protocol {
            Protocol::HttpProtobuf => target,
            Protocol::Grpc => Target { path: signal.method().to_owned(), ..target },
        });
        Some(target.map(|target| Settings {
            signal,
            target,
            protocol,
            compression: compression.unwrap_or(self.compression),
            headers: if headers.is_empty() { &self.headers } else { headers }.clone(),
            timeout: timeout.unwrap_or(self.timeout),
            tls,
        }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::exporters::otlp::{Metrics, Traces};

    fn of(config: &Config, signal: Signal) -> Option<(String, Protocol, Vec<String>, Interval)> {
        let settings = config.settings(signal)?.unwrap();
        Some((settings.target.to_string(), settings.protocol, settings.headers, settings.timeout))
    }

    #[test]
    fn what_is_said_of_a_signal_wins_over_what_is_said_of_both() {
        let config = Config {
            endpoint: Some("http://collector:4318/otlp".to_owned()),
            headers: vec!["a=b".to_owned()],
            traces: Traces { protocol: Some(Protocol::Grpc), timeout: Some(Interval::secs(3)), ..Traces::default() },
            metrics: Metrics {
                endpoint: Some("http://store:8428/opentelemetry/v1/metrics".to_owned()),
                headers: vec!["c=d".to_owned()],
                ..Metrics::default()
            },
            ..Config::default()
        };
        let method = format!("http://collector:4318{}", Signal::Traces.method());
        assert_eq!(
            of(&config, Signal::Traces),
            Some((method, Protocol::Grpc, vec!["a=b".to_owned()], Interval::secs(3)))
        );
        let url = "http://store:8428/opentelemetry/v1/metrics".to_owned();
        assert_eq!(
            of(&config, Signal::Metrics),
            Some((url, Protocol::HttpProtobuf, vec!["c=d".to_owned()], Interval::secs(10)))
        );
    }

    #[test]
    fn a_signal_goes_where_both_go_unless_it_is_switched_off() {
        let common = Config { endpoint: Some("http://collector".to_owned()), ..Config::default() };
        let url = |config: &Config, signal| of(config, signal).map(|(url, ..)| url);
        assert_eq!(url(&common, Signal::Traces).as_deref(), Some("http://collector/v1/traces"));
        assert_eq!(url(&common, Signal::Metrics).as_deref(), Some("http://collector/v1/metrics"));
        let without = Config { metrics: Metrics { enabled: false, ..Metrics::default() }, ..common };
        assert_eq!(url(&without, Signal::Metrics), None);
        let own = Traces { endpoint: Some("http://x/".to_owned()), ..Traces::default() };
        let only = Config { traces: own, ..Config::default() };
        assert_eq!(url(&only, Signal::Metrics), None);
        assert_eq!(url(&Config::default(), Signal::Traces), None);
    }
}
