//! Spans → one request's body: grouped by resource, protobuf, gzip.
//!
//! Cost: one copy of each text, and gzip at its fastest level. Nothing is left out: what OTLP has no place for is an
//! attribute (see `model::exported`).

use std::borrow::Cow;
use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use flate2::write::GzEncoder;

use super::proto::{self, AnyValue, KeyValue};
use super::{Compression, Config, target};
use crate::model::attributes::Value;
use crate::model::exported;
use crate::model::process;
use crate::model::span::Span;
use crate::semconv;

pub(super) struct Encoder {
    compression: Compression,
    /// What every resource gets.
    resource: Vec<(String, String)>,
}

impl Encoder {
    pub(super) fn new(config: &Config, compression: Compression) -> Result<Self, String> {
        Ok(Self { compression, resource: target::attributes(&config.resource)? })
    }

    pub(super) fn body(&self, spans: &[Arc<Span>]) -> Bytes {
        packed(&self.request(spans), self.compression)
    }

    fn request(&self, spans: &[Arc<Span>]) -> proto::Request {
        let mut order: Vec<&Arc<Span>> = spans.iter().collect();
        // Stable: spans of a resource stay in their order.
        order.sort_by_key(|span| Arc::as_ptr(&span.resource));
        let groups = order.chunk_by(|one, other| Arc::ptr_eq(&one.resource, &other.resource));
        let of_resource = |group: &[&Arc<Span>]| proto::ResourceSpans {
            resource: group.first().map(|span| self.resource(&span.resource)),
            scope_spans: vec![proto::ScopeSpans {
                scope: Some(scope()),
                spans: group.iter().map(|span| one(span)).collect(),
            }],
        };
        proto::Request { resource_spans: groups.map(of_resource).collect() }
    }

    fn resource(&self, resource: &process::Resource) -> proto::Resource {
        with_configured(exported::resource(resource).map(|(key, value)| pair(key, value)).collect(), &self.resource)
    }
}

/// A resource of these attributes and of those of the configuration that it does not have; `service.name` is no one's to give.
pub(super) fn with_configured(mut attributes: Vec<KeyValue>, configured: &[(String, String)]) -> proto::Resource {
    for (key, value) in configured {
        if key != semconv::SERVICE_NAME && attributes.iter().all(|attribute| attribute.key != *key) {
            attributes.push(pair(key, Cow::Owned(value.clone().into())));
        }
    }
    proto::Resource { attributes }
}

/// Who measured.
pub(super) fn scope() -> proto::Scope {
    proto::Scope { name: "seismo".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }
}

/// A message as the body of a request.
pub(super) fn packed(message: &impl prost::Message, compression: Compression) -> Bytes {
    let body = message.encode_to_vec();
    match compression {
        Compression::None => body.into(),
        Compression::Gzip => gzip(&body).into(),
    }
}

fn one(span: &Span) -> proto::Span {
    /// The trace was chosen (W3C's sampled flag).
    const SAMPLED: u32 = 1;
    proto::Span {
        trace_id: span.trace_id.0.to_vec(),
        span_id: span.span_id.0.to_vec(),
        parent_span_id: span.parent_span_id.map(|id| id.0.to_vec()).unwrap_or_default(),
        name: span.name.to_string(),
        kind: span.kind as i32,
        start_time_unix_nano: span.start_ns,
        end_time_unix_nano: span.end_ns,
        attributes: exported::attributes(span).map(|(key, value)| pair(key, value)).collect(),
        status: Some(proto::Status { code: span.status as i32 }),
        flags: SAMPLED,
    }
}

