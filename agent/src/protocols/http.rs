//! HTTP/1.0 and 1.1 (RFC 9112): heads, bodies by length, chunks or end of connection, interim answers, upgrades.
//!
//! Requests and responses in order; `CONNECT` and `101` make the connection opaque. A head in one piece is parsed
//! where it lies; one in pieces is collected (at most `head_bytes`) and parsed once. Query strings, bodies and all
//! header values but two and the ids of traces are never kept. Attributes: OpenTelemetry HTTP semantic conventions, values bounded.

mod chunked;
mod exchange;
mod head;
mod route;

use compact_str::{CompactString, ToCompactString as _};

use crate::model::attributes::Attributes;
use crate::model::exchange::Incomplete;
use crate::semconv;

use self::chunked::{Chunked, Framing};
use self::head::{Parsed, RequestHead, ResponseHead};
use super::{Body, Broken, Event, Limits, Parser, Protocol, Request, Response, Resume, Side, Step, resume_as_detected};

pub use self::exchange::{CLIENT_DURATION, SERVER_DURATION};

pub const PROTOCOL: Protocol =
    Protocol { name: "http", detect: head::detect, resume, dialect: Some(exchange::dialect) };

fn resume(side: Side, bytes: &[u8]) -> Resume {
    resume_as_detected(head::detect, side, bytes)
}

crate::section! {
    /// HTTP/1.
    pub struct Config {
        /// Keep the query string of a request on its span (`url.query`). It may hold secrets.
        pub query: bool = false,
        /// Longest value kept of a header or a path, in bytes.
        pub value_bytes: usize = 256,
        /// Routes told apart per service; any further one is shown as `/*`.
        pub routes_per_service: usize = 200,
    }
}

/// What the reader of responses must know of the request ([`Request::hint`]).
const HINT_NONE: u8 = 0;
const HINT_HEAD: u8 = 1;
const HINT_CONNECT: u8 = 2;

/// Room that an idle connection keeps for heads in pieces, per side.
const KEPT_ROOM_BYTES: usize = 1024;

/// One connection's parser.
pub struct Http {
    limits: Limits,
    query: bool,
    value_bytes: usize,
    request: Reader,
    response: Reader,
}

/// One side of a connection.
#[derive(Default)]
struct Reader {
    /// The beginning of a head whose end was not seen yet.
    head: Vec<u8>,
    /// Inside a chunked body.
    chunked: Option<Chunked>,
}

impl Http {
    fn new(limits: Limits, config: &Config) -> Self {
        Self {
            limits,
            query: config.query,
            value_bytes: config.value_bytes,
            request: Reader::default(),
            response: Reader::default(),
        }
    }

    fn reader(&mut self, side: Side) -> &mut Reader {
        match side {
            Side::Request => &mut self.request,
            Side::Response => &mut self.response,
        }
    }

    fn read_head(&mut self, side: Side, bytes: &[u8], asked: Option<&Request>) -> Step {
        let limit = self.limits.head_bytes;
        let reader = self.reader(side);
        if !reader.head.is_empty() {
            return self.collect_head(side, bytes, asked);
        }
        // Empty lines before a head are allowed and mean nothing.
        let empty = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        if empty > 0 {
            return Step { taken: empty, event: Event::Aside };
        }
        match self.parse_head(side, bytes, asked) {
            Some((taken, _)) if taken > limit => broken(0, "head_too_long", Incomplete::HeadTooLong),
            Some((taken, event)) => Step { taken, event },
            None if bytes.len() > limit => broken(0, "head_too_long", Incomplete::HeadTooLong),
            None => {
                self.reader(side).head.extend_from_slice(bytes);
                Step { taken: bytes.len(), event: Event::NeedMore }
            }
        }
    }

