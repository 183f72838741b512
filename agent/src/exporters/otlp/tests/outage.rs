//! A backend that is down for a while, over real sockets: nothing is lost within the queue, and beyond it what the counter says.
//!
//! `SEISMOTEST_OUTAGE_SECONDS=300` with `--nocapture` makes the first test the outage that the queue is made for, with the
//! defaults of the configuration, and prints what it took.

use super::*;
use crate::clock;
use crate::config::size::ByteSize;
use crate::model::metric::{Source as _, Value};
use crate::model::span::{SpanId, TraceId};

/// Made in a second.
const RATE: usize = 500;
/// Between spans that are made together, ms.
const EVERY_MS: u64 = 10;

/// A span as large as those of HTTP servers, with ids that gzip cannot press.
fn lifelike(number: usize, resources: &[Arc<Resource>]) -> Arc<Span> {
    let mixed = |salt: u64| (number as u64 + salt).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    let mut span = Span::clone(&span(number, &resources[number % resources.len()]));
    let mut trace = [0; 16];
    trace[..8].copy_from_slice(&mixed(1));
    trace[8..].copy_from_slice(&mixed(7 << 40));
    (span.trace_id, span.span_id, span.parent_span_id) =
        (TraceId(trace), SpanId(mixed(9 << 50)), Some(SpanId(mixed(5))));
    span.start_ns = 1_700_000_000_000_000_001 + number as u64 * 2_013_457;
    span.end_ns = span.start_ns + u64::from(mixed(3)[0]) * 10_007;
    for key in ["url.path", "server.address", "client.address", "user_agent.original"] {
        span.attributes.set(key, format!("/some/path/of/{number}"));
    }
    Arc::new(span)
}

fn resources() -> Vec<Arc<Resource>> {
    let service = |number| Resource { service_name: format!("service-{number}"), ..Resource::default() };
    (0..8).map(|number| Arc::new(service(number))).collect()
}

fn queue_bytes(account: &Account) -> u64 {
    let mut samples = Vec::new();
    account.collect(&mut samples);
    let size = samples.iter().find(|sample| sample.metric.name == "seismo.export.queue.size");
    size.map_or(0, |sample| if let Value::Count(bytes) = sample.value { bytes } else { 0 })
}

/// Numbers of the spans that came, each with how often.
fn arrived(backend: &Backend) -> Vec<usize> {
    let mut numbers: Vec<usize> =
        backend.names(Protocol::HttpProtobuf).concat().iter().map(|name| name.parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

async fn until_nothing_is_queued(account: &Account) {
    let empty = async {
        while account.counts().queued() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), empty).await.unwrap();
}

#[tokio::test]
async fn an_outage_that_the_queue_holds_loses_nothing() {
    let long = std::env::var("SEISMOTEST_OUTAGE_SECONDS").ok().map(|text| text.parse::<u64>().unwrap());
    // Bound and closed at once: nobody listens on this port until the backend does.
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let url = Some(format!("http://{address}"));
    let config = match long {
        Some(_) => Config { endpoint: url, ..Config::default() },
        None => Config {
            endpoint: url,
            batch_wait: Interval::millis(50),
            retry_wait: Interval::millis(20),
            retry_most: Interval::millis(200),
            ..Config::default()
        },
    };
    let account = Arc::new(Account::new("otlp", Items::Spans));
    let mut otlp = Otlp::start(&config, Arc::clone(&account)).unwrap().unwrap();
    let (resources, mut made, mut most_bytes) = (resources(), 0, 0);
    let together = RATE * EVERY_MS as usize / 1000;
    let outage = RATE * long.unwrap_or(2) as usize;
    let (backend, mut every) = (Backend::default(), tokio::time::interval(Duration::from_millis(EVERY_MS)));
    let began = Instant::now();
    // As many after the outage as in a second of it.
    while made < outage + RATE {
        every.tick().await;
        if made == outage {
            let counts = account.counts();
            println!("{:?}: {made} spans made, {counts:?}, {most_bytes} bytes queued", began.elapsed());
            assert_eq!((counts.sent, counts.lost()), (0, 0), "the backend is down");
            backend.serve(TcpListener::bind(address).await.unwrap(), Protocol::HttpProtobuf);
        }
        let now_ns = clock::monotonic_ns();
        (made..made + together).for_each(|number| otlp.take(lifelike(number, &resources), now_ns));
        made += together;
        otlp.tick(now_ns);
        most_bytes = most_bytes.max(queue_bytes(&account));
    }
    otlp.tick(u64::MAX);
    until_nothing_is_queued(&account).await;
    let counts = account.counts();
    let of_the_queue = most_bytes as f64 / config.queue_bytes.0 as f64;
    println!("{:?}: {counts:?}, at most {most_bytes} bytes queued, {of_the_queue:.3} of the queue", began.elapsed());
    assert_eq!(arrived(&backend), (0..made).collect::<Vec<_>>(), "each span once");
    assert_eq!((counts.offered, counts.sent, counts.lost()), (made as u64, made as u64, 0));
    assert_eq!(otlp.finish(Duration::from_secs(10)).await, 0);
}

#[tokio::test]
async fn an_outage_beyond_the_queue_loses_exactly_what_is_counted() {
    const SPANS: usize = 5_000;
    let resources = resources();
    for limit in [0, 10_000, 40_000, 1 << 30] {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let config = Config {
            batch_spans: 50,
            queue_bytes: ByteSize(limit),
            retry_most: Interval::millis(20),
            ..config(format!("http://{address}"), Protocol::HttpProtobuf)
        };
        let account = Arc::new(Account::new("otlp", Items::Spans));
        let mut otlp = Otlp::start(&config, Arc::clone(&account)).unwrap().unwrap();
        (0..SPANS).for_each(|number| otlp.take(lifelike(number, &resources), 0));
        let lost = account.counts().lost_for(LossReason::QueueFull) as usize;
        assert!(queue_bytes(&account) <= limit);
        assert_eq!((lost == SPANS, lost == 0), (limit == 0, limit == 1 << 30), "{lost} of a queue of {limit} bytes");
        let backend = Backend::default();
        backend.serve(TcpListener::bind(address).await.unwrap(), Protocol::HttpProtobuf);
        until_nothing_is_queued(&account).await;
        let found = arrived(&backend);
        assert!(found.is_sorted_by(|one, other| one < other), "a span came twice");
        let counts = account.counts();
        assert_eq!((found.len(), counts.sent as usize, counts.lost() as usize), (SPANS - lost, SPANS - lost, lost));
        assert_eq!(otlp.finish(Duration::from_secs(10)).await, 0);
    }
}
