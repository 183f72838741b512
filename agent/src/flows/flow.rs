//! One tracked connection: its two streams, what protocol they carry, and when waiting for bytes is over.
//!
//! Undecided bytes are held until they tell the protocol; after [`MAX_ATTEMPTS`] turn-arounds that told nothing they
//! are only counted. A hole, or an answer ahead of its request, is waited for until `reorder_wait` has passed on
//! the records' own clock or the bounds of the configuration are reached. Does not pair and does not parse.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::model::connection::{ConnEventKind, Connection, Cookie, Direction, Role, StreamPlace, Transport};
use crate::model::exchange::{Incomplete, WireId};
use crate::model::payload::{CaptureDemand, Moment, PayloadChunk};
use crate::protocols::{Detect, Limits, REGISTRY, Side};

use super::Config;
use super::counts::Visibility;
use super::demand::Demand;
use super::outcome::{Origin, wire_id};
use super::session::{Context, Ending, Session, Took};
use super::stream::{Content, Piece, Segment, Stream};

/// Turn-arounds at which a protocol is looked for.
const MAX_ATTEMPTS: u8 = 32;
/// Bytes that are looked at to tell a protocol.
const DETECT_BYTES: usize = 768;

enum Phase {
    Undecided,
    Session(Box<Session>),
    Opaque,
    Unknown,
}

/// State of a connection, for people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowState {
    pub cookie: u64,
    pub local: String,
    pub peer: String,
    /// `client`, `server` or empty.
    pub role: String,
    /// Name of the protocol, `undecided`, `opaque` or `unknown`.
    pub protocol: String,
    pub exchanges: u64,
    pub in_flight: usize,
    /// Bytes that wait or are kept.
    pub buffered_bytes: usize,
    /// Stream positions up to which both streams were read; the low 32 bits are sequence numbers.
    pub send_position: Option<u64>,
    pub receive_position: Option<u64>,
    /// Bytes that had been moved before the first record or adoption of each stream, sent and received; `None` where no
    /// record has come yet. With the next two they add up to what the socket moved.
    pub earlier_bytes: [Option<u64>; 2],
    /// Bytes that records told of, sent and received.
    pub seen_bytes: [u64; 2],
    /// Bytes whose records did not come, sent and received: the kernel counts them as dropped.
    pub gap_bytes: [u64; 2],
    pub last_ktime_ns: u64,
}

pub struct Flow {
    connection: Connection,
    handshake: Option<Role>,
    phase: Phase,
    /// By direction.
    lanes: [Lane; 2],
    /// Latest time of any record of the connection.
    now_ns: u64,
    /// Segments that this end has sent again so far.
    retransmits: u32,
    attempts: u8,
    /// Both streams are read from their first byte on.
    fresh: bool,
    /// Bytes went by before the protocol was known.
    joined: bool,
    /// Error and time of the protocol's end: the socket's owner may still read what has come.
    closed: Option<(u32, u64)>,
    ending: Option<Ending>,
    demand: Demand,
    /// Its owner knows that this end is a client's.
    told: bool,
    /// A place in the queue of those to be looked at again is taken.
    pub queued: bool,
}

#[derive(Default)]
struct Lane {
    stream: Stream,
    /// What comes next has to wait.
    blocked: bool,
    /// Time of the latest operation.
    last_ns: u64,
    origin: Option<Origin>,
    /// The origin is as the kernel counts it: whoever opened a TCP connection, its SYN is in it.
    counts_syn: bool,
    seen_bytes: u64,
    gap_bytes: u64,
}

impl Lane {
    /// More waits than may.
    fn is_over(&self, config: &Config) -> bool {
        let (segments, bytes) = self.stream.held();
        segments > config.segments_per_stream || bytes > config.held_bytes_per_stream
    }

    /// Bytes before the first one that is known of.
    fn earlier_bytes(&self, origin: Option<Origin>) -> Option<u64> {
        Some(self.stream.start()?.saturating_sub(origin?.position))
    }

