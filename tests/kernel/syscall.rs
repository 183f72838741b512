//! System calls are counted exactly, and one in sixteen is timed.

use anyhow::{Result, ensure};
use seismo_tests::agent::Agent;
use seismo_tests::rig::Rig;

const CLIENT: &str = env!("CARGO_BIN_EXE_seismo-testclient");
const CALLS: u64 = 100_000;
/// Calls of the rest of the machine during the test: shells ask for their parent now and then.
const NOISE: f64 = 500.0;

#[test]
fn a_hundred_thousand_calls_of_one_program_are_counted() -> Result<()> {
    Rig::run(|rig| {
        let agent = Agent::start(rig)?;
        let select = [("syscall", "getppid")];
        let metric = "seismo_syscalls_total";
        let start = agent.page()?.sum(metric, &select);
        rig.client(CLIENT, "getppid", &["getppid", &CALLS.to_string()])?;
        let counted = agent.reaches(metric, start + CALLS as f64, |page| page.sum(metric, &select))? - start;
        println!("the program made {CALLS} calls of getppid, the host {counted}");
        ensure!(counted < CALLS as f64 + NOISE, "{counted} are too many");
        let timed = agent.page()?.sum("seismo_syscall_duration_seconds_count", &select);
        println!("timed: {timed}, one in {:.1}", counted / timed);
        ensure!((10.0..25.0).contains(&(counted / timed)), "not one in sixteen is timed");
        Ok(())
    })
}
