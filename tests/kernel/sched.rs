//! Threads that have to wait for a processor show in the run-queue histogram.

use std::thread::available_parallelism;

use anyhow::{Result, ensure};
use seismo_tests::agent::Agent;
use seismo_tests::rig::Rig;

const CLIENT: &str = env!("CARGO_BIN_EXE_seismo-testclient");
const COUNT: &str = "seismo_scheduler_runqueue_duration_seconds_count";
const SUM: &str = "seismo_scheduler_runqueue_duration_seconds_sum";
const MILLIS: u64 = 1000;

#[test]
fn more_busy_threads_than_processors_wait_in_the_run_queue_for_the_time_they_miss() -> Result<()> {
    Rig::run(|rig| {
        let agent = Agent::start(rig)?;
        let before = agent.page()?;
        let processors = available_parallelism()?.get();
        // Three threads a processor: two of them wait at any time.
        let threads = (processors * 3).to_string();
        rig.client(CLIENT, "spinner", &["spin", &threads, &MILLIS.to_string()])?;
        let missed = processors as f64 * 2.0 * MILLIS as f64 / 1e3;
        let waited = agent.reaches(SUM, before.sum(SUM, &[]) + missed * 0.8, |page| page.sum(SUM, &[]))?;
        let count = agent.page()?.sum(COUNT, &[]) - before.sum(COUNT, &[]);
        println!("missed {missed:.1} s, waited {:.1} s in {count} waits", waited - before.sum(SUM, &[]));
        ensure!(count > 0.0, "no wait was counted");
        Ok(())
    })
}
