//! `seismo doctor` and `seismo verify`: what this kernel offers, what will be attached and why, what is missing and what
//! to do about it. Loads every program for its verdict where it may; attaches nothing.

use std::fmt::Write as _;

use seismo_common::config::Settings;
use serde::Serialize;

use crate::bpf::capabilities;
use crate::bpf::loader::{self, Attach};
use crate::bpf::plan::{self, Decision, Plan, Wanted};
use crate::bpf::support::Facts;
use crate::health::{ProbeState, ProbeStatus};
use crate::model::probe::FamilySpec;
use crate::probes::FAMILIES;

/// Ring for a load that attaches nothing: so large that there are lanes beside it, and programs that write to them.
const PROBE_RING_BYTES: u32 = 2 << 20;

/// A family with the states of its programs.
#[derive(Debug, Serialize)]
pub struct FamilyReport {
    pub name: &'static str,
    pub gives: &'static str,
    /// Which of its ways of seeing is used, and what it gives.
    pub tier: Option<(&'static str, &'static str)>,
    pub state: ProbeState,
    pub reasons: Vec<String>,
    pub programs: Vec<ProbeStatus>,
}

/// All that `seismo doctor` says.
#[derive(Debug, Serialize)]
pub struct Report {
    pub can_run: bool,
    /// What stands against running, or against seeing everything, each with what to do.
    pub problems: Vec<String>,
    /// Were the programs really loaded, or only planned?
    pub loaded: bool,
    /// The kernel refused no program and no tier.
    pub accepted: bool,
    pub facts: Facts,
    /// Capabilities that loading takes, that running uses, and that are kept after attaching.
    pub capabilities_needed: Vec<&'static str>,
    pub capabilities_kept: Vec<&'static str>,
    pub families: Vec<FamilyReport>,
    /// What is read of the kernel's files.
    pub files: Vec<ProbeStatus>,
}

/// Reads the facts and, where permitted, loads each program that is wanted.
pub fn examine(mut wanted: Wanted<'_>) -> Report {
    let facts = Facts::read(FAMILIES);
    let mut problems = obstacles(&facts);
    let mut loaded = None;
    if problems.is_empty() {
        let best = loader::load_best(&facts, FAMILIES, &mut wanted, Settings::DEFAULT, PROBE_RING_BYTES, Attach::No);
        match best {
            Ok((plan, kernel)) => loaded = Some((plan, kernel.programs.statuses())),
            Err(error) => problems.push(format!("{error:#}")),
        }
    }
    let (loaded, (plan, statuses)) = match loaded {
        Some(loaded) => (true, loaded),
        None => {
            // What cannot be had is told once, above.
            let plan = plan::plan(&facts, FAMILIES, &wanted).unwrap_or_default();
            let statuses = plan.programs.iter().map(planned_status).collect();
            (false, (plan, statuses))
        }
    };
    let families: Vec<FamilyReport> = FAMILIES.iter().map(|family| report(family, &plan, &statuses)).collect();
    let can_run = problems.is_empty()
        && families.iter().any(|family| matches!(family.state, ProbeState::Active | ProbeState::Degraded));
    if problems.is_empty() && !can_run {
        problems.push("no probe family can be attached; the reasons stand beside each".to_owned());
    }
    problems.extend(refused(&wanted));
    if facts.missing_capabilities.iter().any(|name| name == capabilities::CAP_SYS_PTRACE.name()) {
        problems.push("CAP_SYS_PTRACE is missing: executables of other users' processes cannot be named".to_owned());
    }
    let names = |list: &[capabilities::Capability]| list.iter().map(|capability| capability.name()).collect();
    Report {
        can_run,
        accepted: wanted.refused.is_empty() && statuses.iter().all(|status| status.state != ProbeState::Failed),
        problems,
        loaded,
        capabilities_needed: names(capabilities::NEEDED),
        capabilities_kept: names(&capabilities::kept(&facts.kernel_release)),
        families,
        files: Vec::new(),
        facts,
    }
}

/// Each tier that the kernel refused though it has what that takes: the next one is used.
fn refused(wanted: &Wanted<'_>) -> impl Iterator<Item = String> {
    wanted.refused.iter().map(|((family, tier), reason)| format!("{family}: the kernel refused tier {tier}: {reason}"))
}

