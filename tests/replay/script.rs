//! Plays operations on sockets into `Flows`: keeps sequence numbers and a clock, checks that every byte is accounted for.
//!
//! The clock moves 1 ms per operation. Nothing here knows a protocol.

use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::sample::Index;
use seismo::flows::{Config, Flows};
use seismo::model::connection::{ConnEvent, ConnEventKind, Connection, Cookie, Direction, Role, Transport};
use seismo::model::exchange::Exchange;
use seismo::model::payload::{Moment, PayloadChunk};

pub const MS: u64 = 1_000_000;

/// Sequence numbers of the first bytes sent and received: both wrap soon.
const ORIGINS: [u32; 2] = [u32::MAX - 90, u32::MAX - 40];

/// One connection seen from one end.
pub struct Script {
    pub flows: Flows,
    pub out: Vec<Exchange>,
    pub now_ns: u64,
    pub connection: Connection,
    /// Sequence number of the next byte sent and received.
    pub sequences: [u32; 2],
    /// Bytes moved on each stream before the first operation.
    before: u64,
    received: u64,
}

impl Script {
    pub fn new(config: Config) -> Self {
        Self {
            flows: Flows::new(config),
            out: Vec::new(),
            now_ns: 1_000 * MS,
            connection: Connection {
                cookie: Cookie(7),
                transport: Transport::Tcp,
                local: "10.0.0.2:8080".parse().unwrap(),
                peer: "10.0.0.1:40000".parse().unwrap(),
                peer_cookie: None,
            },
            sequences: ORIGINS,
            // Older than the agent, unless it is opened.
            before: 5_000,
            received: 0,
        }
    }

    /// As the server's end; `opened`: the connection is seen to open.
    pub fn server(opened: bool) -> Self {
        let mut script = Self::new(Config::default());
        if opened {
            script.open(Role::Server);
        }
        script
    }

    /// As the client's end of the same connection.
    pub fn at_client(mut self) -> Self {
        std::mem::swap(&mut self.connection.local, &mut self.connection.peer);
        self
    }

    pub fn event(&mut self, kind: ConnEventKind) {
        let event = ConnEvent { connection: self.connection, ktime_ns: self.now_ns, kind };
        self.flows.connection(&event, &mut self.out);
    }

    pub fn open(&mut self, role: Role) {
        self.before = 0;
        let [send_sequence, receive_sequence] = self.sequences;
        self.event(ConnEventKind::Opened { role, send_sequence, receive_sequence });
    }

    pub fn close(&mut self, error: u32) {
        let [send_sequence, receive_sequence] = self.sequences.map(|sequence| sequence.wrapping_add(1));
        self.event(ConnEventKind::Destroyed { retransmits: 0, error, send_sequence, receive_sequence });
        self.tick(1_000 * MS);
    }

    /// Lets time pass.
    pub fn tick(&mut self, by_ns: u64) {
        self.now_ns += by_ns;
        self.flows.tick(self.now_ns, &mut self.out);
    }

    /// The chunk of an operation that moves `length` bytes of which `bytes` were captured. Delivers nothing.
    pub fn operation(&mut self, direction: Direction, bytes: &[u8], length: usize) -> PayloadChunk {
        self.now_ns += MS;
        let length = u32::try_from(length).unwrap();
        let other_sequence = self.sequences[1 - direction as usize];
        let sequence = &mut self.sequences[direction as usize];
        let chunk = PayloadChunk {
            connection: self.connection,
            direction,
            moment: Moment { ktime_ns: self.now_ns, began_ns: self.now_ns, tgid: 100, tid: 101, ..Moment::default() },
            position: self.before + u64::from(sequence.wrapping_sub(ORIGINS[direction as usize])),
            sequence: *sequence,
            other_sequence,
            length,
            skipped: 0,
            retransmits: 0,
            data: Bytes::copy_from_slice(bytes),
        };
        *sequence = sequence.wrapping_add(length);
        chunk
    }

    /// The chunks of everything that moves, cut at the given places. Delivers nothing.
    pub fn operations(&mut self, moves: &[(Direction, Vec<u8>)], cuts: &[Index]) -> Vec<PayloadChunk> {
        let total: usize = moves.iter().map(|(_, bytes)| bytes.len()).sum();
        let cuts: BTreeSet<usize> = cuts.iter().map(|cut| cut.index(total)).collect();
        let (mut operations, mut offset) = (Vec::new(), 0);
        for (direction, bytes) in moves {
            let mut from = 0;
            let inside = cuts.range(offset + 1..offset + bytes.len().max(1)).map(|cut| cut - offset);
            for to in inside.chain([bytes.len()]) {
                operations.push(self.operation(*direction, &bytes[from..to], to - from));
                from = to;
            }
            offset += bytes.len();
        }
        operations
    }

    /// Waits, closes the connection and checks the accounts; what was seen.
    pub fn finish(mut self) -> Vec<Exchange> {
        self.tick(10_000 * MS);
        self.close(0);
        self.check_accounts();
        self.out
    }

    pub fn deliver(&mut self, chunk: PayloadChunk) {
        self.received += u64::from(chunk.length);
        self.flows.payload(chunk, &mut self.out);
    }

    /// Delivers operations of which some are captured short (place and length) and others have no record. Of a connection
    /// that was not seen to open, the first of each stream come: a stream whose beginning is lost cannot be told from one
    /// that begins later.
    pub fn deliver_lossy(
        &mut self,
        mut operations: Vec<PayloadChunk>,
        truncations: &[(Index, Index)],
        losses: &[Index],
    ) {
        for (at, length) in truncations {
            let at = at.index(operations.len());
            let keep = length.index(operations[at].data.len() + 1);
            operations[at].data.truncate(keep);
        }
        let lost: BTreeSet<usize> = losses.iter().map(|loss| loss.index(operations.len())).collect();
        let answer = operations.iter().position(|operation| operation.direction == Direction::Send);
        for (number, operation) in operations.into_iter().enumerate() {
            let first = self.before > 0 && (number == 0 || Some(number) == answer);
            if first || !lost.contains(&number) {
                self.deliver(operation);
            }
        }
    }

    pub fn play(&mut self, direction: Direction, bytes: &[u8]) {
        let chunk = self.operation(direction, bytes, bytes.len());
        self.deliver(chunk);
    }

    /// Every byte received, and every byte of every gap, was counted once. Call it when all connections are closed.
    pub fn check_accounts(&mut self) {
        assert_eq!(self.flows.len(), 0, "a connection is still tracked");
        let mut visible = 0;
        self.flows.drain_visibility(|_, _, bytes| visible += bytes);
        let counts = self.flows.counts();
        let expected = self.received + counts.get("gap_bytes") - counts.get("overlap_bytes");
        let counts: Vec<_> = counts.iter().collect();
        assert_eq!(visible, expected, "bytes do not add up: {counts:?}");
    }
}
