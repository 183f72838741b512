//! Where the agent cannot run, it says so in one message and ends with 1.

use std::ffi::OsString;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use seismo_tests::agent::Launch;
use seismo_tests::process::output;
use seismo_tests::programs;
use seismo_tests::rig::{Rig, free_port};

const LIMIT: Duration = Duration::from_secs(20);
const NOBODY: [&str; 3] = ["--reuid=65534", "--regid=65534", "--clear-groups"];

fn as_nobody() -> Result<Vec<OsString>> {
    let program = programs::find("setpriv")?.into_os_string();
    Ok([program].into_iter().chain(NOBODY.iter().map(OsString::from)).collect())
}

/// A copy of the agent that everybody may run, wherever the build lies.
fn agent_for_all(rig: &Rig) -> Result<PathBuf> {
    let copy = rig.dir().join("seismo");
    fs::copy(programs::seismo()?, &copy)?;
    fs::set_permissions(rig.dir(), fs::Permissions::from_mode(0o755))?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    Ok(copy)
}

#[test]
fn run_without_permission_says_what_is_missing_and_ends_with_1() -> Result<()> {
    Rig::run(|rig| {
        let launch = Launch { through: as_nobody()?, program: Some(agent_for_all(rig)?), ..Launch::default() };
        let (status, _, err) = output(launch.command(rig, free_port()?)?, rig.dir(), "run", LIMIT)?;
        println!("{:?}: {}", status.code(), err.trim_end());
        ensure!(status.code() == Some(1), "status {:?}", status.code());
        ensure!(err.trim_end().lines().count() <= 2, "more than one message");
        ensure!(err.contains("CAP_BPF") || err.contains("root"), "does not say what is missing");
        Ok(())
    })
}

#[test]
fn doctor_without_permission_says_what_it_could_not_find_out() -> Result<()> {
    Rig::run(|rig| {
        let doctor = |through: Vec<OsString>, arguments: &[&str]| -> Result<_> {
            let words: Vec<OsString> = through.into_iter().chain([agent_for_all(rig)?.into_os_string()]).collect();
            let mut command = Command::new(&words[0]);
            command.args(&words[1..]).arg("doctor").args(arguments);
            output(command, rig.dir(), "doctor", LIMIT)
        };
        let (status, out, err) = doctor(as_nobody()?, &[])?;
        println!("as nobody: {:?}\n{out}{err}", status.code());
        ensure!(status.code() == Some(1), "nobody cannot run the agent, doctor's status is {:?}", status.code());
        ensure!(out.contains("CAP_BPF"), "does not name the missing capability");
        ensure!(out.contains("none was loaded"), "does not say that verdicts could not be had");
        let (status, out, _) = doctor(Vec::new(), &[])?;
        println!("as root: {:?}\n{out}", status.code());
        ensure!(status.code() == Some(0), "root can run the agent, doctor's status is {:?}", status.code());
        let (_, json, _) = doctor(as_nobody()?, &["--json"])?;
        let json: serde_json::Value = serde_json::from_str(&json)?;
        ensure!(json.is_object(), "doctor --json is no object");
        Ok(())
    })
}

#[test]
fn a_port_in_use_is_named_and_ends_with_1() -> Result<()> {
    Rig::run(|rig| {
        let taken = TcpListener::bind(("127.0.0.1", 0))?;
        let address = taken.local_addr()?;
        let (status, _, err) = output(Launch::default().command(rig, address.port())?, rig.dir(), "run", LIMIT)?;
        println!("{:?}: {}", status.code(), err.trim_end());
        ensure!(status.code() == Some(1), "status {:?}", status.code());
        ensure!(err.contains(&address.to_string()), "does not name {address}");
        Ok(())
    })
}

#[test]
fn a_duration_ends_the_agent_with_0() -> Result<()> {
    Rig::run(|rig| {
        let mut command = Launch::default().command(rig, free_port()?)?;
        command.args(["--duration", "1s"]);
        let (status, _, err) = output(command, rig.dir(), "run", LIMIT)?;
        ensure!(status.success(), "{:?}: {err}", status.code());
        Ok(())
    })
}
