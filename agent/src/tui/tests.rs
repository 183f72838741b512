//! The screen as text.

use std::sync::Arc;
use std::time::Duration;

use super::{ServiceRow, Summary, render};
use crate::model::process::Resource;
use crate::model::span::{Span, SpanKind, StatusCode};

fn span(kind: SpanKind, status: StatusCode, name: &str) -> Arc<Span> {
    Arc::new(Span {
        name: name.into(),
        kind,
        start_ns: 8_000_000_000,
        end_ns: 8_001_500_000,
        status,
        resource: Arc::new(Resource { service_name: "shop".to_owned(), ..Resource::default() }),
        ..Span::example()
    })
}

fn busy() -> Summary {
    let row = |service: &str, rate: f64, p50_ns| ServiceRow {
        service: service.to_owned(),
        requests_per_s: rate,
        errors_per_s: rate / 100.0,
        p50_ns,
        p99_ns: p50_ns.map(|ns| ns * 10),
    };
    Summary {
        listen: "127.0.0.1:9464".to_owned(),
        uptime: Duration::from_millis(3_725_400),
        now_ns: 10_001_500_000,
        not_ready: None,
        probes_active: 11,
        probes_total: 12,
        probes_wanting: vec!["payload: no such tracepoint".to_owned()],
        records_per_s: 12_345.6,
        losses: vec![("observed ring_full".to_owned(), 7)],
        services: vec![row("shop", 12.34, Some(1_200_000)), row("nginx", 4567.0, Some(85_000)), row("idle", 0.0, None)],
        spans: vec![
            span(SpanKind::Server, StatusCode::Unset, "GET /user/{id}"),
            span(SpanKind::Client, StatusCode::Error, "POST /\x1b[31mevil"),
        ],
        log: (0..7).map(|number| format!("line {number}")).collect(),
    }
}

#[test]
fn a_busy_agent_shows_services_spans_losses_and_its_log() {
    let expected = "\
seismo   up 1h 2m 5s   http://127.0.0.1:9464
probes   11 of 12 active   12346 records/s
         payload: no such tracepoint
lost     7 observed ring_full

SERVICE                  REQUESTS/S   ERRORS/S      P50      P99
nginx                          4567       45.7   85.0µs    850µs
shop                           12.3       0.12   1.20ms   12.0ms
idle                           0.00       0.00        -        -

AGO        SERVICE              KIND   STATUS  DURATION  NAME
2.00s      shop                 server ok        1.50ms  GET /user/{id}
2.00s      shop                 client error     1.50ms  POST /·[31mevil

line 2
line 3
line 4
line 5
line 6";
    assert_eq!(render(&busy(), 80, 24), expected);
}

#[test]
fn a_blind_agent_says_so_first() {
    let blind = Summary { not_ready: Some("no probe is attached".to_owned()), ..Summary::default() };
    let expected = "\
seismo   up 0s   http://
probes   0 of 0 active   0.00 records/s
NOT READY: no probe is attached
lost     nothing

SERVICE                  REQUESTS/S   ERRORS/S      P50      P99
no requests yet; payloads are only read of what --scope names";
    assert_eq!(render(&blind, 80, 24), expected);
}

#[test]
fn the_screen_is_never_larger_than_the_terminal() {
    let mut full = busy();
    full.services = (0..50).map(|n| ServiceRow { service: "é".repeat(n), ..ServiceRow::default() }).collect();
    full.spans = vec![span(SpanKind::Server, StatusCode::Unset, &"x".repeat(500)); 100];
    for (width, height) in [(80, 24), (20, 10), (200, 100), (1, 1), (0, 0), (80, 3)] {
        let text = render(&full, width, height);
        assert!(text.lines().count() <= height, "{width}x{height}");
        assert!(text.lines().all(|line| line.chars().count() <= width), "{width}x{height}");
    }
    assert_eq!(render(&full, 80, 60).lines().count(), 60, "spans fill what is left");
}
