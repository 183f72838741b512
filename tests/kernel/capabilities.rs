//! The capabilities of the systemd unit are those that the agent needs: enough all together, and none too many.
//!
//! Found by dropping each: an agent with one less must not start, or must show less of the same traffic.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;

use anyhow::{Context, Result, ensure};
use seismo_tests::agent::{Agent, Launch, nobody, program_for_all};
use seismo_tests::conversation::{client, pause, server, to_json};
use seismo_tests::programs;
use seismo_tests::rig::Rig;
use std::io::Write;
use std::time::Duration;

const CLIENT: &str = env!("CARGO_BIN_EXE_seismo-testclient");
const UNIT: &str = "deploy/systemd/seismo.service";

/// `CapabilityBoundingSet=` of the unit, as `setpriv` spells it: without `CAP_`, in small letters.
fn unit_capabilities() -> Result<Vec<String>> {
    let text = fs::read_to_string(programs::repository().join(UNIT)).context(UNIT)?;
    let lines = text.lines().filter_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let names: Vec<String> = lines.flat_map(str::split_whitespace).map(str::to_owned).collect();
    ensure!(!names.is_empty(), "{UNIT} names no CapabilityBoundingSet");
    let plain = |name: &String| name.strip_prefix("CAP_").map(str::to_lowercase);
    names.iter().map(|name| plain(name).with_context(|| format!("{UNIT}: {name}"))).collect()
}

/// Locked memory without limit for what this process starts from now on, if the unit gives it: old kernels account maps so.
fn lock_memory_like_the_unit() -> Result<()> {
    let text = fs::read_to_string(programs::repository().join(UNIT)).context(UNIT)?;
    if text.lines().any(|line| line == "LimitMEMLOCK=infinity") {
        let unlimited = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: the limit outlives the call.
        let set = unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const unlimited) };
        let error = std::io::Error::last_os_error();
        // Who may not raise it (no CAP_SYS_RESOURCE) goes on: from 5.11 on nothing depends on it, before that the agent
        // will say that it could not make its maps.
        ensure!(set == 0 || error.kind() == ErrorKind::PermissionDenied, "locked memory: {error}");
    }
    Ok(())
}

/// Runs the agent as the unit does: not as root, with these capabilities and without a way to get more.
fn limited(rig: &Rig, capabilities: &[&str]) -> Result<Launch> {
    let set = ["-all".to_owned()].into_iter().chain(capabilities.iter().map(|name| format!("+{name}")));
    let set = set.collect::<Vec<_>>().join(",");
    let mut through = nobody()?;
    through.extend(["bounding-set", "inh-caps", "ambient-caps"].map(|kind| format!("--{kind}={set}").into()));
    through.push("--no-new-privs".into());
    Ok(Launch { through, program: Some(program_for_all(rig)?), ..Launch::default() })
}

/// What an agent achieves: the state of each probe, and what it knows of a process of another user and of its
/// requests. Two agents that achieve the same need the same.
fn achievement(rig: &Rig, launch: &Launch) -> Result<BTreeMap<String, String>> {
    let agent = Agent::launch(rig, launch)?;
    let answer = server("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let steps = [pause(), client("GET /a HTTP/1.1\r\nHost: x\r\n\r\n"), answer, pause()];
    let mut process = rig.start_client(CLIENT, "a-long-service-name", &["play"])?;
    process.input()?.write_all(to_json(&steps).as_bytes())?;
    process.finish(Duration::from_secs(20))?;
    let mut found = BTreeMap::new();
    let mut spans = agent.awaited_spans(2, |_| true)?;
    spans.sort_by_key(|span| span.kind);
    for span in spans {
        let facts = [span.service(), span.resource("process.executable.name"), span.path(), span.status()];
        found.insert(format!("span {:?}", span.kind), format!("{facts:?}"));
    }
    for sample in agent.page()?.select("seismo_probe_state", &[]).filter(|sample| sample.value == 1.0) {
        let label = |name: &str| sample.labels.get(name).cloned().unwrap_or_default();
        found.insert(format!("{} {}", label("probe"), label("hook")), label("state"));
    }
    agent.stop()?;
    Ok(found)
}

#[test]
fn the_units_capabilities_are_enough_and_none_is_too_many() -> Result<()> {
    Rig::run(|rig| {
        lock_memory_like_the_unit()?;
        let names = unit_capabilities()?;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        println!("{UNIT}: {names:?}");
        let free = achievement(rig, &Launch::default())?;
        let all = achievement(rig, &limited(rig, &names)?).context("with all capabilities of the unit")?;
        ensure!(all == free, "the unit's capabilities are too few: {all:#?}\nunlimited: {free:#?}");
        let mut needless = Vec::new();
        for left_out in &names {
            let rest: Vec<&str> = names.iter().filter(|name| *name != left_out).copied().collect();
            match achievement(rig, &limited(rig, &rest)?) {
                Err(error) => println!("without {left_out}: {}", format!("{error:#}").lines().next().unwrap_or("")),
                Ok(less) if less != all => {
                    let differs = all.iter().find(|(key, value)| less.get(*key) != Some(value));
                    println!("without {left_out}: not {differs:?}");
                }
                Ok(_) => needless.push(*left_out),
            }
        }
        ensure!(needless.is_empty(), "works the same without {needless:?}");
        Ok(())
    })
}
