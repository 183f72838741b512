//! What the kernel's names of sockets and places in streams do not say: datagrams, which have no place, and names that come
//! back.

use seismo::flows::Config;
use seismo::model::connection::{Cookie, Direction, Transport};

use crate::script::{MS, Script};

/// Bytes of process 100 that were counted, however they could be read.
fn counted(script: &mut Script) -> u64 {
    let mut sum = 0;
    script.flows.drain_visibility(|pid, _, bytes| sum += if pid == 100 { bytes } else { 0 });
    sum
}

#[test]
fn every_byte_of_every_datagram_is_counted() {
    for transport in [Transport::Udp, Transport::UnixDatagram] {
        let mut script = Script::new(Config::default());
        script.connection.transport = transport;
        for length in [5, 300, 6000, 7] {
            let mut chunk = script.operation(Direction::Send, &[0xee; 5], length);
            (chunk.position, chunk.sequence, chunk.other_sequence) = (0, 0, 0);
            script.deliver(chunk);
        }
        script.tick(10_000 * MS);
        assert_eq!(counted(&mut script), 6312, "{transport:?}");
        assert_eq!(script.flows.counts().get("overlap_bytes"), 0);
    }
}

#[test]
fn a_name_with_another_transport_or_another_peer_is_another_connection() {
    let mut script = Script::new(Config::default());
    // Each begins at 0; the last operation goes on where the one before was.
    for (transport, peer, place) in
        [(Transport::UnixDatagram, 1, 0), (Transport::Unix, 1, 0), (Transport::Unix, 2, 0), (Transport::Unix, 2, 100)]
    {
        (script.connection.transport, script.connection.peer_cookie) = (transport, Some(Cookie(peer)));
        let mut chunk = script.operation(Direction::Send, b"whatever", 100);
        (chunk.position, chunk.sequence, chunk.other_sequence) = (place, place as u32, 0);
        script.deliver(chunk);
    }
    script.tick(10_000 * MS);
    assert_eq!(script.flows.counts().get("name_used_again"), 2);
    assert_eq!(script.flows.len(), 1);
    assert_eq!(counted(&mut script), 400);
}
