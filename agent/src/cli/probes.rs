//! `seismo probes`: the kernel programs of a running agent, one line each; `seismo probes set` switches a family.
//!
//! A switch lasts until the next one, or until SIGHUP or a restart brings back what the configuration says.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use serde::Deserialize;
use serde_json::json;

use super::client::AgentArguments;
use super::table::{Table, colours};
use crate::health::{ProbeState, ProbeStatus};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    agent: AgentArguments,
    /// As a JSON list.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Attach or detach the programs of a family, until SIGHUP or a restart. For root, and for the user that runs the agent.
    Set {
        /// As in the first column, or a key of the configuration's `probes`.
        family: String,
        /// Off: no program of it is attached and its metrics are absent.
        to: Switch,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// What the agent answers to a switch.
#[derive(Debug, Deserialize)]
struct Switched {
    programs: Vec<ProbeStatus>,
}

const PATH: &str = "/api/seismo/probes";

pub fn command(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    let probes: Vec<ProbeStatus> = match &arguments.command {
        None => arguments.agent.json(PATH)?,
        Some(Command::Set { family, to }) => {
            let wanted = json!({ "family": family, "enabled": *to == Switch::On });
            arguments.agent.put::<Switched>(PATH, &wanted)?.programs
        }
    };
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&probes)?)?;
    } else {
        write(&mut out, &probes, colours())?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn write(out: &mut dyn io::Write, probes: &[ProbeStatus], coloured: bool) -> io::Result<()> {
    let head = ["PROBE", "TIER", "PROGRAM", "HOOK", "STATE", "INSNS", "RUNS", "NS/RUN", "REASON"].map(str::to_owned);
    let rows: Vec<_> = probes.iter().map(row).collect();
    let mut table = Table::new(coloured);
    std::iter::once(&head).chain(&rows).for_each(|row| table.fit(row));
    table.write(out, &head, false)?;
    for (probe, row) in probes.iter().zip(&rows) {
        table.write(out, row, matches!(probe.state, ProbeState::Failed | ProbeState::Unsupported))?;
    }
    Ok(())
}

/// A number, or a dash where it is not known.
fn shown(number: Option<u64>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}

fn row(probe: &ProbeStatus) -> [String; 9] {
    [
        probe.probe.clone(),
        if probe.tier.is_empty() { "-".to_owned() } else { probe.tier.clone() },
        probe.program.clone(),
        probe.hook.clone(),
        probe.state.name().to_owned(),
        probe.verified_instructions.to_string(),
        shown(probe.runs),
        shown(probe.run_ns.zip(probe.runs).and_then(|(ns, runs)| ns.checked_div(runs))),
        probe.reason.clone(),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{ProbeState, ProbeStatus, write};

    #[test]
    fn each_program_is_a_line_and_what_never_ran_has_no_average() {
        let probe = |program: &str, state, runs, reason: &str| ProbeStatus {
            probe: "tcp".to_owned(),
            program: program.to_owned(),
            hook: "tp_btf/inet_sock_set_state".to_owned(),
            state,
            reason: reason.to_owned(),
            tier: if program == "tcp_x" { "l0".to_owned() } else { String::new() },
            verified_instructions: 321,
            runs: Some(runs),
            run_ns: Some(runs * 150),
        };
        let probes =
            [probe("tcp_state", ProbeState::Active, 4, ""), probe("tcp_x", ProbeState::Failed, 0, "no\x1b hook")];
        let mut out = Vec::new();
        write(&mut out, &probes, false).unwrap();
        let expected = "\
PROBE  TIER  PROGRAM    HOOK                        STATE   INSNS  RUNS  NS/RUN  REASON
tcp    -     tcp_state  tp_btf/inet_sock_set_state  active  321    4     150
tcp    l0    tcp_x      tp_btf/inet_sock_set_state  failed  321    0     -       no· hook
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
