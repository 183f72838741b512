//! Nothing stays in the kernel when the agent is gone, however it went.

use std::time::Duration;

use anyhow::{Result, ensure};
use seismo_tests::agent::Agent;
use seismo_tests::rig::Rig;
use seismo_tests::{bpf, wait};

fn gone(programs: &std::collections::BTreeSet<u32>) -> Result<()> {
    wait::until("the agent's programs to go", Duration::from_secs(5), || {
        Ok(bpf::loaded()?.is_disjoint(programs).then_some(()))
    })
}

#[test]
fn a_killed_agent_leaves_no_program_attached() -> Result<()> {
    Rig::run(|rig| {
        let mut agent = Agent::start(rig)?;
        let programs = bpf::held_by(agent.process.pid())?;
        let active = agent.page()?.sum("seismo_probe_state", &[("state", "active")]);
        println!("{} programs are held, {active} probes are active", programs.len());
        ensure!(active > 0.0 && !programs.is_empty(), "nothing is attached");
        ensure!(bpf::loaded()?.is_superset(&programs), "the kernel does not list what the agent holds");
        agent.process.signal(libc::SIGKILL);
        agent.process.wait(Duration::from_secs(5))?;
        gone(&programs)
    })
}

#[test]
fn a_stopped_agent_ends_with_status_0_and_leaves_no_program_attached() -> Result<()> {
    Rig::run(|rig| {
        let agent = Agent::start(rig)?;
        let programs = bpf::held_by(agent.process.pid())?;
        ensure!(!programs.is_empty(), "nothing is attached");
        agent.stop()?;
        gone(&programs)
    })
}
