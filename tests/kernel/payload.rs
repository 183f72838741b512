//! What moves through sockets is counted for the workload that moved it, whichever way it took, and for the host.
//!
//! One agent, one client a path; what is promised is that of the tier which this kernel gets (see `paths`).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seismo_tests::agent::Agent;
use seismo_tests::bpf::missed_runs;
use seismo_tests::exposition::Page;
use seismo_tests::pattern::{MARK_BYTES, MARKS};
use seismo_tests::rig::Rig;

use crate::paths::Bytes::Unseen;
use crate::paths::{PATHS, Path, TIERS, release};

const CLIENT: &str = env!("CARGO_BIN_EXE_seismo-testclient");
const LIMIT: Duration = Duration::from_secs(30);
/// Rounds in which what the kernel did not run a program for is played again.
const ROUNDS: usize = 5;

/// Bytes of the host in both directions.
fn host(page: &Page) -> [f64; 2] {
    ["transmit", "receive"]
        .map(|direction| page.sum("seismo_socket_io_bytes_total", &[("network_io_direction", direction)]))
}

/// What the clients moved, by the name of each.
struct Played<'p> {
    expected: BTreeMap<String, (&'p Path, u64)>,
    moved: [f64; 2],
}

impl<'p> Played<'p> {
    fn play(rig: &Rig, paths: &[&'p Path], tier: usize, round: usize) -> Result<Self> {
        let (mut expected, mut moved) = (BTreeMap::new(), [0.0; 2]);
        for (index, path) in paths.iter().enumerate() {
            let name = format!("path-{round}-{index:02}");
            let out = rig.start_client(CLIENT, &name, &["cover", path.name])?.finish(LIMIT)?;
            let lines: Result<Vec<u64>, _> = out.lines().skip(1).map(str::parse).collect();
            let total: u64 = lines.with_context(|| format!("{}: {out}", path.name))?.iter().sum();
            let seen = if path.promised[tier] == Unseen { 0 } else { total };
            // A 32-bit process is another executable, and so another workload; a descriptor is passed with a byte.
            let own = if path.name.contains("32-bit") { 0 } else { seen };
            let passed = if path.name.ends_with("/passed") { 2 } else { 0 };
            expected.insert(name, (*path, own + total + MARKS * MARK_BYTES + passed));
            let [sent, received] = if path.direction == "send" { [seen, total] } else { [total, seen] };
            moved = [moved[0] + sent as f64, moved[1] + received as f64];
        }
        Ok(Self { expected, moved })
    }
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
        let mut left: Vec<&Path> = PATHS.iter().filter(|path| path.is_on(numbers)).collect();
        let (mut moved, mut missed) = ([0.0; 2], 0);
        for round in 1..=ROUNDS {
            let played = Played::play(rig, &left, tier, round)?;
            moved = [moved[0] + played.moved[0], moved[1] + played.moved[1]];
            let expected: BTreeMap<String, u64> =
                played.expected.iter().map(|(name, (_, bytes))| (name.clone(), *bytes)).collect();
            let counted = agent.settled(&expected, |page| {
                let all = page.by("seismo_workload_bytes_total", "service_name", &[]);
                all.into_iter().filter(|(name, _)| expected.contains_key(name)).collect::<BTreeMap<_, _>>()
            })?;
            let now = missed_runs(agent.process.pid())?;
            let mut wrong = String::new();
            left.clear();
            for (name, (path, expected)) in played.expected {
                let counted = counted.get(&name).copied().unwrap_or(0);
                if counted != expected {
                    writeln!(wrong, "{}: {counted} counted where {expected} moved", path.name)?;
                    // What the kernel ran no program for is played again; nothing excuses that more is counted.
                    ensure!(counted < expected && now > missed && round < ROUNDS, "{wrong}");
                    left.push(path);
                }
            }
            print!("round {round}: {} runs missed\n{wrong}", now - missed);
            missed = now;
            if left.is_empty() {
                break;
            }
        }
        let after = host(&agent.page()?);
        for (index, before) in host(&before).into_iter().enumerate() {
            let counted = after[index] - before;
            println!("the clients moved {}, the host {counted}", moved[index]);
            ensure!(
                missed > 0 || counted >= moved[index],
                "{counted} bytes counted for the host where {} moved",
                moved[index]
            );
        }
        agent.nothing_lost()
    })
}