    /// Adds to the beginning of a head; parses it when its empty line is there.
    fn collect_head(&mut self, side: Side, bytes: &[u8], asked: Option<&Request>) -> Step {
        let limit = self.limits.head_bytes;
        let mut head = std::mem::take(&mut self.reader(side).head);
        let before = head.len();
        head.extend_from_slice(bytes.get(..(limit + 1).saturating_sub(before)).unwrap_or(bytes));
        // The empty line may have begun with the last two bytes that were here.
        match head::head_end(&head, before.saturating_sub(2)) {
            Some(end) if end <= limit => {
                let parsed = self.parse_head(side, head.get(..end).unwrap_or_default(), asked);
                let event = match parsed {
                    Some((_, event)) => event,
                    None => Event::Broken(Broken { reason: "head_new_line", incomplete: Incomplete::Malformed }),
                };
                // Room for the connection's next head in pieces, unless it is much.
                head.clear();
                head.shrink_to(KEPT_ROOM_BYTES);
                self.reader(side).head = head;
                Step { taken: end.saturating_sub(before), event }
            }
            _ if head.len() > limit => {
                self.reader(side).head = head;
                broken(0, "head_too_long", Incomplete::HeadTooLong)
            }
            _ => {
                self.reader(side).head = head;
                Step { taken: bytes.len(), event: Event::NeedMore }
            }
        }
    }

    /// `None` when the head is not whole.
    fn parse_head(&mut self, side: Side, bytes: &[u8], asked: Option<&Request>) -> Option<(usize, Event)> {
        let (taken, event) = match side {
            Side::Request => match head::parse_request(bytes) {
                Parsed::Complete(taken, head) => (taken, Event::Request(self.request(&head))),
                Parsed::Partial => return None,
                Parsed::Bad(reason) => (0, malformed(reason)),
            },
            Side::Response => match head::parse_response(bytes) {
                Parsed::Complete(taken, head) => (taken, response(&head, asked)),
                Parsed::Partial => return None,
                Parsed::Bad(reason) => (0, malformed(reason)),
            },
        };
        if let Event::Request(Request { body: Body::Framed, .. })
        | Event::Response(Response { body: Body::Framed, .. }) = &event
        {
            self.reader(side).chunked = Some(Chunked::new());
        }
        Some((taken, event))
    }

    fn request(&self, head: &RequestHead<'_>) -> Request {
        let mut attributes = Attributes::with_capacity(exchange::ATTRIBUTES);
        let mut truncated_values = 0;
        let mut bounded = |text: &[u8]| {
            truncated_values += u32::from(text.len() > self.value_bytes);
            let text = text.get(..self.value_bytes).unwrap_or(text);
            std::str::from_utf8(text).map_or_else(|_| CompactString::from_utf8_lossy(text), CompactString::new)
        };
        let known_method = head::known_method(head.method);
        match known_method {
            Some(method) => attributes.set(semconv::HTTP_REQUEST_METHOD, method),
            None => {
                attributes.set(semconv::HTTP_REQUEST_METHOD, exchange::OTHER_METHOD);
                attributes.set(semconv::HTTP_REQUEST_METHOD_ORIGINAL, bounded(head.method.as_bytes()));
            }
        }
        let hint = match head.method {
            "HEAD" => HINT_HEAD,
            "CONNECT" => HINT_CONNECT,
            _ => HINT_NONE,
        };
        let target = exchange::Target::of(head.target);
        if let Some(path) = target.path {
            attributes.set(semconv::URL_PATH, bounded(path.as_bytes()));
        }
        if let (true, Some(query)) = (self.query, target.query) {
            attributes.set(semconv::URL_QUERY, bounded(query.as_bytes()));
        }
        attributes.set(semconv::URL_SCHEME, target.scheme);
        // Only `CONNECT` has a target that is an authority and nothing else.
        let in_target = target.authority.filter(|_| target.path.is_some() || hint == HINT_CONNECT);
        let authority = in_target.map(str::as_bytes).or(head.host).and_then(exchange::Authority::of);
        if let Some(authority) = authority {
            attributes.set(semconv::SERVER_ADDRESS, bounded(authority.host.as_bytes()));
            if let Some(port) = authority.port {
                attributes.set(semconv::SERVER_PORT, i64::from(port));
            }
        }
        attributes.set(semconv::NETWORK_PROTOCOL_VERSION, if head.minor_version == 0 { "1.0" } else { "1.1" });
        if let Some(user_agent) = head.user_agent {
            attributes.set(semconv::USER_AGENT_ORIGINAL, bounded(user_agent));
        }
        // `OST` may be the rest of `POST`.
        Request {
            key: None,
            attributes,
            hint,
            body: head.body,
            silent: false,
            certain: known_method.is_some(),
            truncated_values,
            in_band: head.in_band.clone(),
        }
    }
}

