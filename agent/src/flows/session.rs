//! One connection whose protocol is known: pieces of both streams through its parser, requests to answers.
//!
//! Either side may be *lost*: bytes are missing where a message began or was framed. Then bytes are dropped until
//! an operation after a turn-around, and not right behind lost bytes, begins with a message. Requests before missing bytes of the request stream
//! keep their answers (order is certain up to there); missing bytes of the response stream end every exchange in
//! flight as incomplete. This relies on a turn-around with nothing in flight meaning that nothing is; a client seen
//! to keep a window of requests open breaks that, and after a loss its connection is not paired again. A loss at the
//! very beginning of a stream cannot be told by position: no record names the first sequence number.

use crate::model::connection::{Connection, Direction, Role};
use crate::model::exchange::{Exchange, Incomplete, MessageFacts};
use crate::protocols::{Body, Broken, Dialect, Event, Limits, Parser, Protocol, Request, Response, Resume, Side};

use super::counts::{Counts, Ledger, Visibility};
use super::outcome::{Place, conclude, outcome};
use super::pair::{Pairing, Pending};
use super::stream::{Content, Piece};

/// Failures before a first whole exchange after which the protocol was a mistake.
const MAX_FAILURES: u32 = 16;

/// What a request in flight takes, about: its attributes.
const PENDING_BYTES: usize = 1024;

/// What a step may use and add to.
pub struct Context<'a> {
    pub dialects: &'a mut [Option<Box<dyn Dialect>>],
    pub counts: &'a mut Counts,
    pub ledger: &'a mut Ledger,
    pub out: &'a mut Vec<Exchange>,
    pub pending_limit: usize,
    pub limits: Limits,
    pub now_ns: u64,
}

/// What became of a piece.
#[derive(Debug, PartialEq, Eq)]
pub enum Took {
    /// So many of its bytes are done with.
    Bytes(u64, Visibility),
    /// None, but the session's state changed: show it again.
    Nothing,
    /// It has to wait for the other side.
    Blocked,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The socket closed at `ktime_ns` with this errno.
    Closed {
        error: u32,
        ktime_ns: u64,
    },
    Evicted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// A head, or between messages.
    Head,
    /// A body whose end the parser finds.
    Framed,
    /// Body that nobody looks at; afterwards the message is over, or framing goes on.
    Skip {
        left: u64,
        last: bool,
    },
    ToClose,
}

/// A message whose head is not whole yet.
#[derive(Clone, Copy, Debug)]
struct Opening {
    facts: MessageFacts,
    pid: u32,
    overlapped: bool,
}

#[derive(Debug)]
struct SideState {
    lost: bool,
    opening: Option<Opening>,
    reading: Reading,
}

impl SideState {
    fn new(lost: bool) -> Self {
        Self { lost, opening: None, reading: Reading::Head }
    }

    fn is_between(&self) -> bool {
        self.opening.is_none() && self.reading == Reading::Head
    }
}

pub struct Session {
    connection: Connection,
    protocol: &'static Protocol,
    /// Of the protocol in the registry.
    row: usize,
    parser: Box<dyn Parser>,
    pub request_direction: Direction,
    request: SideState,
    response: SideState,
    pairing: Pairing,
    overlapping: bool,
    opaque: bool,
    /// No request was read since the request stream was joined or found again.
    unproven: bool,
    /// A response was read: from here on a lost one shows as a gap.
    answered: bool,
    /// Requests were sent one by one before any response was seen: pipelined, or the first response was lost.
    uncertain: bool,
    /// When the last response bytes went by for which no request was known.
    unasked_ns: u64,
    /// Position of each side's last attempt to begin a message: none is tried twice.
    tried_request: Option<u64>,
    tried_response: Option<u64>,
    failures: u32,
    exchanges: u64,
}

impl Session {
    /// `fresh`: the first bytes of both streams will be seen.
    pub fn new(
        connection: Connection,
        (row, protocol): (usize, &'static Protocol),
        parser: Box<dyn Parser>,
        request_direction: Direction,
        (detected, fresh): (Side, bool),
    ) -> Self {
        Self {
            connection,
            protocol,
            row,
            parser,
            request_direction,
            request: SideState::new(!fresh && detected == Side::Response),
            response: SideState::new(!fresh),
            pairing: Pairing::default(),
            overlapping: false,
            opaque: false,
            unproven: !fresh,
            answered: false,
            uncertain: false,
            unasked_ns: 0,
            tried_request: None,
            tried_response: None,
            failures: 0,
            exchanges: 0,
        }
    }

    pub fn side(&self, direction: Direction) -> Side {
        if direction == self.request_direction { Side::Request } else { Side::Response }
    }

    pub fn role(&self) -> Role {
        match self.request_direction {
            Direction::Send => Role::Client,
            Direction::Receive => Role::Server,
        }
    }

    pub fn protocol(&self) -> &'static str {
        self.protocol.name
    }

