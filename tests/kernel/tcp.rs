//! TCP of the whole host: connects, refusals, resets, states.

use anyhow::{Result, ensure};
use seismo_tests::agent::Agent;
use seismo_tests::peer::Peer;
use seismo_tests::rig::{Rig, free_port};

const CLIENT: &str = env!("CARGO_BIN_EXE_seismo-testclient");
const REFUSED: f64 = 50.0;
/// Connections of the rest of the machine meanwhile.
const NOISE: f64 = 200.0;

#[test]
fn refused_connections_are_counted_as_refused() -> Result<()> {
    Rig::run(|rig| {
        let agent = Agent::start(rig)?;
        let metric = "seismo_tcp_failed_connections_total";
        let before = agent.page()?.by(metric, "reason", &[]);
        rig.client(CLIENT, "refused", &["refused", &free_port()?.to_string(), &REFUSED.to_string()])?;
        let start = before.values().sum::<u64>() as f64;
        let counted = agent.reaches(metric, start + REFUSED, |page| page.sum(metric, &[]))? - start;
        let after = agent.page()?.by(metric, "reason", &[]);
        println!("{REFUSED} connections were refused, seismo counted {counted}: {before:?} → {after:?}");
        ensure!(counted < REFUSED + NOISE, "{counted} are too many");
        let refused = |by: &std::collections::BTreeMap<String, u64>| -> u64 {
            by.iter().filter(|(reason, _)| reason.contains("refused")).map(|(_, count)| count).sum()
        };
        ensure!(refused(&after) - refused(&before) >= REFUSED as u64, "not counted as refused");
        Ok(())
    })
}

#[test]
fn connects_are_timed_and_open_connections_are_shown_by_state() -> Result<()> {
    Rig::run(|rig| {
        let agent = Agent::start(rig)?;
        let metric = "seismo_tcp_connect_duration_seconds_count";
        let start = agent.page()?.sum(metric, &[]);
        for turn in 0..20 {
            let peer = Peer::sending(0)?;
            rig.client(CLIENT, "connects", &["transfer", "write", &peer.port.to_string()])?;
            ensure!(!peer.received()?.is_empty(), "transfer {turn} failed");
        }
        let counted = agent.reaches(metric, start + 20.0, |page| page.sum(metric, &[]))? - start;
        println!("20 connects, seismo timed {counted}");
        let page = agent.page()?;
        let absent: Vec<&str> =
            ["seismo_tcp_retransmits_total", "seismo_tcp_resets_total", "seismo_tcp_rtt_seconds_count"]
                .into_iter()
                .filter(|name| !page.has(name))
                .collect();
        ensure!(absent.is_empty(), "not on the page: {absent:?}");
        // The scrape itself is an established connection.
        let states = page.by("seismo_tcp_connections", "state", &[]);
        println!("states: {states:?}");
        ensure!(states.get("established").is_some_and(|count| *count > 0), "no established connection");
        Ok(())
    })
}