/// A response head in the light of the request that it answers.
fn response(head: &ResponseHead, asked: Option<&Request>) -> Event {
    let hint = asked.map_or(HINT_NONE, |request| request.hint);
    let opaque_after = head.status == 101 || (hint == HINT_CONNECT && (200..300).contains(&head.status));
    let body = match head.status {
        100 | 102..=199 => return Event::Aside,
        _ if opaque_after || hint == HINT_HEAD || matches!(head.status, 204 | 304) => Body::None,
        _ => match head.body {
            Ok(body) => body,
            Err(reason) => return malformed(reason),
        },
    };
    Event::Response(Response {
        key: None,
        status: head.status.to_compact_string(),
        attributes: Attributes::default(),
        body,
        opaque_after,
    })
}

fn malformed(reason: &'static str) -> Event {
    Event::Broken(Broken { reason, incomplete: Incomplete::Malformed })
}

fn broken(taken: usize, reason: &'static str, incomplete: Incomplete) -> Step {
    Step { taken, event: Event::Broken(Broken { reason, incomplete }) }
}

impl Parser for Http {
    fn feed(&mut self, side: Side, bytes: &[u8], asked: Option<&Request>) -> Step {
        let Some(chunked) = &mut self.reader(side).chunked else {
            return self.read_head(side, bytes, asked);
        };
        let (taken, framing) = chunked.feed(bytes);
        let event = match framing {
            Framing::NeedMore => Event::NeedMore,
            Framing::Chunk(size) => Event::SkipBody(size),
            Framing::End => {
                self.reader(side).chunked = None;
                Event::End
            }
            Framing::Broken(broken) => Event::Broken(broken),
        };
        Step { taken, event }
    }

    fn cut(&mut self, side: Side) -> Option<Event> {
        let mut head = std::mem::take(&mut self.reader(side).head);
        // The lines that are whole are certain, the lengths among them are not: another may have followed.
        let lines = head.iter().rposition(|byte| *byte == b'\n')? + 1;
        head.truncate(lines);
        head.extend_from_slice(if head.ends_with(b"\r\n") { b"\r\n" } else { b"\n" });
        match self.parse_head(side, &head, None)?.1 {
            event @ (Event::Request(_) | Event::Response(_)) => Some(event),
            _ => None,
        }
    }

    fn reset(&mut self, side: Side) {
        let reader = self.reader(side);
        reader.head = Vec::new();
        reader.chunked = None;
    }

    fn buffered_bytes(&self) -> usize {
        self.request.head.len() + self.response.head.len()
    }
}

#[cfg(test)]
mod tests {
    use super::{Config, Http};
    use crate::model::exchange::Incomplete;
    use crate::protocols::{Body, Event, Limits, Parser, Request, Side};
    use crate::semconv;

    fn parser() -> Http {
        Http::new(Limits { head_bytes: 4096, fresh: true }, &Config::default())
    }

