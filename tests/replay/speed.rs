//! Time per HTTP exchange, bytes to span: prints it, and fails only where the cost is not linear.
//!
//! `cargo test --release -p seismo-tests --test replay speed -- --nocapture` prints numbers that mean something.

use std::sync::Arc;
use std::time::Instant;

use seismo::clock::Clock;
use seismo::flows::Config;
use seismo::model::connection::{Direction, Role};
use seismo::model::process::Resource;
use seismo::traces::assemble::{assemble, span_name};

use crate::script::Script;

const REQUEST: &[u8] =
    b"GET /user/12345/cart?x=1 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: wrk/4.2\r\nAccept: */*\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx/1.26\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nContent-Type: text/html\r\nContent-Length: 20\r\nConnection: keep-alive\r\n\r\n01234567890123456789";

/// Time that this thread has had on a CPU: other tests run beside this one.
fn on_cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn speed_of_one_exchange_from_bytes_to_span() {
    const EXCHANGES: u32 = 50_000;
    let mut script = Script::new(Config::default());
    script.open(Role::Server);
    let (resource, clock) = (Arc::new(Resource::default()), Clock::fixed(0));
    let chunks: Vec<_> = (0..EXCHANGES)
        .flat_map(|_| [(Direction::Receive, REQUEST), (Direction::Send, RESPONSE)])
        .map(|(direction, bytes)| script.operation(direction, bytes, bytes.len()))
        .collect();
    let mut spans = 0u32;
    let start = on_cpu_ns();
    for chunk in chunks {
        script.flows.payload(chunk, &mut script.out);
        for exchange in script.out.drain(..) {
            let name = span_name(&exchange);
            std::hint::black_box(assemble(exchange, name, None, (Arc::clone(&resource), None), &clock));
            spans += 1;
        }
    }
    println!("one exchange, bytes to span: {} ns", (on_cpu_ns() - start) / u64::from(EXCHANGES));
    assert_eq!(spans, EXCHANGES);
}

#[test]
fn speed_of_a_head_byte_by_byte_is_linear() {
    let time = |size: usize| {
        let mut head = b"GET / HTTP/1.1\r\nX: ".to_vec();
        head.resize(size, b'x');
        head.extend_from_slice(b"\r\n\r\n");
        let mut script = Script::new(Config::default());
        script.open(Role::Server);
        let chunks: Vec<_> = head.chunks(1).map(|byte| script.operation(Direction::Receive, byte, 1)).collect();
        let start = Instant::now();
        for chunk in chunks {
            script.deliver(chunk);
        }
        start.elapsed()
    };
    let best = |size| (0..5).map(|_| time(size)).min().unwrap_or_default();
    let (small, large) = (best(4_000), best(60_000));
    // 15 times the bytes; quadratic would be 225 times the time.
    assert!(large < small * 80, "{small:?} for 4 000 bytes, {large:?} for 60 000");
}
