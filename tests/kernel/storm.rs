//! More records than the ring can take: every one is accounted for, by stage and by connection, and when the storm is over
//! requests are seen again on every connection.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seismo_tests::agent::{Agent, Launch};
use seismo_tests::exposition::Page;
use seismo_tests::rig::Rig;
use seismo_tests::wait;

const CLIENT: &str = env!("CARGO_BIN_EXE_seismo-testclient");
const CONNECTIONS: usize = 8;
const REQUESTS: usize = 20_000;
/// The first request after a loss may be needed to find the streams again.
const AFTER: usize = 5;
const NEEDED: usize = AFTER - 2;
const LIMIT: Duration = Duration::from_secs(120);
const ACCOUNT_LIMIT: Duration = Duration::from_secs(10);

fn stage(page: &Page, name: &str) -> [u64; 3] {
    ["entered", "passed", "dropped"]
        .map(|outcome| page.sum("seismo_pipeline_records_total", &[("stage", name), ("outcome", outcome)]) as u64)
}

/// Bytes before the first record, bytes that records told of and bytes whose records are missing, sent and received.
type Account = [[u64; 3]; 2];

/// The accounts of all connections by local and peer port.
fn accounts(agent: &Agent<'_>) -> Result<BTreeMap<(u16, u16), Account>> {
    let flows = agent.json("/api/seismo/flows")?;
    let flows = flows.get("connections").and_then(|flows| flows.as_array()).context("no connections")?.clone();
    let port = |text: &str| text.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
    let mut accounts = BTreeMap::new();
    for flow in &flows {
        let text = |key: &str| flow.get(key).and_then(|value| value.as_str()).unwrap_or_default();
        let number = |key: &str, place: usize| flow[key][place].as_u64().unwrap_or(0);
        let (Some(local), Some(peer)) = (port(text("local")), port(text("peer"))) else { continue };
        let bytes = [0, 1].map(|way| ["earlier_bytes", "seen_bytes", "gap_bytes"].map(|key| number(key, way)));
        accounts.insert((local, peer), bytes);
    }
    Ok(accounts)
}

#[test]
fn a_storm_is_accounted_for_by_connection_and_afterwards_all_is_seen_again() -> Result<()> {
    Rig::run(|rig| {
        let config = Some("capture:\n  ring_bytes: 16KiB\n  drain_interval: 50ms\n".to_owned());
        let agent = Agent::launch(rig, &Launch { config, ..Launch::default() })?;
        let words = [CONNECTIONS, REQUESTS, AFTER].map(|number| number.to_string());
        let mut client = rig.start_client(CLIENT, "storm", &["storm", &words[0], &words[1], &words[2]])?;
        let mut input = client.input()?;
        let told = wait::until("the end of the storm", LIMIT, || {
            let out = client.out();
            Ok((out.lines().count() >= CONNECTIONS).then_some(out))
        })?;
        let page = agent.page_where("a moment at which every stage's account is even", |page| {
            let stages = ["observed", "collected", "analyzed"].map(|name| stage(page, name));
            let even = stages.iter().all(|[entered, passed, dropped]| *entered == passed + dropped);
            even && stages[0][1] == stages[1][0] && stages[1][1] == stages[2][0]
        })?;
        let [entered, passed, dropped] = stage(&page, "observed");
        println!("{entered} records observed, {passed} collected, {dropped} dropped");
        let full = page.sum("seismo_records_dropped_total", &[("stage", "observed"), ("reason", "ring_full")]) as u64;
        ensure!(full == dropped && full > 1000, "{full} records found the ring full: no storm");

        writeln!(input)?;
        wait::until("the requests after the storm", LIMIT, || Ok(client.out().contains("done").then_some(())))?;
        let after = |page: &Page, side: &str| {
            let route = [("service_name", "storm"), ("http_route", "/after/{id}")];
            page.sum(&format!("http_{side}_request_duration_seconds_count"), &route)
        };
        let least = (CONNECTIONS * NEEDED) as f64;
        for side in ["server", "client"] {
            let seen = agent.reaches("requests after the storm", least, |page| after(page, side))?;
            println!("{side}: {seen} of {} requests after the storm", CONNECTIONS * AFTER);
            ensure!(seen <= (CONNECTIONS * AFTER) as f64, "more than were made");
        }
        // What was sent after the storm is the same on each connection.
        let question =
            (0..AFTER).map(|number| format!("GET /after/{number} HTTP/1.1\r\nHost: x\r\n\r\n").len()).sum::<usize>();
        let answers = AFTER * "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".len();
        let mut wrong = String::new();
        let even = wait::until("even accounts of all connections", ACCOUNT_LIMIT, || {
            let accounts = accounts(&agent)?;
            wrong.clear();
            let mut lost = 0;
            for line in told.lines().take(CONNECTIONS) {
                let numbers: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
                let [port, sent, received] = numbers[..] else { anyhow::bail!("the client said {line}") };
                let (sent, received) = (sent + question as u64, received + answers as u64);
                let ends = accounts.iter().filter(|((local, peer), _)| [*local, *peer].map(u64::from).contains(&port));
                let mut tracked = 0;
                for ((local, _), ways) in ends {
                    let here = if u64::from(*local) == port { [sent, received] } else { [received, sent] };
                    if ways.map(|way| way.iter().sum::<u64>()) != here {
                        writeln!(wrong, "port {local}: {here:?} moved, {ways:?} accounted for")?;
                    }
                    lost += ways.iter().map(|[earlier, _, gap]| earlier + gap).sum::<u64>();
                    tracked += 1;
                }
                if tracked != 2 {
                    writeln!(wrong, "{tracked} ends of the connection from port {port} are tracked")?;
                }
            }
            Ok(wrong.is_empty().then_some(lost))
        });
        let lost = even.with_context(|| format!("{wrong}{}", agent.json("/api/seismo/flows").unwrap_or_default()))?;
        println!("{lost} bytes are known to be lost, on {CONNECTIONS} connections");
        ensure!(lost > 0, "no connection lost anything");
        drop(input);
        agent.stop()
    })
}
