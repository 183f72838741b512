//! One connection whose protocol is known: pieces of both streams through its parser, requests to answers.
//!
//! Either side may be *lost*: bytes are missing where a message began or was framed. What makes pairing exact again is
//! that each request knows how far the response stream had come when it was moved (its *floor*): its answer begins
//! there or later, and right there if nothing else was in flight. So missing bytes of the response stream end the
//! exchanges whose floor lies before their end, and no later ones; after missing bytes of the request stream a request
//! counts again when something was answered since. This relies on clients that wait for the answers to what they
//! sent before they send more; one seen to keep a window of requests open is not paired again after a loss.

use crate::model::connection::{Connection, Direction, Role};
use crate::model::exchange::{Exchange, Incomplete, MessageFacts, Opened};
use crate::model::payload::Moment;
use crate::protocols::{Body, Broken, Dialect, Event, Limits, Parser, Protocol, Request, Response, Side};

use super::counts::{Counts, Ledger, Visibility};
use super::outcome::{Origin, Place, conclude, opened, outcome};
use super::pair::{Pairing, Pending};
use super::stream::{Content, Piece, Turn};

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
    /// Requests that this end serves, when they begin.
    pub opened: &'a mut Vec<Opened>,
    pub pending_limit: usize,
    pub limits: Limits,
    pub now_ns: u64,
    /// Segments that this end has sent again on the connection so far.
    pub retransmits: u32,
    /// Where the streams begin that this end sends and receives.
    pub origins: [Option<Origin>; 2],
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
pub(super) struct Opening {
    pub facts: MessageFacts,
    pid: u32,
    floor: u64,
    exact: bool,
}

#[derive(Debug)]
pub(super) struct SideState {
    pub lost: bool,
    pub opening: Option<Opening>,
    reading: Reading,
}

impl SideState {
    pub fn new(lost: bool) -> Self {
        Self { lost, opening: None, reading: Reading::Head }
    }

    fn is_between(&self) -> bool {
        self.opening.is_none() && self.reading == Reading::Head
    }
}

pub struct Session {
    connection: Connection,
    pub(super) protocol: &'static Protocol,
    /// Of the protocol in the registry.
    row: usize,
    pub(super) parser: Box<dyn Parser>,
    pub request_direction: Direction,
    pub(super) request: SideState,
    pub(super) response: SideState,
    pub(super) pairing: Pairing,
    /// The client sends requests while answers to earlier ones are still coming: what a floor says is not exact.
    pub(super) window: bool,
    opaque: bool,
    /// No request was read since the request stream was joined or found again.
    pub(super) unproven: bool,
    /// The next request is the first since then: its answer begins at its floor.
    pub(super) resumed: bool,
    /// Position of the last attempt to begin a request: none is tried twice.
    pub(super) tried_request: Option<u64>,
    pub(super) failures: u32,
    exchanges: u64,
    requests: u64,
    /// Position behind the last byte of each stream that a parser looked at.
    looked_at: [u64; 2],
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
            window: false,
            opaque: false,
            unproven: !fresh,
            resumed: !fresh,
            tried_request: None,
            failures: 0,
            exchanges: 0,
            requests: 0,
            looked_at: [0; 2],
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

