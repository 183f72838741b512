//! The protocol contract: bytes of one connection in, requests and responses out, then one neutral exchange.
//!
//! A protocol is one file here and one row in [`REGISTRY`]; no other stage knows any protocol. Everything is
//! pure: a parser sees bytes and nothing else, positions and times are kept by `flows`. A parser keeps at most
//! [`Limits::head_bytes`] per side. What a parser does not do: order bytes, wait, pair, or guess at bytes
//! that it has not seen.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod context;
pub mod db;
pub mod http;
pub mod postgresql;
pub mod redis;
pub mod tls;

use std::net::SocketAddr;

use compact_str::CompactString;

use crate::model::attributes::Attributes;
use crate::model::connection::Role;
use crate::model::context::InBand;
use crate::model::exchange::{Incomplete, Measure};
use crate::model::metric::Metric;

crate::section! {
    /// What the parsers of each protocol do.
    pub struct Config {}
    sections {
        /// HTTP/1.
        pub http: http::Config,
        /// PostgreSQL.
        pub postgresql: postgresql::Config,
        /// Redis.
        pub redis: redis::Config,
    }
}

/// Every protocol, in the order in which unknown bytes are offered.
pub const REGISTRY: &[Protocol] = &[http::PROTOCOL, postgresql::PROTOCOL, redis::PROTOCOL, tls::PROTOCOL];

/// Every metric that an exchange can be measured by.
pub const METRICS: &[&Metric] =
    &[&http::SERVER_DURATION, &http::CLIENT_DURATION, &db::SERVER_DURATION, &db::CLIENT_DURATION];

/// Makes what is shared by all connections of a protocol.
pub type OpenDialect = fn(&Config) -> Box<dyn Dialect>;

/// One protocol.
#[derive(Clone, Copy)]
pub struct Protocol {
    /// On spans and in answers; also the name of its file.
    pub name: &'static str,
    /// Strict start predicate: tells the protocol of the first bytes that are seen of a connection, of either side.
    pub detect: fn(&[u8]) -> Detect,
    /// Can a message of this side begin with these bytes? Asked where a parser begins again after bytes were lost, in a
    /// place where a message is due: may be less strict than `detect`, and for [`Side::Request`] must be right alone.
    pub resume: fn(Side, &[u8]) -> Resume,
    /// `None`: recognised, but nothing in it can be read.
    pub dialect: Option<OpenDialect>,
}

/// Which of the two streams of a connection: the one that asks or the one that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Request,
    Response,
}

/// What the first bytes after a turn-around look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detect {
    Request,
    Response,
    No,
    /// Too few bytes to tell.
    More,
}

/// Whether a message can begin here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    Yes,
    No,
    /// Too few bytes to tell.
    More,
}

/// [`Protocol::resume`] where `detect` is strict enough for both sides.
pub fn resume_as_detected(detect: fn(&[u8]) -> Detect, side: Side, bytes: &[u8]) -> Resume {
    match (detect(bytes), side) {
        (Detect::More, _) => Resume::More,
        (Detect::Request, Side::Request) | (Detect::Response, Side::Response) => Resume::Yes,
        _ => Resume::No,
    }
}

/// How much of a connection a parser may keep.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub head_bytes: usize,
    /// The connection's first bytes will be seen, of both sides: what a protocol begins with holds.
    pub fresh: bool,
}

/// What is shared by all connections of one protocol.
pub trait Dialect: Send {
    /// A parser for one connection.
    fn parser(&self, limits: Limits) -> Box<dyn Parser>;

    /// What a request and the answer to it (if one was seen) come to.
    fn conclude(&mut self, asked: Request, answered: Option<Response>, facts: &Facts) -> Conclusion;
}

/// One connection's parser, both sides.
pub trait Parser: Send {
    /// Looks at the next bytes of a side, never empty. `asked` is the request that the next response answers
    /// when answers come in order. Called again with what was not taken.
    fn feed(&mut self, side: Side, bytes: &[u8], asked: Option<&Request>) -> Step;

    /// Whether a message that begins with these bytes of the answering side may answer nobody (a push): it is then read
    /// without a request, and must come out as [`Event::Aside`].
    fn is_unasked(&self, bytes: &[u8]) -> bool {
        let _ = bytes;
        false
    }

