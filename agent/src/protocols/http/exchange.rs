//! HTTP exchanges in neutral terms: span attributes, route, error and the request metric.
//!
//! Names are OpenTelemetry's HTTP semantic conventions. The `Host` of a request names the server on its span; as a
//! metric label only a client's (it chose it), since anybody can send a server any `Host` and fill the label.

use std::net::SocketAddr;

use compact_str::{CompactString, ToCompactString as _};

use crate::model::attributes::{Attributes, Value};
use crate::model::connection::Role;
use crate::model::display;
use crate::model::exchange::Measure;
use crate::model::metric::{Kind, Metric};
use crate::semconv;

use super::super::{Conclusion, Config as Protocols, Dialect, Facts, Limits, Parser, Request, Response};
use super::route::Routes;
use super::{Config, Http};

/// Value of `http.request.method` for methods that are not known.
pub(super) const OTHER_METHOD: &str = "_OTHER";

/// A label that has no value.
static NONE: CompactString = CompactString::const_new("");

/// Attributes that most spans have, at most.
pub(super) const ATTRIBUTES: usize = 16;

const LABELS: &[&str] = &[
    semconv::SERVICE_NAME,
    semconv::HTTP_REQUEST_METHOD,
    semconv::HTTP_ROUTE,
    semconv::HTTP_RESPONSE_STATUS_CODE,
    semconv::ERROR_TYPE,
    semconv::SERVER_ADDRESS,
    semconv::SERVER_PORT,
];

pub static SERVER_DURATION: Metric = Metric {
    name: "http.server.request.duration",
    unit: "s",
    kind: Kind::Histogram,
    description: "Duration of HTTP server requests, first request byte read to last response byte written",
    labels: LABELS,
};

pub static CLIENT_DURATION: Metric = Metric {
    name: "http.client.request.duration",
    unit: "s",
    kind: Kind::Histogram,
    description: "Duration of HTTP client requests, first request byte written to last response byte read",
    labels: LABELS,
};

/// What all HTTP connections share.
struct Shared {
    config: Config,
    routes: Routes,
}

pub(super) fn dialect(config: &Protocols) -> Box<dyn Dialect> {
    let config = config.http.clone();
    Box::new(Shared { routes: Routes::new(config.routes_per_service), config })
}

impl Dialect for Shared {
    fn parser(&self, limits: Limits) -> Box<dyn Parser> {
        Box::new(Http::new(limits, &self.config))
    }

    fn conclude(&mut self, asked: Request, answered: Option<Response>, facts: &Facts) -> Conclusion {
        let mut attributes = asked.attributes;
        let server = facts.server();
        let route = attributes.text(semconv::URL_PATH).map(|path| self.routes.route(server, path)).unwrap_or_default();
        let method = match attributes.get(semconv::HTTP_REQUEST_METHOD) {
            Some(Value::Text(method)) => method.clone(),
            _ => CompactString::const_new(OTHER_METHOD),
        };
        let status = answered.map(|response| response.status);
        let error = facts.failure.map(CompactString::const_new).or_else(|| {
            let code: u16 = status.as_deref()?.parse().ok()?;
            let failed = match facts.role {
                Role::Server => code >= 500,
                Role::Client => code >= 400,
            };
            if failed { status.clone() } else { None }
        });
        if attributes.get(semconv::SERVER_ADDRESS).is_none() {
            attributes.set(semconv::SERVER_ADDRESS, display::address(server.ip()));
        }
        if attributes.get(semconv::SERVER_PORT).is_none() {
            attributes.set(semconv::SERVER_PORT, i64::from(server.port()));
        }
        let labels = [&method, &route, status.as_ref().unwrap_or(&NONE), error.as_ref().unwrap_or(&NONE)];
        let measure = measure(facts.role, labels, &attributes, server);
        complete(&mut attributes, facts, &route, status.as_deref(), error.as_ref());
        // OpenTelemetry: a method that is not known is `HTTP` in the name of a span.
        let operation = if method == OTHER_METHOD { CompactString::const_new("HTTP") } else { method };
        Conclusion { operation, resource: route, status, error, attributes, measure }
    }
}

/// Method, route, status and error are as they are on the span.
fn measure(role: Role, labels: [&CompactString; 4], attributes: &Attributes, server: SocketAddr) -> Measure {
    let (metric, address, port) = match role {
        Role::Server => (&SERVER_DURATION, display::address(server.ip()), server.port().to_compact_string()),
        Role::Client => {
            let port = match attributes.get(semconv::SERVER_PORT) {
                Some(Value::Int(port)) => port.to_compact_string(),
                _ => server.port().to_compact_string(),
            };
            (&CLIENT_DURATION, attributes.text(semconv::SERVER_ADDRESS).unwrap_or_default().into(), port)
        }
    };
    let [method, route, status, error] = labels.map(CompactString::clone);
    Measure { metric, labels: vec![method, route, status, error, address, port] }
}