    /// The stream is read from this byte on.
    fn begin(&mut self, place: StreamPlace) {
        self.stream.begin(place.sequence);
        self.place_origin(place);
        self.counts_syn = false;
    }

    /// The stream began as many bytes before this one as it says.
    fn place_origin(&mut self, place: StreamPlace) {
        let position = self.stream.place(place.sequence).wrapping_sub(place.position);
        self.origin = Some(Origin { sequence: position as u32, position });
    }
}

impl Flow {
    pub fn new(connection: Connection) -> Self {
        Self {
            connection,
            handshake: None,
            phase: Phase::Undecided,
            lanes: [Lane::default(), Lane::default()],
            now_ns: 0,
            retransmits: 0,
            attempts: 0,
            fresh: false,
            joined: false,
            closed: None,
            ending: None,
            demand: Demand::default(),
            told: false,
            queued: false,
        }
    }

    pub fn cookie(&self) -> Cookie {
        self.connection.cookie
    }

    /// Is this another connection of the same name? Where sockets are named by their address (`l2`), a UNIX socket has the
    /// name of one that was there before. What connects a socket stays the same as long as it lives.
    pub fn is_another(&self, now: &Connection) -> bool {
        let peers = (self.connection.peer_cookie, now.peer_cookie);
        self.connection.transport != now.transport
            || now.transport == Transport::Unix && matches!(peers, (Some(known), Some(peer)) if known != peer)
    }

    /// Latest time of any record of the connection.
    pub fn last_ns(&self) -> u64 {
        self.now_ns
    }

    fn lane(&mut self, direction: Direction) -> &mut Lane {
        &mut self.lanes[direction as usize]
    }

    /// Takes a chunk and whatever it makes readable.
    pub fn payload(&mut self, mut chunk: PayloadChunk, config: &Config, cx: &mut Context<'_>) {
        let (length, ktime_ns) = (chunk.length as usize, chunk.moment.ktime_ns);
        let captured = length.saturating_sub(chunk.skipped as usize);
        if chunk.data.len() > captured {
            cx.counts.add("captured_beyond_length", (chunk.data.len() - captured) as u64);
            chunk.data.truncate(captured);
        }
        self.meet(&chunk);
        self.retransmits = self.retransmits.max(chunk.retransmits);
        let other = self.lane(chunk.direction.other()).stream.reached_or_ended(chunk.other_sequence, ktime_ns);
        let looked_at = match &self.phase {
            Phase::Session(session) => session.looked_at(chunk.direction),
            _ => 0,
        };
        let lane = &mut self.lanes[chunk.direction as usize];
        // Datagrams have no place of their own: each comes behind the one before.
        let sequence = if chunk.connection.transport.is_datagram() { lane.seen_bytes as u32 } else { chunk.sequence };
        lane.seen_bytes += u64::from(chunk.length);
        let position = lane.stream.place(sequence);
        if lane.stream.since_ns().is_none() {
            self.demand.operation(chunk.direction, position, chunk.data.len(), looked_at);
        }
        let whole = Segment {
            position,
            length: u64::from(chunk.length),
            data: Bytes::new(),
            moment: Moment {
                // A stamp from before this side's operation before belongs to that one.
                began_ns: chunk.moment.began_ns.clamp(lane.last_ns.min(ktime_ns), ktime_ns),
                ..chunk.moment
            },
            other,
            whole: true,
        };
        lane.last_ns = lane.last_ns.max(ktime_ns);
        // What was skipped in front of the captured bytes is a segment of its own.
        let skipped = u64::from(chunk.skipped);
        let rest = Segment {
            position: position + skipped,
            length: whole.length.saturating_sub(skipped),
            data: chunk.data,
            whole: skipped == 0,
            ..whole.clone()
        };
        let front = (skipped > 0).then_some(Segment { length: skipped.min(whole.length), ..whole });
        for segment in front.into_iter().chain([rest]) {
            let (tgid, length) = (segment.moment.tgid, segment.length);
            let lane = self.lane(chunk.direction);
            if lane.stream.push(segment).is_err() {
                cx.counts.add("early_bytes", length);
                cx.ledger.add(tgid, Visibility::Lost, length);
                if let Phase::Session(session) = &mut self.phase {
                    session.lose(Incomplete::Gap, cx);
                }
            }
        }
        self.advance(ktime_ns, false, config, cx);
    }

