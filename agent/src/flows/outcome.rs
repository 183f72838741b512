//! A request that is over, with or without its answer, to an exchange.
//!
//! Sizes are told only where both ends of a body were seen; the protocol's dialect adds its names and attributes.

use crate::model::connection::{Connection, Role, Transport};
use crate::model::context::Context;
use crate::model::exchange::{Exchange, Incomplete, MessageFacts, Opened, WireId};
use crate::protocols::{Dialect, Facts};

use super::pair::Pending;

/// Attribute of a span whose connection was disturbed: segments that its own end sent again while it lasted.
const RETRANSMITS: &str = "seismo.tcp.retransmits";

/// Where an exchange took place.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub connection: Connection,
    pub role: Role,
    pub protocol: &'static str,
    /// Of the request's and the response's stream.
    pub origins: [Option<Origin>; 2],
    /// Segments that this end sent again while the exchange lasted.
    pub retransmits: u32,
}

/// Where a stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Sequence number of the first byte.
    pub sequence: u32,
    /// Position of it in [`super::stream::Stream`].
    pub position: u64,
}

impl Origin {
    /// One byte on.
    pub const fn next(self) -> Self {
        Self { sequence: self.sequence.wrapping_add(1), position: self.position.wrapping_add(1) }
    }

    /// Facts of a message with its place counted from the stream's beginning.
    fn placed(origin: Option<Self>, facts: MessageFacts) -> MessageFacts {
        let first = origin.map_or(0, |origin| origin.position);
        MessageFacts { position: facts.position.wrapping_sub(first), ..facts }
    }
}

/// What both ends know of the connection. `origins`: of the request's and the response's stream.
pub fn wire_id(connection: &Connection, role: Role, origins: [Option<Origin>; 2]) -> Option<WireId> {
    if connection.transport == Transport::Unix {
        let (own, peer) = (connection.cookie.0, connection.peer_cookie?.0);
        return Some(match role {
            Role::Client => WireId { client: own, server: peer },
            Role::Server => WireId { client: peer, server: own },
        });
    }
    match origins {
        [Some(client), Some(server)] => Some(WireId { client: client.sequence.into(), server: server.sequence.into() }),
        _ => None,
    }
}

/// A request that begins. `origins`: as in [`wire_id`].
pub fn opened(
    (connection, role, origins): (Connection, Role, [Option<Origin>; 2]),
    pid: u32,
    number: u64,
    facts: MessageFacts,
    context: Option<Box<Context>>,
) -> Opened {
    let wire = wire_id(&connection, role, origins);
    Opened { connection, wire, pid, number, request: Origin::placed(origins[0], facts), context }
}

/// `failure`: how the connection ended before the answer did. `end_ns`: when that was, if not at the last byte.
pub fn conclude(
    pending: Pending,
    place: Place,
    failure: Option<&'static str>,
    end_ns: Option<u64>,
    dialect: &mut dyn Dialect,
) -> Exchange {
    let Pending { mut request, facts: asked, pid, number, ended, incomplete, answer, .. } = pending;
    let context = request.in_band.context.take();
    let last_ns = answer.as_ref().map_or(asked.last_ns, |answer| answer.facts.last_ns);
    let (response, answered, answer_ended) = match answer {
        Some(answer) => (Some(answer.response), Some(answer.facts), answer.ended),
        None => (None, None, false),
    };
    let whole = incomplete.is_none();
    let facts = Facts {
        role: place.role,
        local: place.connection.local,
        peer: place.connection.peer,
        request_body_bytes: (ended && whole).then_some(asked.body_bytes),
        response_body_bytes: answered.filter(|_| answer_ended && whole).map(|facts| facts.body_bytes),
        failure,
    };
    let mut conclusion = dialect.conclude(request, response, &facts);
    if place.retransmits > 0 {
        conclusion.attributes.set(RETRANSMITS, i64::from(place.retransmits));
    }
    Exchange {
        connection: place.connection,
        number,
        wire: wire_id(&place.connection, place.role, place.origins),
        role: place.role,
        pid,
        protocol: place.protocol,
        operation: conclusion.operation,
        resource: conclusion.resource,
        status: conclusion.status,
        error: conclusion.error,
        request: Origin::placed(place.origins[0], asked),
        response: answered.map(|facts| Origin::placed(place.origins[1], facts)),
        end_ns: end_ns.unwrap_or(last_ns),
        attributes: conclusion.attributes,
        measure: conclusion.measure,
        incomplete,
        context,
    }
}

/// Under which an exchange is counted.
pub const fn outcome(incomplete: Option<Incomplete>) -> &'static str {
    match incomplete {
        None => "exchange",
        Some(Incomplete::Joined) => "exchange_joined",
        Some(Incomplete::Gap) => "exchange_gap",
        Some(Incomplete::HeadTooLong) => "exchange_head_too_long",
        Some(Incomplete::Malformed) => "exchange_malformed",
        Some(Incomplete::Timeout) => "exchange_timeout",
        Some(Incomplete::Evicted) => "exchange_evicted",
    }
}
