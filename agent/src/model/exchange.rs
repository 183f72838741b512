//! A request with its response, in terms that no stage behind the parsers needs to know a protocol for.

use compact_str::CompactString;

use super::attributes::Attributes;
use super::connection::{Connection, Role};
use super::context::Context;
use super::payload::Moment;
use super::task::Wake;
use super::thread::ThreadAccount;

/// Why an exchange is not whole. Label value of `seismo.incomplete`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Incomplete {
    /// The beginning was before the agent saw the connection.
    Joined,
    /// Bytes of a message head were not captured or their record was lost.
    Gap,
    /// A message head longer than the parser's bound.
    HeadTooLong,
    /// The other message was there and could not be parsed.
    Malformed,
    /// No response within the protocol's timeout.
    Timeout,
    /// The table was full and the connection was evicted.
    Evicted,
}

impl Incomplete {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Joined => "joined",
            Self::Gap => "gap",
            Self::HeadTooLong => "head_too_long",
            Self::Malformed => "malformed",
            Self::Timeout => "timeout",
            Self::Evicted => "evicted",
        }
    }
}

/// What both ends know of a connection, whatever translates addresses between them: where its two streams begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WireId {
    /// TCP: sequence number of the first byte from the side that asks; UNIX: its cookie.
    pub client: u64,
    /// The same of the side that answers.
    pub server: u64,
}

/// Where one message lies on its stream and in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageFacts {
    /// Place of the first byte in its stream, counted from the connection's beginning.
    pub position: u64,
    /// Bytes on the wire, head and body.
    pub size_bytes: u64,
    /// Bytes of the body as transferred (chunk framing left out).
    pub body_bytes: u64,
    /// `CLOCK_MONOTONIC` of the operation that moved the first byte, ns.
    pub first_ns: u64,
    /// `CLOCK_MONOTONIC` when that operation was over, ns.
    pub first_done_ns: u64,
    /// `CLOCK_MONOTONIC` of the operation that moved the last byte, ns.
    pub last_ns: u64,
    /// Thread that moved the first byte.
    pub tid: u32,
    /// Thread that moved the last byte.
    pub last_tid: u32,
    /// Tasks of a language runtime that these threads worked on, where they are known.
    pub tasks: [Option<u64>; 2],
    /// Another task had let the first of them go on.
    pub wake: Option<Wake>,
    /// Accounts of these threads at `first_done_ns` and `last_ns`.
    pub accounts: [Option<ThreadAccount>; 2],
    /// How long the first byte had been at the socket before it was read, ns.
    pub queued_ns: Option<u64>,
    /// Segments that this end had sent again on the connection when the message began.
    pub retransmits: u32,
}

impl MessageFacts {
    /// Of a message whose first byte was moved at `moment`.
    pub fn begun(position: u64, moment: &Moment, retransmits: u32) -> Self {
        Self {
            position,
            first_ns: moment.began_ns,
            first_done_ns: moment.ktime_ns,
            last_ns: moment.ktime_ns,
            tid: moment.tid,
            last_tid: moment.tid,
            tasks: [moment.task; 2],
            wake: moment.wake,
            accounts: [moment.account; 2],
            queued_ns: moment.queued_ns,
            retransmits,
            ..Self::default()
        }
    }

    /// More of it was moved.
    pub fn moved(&mut self, moment: &Moment) {
        if moment.ktime_ns >= self.last_ns {
            (self.last_ns, self.last_tid) = (moment.ktime_ns, moment.tid);
            self.accounts[1] = moment.account;
            self.tasks[1] = moment.task;
        }
    }
}

/// A request that this end serves and has not answered yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Opened {
    pub connection: Connection,
    pub wire: Option<WireId>,
    pub pid: u32,
    /// As in [`Exchange`].
    pub number: u64,
    pub request: MessageFacts,
    pub context: Option<Box<Context>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Exchange {
    pub connection: Connection,
    /// Which of the connection's requests it is; 0: not known.
    pub number: u64,
    /// `None` where the beginning of a stream is not known: ids are then this end's own.
    pub wire: Option<WireId>,
    pub role: Role,
    pub pid: u32,
    /// Registry name of the protocol (`http`).
    pub protocol: &'static str,
    /// Low-cardinality verb (`GET`), first part of the span name.
    pub operation: CompactString,
    /// Low-cardinality target (`/user/{id}`), second part of the span name; empty if there is none.
    pub resource: CompactString,
    /// Status as the protocol spells it (`200`); `None` when no response was seen.
    pub status: Option<CompactString>,
    /// `error.type`: set when the exchange failed for this side (OTel: server 5xx; client 4xx and 5xx; reset).
    pub error: Option<CompactString>,
    pub request: MessageFacts,
    pub response: Option<MessageFacts>,
    /// When the exchange was over: the response's last byte, or the close or timeout that ended it. ns.
    pub end_ns: u64,
    /// Semantic-convention attributes for the span.
    pub attributes: Attributes,
    /// The metric this exchange is counted in, with its protocol labels; chosen by the protocol, applied by `metrics`.
    pub measure: Measure,
    pub incomplete: Option<Incomplete>,
    /// The trace that the request says it belongs to.
    pub context: Option<Box<Context>>,
}

/// How an exchange shows in the request metrics, so that nothing outside `protocols/` matches on a protocol.
#[derive(Clone, Debug, PartialEq)]
pub struct Measure {
    /// Duration histogram for this role (from `semconv`).
    pub metric: &'static super::metric::Metric,
    /// Values of the metric's own labels, in its order, after the workload labels.
    pub labels: Vec<CompactString>,
}
