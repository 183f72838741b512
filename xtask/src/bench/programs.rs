//! What each kernel program costs beyond an empty one on the same hook, by the kernel's own run statistics.
//!
//! A pass of its own, because the statistics cost two clock reads a run. Rounds of three agents (empty programs, the
//! families, the families timing every call) under the same bursts, seconds apart and in alternating order; a
//! difference is only taken within a round. A fourth, who wakes whom, in a ping-pong in scope; no empty program is on its hook.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::agent::Program;
use super::condition::Condition;
use super::judge::{Measured, Per};
use super::loops::Loop;
use super::rig::Rig;
use super::statistics::Quartiles;
use super::targets::{ProgramCost, Workload};

/// Below this a program did not run often enough for its average to mean much.
const FEWEST_RUNS: u64 = 1000;
/// The agent looks at the statistics once a second; the last burst must be in them.
const REFRESH: Duration = Duration::from_millis(1500);
const ROUNDS: usize = 5;
const ROUNDS_QUICK: usize = 2;

const GETPPID: Workload = Workload::Loop(Loop::Getppid);

/// One program's cost over all rounds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    pub probe: String,
    pub program: String,
    pub hook: String,
    pub every_call: bool,
    pub verified_instructions: u64,
    pub run_ns: Quartiles,
    /// Beyond the empty program of the same round, where there is one on its hook.
    pub over_empty_ns: Option<Quartiles>,
}

#[derive(Debug, Default)]
pub struct Programs {
    pub lines: Vec<Line>,
    pub rows: BTreeMap<ProgramCost, Measured>,
}

/// The programs of one round, as each agent showed them.
#[derive(Debug, Default)]
struct Round {
    empty: Vec<Program>,
    families: Vec<Program>,
    every_call: Vec<Program>,
    wakeups: Vec<Program>,
}

pub fn measure(rig: &Rig, quick: bool) -> Result<Programs> {
    let mut order = [Condition::Floor, Condition::MetricsAndSpans, Condition::EveryCall, Condition::Wakeups];
    let mut rounds = Vec::new();
    for _ in 0..if quick { ROUNDS_QUICK } else { ROUNDS } {
        let mut round = Round::default();
        for condition in order {
            let programs = programs(rig, condition)?;
            match condition {
                Condition::Floor => round.empty = programs,
                Condition::EveryCall => round.every_call = programs,
                Condition::Wakeups => round.wakeups = programs,
                _ => round.families = programs,
            }
        }
        rounds.push(round);
        order.reverse();
    }
    Ok(account(&rounds))
}

/// One agent under one burst of each workload there is.
fn programs(rig: &Rig, condition: Condition) -> Result<Vec<Program>> {
    let ping_pong = Workload::Loop(Loop::PingPong);
    let http = rig.nginx().is_ok().then_some(Workload::Http);
    let (in_scope, workloads) = match condition {
        Condition::Wakeups => (ping_pong, vec![ping_pong]),
        // Timing every call changes the syscall family alone.
        Condition::EveryCall => (GETPPID, vec![GETPPID]),
        _ => (http.unwrap_or(GETPPID), [GETPPID, ping_pong].into_iter().chain(http).collect()),
    };
    let agent = rig.attach(condition, in_scope, true)?;
    for workload in workloads {
        rig.burst(workload)?;
    }
    thread::sleep(REFRESH);
    let programs = agent.programs()?;
    rig.detach(agent)?;
    Ok(programs)
}

/// A round's programs with the empty ones of the same round.
type Pair<'a> = (&'a [Program], &'a [Program]);

fn account(rounds: &[Round]) -> Programs {
    let sampled: Vec<Pair<'_>> = rounds.iter().map(|round| (&*round.families, &*round.empty)).collect();
    let every_call: Vec<Pair<'_>> = rounds.iter().map(|round| (&*round.every_call, &*round.empty)).collect();
    let mut lines = lines(&sampled, false);
    lines.extend(self::lines(&every_call, true).into_iter().filter(|line| line.probe == "syscall"));
    let wakeups: Vec<Pair<'_>> = rounds.iter().map(|round| (&*round.wakeups, &*round.empty)).collect();
    lines.extend(self::lines(&wakeups, false).into_iter().filter(|line| line.probe == "wakeup"));
    // Half of a run's time or more is the statistics' own clock; the absolute targets are for a clock of 30 ns.
    let empty: Vec<f64> = rounds.iter().flat_map(|round| &round.empty).filter_map(run_ns).collect();
    let empty = Quartiles::of(&empty).map(|empty| empty.median);
    let note = empty.map_or_else(String::new, |ns| format!("an empty program took {ns:.0} ns"));
    let per = empty.map(|ns| Per { factor: 1.0 / ns, of: "of an empty program" });
    let rows = [
        (ProgramCost::SyscallSampled, &sampled, "syscall"),
        (ProgramCost::SyscallEveryCall, &every_call, "syscall"),
        (ProgramCost::SchedulerSwitch, &sampled, "scheduler"),
    ];
    let rows = rows
        .into_iter()
        .filter_map(|(cost, pairs, family)| {
            let dearest = pairs.iter().filter_map(|pair| dearest_over_empty(*pair, family)).collect();
            Some((cost, Measured { per, note: note.clone(), ..Measured::new(dearest)? }))
        })
        .collect();
    Programs { lines, rows }
}

