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
            let (status, attributes) = (exchange::OK.to_owned(), Attributes::default());
            let response = Response { key: None, status, attributes, body: Body::None, opaque_after };
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
        self.response.next(bytes, wire::typed, wanted, |message| match answers.read(&message, hint) {
            backend::Meaning::Goes => Made::Goes(message.rest),
            backend::Meaning::Aside => Made::Aside(message.rest),
            backend::Meaning::Over(mut response) => {
                if message.rest > 0 {
                    response.body = Body::Length(message.rest);
                }
                Made::Event(Event::Response(response))
            }
            backend::Meaning::Wrong(reason) => Made::Event(malformed(reason)),
        })
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
            }
        }
    }

    fn buffered_bytes(&self) -> usize {
        self.request.kept() + self.response.kept() + self.asks.bytes()
    }
}
