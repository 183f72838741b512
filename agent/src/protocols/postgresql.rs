//! PostgreSQL's protocol 3 (3.0 and 3.2): messages of both sides to one exchange per statement executed.
//!
//! Simple and extended queries, pipelines, names of prepared statements, COPY, errors as `SQLSTATE`; log-in and
//! `Sync` take their turn silently; encryption and replication make the connection opaque. Keeps the beginnings of messages that come in
//! pieces and what was prepared, each at most `head_bytes`; rows and parameters are skipped by length. Never kept:
//! literals, values of parameters, passwords. A failed log-in is not told, and a wrong one leaves no trace.

mod backend;
mod detect;
mod exchange;
mod frontend;
mod statements;
mod wire;

use crate::model::attributes::Attributes;
use crate::model::exchange::Incomplete;

use self::backend::Answers;
use self::frontend::Asks;
use self::wire::Frame;
use super::{Body, Broken, Event, Limits, Parser, Protocol, Request, Response, Side, Step};

pub const PROTOCOL: Protocol =
    Protocol { name: "postgresql", detect: detect::detect, resume: detect::resume, dialect: Some(exchange::dialect) };

crate::section! {
    /// PostgreSQL.
    pub struct Config {
        /// Keep the text of a statement on its span, without any literal (`db.query.text`).
        pub statement: bool = true,
        /// Longest text kept of a statement, in bytes.
        pub statement_bytes: usize = 1024,
        /// Prepared statements remembered per connection; one more and the one not used for longest is unknown.
        pub statements_per_connection: usize = 64,
    }
}

/// What the reader of answers must know of the request ([`Request::hint`]).
const HINT_STARTUP: u8 = 0;
const HINT_ENCRYPT: u8 = 1;
const HINT_CANCEL: u8 = 2;
const HINT_QUERY: u8 = 3;
const HINT_EXECUTE: u8 = 4;
const HINT_SYNC: u8 = 5;
const HINT_FUNCTION: u8 = 6;
/// Up to so many more: a `Sync` on whose answer it depends what names stand for.
const HINT_SYNC_NAMES: u8 = 8;
const SYNCS_WITH_NAMES: u8 = 8;
/// And above: so many steps, each answered by one message.
const HINT_ACKS: u8 = 16;

/// Of a statement or a log-in, as many bytes are read: well below what is captured of one operation.
const TEXT_BYTES: usize = 2048;
/// Of messages that begin with names, or with what else matters.
const NAMES_BYTES: usize = 256;

/// One connection's parser.
pub struct Postgresql {
    text_bytes: usize,
    asks: Asks,
    answers: Answers,
    request: Frame,
    response: Frame,
}

/// What was made of a message.
enum Made {
    /// Nothing yet: so many more of its bytes are of no interest.
    Goes(u64),
    Aside(u64),
    Event(Event),
}

impl Postgresql {
    fn new(limits: Limits, config: &Config) -> Self {
        Self {
            text_bytes: TEXT_BYTES.min(limits.head_bytes.saturating_sub(wire::UNTYPED_HEADER)),
            asks: Asks::new(config, limits.head_bytes),
            answers: Answers::default(),
            request: Frame::default(),
            response: Frame::default(),
        }
    }