pub(super) fn pair(key: &str, value: Cow<'_, Value>) -> KeyValue {
    let value = match value.into_owned() {
        Value::Text(text) => proto::Value::Text(text.into_string()),
        Value::Int(number) => proto::Value::Int(number),
        Value::Float(number) => proto::Value::Float(number),
        Value::Bool(truth) => proto::Value::Bool(truth),
    };
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::with_capacity(body.len() / 4), flate2::Compression::fast());
    // Writing to memory does not fail; were it to, an empty body would be refused and counted as that.
    out.write_all(body).and_then(|()| out.finish()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Read as _;

    use prost::Message as _;

    use super::*;
    use crate::model::attributes::Attributes;
    use crate::model::exchange::Incomplete;
    use crate::model::span::{SpanId, SpanKind, StatusCode, TraceId};
    use crate::model::thread::Breakdown;

    fn resource(name: &str) -> Arc<process::Resource> {
        Arc::new(process::Resource {
            service_name: name.to_owned(),
            pid: 7,
            host_name: "node".into(),
            ..process::Resource::default()
        })
    }

    fn span(number: u8, resource: &Arc<process::Resource>) -> Arc<Span> {
        let mut attributes = Attributes::default();
        attributes.set("http.route", "/x");
        attributes.set("code", 5);
        attributes.set("ok", true);
        Arc::new(Span {
            trace_id: TraceId([9; 16]),
            span_id: SpanId([number; 8]),
            parent_span_id: (number > 1).then_some(SpanId([1; 8])),
            name: "GET /x".into(),
            kind: SpanKind::Server,
            start_ns: 1_700_000_000_000_000_001,
            end_ns: 1_700_000_000_000_000_101,
            status: if number == 2 { StatusCode::Error } else { StatusCode::Unset },
            attributes,
            resource: Arc::clone(resource),
            incomplete: (number == 2).then_some(Incomplete::Gap),
            time: Some(Breakdown([60, 0, 0, 40, 0, 0, 0, 0])),
            counted: None,
        })
    }

    fn texts(attributes: &[KeyValue]) -> Vec<(String, String)> {
        let text = |pair: &KeyValue| match pair.value.clone().unwrap().value.unwrap() {
            proto::Value::Text(text) => text,
            proto::Value::Int(number) => number.to_string(),
            proto::Value::Float(number) => number.to_string(),
            proto::Value::Bool(truth) => truth.to_string(),
        };
        attributes.iter().map(|pair| (pair.key.clone(), text(pair))).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_body_holds_every_span_with_all_its_attributes_below_its_resource() {
        let config = Config {
            resource: vec!["deployment.environment.name=a%20b".to_owned(), "service.name=no".to_owned()],
            ..Config::default()
        };
        let (shop, stock) = (resource("shop"), resource("stock"));
        let spans = [span(1, &shop), span(2, &stock), span(3, &shop)];
        let body = Encoder::new(&config, Compression::Gzip).unwrap().body(&spans);
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap();
        assert_eq!(Encoder::new(&config, Compression::None).unwrap().body(&spans), plain);

        let request = proto::Request::decode(&plain[..]).unwrap();
        let mut found: Vec<_> = request.resource_spans.iter().collect();
        found.sort_by_key(|group| group.scope_spans[0].spans[0].span_id.clone());
        assert_eq!(found.len(), 2);
        let of_shop = [
            ("service.name", "shop"),
            ("process.pid", "7"),
            ("host.name", "node"),
            ("deployment.environment.name", "a b"),
        ];
        assert_eq!(texts(&found[0].resource.clone().unwrap().attributes), pairs(&of_shop));
        let ids: Vec<_> = found[0].scope_spans[0].spans.iter().map(|span| span.span_id[0]).collect();
        assert_eq!(ids, [1, 3]);
        let second = &found[1].scope_spans[0].spans[0];
        let of_second = [
            ("http.route", "/x"),
            ("code", "5"),
            ("ok", "true"),
            ("seismo.incomplete", "gap"),
            ("seismo.time.on_cpu", "60"),
            ("seismo.time.network", "40"),
        ];
        assert_eq!(texts(&second.attributes), pairs(&of_second));
        assert_eq!(
            (second.kind, second.status.clone(), second.parent_span_id.len()),
            (2, Some(proto::Status { code: 2 }), 8)
        );
        assert_eq!(second.end_time_unix_nano - second.start_time_unix_nano, 100);
    }

    #[test]
    fn five_minutes_at_500_spans_a_second_fit_the_default_queue() {
        let resources: Vec<_> = (0..8).map(|number| resource(&format!("service-{number}"))).collect();
        let spans: Vec<_> = (0..512_u64)
            .map(|number| {
                let mixed = |salt: u64| (number + salt).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
                let mut span = Span::clone(&span(1, &resources[(number % 8) as usize]));
                span.trace_id.0[..8].copy_from_slice(&mixed(1));
                span.trace_id.0[8..].copy_from_slice(&mixed(7 << 40));
                (span.span_id, span.parent_span_id) = (SpanId(mixed(9 << 50)), Some(SpanId(mixed(3 << 45))));
                span.start_ns += number * 2_013_457;
                span.end_ns = span.start_ns + u64::from(mixed(5)[0]) * 10_007;
                for key in ["url.path", "server.address", "client.address", "user_agent.original"] {
                    span.attributes.set(key, format!("/some/path/of/{number}"));
                }
                Arc::new(span)
            })
            .collect();
        let config = Config::default();
        let bytes = Encoder::new(&config, Compression::Gzip).unwrap().body(&spans).len() as u64;
        let each = bytes / spans.len() as u64;
        println!("{each} bytes a span");
        assert!(each * 500 * 300 < config.queue_bytes.0 / 2, "{each} bytes a span");
    }
}