    /// Bytes inside a head will never come: what is certain of it, as [`Event::Request`] or [`Event::Response`].
    fn cut(&mut self, side: Side) -> Option<Event>;

    /// Forgets what it has of a side; the next bytes begin a message.
    fn reset(&mut self, side: Side);

    /// Bytes kept.
    fn buffered_bytes(&self) -> usize;
}

/// What a parser made of some bytes.
#[derive(Debug)]
pub struct Step {
    /// How many of them the event covers.
    pub taken: usize,
    pub event: Event,
}

#[derive(Debug)]
pub enum Event {
    /// All bytes were taken; the message goes on.
    NeedMore,
    /// The bytes since the last message belong to no request or response (an interim answer, an empty line).
    Aside,
    /// The head of a request is whole.
    Request(Request),
    /// The head of a response is whole.
    Response(Response),
    /// So many bytes of body follow that nobody needs to look at.
    SkipBody(u64),
    /// So many bytes follow that nobody needs to look at, and with them the message is over: one with [`Body::Framed`], or
    /// one that is [`Event::Aside`].
    SkipToEnd(u64),
    /// The message (with [`Body::Framed`]) is over.
    End,
    Broken(Broken),
}

/// Why bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Under which it is counted.
    pub reason: &'static str,
    /// What the exchange becomes that waits for this message.
    pub incomplete: Incomplete,
}

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    None,
    Length(u64),
    /// The parser finds the end itself.
    Framed,
    /// All bytes until the connection closes.
    ToClose,
}

#[derive(Clone, Debug)]
pub struct Request {
    /// Correlation id of multiplexed protocols; `None`: answered in order.
    pub key: Option<u64>,
    pub attributes: Attributes,
    /// What the parser must know when it reads the answer, in its own coding.
    pub hint: u8,
    pub body: Body,
    /// Takes its turn among the requests and its answer, and is nobody's exchange (a log-in, a barrier).
    pub silent: bool,
    /// It could not be the rest of another request. Where a stream was joined, only such a one is a beginning.
    pub certain: bool,
    /// Values that were longer than what is kept.
    pub truncated_values: u32,
    /// The trace it says it belongs to.
    pub in_band: InBand,
}

#[derive(Clone, Debug)]
pub struct Response {
    /// Correlation id of multiplexed protocols.
    pub key: Option<u64>,
    /// As the protocol spells it.
    pub status: CompactString,
    pub attributes: Attributes,
    pub body: Body,
    /// The connection carries something else from here on.
    pub opaque_after: bool,
}

/// What `flows` knows of an exchange and a protocol may want to tell.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    pub role: Role,
    pub local: SocketAddr,
    pub peer: SocketAddr,
    /// Size of the request's body; `None` where its end was not seen.
    pub request_body_bytes: Option<u64>,
    /// Size of the response's body; `None` where its end was not seen.
    pub response_body_bytes: Option<u64>,
    /// `error.type` of a connection that ended first.
    pub failure: Option<&'static str>,
}

impl Facts {
    /// The address that serves, whichever end this is.
    pub fn server(&self) -> SocketAddr {
        match self.role {
            Role::Client => self.peer,
            Role::Server => self.local,
        }
    }
}

/// The protocol's part of an exchange; fields as in [`crate::model::exchange::Exchange`].
#[derive(Debug)]
pub struct Conclusion {
    pub operation: CompactString,
    pub resource: CompactString,
    pub status: Option<CompactString>,
    pub error: Option<CompactString>,
    pub attributes: Attributes,
    pub measure: Measure,
}

#[cfg(test)]
mod tests {
    use super::{Detect, REGISTRY};
    use std::collections::BTreeSet;

    #[test]
    fn every_file_here_is_a_row_of_the_registry() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/protocols");
        let files: BTreeSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
            .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
            .filter(|stem| stem != "mod")
            .collect();
        let rows: BTreeSet<String> = REGISTRY.iter().map(|row| row.name.to_owned()).collect();
        assert_eq!(files, rows);
        assert_eq!(rows.len(), REGISTRY.len(), "a row is there twice");
    }

    #[test]
    fn no_protocol_claims_bytes_that_are_none() {
        for row in REGISTRY {
            let verdict = (row.detect)(b"\0\0\0\0 nothing that anybody speaks \xff\xff");
            assert_eq!(verdict, Detect::No, "{}", row.name);
        }
    }
}