    /// The next message of the client.
    fn ask(&mut self, bytes: &[u8]) -> Result<(usize, Option<Made>), &'static str> {
        if self.request.kept() == 0
            && let Some(request) = bytes.first().and_then(|tag| self.asks.before(*tag))
        {
            return Ok((0, Some(Made::Event(Event::Request(request)))));
        }
        let untyped = if self.request.kept() > 0 { self.request.is_untyped() } else { bytes.first() == Some(&0) };
        let size = if untyped { wire::untyped } else { wire::typed };
        let (text_bytes, names_bytes) = (self.text_bytes, NAMES_BYTES.min(self.text_bytes));
        let wanted = move |tag| match tag {
            0 | b'Q' | b'P' => text_bytes,
            b'B' | b'C' | b'D' | b'E' => names_bytes,
            _ => 0,
        };
        let asks = &mut self.asks;
        self.request.next(bytes, size, wanted, |message| match asks.read(&message) {
            frontend::Meaning::Goes => Made::Goes(message.rest),
            frontend::Meaning::Aside => Made::Aside(message.rest),
            frontend::Meaning::Request(request) => Made::Event(Event::Request(request)),
            frontend::Meaning::Wrong(reason) => Made::Event(malformed(reason)),
        })
    }

    /// What is certain of a message whose rest is lost: the beginning of a query, no other has its meaning in its beginning.
    fn cut_request(&mut self) -> Option<Event> {
        let contents = self.request.beginning_of(b'Q')?;
        match self.asks.read(&wire::Message { tag: b'Q', contents, code: 0, rest: 1 }) {
            frontend::Meaning::Request(mut request) => {
                request.body = Body::None;
                Some(Event::Request(request))
            }
            _ => None,
        }
    }

    /// The next message of the server.
    fn answer(&mut self, bytes: &[u8], hint: Option<u8>) -> Result<(usize, Option<Made>), &'static str> {
        if let (Some(HINT_ENCRYPT), 0, Some(answer @ (b'S' | b'G' | b'N'))) =
            (hint, self.response.kept(), bytes.first())
        {
            let opaque_after = *answer != b'N';
            let (status, attributes) = (exchange::OK, Attributes::default());
            let response = Response { key: None, status: status.into(), attributes, body: Body::None, opaque_after };
            return Ok((1, Some(Made::Event(Event::Response(response)))));
        }
        if self.response.kept() == 0
            && let Some(tag) = bytes.first()
            && let Some(response) = self.answers.before(*tag, hint, &mut self.asks.copy_syncs)
        {
            return Ok((0, Some(Made::Event(Event::Response(response)))));
        }
        let names_bytes = NAMES_BYTES.min(self.text_bytes);
        let wanted = move |tag| match tag {
            b'C' | b'E' | b'W' => names_bytes,
            b'Z' => 1,
            _ => 0,
        };
        let answers = &mut self.answers;
        let made = self.response.next(bytes, wire::typed, wanted, |message| match answers.read(&message, hint) {
            backend::Meaning::Goes => Made::Goes(message.rest),
            backend::Meaning::Aside => Made::Aside(message.rest),
            backend::Meaning::Over(mut response) => {
                if message.rest > 0 {
                    response.body = Body::Length(message.rest);
                }
                Made::Event(Event::Response(response))
            }
            backend::Meaning::Wrong(reason) => Made::Event(malformed(reason)),
        });
        if let (Some(hint @ HINT_SYNC_NAMES..HINT_ACKS), Ok((_, Some(Made::Event(Event::Response(response)))))) =
            (hint, &made)
        {
            self.asks.answered(hint, response.status == exchange::OK);
        }
        made
    }
}

fn malformed(reason: &'static str) -> Event {
    Event::Broken(Broken { reason, incomplete: Incomplete::Malformed })
}

impl Parser for Postgresql {
    fn feed(&mut self, side: Side, bytes: &[u8], asked: Option<&Request>) -> Step {
        let mut taken = 0;
        loop {
            let rest = bytes.get(taken..).unwrap_or_default();
            if rest.is_empty() {
                return Step { taken, event: Event::NeedMore };
            }
            let made = match side {
                Side::Request => self.ask(rest),
                Side::Response => self.answer(rest, asked.map(|request| request.hint)),
            };
            let (more, made) = match made {
                Ok((more, Some(made))) => (more, made),
                Ok((more, None)) => return Step { taken: taken + more, event: Event::NeedMore },
                Err(reason) => return Step { taken, event: malformed(reason) },
            };
            let (skip, is_aside) = match made {
                Made::Event(event) => return Step { taken: taken + more, event },
                Made::Goes(skip) => (skip, false),
                Made::Aside(skip) => (skip, true),
            };
            taken += more;
            let here = usize::try_from(skip).unwrap_or(usize::MAX).min(bytes.len() - taken);
            taken += here;
            let left = skip - here as u64;
            match (left, is_aside) {
                (0, true) => return Step { taken, event: Event::Aside },
                (0, false) => {}
                (left, true) => return Step { taken, event: Event::SkipToEnd(left) },
                (left, false) => return Step { taken, event: Event::SkipBody(left) },
            }
        }
    }