    pub fn in_flight(&self) -> usize {
        self.pairing.len()
    }

    pub fn exchanges(&self) -> u64 {
        self.exchanges
    }

    /// About what the session keeps in memory that grows with what the peers do.
    pub fn buffered_bytes(&self) -> usize {
        self.parser.buffered_bytes() + self.pairing.len() * PENDING_BYTES
    }

    /// The protocol said that the connection carries something else now.
    pub fn is_opaque(&self) -> bool {
        self.opaque
    }

    /// Nothing that looked like a message ever was one.
    pub fn is_hopeless(&self) -> bool {
        self.exchanges == 0 && self.failures >= MAX_FAILURES
    }

    fn state(&mut self, side: Side) -> &mut SideState {
        match side {
            Side::Request => &mut self.request,
            Side::Response => &mut self.response,
        }
    }

    fn tried(&mut self, side: Side) -> &mut Option<u64> {
        match side {
            Side::Request => &mut self.tried_request,
            Side::Response => &mut self.tried_response,
        }
    }

    /// Takes as much of a piece as belongs together. `expired`: what blocks has been waited for long enough.
    pub fn read(&mut self, side: Side, piece: &Piece, expired: bool, cx: &mut Context<'_>) -> Took {
        if self.state(side).lost {
            return self.find_start(side, piece, expired, cx);
        }
        if side == Side::Response
            && self.response.is_between()
            && let Some(took) = self.wait_for_request(piece, expired, cx)
        {
            return took;
        }
        match (self.state(side).reading, &piece.content) {
            (Reading::Skip { left, last }, content) => {
                let bytes = left.min(piece.length);
                self.add_body(side, bytes, piece.ktime_ns);
                self.state(side).reading = match left - bytes {
                    0 if last => Reading::Head,
                    0 => Reading::Framed,
                    left => Reading::Skip { left, last },
                };
                if bytes == left && last {
                    // A last byte in a gap was moved at an unknown time.
                    self.finish(side, !matches!(content, Content::Gap), cx);
                }
                Took::Bytes(bytes, visibility(content))
            }
            (Reading::ToClose, content) => {
                self.add_body(side, piece.length, piece.ktime_ns);
                Took::Bytes(piece.length, visibility(content))
            }
            (Reading::Head | Reading::Framed, Content::Bytes(bytes)) => self.feed(side, bytes, piece, cx),
            (Reading::Head | Reading::Framed, content) => {
                cx.counts.add(if matches!(content, Content::Gap) { "gap_in_message" } else { "missing_in_message" }, 1);
                self.lose_side(side, Incomplete::Gap, cx);
                Took::Nothing
            }
        }
    }

    /// A response begins only after its request. `None`: it does.
    fn wait_for_request(&mut self, piece: &Piece, expired: bool, cx: &mut Context<'_>) -> Option<Took> {
        if let Content::Bytes(bytes) = &piece.content
            && self.parser.is_unasked(bytes)
        {
            return None;
        }
        match self.pairing.asked() {
            None if self.request.lost => self.response.lost = true,
            None if !expired => return Some(Took::Blocked),
            None => {
                cx.counts.add("response_without_request", 1);
                self.lose(Incomplete::Gap, cx);
            }
            // A gap has no time of its own: the answer may be in it.
            Some(_) if matches!(piece.content, Content::Gap) => return None,
            Some(asked) if piece.ktime_ns < asked.facts.first_ns => {
                cx.counts.add("response_without_request", 1);
                self.response.lost = true;
            }
            Some(_) => match &piece.content {
                // The very first segment may have overtaken the one before it.
                Content::Bytes(bytes) if !self.answered && !expired => {
                    let begins = (self.protocol.resume)(Side::Response, bytes);
                    return (begins == Resume::No).then_some(Took::Blocked);
                }
                _ => return None,
            },
        }
        Some(Took::Nothing)
    }

