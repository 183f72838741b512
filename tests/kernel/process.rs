//! Process starts and exits of the whole host: at least those that the test caused.

use anyhow::{Result, ensure};
use seismo_tests::agent::Agent;
use seismo_tests::rig::Rig;

const CLIENT: &str = env!("CARGO_BIN_EXE_seismo-testclient");
const PROCESSES: u64 = 200;
/// What the rest of a busy machine may start meanwhile.
const NOISE: f64 = 2000.0;

#[test]
fn every_started_process_is_counted_at_its_start_and_at_its_exit() -> Result<()> {
    Rig::run(|rig| {
        let agent = Agent::start(rig)?;
        let before = agent.page()?;
        rig.client(CLIENT, "spawner", &["spawn", &PROCESSES.to_string()])?;
        // The client itself is one more.
        let own = (PROCESSES + 1) as f64;
        for metric in ["seismo_process_starts_total", "seismo_process_exits_total"] {
            let start = before.sum(metric, &[]);
            let counted = agent.reaches(metric, start + own, |page| page.sum(metric, &[]))? - start;
            println!("{metric}: the test started {own}, the host {counted}");
            ensure!(counted < own + NOISE, "{metric} counts too much: {counted}");
        }
        agent.nothing_lost()
    })
}