    /// Learns from the first record of each stream where it began.
    fn meet(&mut self, chunk: &PayloadChunk) {
        let place = StreamPlace { sequence: chunk.sequence, position: chunk.position };
        let unknown = self.lanes.iter().all(|lane| lane.origin.is_none());
        // The side that opens a TCP connection has sent a SYN before its first byte.
        let syn = u64::from(chunk.direction == Direction::Send && self.connection.transport == Transport::Tcp);
        if unknown && (place.position == 0 || place.position == syn) {
            self.fresh = true;
            let first = StreamPlace { position: 0, ..place };
            self.lane(chunk.direction).begin(first);
            // Whatever went the other way before is not known of.
            self.lane(chunk.direction.other()).stream.begin(chunk.other_sequence);
        }
        let lane = self.lane(chunk.direction);
        if lane.origin.is_none() {
            lane.place_origin(place);
            lane.counts_syn = syn != 0;
        }
    }

    /// What is known of where the streams begin, by direction. The kernel counts the SYN of whoever opened a TCP
    /// connection as a byte sent; where nobody told who did, it is who asks.
    fn origins(&self) -> [Option<Origin>; 2] {
        let asks = match &self.phase {
            Phase::Session(session) => Some(session.role()),
            _ => None,
        };
        let opened = self.handshake.or(asks) == Some(Role::Client);
        let [send, receive] = [0, 1].map(|lane: usize| self.lanes[lane].origin);
        [if opened && self.lanes[0].counts_syn { send.map(Origin::next) } else { send }, receive]
    }

    /// Takes an event of the connection's life.
    pub fn event(&mut self, kind: ConnEventKind, ktime_ns: u64, config: &Config, cx: &mut Context<'_>) {
        match kind {
            ConnEventKind::Opened { role, send_sequence, receive_sequence } => {
                self.handshake = Some(role);
                self.fresh = true;
                self.lane(Direction::Send).begin(StreamPlace { sequence: send_sequence, position: 0 });
                self.lane(Direction::Receive).begin(StreamPlace { sequence: receive_sequence, position: 0 });
            }
            ConnEventKind::Adopted { role, send, receive } => {
                self.handshake = self.handshake.or(role);
                self.lane(Direction::Send).begin(send);
                self.lane(Direction::Send).counts_syn = role.is_none();
                self.lane(Direction::Receive).begin(receive);
            }
            ConnEventKind::Closed { error, retransmits } => {
                self.retransmits = self.retransmits.max(retransmits);
                self.closed = Some((error, ktime_ns));
                self.advance(ktime_ns, false, config, cx);
            }
            ConnEventKind::Destroyed { error, send_sequence, receive_sequence, retransmits } => {
                self.retransmits = self.retransmits.max(retransmits);
                // A FIN takes a sequence number: without one, a single lost byte goes unnoticed.
                self.lane(Direction::Send).stream.reached(send_sequence.wrapping_sub(1), ktime_ns);
                self.lane(Direction::Receive).stream.reached(receive_sequence.wrapping_sub(1), ktime_ns);
                let (earlier, closed_ns) = self.closed.unwrap_or((0, ktime_ns));
                let error = if earlier == 0 { error } else { earlier };
                self.ending = Some(Ending::Closed { error, ktime_ns: closed_ns });
                self.advance(ktime_ns, false, config, cx);
            }
        }
    }