fn lines(pairs: &[Pair<'_>], every_call: bool) -> Vec<Line> {
    let Some((programs, _)) = pairs.first() else { return Vec::new() };
    let line = |program: &Program| {
        let runs: Vec<f64> = pairs
            .iter()
            .filter_map(|(programs, _)| run_ns(programs.iter().find(|other| other.program == program.program)?))
            .collect();
        let over: Vec<f64> = pairs.iter().filter_map(|pair| over_empty(*pair, &program.program)).collect();
        Some(Line {
            probe: program.probe.clone(),
            program: program.program.clone(),
            hook: program.hook.clone(),
            every_call,
            verified_instructions: program.verified_instructions,
            run_ns: Quartiles::of(&runs)?,
            over_empty_ns: Quartiles::of(&over),
        })
    };
    programs.iter().filter_map(line).collect()
}

fn run_ns(program: &Program) -> Option<f64> {
    let runs = program.runs.filter(|runs| *runs >= FEWEST_RUNS)?;
    Some(program.run_ns? as f64 / runs as f64)
}

fn over_empty((programs, empty): Pair<'_>, name: &str) -> Option<f64> {
    let program = programs.iter().find(|program| program.program == name)?;
    let empty = empty.iter().find(|empty| empty.probe == "floor" && empty.hook == program.hook)?;
    Some(run_ns(program)? - run_ns(empty)?)
}

/// Of a family's programs the one that costs most, for each event that the family sees: a program that is attached for a
/// share of the time costs that share.
fn dearest_over_empty(pair: Pair<'_>, family: &str) -> Option<f64> {
    let of_family = || pair.0.iter().filter(|program| program.probe == family);
    let events = of_family().filter_map(|program| program.runs).max()? as f64;
    let each = |program: &Program| Some(over_empty(pair, &program.program)? * program.runs? as f64 / events);
    of_family().filter_map(each).max_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::{Program, Programs, Round, account};
    use crate::bench::targets::ProgramCost;

    fn program(probe: &str, program: &str, hook: &str, runs: u64, run_ns: u64) -> Program {
        Program {
            probe: probe.to_owned(),
            program: program.to_owned(),
            hook: hook.to_owned(),
            state: "active".to_owned(),
            reason: String::new(),
            runs: Some(runs),
            run_ns: Some(run_ns),
            verified_instructions: 100,
        }
    }

    /// A round on a machine that is `drift` times slower than it was.
    fn round(drift: u64) -> Round {
        let run =
            |probe: &str, name: &str, hook: &str, ns: u64| program(probe, name, hook, 10_000, 10_000 * (ns + drift));
        Round {
            empty: vec![
                run("floor", "floor_enter", "tp_btf/sys_enter", 30),
                run("floor", "floor_exit", "tp_btf/sys_exit", 31),
            ],
            families: vec![
                run("syscall", "syscall_enter", "tp_btf/sys_enter", 37),
                run("syscall", "syscall_exit", "tp_btf/sys_exit", 39),
                run("tcp", "tcp_state", "tp_btf/inet_sock_set_state", 90),
                program("process", "process_exec", "tp_btf/sched_process_exec", 3, 9000),
            ],
            every_call: vec![run("syscall", "syscall_enter", "tp_btf/sys_enter", 59), run("tcp", "tcp_state", "x", 90)],
            wakeups: vec![run("wakeup", "wakeup_waking", "tp_btf/sched_waking", 600), run("tcp", "tcp_state", "x", 90)],
        }
    }

    #[test]
    fn a_program_is_compared_with_the_empty_one_on_its_hook_in_the_same_round() {
        let Programs { lines, rows } = account(&[round(0), round(100), round(50)]);
        let over = |name: &str, every_call: bool| {
            let line = lines.iter().find(|line| line.program == name && line.every_call == every_call).unwrap();
            line.over_empty_ns.map(|over| (over.lower, over.median, over.upper))
        };
        assert_eq!(over("syscall_enter", false), Some((7.0, 7.0, 7.0)));
        assert_eq!(over("syscall_enter", true), Some((29.0, 29.0, 29.0)));
        assert_eq!(over("tcp_state", false), None);
        assert_eq!(rows[&ProgramCost::SyscallSampled].quartiles.median, 8.0);
        assert_eq!(rows[&ProgramCost::SyscallEveryCall].quartiles.median, 29.0);
        assert!(!rows.contains_key(&ProgramCost::SchedulerSwitch));
        assert_eq!(lines.iter().filter(|line| line.program == "tcp_state").count(), 1);
        let waking = lines.iter().find(|line| line.program == "wakeup_waking").unwrap();
        assert_eq!((waking.run_ns.median, waking.over_empty_ns), (650.0, None));
    }

    #[test]
    fn a_program_that_is_attached_for_a_share_of_the_calls_costs_that_share() {
        let mut rounds = [round(0)];
        // Nine calls in ten have none.
        rounds[0].families[0] = program("syscall", "syscall_enter", "tp_btf/sys_enter", 1_000, 1_000 * 130);
        let measured = &account(&rounds).rows[&ProgramCost::SyscallSampled];
        assert_eq!(measured.quartiles.median, 10.0);
    }

    #[test]
    fn a_program_that_hardly_ran_has_no_average() {
        let programs = account(&[round(0)]);
        assert!(programs.lines.iter().all(|line| line.program != "process_exec"));
        // Only the syscall family changes when every call is timed.
        assert!(programs.lines.iter().all(|line| !line.every_call || line.program == "syscall_enter"));
    }
}