/// What makes loading pointless to try; each says what to do.
pub fn obstacles(facts: &Facts) -> Vec<String> {
    let mut problems = Vec::new();
    if let Some(error) = &facts.btf_error {
        problems.push(format!("no kernel type information: {error}"));
    }
    if !facts.can_load() {
        problems.push(format!(
            "no permission to load kernel programs: {} missing; run as root, or with the capabilities {}",
            facts.missing_capabilities.join(", "),
            capabilities::NEEDED.iter().map(|capability| capability.name()).collect::<Vec<_>>().join(", ")
        ));
    }
    problems
}

fn planned_status(planned: &plan::Planned) -> ProbeStatus {
    let (state, reason) = match &planned.decision {
        _ if !planned.wanted => (ProbeState::Disabled, loader::OFF.to_owned()),
        Decision::Attach => (ProbeState::Active, String::new()),
        Decision::OtherTier(used) => (ProbeState::Disabled, format!("tier {used} is used")),
        Decision::Unsupported(fact) => (ProbeState::Unsupported, fact.clone()),
    };
    ProbeStatus {
        probe: planned.family.to_owned(),
        program: planned.program.name.to_owned(),
        hook: planned.program.hook.label(),
        state,
        tier: planned.tier.to_owned(),
        reason,
        verified_instructions: 0,
        runs: None,
        run_ns: None,
    }
}

fn report(family: &'static FamilySpec, plan: &Plan, statuses: &[ProbeStatus]) -> FamilyReport {
    let (state, reasons) = plan::family_state(family, statuses);
    let programs = statuses.iter().filter(|status| status.probe == family.name).cloned().collect();
    let tier = plan.tiers.get(family.name).map(|tier| (tier.name, tier.gives));
    FamilyReport { name: family.name, gives: family.gives, tier, state, reasons, programs }
}

impl Report {
    /// The report for people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let facts = &self.facts;
        let mut line = |text: String| {
            let _ = writeln!(out, "{text}");
        };
        line(format!("kernel        {} ({}, {} CPUs)", facts.kernel_release, facts.architecture, facts.cpus));
        line(format!(
            "type info     {}",
            facts.btf_error.clone().unwrap_or_else(|| format!(
                "present; {}",
                if facts.missing_fields.is_empty() {
                    "every field found".to_owned()
                } else {
                    format!("not found: {}", facts.missing_fields.join(", "))
                }
            ))
        ));
        line(format!("lockdown      {}", facts.lockdown));
        line(format!(
            "BPF           JIT {}, unprivileged {}",
            jit(&facts.bpf_jit),
            unprivileged(&facts.unprivileged_bpf_disabled)
        ));
        line(format!(
            "capabilities  {}",
            if facts.missing_capabilities.is_empty() {
                format!(
                    "all there ({}); kept after attaching: {}",
                    facts.capabilities.join(", "),
                    self.capabilities_kept.join(", ")
                )
            } else {
                format!("missing {}", facts.missing_capabilities.join(", "))
            }
        ));
        line(format!(
            "programs      {}",
            if self.loaded {
                "each was loaded for its verdict; none was attached"
            } else {
                "planned from the facts; none was loaded"
            }
        ));
        for family in &self.families {
            line(String::new());
            line(format!("{:<12}  {:<11}  {}", family.name, family.state.name(), family.gives));
            if let Some((tier, gives)) = family.tier {
                line(format!("  tier {tier}: {gives}"));
            }
            for program in &family.programs {
                let verdict = match program.state {
                    ProbeState::Active if self.loaded => {
                        format!("{} instructions verified", program.verified_instructions)
                    }
                    ProbeState::Active => "will be tried".to_owned(),
                    state => format!("{} {}", state.name(), program.reason),
                };
                line(format!("  {:<20} {:<30} {}", program.program, program.hook, verdict.trim_end()));
            }
            for reason in &family.reasons {
                line(format!("  ! {reason}"));
            }
        }
        if !self.files.is_empty() {
            line(String::new());
            line("kernel files".to_owned());
        }
        for file in &self.files {
            let state = format!("{} {}", file.state.name(), file.reason);
            line(format!("  {:<20} {:<30} {}", file.program, file.hook, state.trim_end()));
        }
        line(String::new());
        for problem in &self.problems {
            line(format!("! {problem}"));
        }
        line(if self.can_run { "The agent can run.".to_owned() } else { "The agent cannot run.".to_owned() });
        out
    }
}

fn jit(value: &str) -> &str {
    match value {
        "0" => "off",
        "1" | "2" => "on",
        other => other,
    }
}

fn unprivileged(value: &str) -> &str {
    match value {
        "0" => "allowed",
        "1" | "2" => "not allowed",
        other => other,
    }
}