    /// Reads as far as the streams go. `force`: nothing is waited for any more.
    pub fn advance(&mut self, now_ns: u64, force: bool, config: &Config, cx: &mut Context<'_>) {
        self.now_ns = self.now_ns.max(now_ns);
        (cx.now_ns, cx.origins, cx.retransmits) = (self.now_ns, self.origins(), self.retransmits);
        loop {
            // Requests first: answers wait for them.
            let first = self.first();
            if !self.step(first, force, config, cx) && !self.step(first.other(), force, config, cx) {
                break;
            }
        }
        for direction in [Direction::Send, Direction::Receive] {
            let stream = &mut self.lanes[direction as usize].stream;
            cx.counts.add("overlap_bytes", stream.drain_overlap());
            if let Phase::Session(session) = &self.phase {
                let until = stream.position().and_then(|position| session.passed_over(direction, position));
                self.demand.pass_over(direction, until, stream.furthest());
            }
        }
        match &self.phase {
            Phase::Opaque | Phase::Unknown => self.demand.nothing(),
            Phase::Session(session) if session.in_flight() > 1 => self.demand.pipelined(),
            Phase::Session(_) | Phase::Undecided => {}
        }
    }

    /// As many requests are in flight as there may be.
    fn is_full(&self, config: &Config) -> bool {
        matches!(&self.phase, Phase::Session(session) if session.in_flight() >= config.pending_per_connection)
    }

    fn first(&self) -> Direction {
        match &self.phase {
            Phase::Session(session) => session.request_direction,
            // Once one told nothing, as they were moved: behind a lost request, answers alone would use up all attempts.
            _ if self.attempts > 0 => {
                let since_ns = |lane: &Lane| lane.stream.since_ns().unwrap_or(u64::MAX);
                let [send, receive] = self.lanes.each_ref().map(since_ns);
                if receive < send { Direction::Receive } else { Direction::Send }
            }
            _ => Direction::Send,
        }
    }

    /// What the kernel is to capture of the connection from now on, if that has changed; `Some(None)`: as of any other.
    pub fn changed_demand(&mut self, config: &Config) -> Option<Option<CaptureDemand>> {
        self.demand.changed(self.now_ns, config.captured_bytes_per_second)
    }

    /// The requests are this end's, and what it tells names the other end.
    pub fn names_server(&self) -> bool {
        self.connection.peer_cookie.is_some()
            && matches!(&self.phase, Phase::Session(session) if session.role() == Role::Client)
    }

    /// Position behind the last byte that is known to have been moved in a direction.
    pub fn end_of(&self, direction: Direction) -> Option<u64> {
        Some(self.lanes[direction as usize].stream.furthest()).filter(|end| *end > 0)
    }

    /// From now on nothing is claimed that the other end should know too.
    pub fn stand_alone(&mut self) {
        self.connection.peer_cookie = None;
        if let Phase::Session(session) = &mut self.phase {
            session.stand_alone();
        }
    }

    /// Once, for an end of which no event told that it is a client's: what both ends know of the connection, now that its
    /// first request shows it.
    pub fn found_client(&mut self) -> Option<WireId> {
        if self.told || self.handshake.is_some() {
            return None;
        }
        let Phase::Session(session) = &self.phase else { return None };
        let (role, origins) = (session.role(), self.origins());
        if role != Role::Client {
            return None;
        }
        let wire = wire_id(&self.connection, role, origins);
        self.told = wire.is_some();
        wire
    }

    /// The kernel has been asked for something.
    pub fn has_demand(&self) -> bool {
        self.demand.is_set()
    }

    /// Gives back memory: what waits is taken as it is; if that is not enough, what is in flight ends.
    pub fn squeeze(&mut self, share_bytes: usize, config: &Config, cx: &mut Context<'_>) {
        cx.counts.add("memory_limit", 1);
        self.advance(self.now_ns, true, config, cx);
        if let Phase::Session(session) = &mut self.phase
            && session.buffered_bytes() > share_bytes
        {
            session.lose(Incomplete::Evicted, cx);
        }
    }

    /// Ends what is in flight for too long.
    pub fn expire(&mut self, now_ns: u64, config: &Config, cx: &mut Context<'_>) {
        (cx.now_ns, cx.origins, cx.retransmits) = (now_ns, self.origins(), self.retransmits);
        if let Phase::Session(session) = &mut self.phase {
            session.expire(config.request_timeout.as_ns(), cx);
        }
    }

