//! An exchange to a span, with ids that both ends of a connection compute without talking to each other.
//!
//! Ids are hashes of the wire: the client's address, the server's address and the TCP sequence number of the request's
//! first byte, which are the same at both ends (without address translation between them). One hash, fixed here for
//! all versions and machines: changing it cuts traces between agents of different versions. A sequence number
//! comes again after 4 GiB of requests on one connection; ids are then not unique. Sets no parent: see `link`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::clock::Clock;
use crate::model::connection::Role;
use crate::model::exchange::Exchange;
use crate::model::process::Resource;
use crate::model::span::{Span, SpanId, SpanKind, StatusCode, TraceId};

/// What both ends of a connection know of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Wire {
    pub client: SocketAddr,
    pub server: SocketAddr,
    /// TCP sequence number of the request's first byte.
    pub sequence: u32,
}

impl Wire {
    pub fn of(exchange: &Exchange) -> Self {
        let (client, server) = match exchange.role {
            Role::Client => (exchange.connection.local, exchange.connection.peer),
            Role::Server => (exchange.connection.peer, exchange.connection.local),
        };
        // The low 32 bits of a position are the sequence number.
        Self { client, server, sequence: exchange.request.position as u32 }
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
        let mut hash = absorb(purpose, u64::from(self.sequence));
        for address in [self.client, self.server] {
            let octets = match address.ip() {
                IpAddr::V4(address) => u128::from(address.to_ipv6_mapped()),
                IpAddr::V6(address) => u128::from(address),
            };
            hash = absorb(hash, (octets >> 64) as u64);
            hash = absorb(hash, octets as u64);
            hash = absorb(hash, u64::from(address.port()));
        }
        hash
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

/// The span of an exchange, without a parent.
pub fn assemble(exchange: Exchange, resource: Arc<Resource>, clock: &Clock) -> Span {
    let wire = Wire::of(&exchange);
    let (kind, span_id) = match exchange.role {
        Role::Client => (SpanKind::Client, wire.client_span_id()),
        Role::Server => (SpanKind::Server, wire.server_span_id()),
    };
    let mut name = exchange.operation;
    if !exchange.resource.is_empty() {
        name.push(' ');
        name.push_str(&exchange.resource);
    }
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
    }
}

#[cfg(test)]
mod tests {
    use super::Wire;

    fn wire(client: &str, server: &str, sequence: u32) -> Wire {
        Wire { client: client.parse().unwrap(), server: server.parse().unwrap(), sequence }
    }

    #[test]
    fn ids_are_the_same_in_every_version() {
        let wire = wire("10.0.0.1:40000", "10.0.0.2:80", 7);
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(&wire.client_span_id().0), "597008ee3d2954ae");
        assert_eq!(hex(&wire.server_span_id().0), "921a620e7b4646d2");
        assert_eq!(hex(&wire.trace_id().0), "973e7c738950e17f4cf32b9decd0aa08");
    }

    #[test]
    fn every_part_of_the_wire_counts() {
        let one = wire("10.0.0.1:40000", "10.0.0.2:80", 7);
        let others = [
            wire("10.0.0.1:40001", "10.0.0.2:80", 7),
            wire("10.0.0.3:40000", "10.0.0.2:80", 7),
            wire("10.0.0.1:40000", "10.0.0.2:81", 7),
            wire("10.0.0.2:80", "10.0.0.1:40000", 7),
            wire("10.0.0.1:40000", "10.0.0.2:80", 8),
            wire("[::1]:40000", "[::2]:80", 7),
        ];
        for other in others {
            assert_ne!(one.client_span_id(), other.client_span_id());
            assert_ne!(one.trace_id(), other.trace_id());
        }
        assert_ne!(one.client_span_id(), one.server_span_id());
    }

    #[test]
    fn ids_of_many_requests_differ() {
        let ids: std::collections::HashSet<_> = (0..200_000)
            .map(|number| wire(&format!("10.0.0.1:{}", 1024 + number % 64), "10.0.0.2:80", number).client_span_id())
            .collect();
        assert_eq!(ids.len(), 200_000);
    }
}