    fn is_unasked(&self, bytes: &[u8]) -> bool {
        let is_known = match bytes.first() {
            Some(b'N' | b'S' | b'A') => true,
            Some(b'E') => bytes.get(wire::HEADER..).is_some_and(backend::ends_connection),
            _ => false,
        };
        is_known && matches!(wire::typed(bytes), Ok(wire::Size::Is { .. }))
    }

    fn cut(&mut self, side: Side) -> Option<Event> {
        match side {
            Side::Request => self.cut_request(),
            Side::Response => self.answers.cut().map(Event::Response),
        }
    }

    fn reset(&mut self, side: Side) {
        match side {
            Side::Request => {
                self.request.clear();
                self.asks.clear();
            }
            Side::Response => {
                self.response.clear();
                self.answers.clear();
                self.asks.doubt();
            }
        }
    }

    fn buffered_bytes(&self) -> usize {
        self.request.kept() + self.response.kept() + self.asks.bytes()
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{ProptestConfig, Strategy, any, prop_assert, prop_oneof, proptest};

    use super::{Config, Postgresql};
    use crate::protocols::{Body, Event, Limits, Parser, Request, Side};
    use crate::semconv;

    const HEAD_BYTES: usize = 1024;

    fn parser() -> Postgresql {
        Postgresql::new(Limits { head_bytes: HEAD_BYTES, fresh: true }, &Config::default())
    }

    fn message(tag: u8, contents: &[u8]) -> Vec<u8> {
        let length = u32::try_from(contents.len() + 4).unwrap();
        [&[tag][..], &length.to_be_bytes(), contents].concat()
    }

    fn request(parser: &mut Postgresql, bytes: &[u8]) -> Request {
        let step = parser.feed(Side::Request, bytes, None);
        assert_eq!(step.taken, bytes.len());
        match step.event {
            Event::Request(request) => request,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn of_a_long_statement_the_beginning_is_read_and_the_rest_is_body() {
        let text = format!("SELECT a FROM t WHERE b IN ({}) AND c = 'd'\0", "1, ".repeat(10_000));
        let bytes = message(b'Q', text.as_bytes());
        let step = parser().feed(Side::Request, &bytes, None);
        let Event::Request(request) = step.event else { panic!("{step:?}") };
        let Body::Length(rest) = request.body else { panic!("{request:?}") };
        assert_eq!(step.taken as u64 + rest, bytes.len() as u64);
        assert!(step.taken <= HEAD_BYTES);
        assert_eq!(request.attributes.text(semconv::DB_QUERY_TEXT), Some("SELECT a FROM t WHERE b IN (?…"));
        assert_eq!(request.truncated_values, 1);
    }

    #[test]
    fn the_trace_in_a_comment_is_of_the_request_that_brought_it() {
        let comment = "/*traceparent='00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'*/";
        let has_context = |request: &Request| request.in_band.context.is_some();
        let query = message(b'Q', format!("SELECT a FROM t {comment}\0").as_bytes());
        let read = request(&mut parser(), &query);
        assert!(has_context(&read));
        assert_eq!(read.attributes.text(semconv::DB_QUERY_TEXT), Some("SELECT a FROM t"));
        // Anybody can write into a string.
        let quoted = message(b'Q', format!("SELECT '{}' FROM t\0", comment.replace('\'', "''")).as_bytes());
        assert!(!has_context(&request(&mut parser(), &quoted)));
        let parse = message(b'P', format!("s1\0SELECT a FROM t {comment}\0\0\0").as_bytes());
        let execute = [message(b'B', b"\0s1\0\0\0\0\0\0\0"), message(b'E', b"\0\0\0\0\0")].concat();
        let mut parser = parser();
        assert!(has_context(&request(&mut parser, &[parse, execute.clone()].concat())));
        let again = request(&mut parser, &execute);
        assert!(!has_context(&again), "the comment is older than the request");
        assert_eq!(again.attributes.text(semconv::DB_QUERY_SUMMARY), Some("SELECT t"));
    }

    #[test]
    fn of_a_query_that_was_cut_its_beginning_is_certain() {
        let mut parser = parser();
        let bytes = message(b'Q', b"SELECT a FROM orders WHERE b = 'secret'\0");
        parser.feed(Side::Request, &bytes[..bytes.len() - 12], None);
        let Some(Event::Request(request)) = parser.cut(Side::Request) else { panic!("nothing is certain") };
        assert_eq!(request.attributes.text(semconv::DB_QUERY_SUMMARY), Some("SELECT orders"));
        assert_eq!(request.attributes.text(semconv::DB_QUERY_TEXT), Some("SELECT a FROM orders WHERE…"));
    }

    #[test]
    fn where_bytes_were_lost_no_name_stands_for_anything() {
        let mut parser = parser();
        let parse = message(b'P', b"s1\0SELECT a FROM orders\0\0\0");
        let execute = [message(b'B', b"\0s1\0\0\0\0\0\0\0"), message(b'E', b"\0\0\0\0\0")].concat();
        let both = [parse.clone(), execute.clone()].concat();
        assert_eq!(request(&mut parser, &both).attributes.text(semconv::DB_QUERY_SUMMARY), Some("SELECT orders"));
        parser.reset(Side::Request);
        let forgotten = request(&mut parser, &execute);
        assert_eq!(forgotten.attributes.text(semconv::DB_QUERY_SUMMARY), None);
        assert!(forgotten.attributes.get("seismo.db.statement.unknown").is_some());
        // Prepared again it is known, unless the server refused something: the name may have been taken.
        let known = request(&mut parser, &both);
        assert_eq!(known.attributes.text(semconv::DB_QUERY_SUMMARY), Some("SELECT orders"));
        let (sync, ready) = (message(b'S', b""), message(b'Z', b"I"));
        let mut summary_after = |answer: &[u8]| {
            let barrier = request(&mut parser, &[parse.clone(), sync.clone()].concat());
            let mut rest = answer;
            while !rest.is_empty() {
                rest = &rest[parser.feed(Side::Response, rest, Some(&barrier)).taken..];
            }
            let summary = request(&mut parser, &execute).attributes.text(semconv::DB_QUERY_SUMMARY).map(str::to_owned);
            parser.reset(Side::Request);
            parser.reset(Side::Response);
            summary
        };
        let refused = [message(b'E', b"SERROR\0C42P05\0\0"), ready.clone()].concat();
        let taken = [message(b'1', b""), ready].concat();
        assert_eq!(summary_after(&refused), None);
        assert_eq!(summary_after(&taken).as_deref(), Some("SELECT orders"));
        assert_eq!(summary_after(b""), None, "not yet");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_messages_are_taken_within_the_bounds(
            messages in vec((any::<bool>(), prop_oneof![
                3 => (0usize..40, vec(prop_oneof![any::<u8>(), 0u8..3, b'A'..=b'Z'], 0..60)).prop_map(|(tag, contents)| {
                    let tags = b"QPBDCEHSFXdcfp123ACDEGHIKNRSTVWZcdnstv\0\xff";
                    message(tags[tag], &contents)
                }),
                1 => vec(any::<u8>(), 1..60),
            ]), 0..60),
            size in 1usize..50,
        ) {
            let mut parser = parser();
            let mut asked: Option<Request> = None;
            for (asks, bytes) in messages {
                let side = if asks { Side::Request } else { Side::Response };
                for piece in bytes.chunks(size) {
                    let mut rest = piece;
                    while !rest.is_empty() {
                        let step = parser.feed(side, rest, asked.as_ref());
                        prop_assert!(step.taken <= rest.len());
                        prop_assert!(parser.buffered_bytes() <= 4 * (HEAD_BYTES + 1));
                        rest = &rest[step.taken..];
                        match step.event {
                            Event::Request(request) => asked = Some(request),
                            Event::Response(_) => asked = None,
                            Event::NeedMore => prop_assert!(step.taken > 0 && rest.is_empty()),
                            Event::SkipBody(left) | Event::SkipToEnd(left) => prop_assert!(left > 0 && rest.is_empty()),
                            Event::Aside => prop_assert!(step.taken > 0),
                            Event::End => panic!("no message has framed contents"),
                            Event::Broken(_) => {
                                parser.cut(side);
                                parser.reset(side);
                                break;
                            }
                        }
                    }
                }
            }
        }
    }
}