    /// The last step: all bytes are read, all exchanges ended.
    pub fn end(mut self, ending: Ending, config: &Config, cx: &mut Context<'_>) {
        self.advance(self.now_ns, true, config, cx);
        if let Phase::Session(session) = &mut self.phase {
            session.end(ending, cx);
        }
    }

    /// How the connection ended, once nothing more is to come. Where nobody says that the socket is gone, its end is
    /// taken for granted when it has been closed for as long as a request may take.
    pub fn ended(&self, now_ns: u64, config: &Config) -> Option<Ending> {
        self.ending.or_else(|| {
            let (error, ktime_ns) = self.closed?;
            let over = now_ns.saturating_sub(ktime_ns) >= config.request_timeout.as_ns();
            over.then_some(Ending::Closed { error, ktime_ns })
        })
    }

    /// Whether time alone can change something soon.
    pub fn waits(&self) -> bool {
        self.lanes.iter().any(|lane| lane.blocked)
    }

    pub fn buffered_bytes(&self) -> usize {
        let parser = match &self.phase {
            Phase::Session(session) => session.buffered_bytes(),
            _ => 0,
        };
        self.lanes.iter().map(|lane| lane.stream.held().1).sum::<usize>() + parser
    }

    pub fn state(&self) -> FlowState {
        let (protocol, role, exchanges, in_flight) = match &self.phase {
            Phase::Session(session) => {
                (session.protocol(), Some(session.role()), session.exchanges(), session.in_flight())
            }
            Phase::Undecided => ("undecided", self.handshake, 0, 0),
            Phase::Opaque => ("opaque", self.handshake, 0, 0),
            Phase::Unknown => ("unknown", self.handshake, 0, 0),
        };
        let [send, receive] = &self.lanes;
        let origins = self.origins();
        FlowState {
            cookie: self.connection.cookie.0,
            local: self.connection.local.to_string(),
            peer: self.connection.peer.to_string(),
            role: role.map_or("", |role| if role == Role::Client { "client" } else { "server" }).to_owned(),
            protocol: protocol.to_owned(),
            exchanges,
            in_flight,
            buffered_bytes: self.buffered_bytes(),
            send_position: send.stream.position(),
            receive_position: receive.stream.position(),
            earlier_bytes: [send.earlier_bytes(origins[0]), receive.earlier_bytes(origins[1])],
            seen_bytes: [send.seen_bytes, receive.seen_bytes],
            gap_bytes: [send.gap_bytes, receive.gap_bytes],
            last_ktime_ns: self.now_ns,
        }
    }

    /// One piece of one stream. `false`: nothing there, or it has to wait.
    fn step(&mut self, direction: Direction, force: bool, config: &Config, cx: &mut Context<'_>) -> bool {
        let lane = self.lane(direction);
        lane.blocked = false;
        let Some(since_ns) = lane.stream.since_ns() else { return false };
        let asks = direction == self.first();
        let is_full = self.is_full(config);
        // No room for another request: first the answers that are here, without waiting for what is missing of them.
        if asks && is_full && self.lane(direction.other()).stream.since_ns().is_some() {
            return false;
        }
        // What one side waits for may be missing on the other: no room here ends the wait there, requests first.
        let no_room = !asks && is_full || self.lanes.iter().any(|lane| lane.is_over(config));
        let waited = self.now_ns.saturating_sub(since_ns) >= config.reorder_wait.as_ns();
        let expired = force || no_room || waited;
        let lane = self.lane(direction);
        let took = match lane.stream.peek(expired) {
            Some(piece) => self.show(direction, &piece, expired, cx).map(|took| (piece, took)),
            None => None,
        };
        let lane = self.lane(direction);
        let Some((piece, took)) = took else {
            lane.blocked = true;
            return false;
        };
        if let Took::Bytes(bytes, visibility) = took {
            lane.stream.take(bytes);
            cx.ledger.add(piece.moment.tgid, visibility, bytes);
            let is_gap = matches!(piece.content, Content::Gap);
            if is_gap {
                lane.gap_bytes += bytes;
                cx.counts.add("gap_bytes", bytes);
            }
            let missed = matches!(piece.content, Content::Missing) && visibility == Visibility::Lost;
            if missed {
                self.demand.missed(direction);
            }
        }
        if let Phase::Session(session) = &mut self.phase {
            let (opaque, hopeless) = (session.is_opaque(), session.is_hopeless());
            if opaque || hopeless {
                session.lose(Incomplete::Malformed, cx);
                cx.counts.add(if opaque { "became_opaque" } else { "misjudged" }, 1);
                self.phase = if opaque { Phase::Opaque } else { Phase::Unknown };
            }
        }
        true
    }