/// Adds what is known only at the end.
fn complete(
    attributes: &mut Attributes,
    facts: &Facts,
    route: &CompactString,
    status: Option<&str>,
    error: Option<&CompactString>,
) {
    if let Some(code) = status.and_then(|status| status.parse::<i64>().ok()) {
        attributes.set(semconv::HTTP_RESPONSE_STATUS_CODE, code);
    }
    if !route.is_empty() {
        let key = match facts.role {
            Role::Server => semconv::HTTP_ROUTE,
            Role::Client => semconv::URL_TEMPLATE,
        };
        attributes.set(key, route.clone());
    }
    let peer = display::address(facts.peer.ip());
    if facts.role == Role::Server {
        attributes.set(semconv::CLIENT_ADDRESS, peer.clone());
    }
    attributes.set(semconv::NETWORK_PEER_ADDRESS, peer);
    attributes.set(semconv::NETWORK_PEER_PORT, i64::from(facts.peer.port()));
    let sizes = [
        (semconv::HTTP_REQUEST_BODY_SIZE, facts.request_body_bytes),
        (semconv::HTTP_RESPONSE_BODY_SIZE, facts.response_body_bytes),
    ];
    for (key, bytes) in sizes {
        if let Some(bytes) = bytes.and_then(|bytes| i64::try_from(bytes).ok()) {
            attributes.set(key, bytes);
        }
    }
    if let Some(error) = error {
        attributes.set(semconv::ERROR_TYPE, error.clone());
    }
}

/// A request target (RFC 9112 §3.2) in its parts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    pub(super) scheme: &'static str,
    pub(super) authority: Option<&'a str>,
    /// Without the query; `None` for `CONNECT` and `*`.
    pub(super) path: Option<&'a str>,
    pub(super) query: Option<&'a str>,
}

impl<'a> Target<'a> {
    pub(super) fn of(target: &'a str) -> Self {
        let parts = if target.starts_with('/') { None } else { target.split_once("://") };
        let absolute = match parts {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => Some(("http", rest)),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => Some(("https", rest)),
            _ => None,
        };
        let (scheme, authority, rest) = match absolute {
            Some((scheme, rest)) => {
                let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
                let (authority, rest) = rest.split_at(end);
                (scheme, Some(authority), if rest.starts_with('/') { rest } else { "/" })
            }
            None if target.starts_with('/') => ("http", None, target),
            None if target == "*" => return Self { scheme: "http", authority: None, path: None, query: None },
            None => return Self { scheme: "http", authority: Some(target), path: None, query: None },
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        Self { scheme, authority, path: Some(path), query }
    }
}

/// `host[:port]` as in a `Host` line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Authority<'a> {
    pub(super) host: &'a str,
    pub(super) port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// `None` for what is not a host: then the address is the name.
    pub(super) fn of(bytes: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?.trim();
        // User and password never leave the request.
        let text = text.rsplit_once('@').map_or(text, |(_, host)| host);
        let (host, port) = match text.strip_prefix('[') {
            Some(literal) => {
                let (host, rest) = literal.split_once(']')?;
                (host, rest.strip_prefix(':'))
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let is_host = !host.is_empty()
            && host
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':' | b'%'));
        if !is_host {
            return None;
        }
        match port {
            None | Some("") => Some(Self { host, port: None }),
            Some(port) => Some(Self { host, port: Some(port.parse().ok()?) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Authority, Target};

    #[test]
    fn targets_fall_apart_into_scheme_authority_path_and_query() {
        for (target, scheme, authority, path, query) in [
            ("/a?b=c", "http", None, Some("/a"), Some("b=c")),
            ("/a#f?x", "http", None, Some("/a"), None),
            ("/go?to=http://x/y", "http", None, Some("/go"), Some("to=http://x/y")),
            ("http://h:1/a?b", "http", Some("h:1"), Some("/a"), Some("b")),
            ("HTTPS://h", "https", Some("h"), Some("/"), None),
            ("*", "http", None, None, None),
            ("h:443", "http", Some("h:443"), None, None),
        ] {
            assert_eq!(Target::of(target), Target { scheme, authority, path, query }, "{target}");
        }
    }

    #[test]
    fn a_host_line_names_a_host_or_nothing() {
        for (text, expected) in [
            ("a.example", Some(("a.example", None))),
            ("a.example:8080", Some(("a.example", Some(8080)))),
            ("a.example:", Some(("a.example", None))),
            ("[::1]:80", Some(("::1", Some(80)))),
            ("user:secret@h:1", Some(("h", Some(1)))),
            ("", None),
            ("a b", None),
            ("a:99999", None),
            ("<script>", None),
        ] {
            let seen = Authority::of(text.as_bytes());
            assert_eq!(seen, expected.map(|(host, port)| Authority { host, port }), "{text}");
        }
    }
}
