//! Stopping under load: SIGTERM drains and ends with 0 within two seconds, and what was counted was all there was.

use std::time::Duration;

use anyhow::{Result, ensure};
use seismo_tests::agent::Agent;
use seismo_tests::nginx::Nginx;
use seismo_tests::rig::Rig;
use seismo_tests::wrk::{Load, Wrk};
use seismo_tests::{bpf, wait};

#[test]
fn sigterm_under_load_ends_with_status_0_within_two_seconds_and_leaves_nothing_attached() -> Result<()> {
    Rig::run(|rig| {
        let nginx = Nginx::start(rig, None)?;
        let agent = Agent::start(rig)?;
        let programs = bpf::held_by(agent.process.pid())?;
        ensure!(!programs.is_empty(), "the agent holds no program");
        let endless = Load { requests: 1_000_000_000, connections: 8, depth: 1, paths: vec!["/".to_owned()] };
        let wrk = Wrk::start(rig, nginx.port, &endless)?;
        nginx.logged(5000, Duration::from_secs(30))?;
        agent.stop()?;
        let logged = nginx.log()?.len();
        wait::until("the programs to go", Duration::from_secs(5), || {
            Ok(bpf::loaded()?.is_disjoint(&programs).then_some(()))
        })?;
        println!("{} programs, all gone; {logged} requests were served meanwhile", programs.len());
        nginx.logged(logged + 100, Duration::from_secs(30))?;
        wrk.interrupt()?;
        Ok(())
    })
}