    fn feed(&mut self, side: Side, bytes: &[u8], piece: &Piece, cx: &mut Context<'_>) -> Took {
        if self.state(side).is_between() {
            let overlapped = match side {
                Side::Request => match self.begins_while_in_flight(piece, cx) {
                    Some(overlapped) => overlapped,
                    None => return Took::Nothing,
                },
                Side::Response => {
                    self.answered = true;
                    false
                }
            };
            let (first_ns, last_ns, tid) = (piece.began_ns, piece.ktime_ns, piece.tid);
            let facts = MessageFacts { position: piece.position, first_ns, last_ns, tid, ..MessageFacts::default() };
            self.state(side).opening = Some(Opening { facts, pid: piece.tgid, overlapped });
            *self.tried(side) = Some(piece.position);
        }
        let asked = match side {
            Side::Request => None,
            Side::Response => self.pairing.asked().map(|pending| &pending.request),
        };
        let step = self.parser.feed(side, bytes, asked);
        let taken = step.taken.min(bytes.len()) as u64;
        if let Some(facts) = self.facts(side) {
            facts.size_bytes += taken;
            facts.last_ns = facts.last_ns.max(piece.ktime_ns);
        }
        match step.event {
            Event::NeedMore if taken == 0 => {
                self.broken(side, Broken { reason: "stalled", incomplete: Incomplete::Malformed }, cx);
            }
            Event::NeedMore => {}
            Event::Aside => {
                self.state(side).opening = None;
                self.state(side).reading = Reading::Head;
            }
            Event::Request(request) => self.begin_request(request, cx),
            Event::Response(response) => self.begin_response(response, cx),
            Event::SkipBody(left) => self.state(side).reading = Reading::Skip { left, last: false },
            Event::SkipToEnd(left) => self.state(side).reading = Reading::Skip { left, last: true },
            Event::End => self.finish(side, true, cx),
            Event::Broken(broken) => self.broken(side, broken, cx),
        }
        if taken == 0 { Took::Nothing } else { Took::Bytes(taken, Visibility::Parsed) }
    }

    /// Whether the request that begins here was sent after an answer while others were due. `None`: that cannot be,
    /// so some answer was for an earlier request than it seemed, and nothing is certain any more.
    fn begins_while_in_flight(&mut self, piece: &Piece, cx: &mut Context<'_>) -> Option<bool> {
        if self.pairing.is_empty() {
            self.uncertain = false;
            return Some(false);
        }
        self.uncertain |= piece.starts && !self.answered;
        if piece.turned && self.uncertain && self.answered {
            cx.counts.add("beginning_uncertain", 1);
            self.lose(Incomplete::Gap, cx);
            self.overlapping = true;
            return None;
        }
        Some(piece.turned)
    }

    /// Facts of the message that is being read.
    fn facts(&mut self, side: Side) -> Option<&mut MessageFacts> {
        match side {
            Side::Request if self.request.opening.is_some() => {
                self.request.opening.as_mut().map(|open| &mut open.facts)
            }
            Side::Response if self.response.opening.is_some() => {
                self.response.opening.as_mut().map(|open| &mut open.facts)
            }
            Side::Request => self.pairing.asking().map(|pending| &mut pending.facts),
            Side::Response => self.pairing.answering()?.answer.as_mut().map(|answer| &mut answer.facts),
        }
    }

    fn add_body(&mut self, side: Side, bytes: u64, ktime_ns: u64) {
        if let Some(facts) = self.facts(side) {
            facts.size_bytes += bytes;
            facts.body_bytes += bytes;
            facts.last_ns = facts.last_ns.max(ktime_ns);
        }
    }

    fn begin_request(&mut self, request: Request, cx: &mut Context<'_>) {
        let body = request.body;
        if self.push_request(request, None, cx) {
            self.begin_body(Side::Request, body, cx);
        }
    }