    /// `None`: it has to wait.
    fn show(&mut self, direction: Direction, piece: &Piece, expired: bool, cx: &mut Context<'_>) -> Option<Took> {
        let turn = self.lane(direction.other()).stream.turn(piece);
        match &mut self.phase {
            Phase::Session(session) => match session.read(session.side(direction), piece, turn, expired, cx) {
                Took::Blocked => None,
                took => Some(took),
            },
            Phase::Opaque => Some(Took::Bytes(piece.length, unread(piece, Visibility::Opaque))),
            Phase::Unknown => Some(Took::Bytes(piece.length, unread(piece, Visibility::UnknownProtocol))),
            Phase::Undecided => self.decide(direction, piece, turn.begins, expired, cx),
        }
    }

    fn decide(
        &mut self,
        direction: Direction,
        piece: &Piece,
        turns: bool,
        expired: bool,
        cx: &mut Context<'_>,
    ) -> Option<Took> {
        // What was moved the other way before it may tell, once it is here: a lost request would use up the attempts
        // on the answers behind it.
        if !expired && self.lane(direction.other()).stream.is_behind(piece.other) {
            return None;
        }
        let stream = &self.lane(direction).stream;
        let begun = stream.is_begun();
        let eligible = (turns || !begun) && matches!(piece.content, Content::Bytes(_));
        if eligible {
            let prefix = stream.prefix(DETECT_BYTES);
            let mut more = false;
            for (row, protocol) in REGISTRY.iter().enumerate() {
                let side = match (protocol.detect)(&prefix) {
                    Detect::Request => Side::Request,
                    Detect::Response => Side::Response,
                    Detect::More => {
                        more = true;
                        continue;
                    }
                    Detect::No => continue,
                };
                let request_direction = match (side, direction) {
                    (Side::Request, direction) => direction,
                    (Side::Response, direction) => direction.other(),
                };
                let fresh = self.fresh && !self.joined;
                if self.joined || (!fresh && side == Side::Response) {
                    cx.counts.add("joined", 1);
                }
                self.phase = match cx.dialects.get(row) {
                    Some(Some(dialect)) => {
                        let parser = dialect.parser(Limits { fresh, ..cx.limits });
                        let known = (side, fresh);
                        let session = Session::new(self.connection, (row, protocol), parser, request_direction, known);
                        Phase::Session(Box::new(session))
                    }
                    _ => Phase::Opaque,
                };
                return Some(Took::Nothing);
            }
            // The very first segment may have overtaken the one before it.
            if !expired && (more || !begun) {
                return None;
            }
            self.attempts = self.attempts.saturating_add(1);
            if self.attempts >= MAX_ATTEMPTS {
                cx.counts.add("protocol_unknown", 1);
                self.phase = Phase::Unknown;
            }
        }
        self.joined = true;
        Some(Took::Bytes(piece.length, unread(piece, Visibility::UnknownProtocol)))
    }
}

fn unread(piece: &Piece, visibility: Visibility) -> Visibility {
    match piece.content {
        Content::Gap => Visibility::Lost,
        Content::Bytes(_) | Content::Missing => visibility,
    }
}
