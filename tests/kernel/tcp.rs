//! TCP of the whole host: connections opened, closed, refused.

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
fn connections_are_counted_on_both_sides_and_at_their_end() -> Result<()> {
    Rig::run(|rig| {
        let agent = Agent::start(rig)?;
        let before = agent.page()?;
        for turn in 0..20 {
            let peer = Peer::sending(0)?;
            rig.client(CLIENT, "connects", &["transfer", "write", &peer.port.to_string()])?;
            ensure!(!peer.received()?.is_empty(), "transfer {turn} failed");
        }
        let opened = "seismo_tcp_opened_connections_total";
        for (metric, with) in [
            (opened, &[("role", "client")][..]),
            (opened, &[("role", "server")]),
            ("seismo_tcp_closed_connections_total", &[]),
        ] {
            let start = before.sum(metric, with);
            let counted = agent.reaches(metric, start + 20.0, |page| page.sum(metric, with))? - start;
            println!("20 connections, {metric} {with:?} counted {counted}");
            ensure!(counted < 20.0 + NOISE, "{counted} are too many");
        }
        let page = agent.page()?;
        for metric in ["seismo_tcp_retransmits_total", "seismo_tcp_resets_total"] {
            ensure!(page.has(metric), "{metric} is not on the page");
        }
        Ok(())
    })
}
