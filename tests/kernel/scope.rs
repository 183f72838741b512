//! Scope is enforced in the kernel: of a process outside of it no byte is copied.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use seismo_tests::cgroup::Cgroup;
use seismo_tests::peer::Peer;
use seismo_tests::process::Process;
use seismo_tests::rig::Rig;
use seismo_tests::tap::Tap;

const CLIENT: &str = env!("CARGO_BIN_EXE_seismo-testclient");
const BYTES: usize = 6305;

/// Sends through a client that runs wherever `start` puts it; says the client's process id.
fn transfer(rig: &Rig, start: impl FnOnce(Command) -> Result<Process>) -> Result<u32> {
    transfer_to(rig, Peer::sending(0)?, start)
}

fn transfer_to(rig: &Rig, peer: Peer, start: impl FnOnce(Command) -> Result<Process>) -> Result<u32> {
    let mut command = Command::new(rig.named(CLIENT.as_ref(), "sender")?);
    command.args(["transfer", "write", &peer.port.to_string()]);
    let mut process = start(command)?;
    process.finish(Duration::from_secs(30))?;
    ensure!(peer.received()?.len() == BYTES, "the client sent something else");
    Ok(process.pid())
}

#[test]
fn a_process_outside_the_control_group_is_not_read() -> Result<()> {
    Rig::run(|rig| {
        let mut tap = Tap::start(rig, &[])?;
        tap.await_attached(|| transfer(rig, |command| rig.inside("sender", command)).map(|_| ()))?;
        let other = Cgroup::new()?;
        let elsewhere = transfer(rig, |command| Process::start("sender", rig.dir(), command, Some(other.door()?)))?;
        let outside = transfer(rig, |command| rig.outside("sender", command))?;
        let inside = transfer(rig, |command| rig.inside("sender", command))?;
        // The ring keeps the order: what came after the others is here, so the others would be too.
        let seen: usize = tap.of(inside, "send", BYTES)?.iter().map(|record| record.length as usize).sum();
        let records = tap.records()?;
        let strangers = records.iter().filter(|record| [elsewhere, outside].contains(&record.tgid)).count();
        println!("inside: {seen} bytes of {BYTES}; outside and in a sibling group: {strangers} records");
        ensure!(seen == BYTES && strangers == 0, "the scope is not kept");
        Ok(())
    })
}

#[test]
fn a_port_in_scope_is_read_and_others_are_not() -> Result<()> {
    Rig::run(|rig| {
        let wanted = Peer::sending(0)?;
        // A group that only shows when the programs are attached.
        let beacons = Cgroup::new()?;
        let scopes = [format!("port={}", wanted.port), format!("cgroup={}", beacons.path().display())];
        let mut tap = Tap::start(rig, &scopes)?;
        tap.await_attached(|| {
            transfer(rig, |command| Process::start("beacon", rig.dir(), command, Some(beacons.door()?))).map(|_| ())
        })?;
        let stranger = transfer(rig, |command| rig.inside("sender", command))?;
        let own = transfer_to(rig, wanted, |command| rig.outside("sender", command))?;
        let seen: usize = tap.of(own, "send", BYTES)?.iter().map(|record| record.length as usize).sum();
        let strangers = tap.records()?.iter().filter(|record| record.tgid == stranger).count();
        println!("at the port: {seen} bytes of {BYTES}; at another: {strangers} records");
        ensure!(seen == BYTES && strangers == 0, "the scope is not kept");
        Ok(())
    })
}
