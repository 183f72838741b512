//! What moves through sockets is counted for the workload that moved it, whichever way it took, and for the host.
//!
//! One agent, one client a path; what is promised is that of the tier which this kernel gets (see `paths`).

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seismo_tests::agent::Agent;
use seismo_tests::exposition::Page;
use seismo_tests::pattern::MARK_BYTES;
use seismo_tests::rig::Rig;

use crate::paths::Bytes::Unseen;
use crate::paths::{PATHS, TIERS, release};

const CLIENT: &str = env!("CARGO_BIN_EXE_seismo-testclient");
const LIMIT: Duration = Duration::from_secs(30);

/// Bytes of the host in both directions.
fn host(page: &Page) -> [f64; 2] {
    ["transmit", "receive"]
        .map(|direction| page.sum("seismo_socket_io_bytes_total", &[("network_io_direction", direction)]))
}

#[test]
fn the_agents_counters_say_the_same_bytes_for_every_way_to_move_them() -> Result<()> {
    Rig::run(|rig| {
        let (_, numbers) = release()?;
        let agent = Agent::start(rig)?;
        let before = agent.page()?;
        let used = |tier: &&str| before.sum("seismo_probe_tier", &[("probe", "payload"), ("tier", tier)]) == 1.0;
        let tier = TIERS.iter().position(used).context("the page names no tier")?;
        println!("tier {}", TIERS[tier]);
        let mut expected = BTreeMap::new();
        let mut moved = [0.0; 2];
        for (index, path) in PATHS.iter().enumerate().filter(|(_, path)| path.is_on(numbers)) {
            let name = format!("path-{index:02}");
            let out = rig.start_client(CLIENT, &name, &["cover", path.name])?.finish(LIMIT)?;
            let lines: Result<Vec<u64>, _> = out.lines().skip(1).map(str::parse).collect();
            let total: u64 = lines.with_context(|| format!("{}: {out}", path.name))?.iter().sum();
            let seen = if path.promised[tier] == Unseen { 0 } else { total };
            // A 32-bit process is another executable, and so another workload; a descriptor is passed with a byte.
            let own = if path.name.contains("32-bit") { 0 } else { seen };
            let passed = if path.name.ends_with("/passed") { 2 } else { 0 };
            expected.insert(name, own + total + MARK_BYTES + passed);
            let [sent, received] = if path.direction == "send" { [seen, total] } else { [total, seen] };
            moved = [moved[0] + sent as f64, moved[1] + received as f64];
        }
        let counted = agent.settled(&expected, |page| {
            let all = page.by("seismo_workload_bytes_total", "service_name", &[]);
            all.into_iter().filter(|(name, _)| expected.contains_key(name)).collect::<BTreeMap<_, _>>()
        })?;
        let mut wrong = Vec::new();
        for (name, expected) in &expected {
            let path = PATHS[name.trim_start_matches("path-").parse::<usize>()?].name;
            let counted = counted.get(name).copied().unwrap_or(0);
            if counted != *expected {
                wrong.push(format!("{path}: {counted} counted where {expected} moved"));
            }
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        let after = host(&agent.page()?);
        for (index, before) in host(&before).into_iter().enumerate() {
            let counted = after[index] - before;
            println!("the clients moved {}, the host {counted}", moved[index]);
            ensure!(counted >= moved[index], "{counted} bytes counted for the host where {} moved", moved[index]);
        }
        agent.nothing_lost()
    })
}