    /// Puts the request that was opened in flight; `cut` says why the rest of it is not known. `false`: it is
    /// not, and the stream is lost.
    fn push_request(&mut self, request: Request, cut: Option<Incomplete>, cx: &mut Context<'_>) -> bool {
        let Some(open) = self.request.opening.take() else { return false };
        if self.unproven && !request.certain {
            cx.counts.add("start_uncertain", 1);
            self.lose_requests(Incomplete::Joined);
            return false;
        }
        self.unproven = false;
        cx.counts.add("truncated_values", u64::from(request.truncated_values));
        self.pairing.push(Pending {
            request,
            facts: open.facts,
            pid: open.pid,
            ended: cut.is_some(),
            incomplete: cut,
            overlapped: open.overlapped,
            answer: None,
        });
        if open.facts.first_ns <= self.unasked_ns {
            // Its answer may have gone by.
            cx.counts.add("request_after_its_response", 1);
            self.lose(Incomplete::Gap, cx);
            return false;
        }
        if self.pairing.len() > cx.pending_limit {
            cx.counts.add("pending_limit", 1);
            self.lose(Incomplete::Evicted, cx);
            return false;
        }
        true
    }

    fn begin_response(&mut self, response: Response, cx: &mut Context<'_>) {
        let Some(open) = self.response.opening.take() else { return };
        let (body, opaque) = (response.body, response.opaque_after);
        if !self.pairing.answer(response, open.facts) {
            cx.counts.add("response_without_request", 1);
            return self.lose(Incomplete::Gap, cx);
        }
        self.begin_body(Side::Response, body, cx);
        self.opaque |= opaque;
    }

    fn begin_body(&mut self, side: Side, body: Body, cx: &mut Context<'_>) {
        self.state(side).reading = match body {
            Body::None | Body::Length(0) => return self.finish(side, true, cx),
            Body::Length(left) => Reading::Skip { left, last: true },
            Body::Framed => Reading::Framed,
            Body::ToClose => Reading::ToClose,
        };
    }

    /// The message is over; `timed` says whether the time of its last byte is known.
    fn finish(&mut self, side: Side, timed: bool, cx: &mut Context<'_>) {
        self.state(side).reading = Reading::Head;
        if self.state(side).opening.take().is_some() {
            // It turned out to belong to no exchange.
            return;
        }
        let pending = match side {
            Side::Request => self.pairing.asking(),
            Side::Response => self.pairing.answering(),
        };
        let Some(pending) = pending else { return };
        if !timed {
            pending.incomplete.get_or_insert(Incomplete::Gap);
        }
        match (side, &mut pending.answer) {
            (Side::Response, Some(answer)) => answer.ended = true,
            _ => pending.ended = true,
        }
        while let Some(over) = self.pairing.pop_over() {
            self.overlapping |= over.overlapped && over.incomplete.is_none();
            self.emit(over, None, None, cx);
        }
    }

    fn broken(&mut self, side: Side, broken: Broken, cx: &mut Context<'_>) {
        cx.counts.add(broken.reason, 1);
        self.failures = self.failures.saturating_add(1);
        match broken.incomplete {
            // What can be told of it can be told all the same.
            Incomplete::HeadTooLong | Incomplete::Gap => self.lose_side(side, broken.incomplete, cx),
            incomplete if side == Side::Response => self.lose(incomplete, cx),
            _ => self.lose_requests(Incomplete::Malformed),
        }
    }

    /// The rest of the message that is being read will not be understood.
    fn lose_side(&mut self, side: Side, incomplete: Incomplete, cx: &mut Context<'_>) {
        match (self.parser.cut(side), self.state(side).opening) {
            (Some(Event::Request(request)), _) => {
                self.push_request(request, Some(incomplete), cx);
            }
            // Unasked it cannot be: without a request in flight no response is read.
            (Some(Event::Response(response)), Some(open)) => {
                self.pairing.answer(response, open.facts);
            }
            (None, Some(_)) => cx.counts.add("head_cut", 1),
            _ => {}
        }
        match side {
            Side::Request => self.lose_requests(incomplete),
            Side::Response => self.lose(incomplete, cx),
        }
    }

    /// The request stream is lost; answers to what is in flight still come in order.
    fn lose_requests(&mut self, incomplete: Incomplete) {
        if let Some(pending) = self.pairing.asking() {
            pending.ended = true;
            pending.incomplete.get_or_insert(incomplete);
        }
        self.request = SideState::new(true);
        self.parser.reset(Side::Request);
    }

    /// Both streams are lost: exchanges in flight are over.
    pub fn lose(&mut self, incomplete: Incomplete, cx: &mut Context<'_>) {
        while let Some(mut pending) = self.pairing.pop() {
            // Only its request was still coming: the exchange itself is known.
            if !pending.answer.as_ref().is_some_and(|answer| answer.ended) {
                pending.incomplete.get_or_insert(incomplete);
            }
            let end_ns = (incomplete == Incomplete::Timeout).then_some(cx.now_ns);
            self.emit(pending, None, end_ns, cx);
        }
        self.request = SideState::new(true);
        self.response = SideState::new(true);
        self.parser.reset(Side::Request);
        self.parser.reset(Side::Response);
    }

