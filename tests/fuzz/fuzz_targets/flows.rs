//! Fuzzes the tracking of connections: any operations in any order, with holes, overlaps and missing bytes.
//!
//! Must not panic, and every byte must be counted once.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use seismo::flows::{Config, Flows};
use seismo::model::connection::{ConnEvent, ConnEventKind, Connection, Cookie, Direction, Role};
use seismo::model::payload::{Moment, PayloadChunk};

#[derive(Arbitrary, Debug)]
enum Action {
    Move { cookie: u8, send: bool, jump: i8, missing: u8, data: Vec<u8> },
    Open { cookie: u8, client: bool },
    Close { cookie: u8, error: u8 },
    Wait { millis: u16 },
}

fuzz_target!(|actions: Vec<Action>| {
    let mut flows = Flows::new(Config { connections: 4, ..Config::default() });
    let mut out = Vec::new();
    let (mut now_ns, mut moved) = (1u64, 0u64);
    let mut sequences = [[0u32; 2]; 8];
    let connection = |cookie: u8| Connection {
        cookie: Cookie(u64::from(cookie % 8)),
        transport: seismo::model::connection::Transport::Tcp,
        peer_cookie: None,
        local: ([10, 0, 0, 2], 80).into(),
        peer: ([10, 0, 0, 1], 40_000).into(),
    };
    for action in actions {
        now_ns += 1_000_000;
        match action {
            Action::Move { cookie, send, jump, missing, data } => {
                let other = sequences[usize::from(cookie % 8)][usize::from(!send)];
                let sequence = &mut sequences[usize::from(cookie % 8)][usize::from(send)];
                *sequence = sequence.wrapping_add_signed(i32::from(jump));
                let length = data.len() as u32 + u32::from(missing);
                let direction = if send { Direction::Send } else { Direction::Receive };
                moved += u64::from(length);
                let (connection, sequence_now) = (connection(cookie), *sequence);
                let other_sequence = other;
                *sequence = sequence.wrapping_add(length);
                flows.payload(
                    PayloadChunk {
                        connection,
                        direction,
                        moment: Moment { ktime_ns: now_ns, began_ns: now_ns, tgid: 1, tid: 1, ..Moment::default() },
                        position: u64::from(sequence_now),
                        sequence: sequence_now,
                        other_sequence,
                        length,
                        skipped: 0,
                        retransmits: 0,
                        data: data.into(),
                    },
                    &mut out,
                );
            }
            Action::Open { cookie, client } => {
                let role = if client { Role::Client } else { Role::Server };
                let kind = ConnEventKind::Opened { role, send_sequence: 0, receive_sequence: 0 };
                flows.connection(&ConnEvent { connection: connection(cookie), ktime_ns: now_ns, kind }, &mut out);
            }
            Action::Close { cookie, error } => {
                let kind = ConnEventKind::Destroyed { retransmits: 0, error: u32::from(error), send_sequence: 0, receive_sequence: 0 };
                flows.connection(&ConnEvent { connection: connection(cookie), ktime_ns: now_ns, kind }, &mut out);
            }
            Action::Wait { millis } => {
                now_ns += u64::from(millis) * 1_000_000;
                flows.tick(now_ns, &mut out);
            }
        }
    }
    for cookie in 0..8 {
        let kind = ConnEventKind::Destroyed { retransmits: 0, error: 0, send_sequence: 0, receive_sequence: 0 };
        flows.connection(&ConnEvent { connection: connection(cookie), ktime_ns: now_ns, kind }, &mut out);
    }
    flows.tick(now_ns + 1_000_000_000, &mut out);
    assert_eq!(flows.len(), 0);
    let mut visible = 0;
    flows.drain_visibility(|_, _, bytes| visible += bytes);
    assert_eq!(visible, moved + flows.counts().get("gap_bytes") - flows.counts().get("overlap_bytes"));
});