    fn request(bytes: &[u8]) -> Request {
        match parser().feed(Side::Request, bytes, None).event {
            Event::Request(request) => request,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_head_names_the_trace_it_belongs_to_and_what_is_none_is_counted() {
        let traceparent = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let read = request(format!("GET / HTTP/1.1\r\n{traceparent}\r\nX-Request-Id: r\r\nb3: zzz\r\n\r\n").as_bytes());
        let context = read.in_band.context.unwrap();
        assert_eq!(context.span_id.map(|id| u64::from_be_bytes(id.0)), Some(0x00f0_67aa_0ba9_02b7));
        assert_eq!((context.request_id.as_deref(), read.in_band.refused), (Some("r"), 1));
        assert_eq!(request(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").in_band.context, None);
    }

    #[test]
    fn a_head_in_pieces_of_any_size_is_the_same_head() {
        let head =
            b"POST /a?secret=1 HTTP/1.1\r\nHost: shop.example:8080\r\nUser-Agent: t\r\nContent-Length: 4\r\n\r\n";
        let whole = request(head);
        for size in 1..head.len() {
            let mut parser = parser();
            let mut event = Event::NeedMore;
            for piece in head.chunks(size) {
                assert!(matches!(event, Event::NeedMore), "{event:?}");
                let step = parser.feed(Side::Request, piece, None);
                assert_eq!(step.taken, piece.len());
                event = step.event;
            }
            match event {
                Event::Request(request) => {
                    assert_eq!(request.attributes, whole.attributes);
                    assert_eq!(request.body, Body::Length(4));
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(parser.buffered_bytes(), 0);
        }
        assert_eq!(whole.attributes.text(semconv::URL_PATH), Some("/a"));
        assert_eq!(whole.attributes.text(semconv::SERVER_ADDRESS), Some("shop.example"));
        assert_eq!(whole.attributes.get(semconv::URL_QUERY), None);
    }

    #[test]
    fn the_request_decides_whether_a_response_has_a_body() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n";
        for (asked, body, opaque) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], Body::Length(9), false),
            (b"HEAD / HTTP/1.1\r\n\r\n", Body::None, false),
            (b"CONNECT a:1 HTTP/1.1\r\n\r\n", Body::None, true),
        ] {
            match parser().feed(Side::Response, head, Some(&request(asked))).event {
                Event::Response(response) => assert_eq!((response.body, response.opaque_after), (body, opaque)),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn an_interim_response_is_no_answer() {
        let step = parser().feed(Side::Response, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n", None);
        assert!(matches!(step.event, Event::Aside));
        assert_eq!(step.taken, 25);
    }

    #[test]
    fn a_head_beyond_the_bound_is_refused_however_it_comes() {
        let mut head = b"GET /x HTTP/1.1\r\nA: ".to_vec();
        head.resize(1_000_000, b'a');
        head.extend_from_slice(b"\r\n\r\n");
        for size in [1, 100, 4096, 5000, 2_000_000] {
            let mut parser = parser();
            let refused =
                head.chunks(size).map(|piece| parser.feed(Side::Request, piece, None).event).find_map(|event| {
                    match event {
                        Event::Broken(broken) => Some(broken),
                        _ => None,
                    }
                });
            assert_eq!(refused.map(|broken| broken.incomplete), Some(Incomplete::HeadTooLong), "pieces of {size}");
            assert!(parser.buffered_bytes() <= 4097);
        }
    }

    #[test]
    fn of_a_head_that_was_cut_the_whole_lines_are_certain() {
        let mut parser = parser();
        parser.feed(Side::Request, b"GET /a HTTP/1.1\r\nHost: b\r\nUser-Ag", None);
        match parser.cut(Side::Request) {
            Some(Event::Request(request)) => {
                assert_eq!(request.attributes.text(semconv::URL_PATH), Some("/a"));
                assert_eq!(request.attributes.text(semconv::SERVER_ADDRESS), Some("b"));
                assert_eq!(request.attributes.text(semconv::USER_AGENT_ORIGINAL), None);
            }
            other => panic!("{other:?}"),
        }
        parser.feed(Side::Request, b"GET /a HTT", None);
        assert!(parser.cut(Side::Request).is_none(), "half a line is not certain");
    }
}
