//! An exchange to a span, with ids that both ends of a connection compute without talking to each other.
//!
//! Ids are hashes of the wire: the sequence numbers at which the connection's two streams begin, and the place of the
//! request's first byte counted from there. Both ends see the same, whatever translates addresses between them. One
//! hash, fixed here for all versions and machines: changing it cuts traces between agents of different versions.
//! Where a beginning is not known, ids are made from the socket's cookie and no other end has them. Sets no parent: see
//! `link`.

use std::net::IpAddr;
use std::sync::Arc;

use compact_str::{CompactString, format_compact};

use crate::clock::Clock;
use crate::model::connection::{Role, Transport};
use crate::model::exchange::{Exchange, WireId};
use crate::model::exemplar::Shown;
use crate::model::process::Resource;
use crate::model::span::{Counted, Span, SpanId, SpanKind, StatusCode, TraceId};
use crate::model::thread::Breakdown;

/// What both ends of a connection know of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Wire {
    pub connection: WireId,
    /// Place of the request's first byte in its stream.
    pub position: u64,
}

/// Stands for the server where the connection's beginning is not known; no sequence number.
const OWN: u64 = u64::MAX;

impl Wire {
    pub fn of(exchange: &Exchange) -> Self {
        let own = WireId { client: exchange.connection.cookie.0, server: OWN };
        Self { connection: exchange.wire.unwrap_or(own), position: exchange.request.position }
    }

    /// Whether the connection's other end knows it by the same numbers.
    pub const fn is_shared(&self) -> bool {
        self.connection.server != OWN
    }

    /// Of the client's span: the parent that the server's span has.
    pub fn client_span_id(&self) -> SpanId {
        SpanId(nonzero(self.hash(1)).to_be_bytes())
    }

    pub fn server_span_id(&self) -> SpanId {
        SpanId(nonzero(self.hash(2)).to_be_bytes())
    }

    pub fn trace_id(&self) -> TraceId {
        let mut id = [0; 16];
        let (high, low) = id.split_at_mut(8);
        high.copy_from_slice(&nonzero(self.hash(3)).to_be_bytes());
        low.copy_from_slice(&self.hash(4).to_be_bytes());
        TraceId(id)
    }

    fn hash(&self, purpose: u64) -> u64 {
        let WireId { client, server } = self.connection;
        [client, server, self.position].into_iter().fold(purpose, absorb)
    }
}

/// One round: multiply and fold, then SplitMix64's finaliser, so that each word reaches every bit.
fn absorb(hash: u64, word: u64) -> u64 {
    let mut mixed = (hash ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// OpenTelemetry: an id of zeros is none.
fn nonzero(id: u64) -> u64 {
    id.max(1)
}

/// How long a request had been at its socket before it was read, ns.
const QUEUE_TIME: &str = "seismo.server.queue_time";

/// The client span's id, on the spans of both ends: a backend that has the spans of both hosts can join them by it, whatever
/// their traces are.
const HOP_ID: &str = "seismo.hop.id";

fn hex(id: SpanId) -> CompactString {
    format_compact!("{:016x}", u64::from_be_bytes(id.0))
}

/// What an exchange's span is called: of low cardinality.
pub fn span_name(exchange: &Exchange) -> CompactString {
    match (exchange.operation.as_str(), exchange.resource.as_str()) {
        (operation, "") => operation.into(),
        (operation, resource) => {
            let mut name = CompactString::with_capacity(operation.len() + 1 + resource.len());
            name.push_str(operation);
            name.push(' ');
            name.push_str(resource);
            name
        }
    }
}

/// The span of an exchange whose duration is in `series`, without a parent.
pub fn assemble(
    mut exchange: Exchange,
    name: CompactString,
    time: Option<Breakdown>,
    (resource, series): (Arc<Resource>, Option<Shown>),
    clock: &Clock,
) -> Span {
    if let (Role::Server, Some(queued_ns)) = (exchange.role, exchange.request.queued_ns) {
        exchange.attributes.set(QUEUE_TIME, queued_ns.cast_signed());
    }
    let wire = Wire::of(&exchange);
    let local = |address: IpAddr| address.to_canonical().is_loopback();
    if wire.is_shared() && exchange.connection.transport == Transport::Tcp && !local(exchange.connection.peer.ip()) {
        exchange.attributes.set(HOP_ID, hex(wire.client_span_id()));
    }
    let (kind, span_id) = match exchange.role {
        Role::Client => (SpanKind::Client, wire.client_span_id()),
        Role::Server => (SpanKind::Server, wire.server_span_id()),
    };
    let start_ns = exchange.request.first_ns;
    Span {
        trace_id: wire.trace_id(),
        span_id,
        parent_span_id: None,
        name,
        kind,
        start_ns: clock.wall_ns(start_ns),
        end_ns: clock.wall_ns(exchange.end_ns.max(start_ns)),
        status: if exchange.error.is_some() { StatusCode::Error } else { StatusCode::Unset },
        attributes: exchange.attributes,
        resource,
        incomplete: exchange.incomplete,
        time,
        counted: Some(Box::new(Counted { protocol: exchange.protocol, series, place: 0 })),
    }
}

#[cfg(test)]
mod tests {
    use super::{Wire, WireId};

    fn wire(client: u64, server: u64, position: u64) -> Wire {
        Wire { connection: WireId { client, server }, position }
    }

    #[test]
    fn ids_are_the_same_in_every_version() {
        let wire = wire(0xdead_beef, 0x0102_0304, 7);
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(&wire.client_span_id().0), "faaf5d3d0a87543a");
        assert_eq!(hex(&wire.server_span_id().0), "9f50cd67f20fd471");
        assert_eq!(hex(&wire.trace_id().0), "0b61960e63f81d81e3b8394559067f5f");
    }

    #[test]
    fn every_part_of_the_wire_counts() {
        let one = wire(1, 2, 7);
        for other in [wire(3, 2, 7), wire(1, 3, 7), wire(2, 1, 7), wire(1, 2, 8), wire(1, 2, 7 | 1 << 32)] {
            assert_ne!(one.client_span_id(), other.client_span_id());
            assert_ne!(one.trace_id(), other.trace_id());
        }
        assert_ne!(one.client_span_id(), one.server_span_id());
    }

    #[test]
    fn ids_of_many_requests_differ() {
        let ids: std::collections::HashSet<_> =
            (0..200_000).map(|number| wire(number % 64, 80, number).client_span_id()).collect();
        assert_eq!(ids.len(), 200_000);
    }
}