    /// The other end is no longer named in what is told.
    pub fn stand_alone(&mut self) {
        self.connection.peer_cookie = None;
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

    pub(super) fn state(&mut self, side: Side) -> &mut SideState {
        match side {
            Side::Request => &mut self.request,
            Side::Response => &mut self.response,
        }
    }

    /// Up to where nobody needs to see the bytes of a stream: the end of a body that is passed over.
    pub fn passed_over(&self, direction: Direction, position: u64) -> Option<u64> {
        let state = if self.side(direction) == Side::Request { &self.request } else { &self.response };
        match state.reading {
            Reading::Skip { left, .. } if !state.lost => Some(position.saturating_add(left)),
            _ => None,
        }
    }

    /// Position behind the last byte of a stream that the parser looked at.
    pub fn looked_at(&self, direction: Direction) -> u64 {
        self.looked_at[direction as usize]
    }

    /// Takes as much of a piece as belongs together. `expired`: what blocks has been waited for long enough.
    pub fn read(&mut self, side: Side, piece: &Piece, turn: Turn, expired: bool, cx: &mut Context<'_>) -> Took {
        let nobodys = match side {
            Side::Request if self.request.lost => self.find_request(piece, turn),
            Side::Response if self.response.lost || self.response.is_between() => self.align(piece, turn, expired, cx),
            _ => None,
        };
        if let Some(took) = nobodys {
            return took;
        }
        match (self.state(side).reading, &piece.content) {
            (Reading::Skip { left, last }, content) => {
                let bytes = left.min(piece.length);
                self.add_body(side, bytes, &piece.moment);
                self.state(side).reading = match left - bytes {
                    0 if last => Reading::Head,
                    0 => Reading::Framed,
                    left => Reading::Skip { left, last },
                };
                // What is over without a head belongs to no exchange.
                if bytes == left && last && self.state(side).opening.take().is_none() {
                    // A last byte in a gap was moved at an unknown time.
                    self.finish(side, !matches!(content, Content::Gap), cx);
                }
                Took::Bytes(bytes, visibility(content))
            }
            (Reading::ToClose, content) => {
                self.add_body(side, piece.length, &piece.moment);
                Took::Bytes(piece.length, visibility(content))
            }
            (Reading::Head | Reading::Framed, Content::Bytes(bytes)) => self.feed(side, bytes, piece, cx),
            (Reading::Head | Reading::Framed, content) => {
                cx.counts.add(if matches!(content, Content::Gap) { "gap_in_message" } else { "missing_in_message" }, 1);
                self.lose_side(side, piece.end(), Incomplete::Gap, cx);
                Took::Nothing
            }
        }
    }

    fn feed(&mut self, side: Side, bytes: &[u8], piece: &Piece, cx: &mut Context<'_>) -> Took {
        if self.state(side).is_between() {
            let facts = MessageFacts::begun(piece.position, &piece.moment, cx.retransmits);
            let exact = side == Side::Request && self.resumed;
            self.state(side).opening = Some(Opening { facts, pid: piece.moment.tgid, floor: piece.other, exact });
            if side == Side::Request {
                self.tried_request = Some(piece.position);
            }
        }
        let asked = match side {
            Side::Request => None,
            Side::Response => self.pairing.asked().map(|pending| &pending.request),
        };
        let step = self.parser.feed(side, bytes, asked);
        let taken = step.taken.min(bytes.len()) as u64;
        let direction = if side == Side::Request { self.request_direction } else { self.request_direction.other() };
        self.looked_at[direction as usize] = piece.position + taken;
        if let Some(facts) = self.facts(side) {
            facts.size_bytes += taken;
            facts.moved(&piece.moment);
        }
        match step.event {
            Event::NeedMore if taken == 0 => {
                let broken = Broken { reason: "stalled", incomplete: Incomplete::Malformed };
                self.broken(side, broken, piece.end(), cx);
            }
            Event::NeedMore => {}
            Event::Aside => *self.state(side) = SideState::new(false),
            Event::Request(request) => self.begin_request(request, cx),
            Event::Response(response) => self.begin_response(response, cx),
            Event::SkipBody(left) => self.state(side).reading = Reading::Skip { left, last: false },
            Event::SkipToEnd(left) => self.state(side).reading = Reading::Skip { left, last: true },
            Event::End => self.finish(side, true, cx),
            Event::Broken(broken) => self.broken(side, broken, piece.end(), cx),
        }
        if taken == 0 { Took::Nothing } else { Took::Bytes(taken, Visibility::Parsed) }
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

    fn add_body(&mut self, side: Side, bytes: u64, moment: &Moment) {
        if let Some(facts) = self.facts(side) {
            facts.size_bytes += bytes;
            facts.body_bytes += bytes;
            facts.moved(moment);
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
    pub(super) fn push_request(&mut self, request: Request, cut: Option<Incomplete>, cx: &mut Context<'_>) -> bool {
        let Some(open) = self.request.opening.take() else { return false };
        if self.unproven && !request.certain {
            cx.counts.add("start_uncertain", 1);
            self.lose_requests(Incomplete::Joined);
            return false;
        }
        self.unproven = false;
        self.resumed = false;
        cx.counts.add("truncated_values", u64::from(request.truncated_values));
        cx.counts.add("context_refused", u64::from(request.in_band.refused));
        self.requests += 1;
        if self.role() == Role::Server && !request.silent {
            let (asking, answering) = (self.request_direction as usize, self.request_direction.other() as usize);
            let origins = [cx.origins[asking], cx.origins[answering]];
            let context = request.in_band.context.clone();
            let place = (self.connection, Role::Server, origins);
            cx.opened.push(opened(place, open.pid, self.requests, open.facts, context));
        }
        self.pairing.push(Pending {
            request,
            facts: open.facts,
            pid: open.pid,
            number: self.requests,
            ended: cut.is_some(),
            incomplete: cut,
            floor: open.floor,
            exact: open.exact,
            answer: None,
        });
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
        if side == Side::Response {
            self.watch_window();
        }
        while let Some(over) = self.pairing.pop_over() {
            self.emit(over, None, None, cx);
        }
    }

    /// A request that was sent between the beginning and the end of an earlier one's answer.
    fn watch_window(&mut self) {
        let Some(over) = self.pairing.last_answered() else { return };
        let (floor, end) = (over.floor, over.answer_end());
        self.window |= self.pairing.asked().is_some_and(|next| next.floor > floor && next.floor < end);
    }

    /// `until`: position behind the bytes that are no message.
    fn broken(&mut self, side: Side, broken: Broken, until: u64, cx: &mut Context<'_>) {
        cx.counts.add(broken.reason, 1);
        self.failures = self.failures.saturating_add(1);
        match broken.incomplete {
            // What can be told of it can be told all the same.
            Incomplete::HeadTooLong | Incomplete::Gap => self.lose_side(side, until, broken.incomplete, cx),
            incomplete if side == Side::Response => self.lose(incomplete, cx),
            _ => self.lose_requests(Incomplete::Malformed),
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

    pub(super) fn emit(
        &mut self,
        pending: Pending,
        failure: Option<&'static str>,
        end_ns: Option<u64>,
        cx: &mut Context<'_>,
    ) {
        let Some(Some(dialect)) = cx.dialects.get_mut(self.row) else { return };
        self.exchanges += u64::from(pending.incomplete.is_none());
        if pending.request.silent {
            return cx.counts.add("silent_request", 1);
        }
        cx.counts.add(outcome(pending.incomplete), 1);
        let (asking, answering) = (self.request_direction, self.request_direction.other());
        let place = Place {
            connection: self.connection,
            role: self.role(),
            protocol: self.protocol.name,
            origins: [cx.origins[asking as usize], cx.origins[answering as usize]],
            retransmits: cx.retransmits.saturating_sub(pending.facts.retransmits),
        };
        cx.out.push(conclude(pending, place, failure, end_ns, dialect.as_mut()));
    }
}

fn visibility(content: &Content) -> Visibility {
    match content {
        Content::Bytes(_) | Content::Missing => Visibility::Parsed,
        Content::Gap => Visibility::Lost,
    }
}