    /// A lost side drops bytes until a message begins.
    fn find_start(&mut self, side: Side, piece: &Piece, expired: bool, cx: &mut Context<'_>) -> Took {
        let dropped = Took::Bytes(piece.length, Visibility::Lost);
        let begins = match &piece.content {
            Content::Bytes(bytes) if piece.starts && *self.tried(side) != Some(piece.position) => {
                Some((self.protocol.resume)(side, bytes))
            }
            _ => None,
        };
        if side == Side::Request {
            let found = matches!(begins, Some(Resume::Yes | Resume::More));
            if found && piece.turned && !piece.after_gap && self.pairing.is_empty() && !self.overlapping {
                self.request.lost = false;
                self.unproven = true;
                // Its answer is whatever response comes after it.
                self.response = SideState::new(true);
                self.parser.reset(Side::Response);
                return Took::Nothing;
            }
            return dropped;
        }
        match self.pairing.asked() {
            None if !expired && !self.request.lost => Took::Blocked,
            None => {
                self.unasked_ns = self.unasked_ns.max(piece.until_ns);
                dropped
            }
            // The answer may be in it.
            Some(_) if matches!(piece.content, Content::Gap) => {
                self.lose(Incomplete::Gap, cx);
                Took::Nothing
            }
            // The rest of an earlier answer.
            Some(asked) if piece.ktime_ns < asked.facts.first_ns => dropped,
            Some(_) if matches!(begins, Some(Resume::Yes | Resume::More)) => {
                self.response.lost = false;
                Took::Nothing
            }
            Some(_) => {
                cx.counts.add("response_not_found", 1);
                self.failures = self.failures.saturating_add(1);
                self.lose(Incomplete::Gap, cx);
                Took::Nothing
            }
        }
    }

    /// Ends what has been in flight without a byte moving since `idle_ns`.
    pub fn expire(&mut self, idle_ns: u64, cx: &mut Context<'_>) {
        let is_idle = |pending: &Pending| cx.now_ns.saturating_sub(pending.last_ns()) >= idle_ns;
        if self.pairing.oldest().is_some_and(is_idle) {
            self.lose(Incomplete::Timeout, cx);
        }
    }

    /// The connection is over. Its streams have been read to their ends.
    pub fn end(&mut self, ending: Ending, cx: &mut Context<'_>) {
        let (error, end_ns) = match ending {
            Ending::Closed { error, ktime_ns } => (error, ktime_ns),
            Ending::Evicted => return self.lose(Incomplete::Evicted, cx),
        };
        if self.request.opening.is_some() {
            cx.counts.add("head_cut", 1);
        }
        if self.response.reading == Reading::ToClose && error == 0 {
            self.finish(Side::Response, true, cx);
        }
        let failure = match error {
            // EPIPE: the reset came after the peer had closed its side.
            32 | 104 => "connection_reset",
            110 => "connection_timeout",
            _ => "connection_closed",
        };
        while let Some(pending) = self.pairing.pop() {
            let answered = pending.answer.as_ref().is_some_and(|answer| answer.ended);
            if answered {
                self.emit(pending, None, None, cx);
            } else {
                cx.counts.add(failure, 1);
                self.emit(pending, Some(failure), Some(end_ns), cx);
            }
        }
    }

    fn emit(&mut self, pending: Pending, failure: Option<&'static str>, end_ns: Option<u64>, cx: &mut Context<'_>) {
        let Some(Some(dialect)) = cx.dialects.get_mut(self.row) else { return };
        self.exchanges += u64::from(pending.incomplete.is_none());
        if pending.request.silent {
            return cx.counts.add("silent_request", 1);
        }
        cx.counts.add(outcome(pending.incomplete), 1);
        let place = Place { connection: self.connection, role: self.role(), protocol: self.protocol.name };
        cx.out.push(conclude(pending, place, failure, end_ns, dialect.as_mut()));
    }
}

fn visibility(content: &Content) -> Visibility {
    match content {
        Content::Bytes(_) | Content::Missing => Visibility::Parsed,
        Content::Gap => Visibility::Lost,
    }
}
