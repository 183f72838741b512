//! What to attach, decided from the facts by a pure function: for each family the best tier that the host can carry,
//! for each program whether it can be tried, and what the programs must be told about this kernel.

use std::collections::{BTreeMap, BTreeSet};

use seismo_common::config::Settings;
use seismo_common::lane::{LANE_SIZE, LANES_PER_CPU};
use seismo_common::offsets::FIELDS;

use super::capabilities::version;
use super::support::{COOKIE, Facts, REQUEST_FLAGS, TASK_BTF, TASK_REGISTERS, UNIX_CAST};
use crate::health::{ProbeState, ProbeStatus};
use crate::model::probe::{FamilySpec, Hook, ProgramSpec, TierSpec};

/// Decision for one program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Attach,
    /// Its family uses this tier, to which the program does not belong.
    OtherTier(&'static str),
    /// The fact that stands against it.
    Unsupported(String),
}

/// One program with its decision.
#[derive(Clone, Debug)]
pub struct Planned {
    pub family: &'static str,
    pub program: &'static ProgramSpec,
    pub decision: Decision,
    /// Its family is wanted now; else it is only made ready.
    pub wanted: bool,
    /// Name of the tier that is used, if the program belongs to it.
    pub tier: &'static str,
}

/// Everything that was decided.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub programs: Vec<Planned>,
    /// The tier that each family uses, where it has tiers and the host can carry one.
    pub tiers: BTreeMap<&'static str, &'static TierSpec>,
}

/// What stands beside the facts.
#[derive(Clone, Debug, Default)]
pub struct Wanted<'a> {
    /// Families that the configuration wants.
    pub families: BTreeSet<&'a str>,
    /// Families that must use a certain tier, with its name.
    pub forced: BTreeMap<&'a str, &'a str>,
    /// Tiers (family, tier) that the kernel has refused, and what it said.
    pub refused: BTreeMap<(&'static str, &'static str), String>,
    /// Every program that can be loaded, whatever tier it belongs to: for verdicts, not to be attached.
    pub every_tier: bool,
}

/// Decides for every program of every family, those that are off too: they may be switched on later. An error says why a tier that must be used cannot be.
pub fn plan(facts: &Facts, families: &[&'static FamilySpec], wanted: &Wanted<'_>) -> Result<Plan, String> {
    let mut plan = Plan::default();
    for family in families {
        let enabled = wanted.families.contains(family.name);
        let (tier, refusal) = match choose(facts, family, wanted) {
            Ok(tier) => (tier, None),
            // What is off does not keep the agent from starting.
            Err(refusal) if !enabled => (None, Some(refusal)),
            Err(refusal) => return Err(refusal),
        };
        for program in family.programs {
            let own = tier.filter(|tier| program.tiers.contains(&tier.name));
            let decision = match tier {
                None if refusal.is_some() => Decision::Unsupported(refusal.clone().unwrap_or_default()),
                Some(tier) if !program.tiers.is_empty() && own.is_none() && !wanted.every_tier => {
                    Decision::OtherTier(tier.name)
                }
                _ => decide(facts, family, program),
            };
            let tier = own.map_or("", |tier| tier.name);
            plan.programs.push(Planned { family: family.name, program, decision, wanted: enabled, tier });
        }
        if let Some(tier) = tier {
            plan.tiers.insert(family.name, tier);
        }
    }
    Ok(plan)
}

/// The best tier whose programs can all be tried, but those that it can do without.
fn choose(
    facts: &Facts,
    family: &'static FamilySpec,
    wanted: &Wanted<'_>,
) -> Result<Option<&'static TierSpec>, String> {
    if let Some(name) = wanted.forced.get(family.name) {
        let tier = family.tiers.iter().find(|tier| tier.name == *name);
        let tier = tier.ok_or_else(|| format!("{} has no tier {name}", family.name))?;
        return match obstacle(facts, family, tier) {
            Some(fact) => Err(format!("{}.tier: {name} cannot be used here: {fact}", family.name)),
            None => Ok(Some(tier)),
        };
    }
    let usable = |tier: &&TierSpec| {
        !wanted.refused.contains_key(&(family.name, tier.name)) && obstacle(facts, family, tier).is_none()
    };
    Ok(family.tiers.iter().find(usable))
}

/// A need that is a release: of what the kernel's type information does not show, such as an instruction.
const RELEASE: &str = "Linux ";

/// Releases on which the return from a probed function is a system call that filters do not let pass: a process in a
/// container with such a filter ends (`uretprobe`, 6.11; `seccomp_uretprobe_allowed`, 6.14 and later releases of 6.12 and 6.13).
const RETURNS_KILL: std::ops::Range<(u32, u32)> = (6, 11)..(6, 14);

/// What stands against a tier.
fn obstacle(facts: &Facts, family: &FamilySpec, tier: &TierSpec) -> Option<String> {
    let heart = family.programs.iter().filter(|each| each.without.is_none() && each.tiers.contains(&tier.name));
    heart.map(|program| decide(facts, family, program)).find_map(|decision| match decision {
        Decision::Unsupported(fact) => Some(fact),
        _ => None,
    })
}

/// The programs' settings: what the agent wants of them, and what this kernel and the plan make of it.
pub fn settings(facts: &Facts, plan: &Plan, base: Settings) -> Settings {
    let has = |function: &str| u32::from(facts.functions.contains_key(function));
    let traits = plan.tiers.values().map(|tier| tier.traits);
    let mut settings = Settings {
        task_btf: has(TASK_BTF),
        unix_cast: has(UNIX_CAST),
        words_type: facts.cast.map_or(0, |cast| cast.words),
        task_registers: has(TASK_REGISTERS),
        // `include/linux/tracepoint.h` no longer turns preemption off around programs, nor does `__bpf_trace_run`.
        preemptible: u32::from(version(&facts.kernel_release) >= (7, 0)),
        // Which programs may call the helper is nowhere to be read; this one became free to use about as late.
        cgroup_ancestor: has(COOKIE),
        cookies: has(COOKIE),
        retransmit_errors: u32::from(facts.tracepoints.get("tcp_retransmit_skb").is_some_and(|given| *given > 2)),
        ..base
    };
    for traits in traits {
        settings.cookies &= u32::from(traits.cookies);
        settings.iterators |= u32::from(traits.iterators);
    }
    let signature = |function: &str| {
        let parameters = facts.functions.get(function)?;
        let flags = parameters.iter().position(|name| name == "flags")?;
        Some((parameters.len() as u32, flags as u32))
    };
    if let Some(both) = signature("tcp_recvmsg") {
        (settings.tcp_receive_parameters, settings.tcp_receive_flags) = both;
    }
    if let Some(both) = signature("udp_recvmsg") {
        (settings.udp_receive_parameters, settings.udp_receive_flags) = both;
    }
    let flag = |name: &str| {
        let bits = facts.constants.get(REQUEST_FLAGS)?;
        bits.iter().find(|(each, _)| each == name).and_then(|(_, bit)| 1u32.checked_shl(*bit))
    };
    if let Some((counted, flushing)) = flag("__RQF_IO_STAT").zip(flag("__RQF_FLUSH_SEQ")) {
        (settings.block_counted, settings.block_flushing) = (counted, flushing);
    }
    settings
}

/// Scratch buffers that the programs of the chosen tiers need per CPU.
pub fn scratches(plan: &Plan) -> u32 {
    plan.tiers.values().map(|tier| tier.traits.scratches).max().unwrap_or(1)
}

/// Lanes for the programs of the chosen tiers: those of as many of the CPUs as fit into the ring's size once more. Records are
/// ordered in them as x86 orders stores.
pub fn lanes(plan: &Plan, ring_bytes: u32, cpus: usize) -> u32 {
    let wanted = cfg!(target_arch = "x86_64") && plan.tiers.values().any(|tier| tier.traits.lanes);
    let fitting = ring_bytes as usize / (LANES_PER_CPU as usize * LANE_SIZE);
    if wanted { LANES_PER_CPU * fitting.min(cpus) as u32 } else { 0 }
}

/// State of a family, from its programs' states: what it lost makes it degraded, a missing heart makes it fail.
/// Programs of tiers that are not used do not matter.
pub fn family_state(family: &FamilySpec, statuses: &[ProbeStatus]) -> (ProbeState, Vec<String>) {
    let mut state = ProbeState::Disabled;
    let mut reasons = Vec::new();
    for program in family.programs {
        let Some(status) = statuses.iter().find(|status| status.program == program.name) else { continue };
        match (status.state, program.without) {
            (ProbeState::Disabled, _) => {}
            (ProbeState::Active | ProbeState::Degraded, _) => {
                if state == ProbeState::Disabled {
                    state = ProbeState::Active;
                }
            }
            (_, Some(loss)) => {
                reasons.push(format!("{loss}: {}", status.reason));
                if matches!(state, ProbeState::Active | ProbeState::Disabled) {
                    state = ProbeState::Degraded;
                }
            }
            (worse, None) => {
                reasons.push(format!("{}: {}", status.program, status.reason));
                state = worse;
            }
        }
    }
    (state, reasons)
}

fn decide(facts: &Facts, family: &FamilySpec, program: &ProgramSpec) -> Decision {
    if let Some(error) = &facts.btf_error {
        return Decision::Unsupported(format!("no kernel type information: {error}"));
    }
    let place = program.hook.place();
    let (there, kind) = match program.hook {
        Hook::TpBtf(_) | Hook::TpBtfOf { .. } => (facts.tracepoints.contains_key(place), "tracepoint"),
        Hook::FExit(_) => (facts.functions.contains_key(place), "function"),
        Hook::Iter { .. } => (facts.iterators.contains(place), "iterator over"),
        Hook::User { .. } => (facts.user_probes, "probes in processes, for"),
    };
    if !there {
        return Decision::Unsupported(format!("this kernel has no {kind} {place}"));
    }
    if let Hook::TpBtfOf { name, arguments } = program.hook
        && let Some(given) = facts.tracepoints.get(name).filter(|given| **given < arguments)
    {
        return Decision::Unsupported(format!(
            "this kernel's tracepoint {name} gives {given} arguments, not {arguments}"
        ));
    }
    let tiers = family.tiers.iter().filter(|tier| program.tiers.contains(&tier.name));
    let mut helpers = tiers.flat_map(|tier| tier.helpers).chain(program.hook.helpers());
    if let Some(helper) = helpers.find(|helper| !facts.functions.contains_key(**helper)) {
        return Decision::Unsupported(format!("this kernel has no {helper}"));
    }
    for of in program.structs {
        let missing = FIELDS
            .iter()
            .filter(|field| field.required && field.of == *of)
            .map(|field| format!("{}.{}", field.of, field.names[0]))
            .find(|name| facts.missing_fields.contains(name));
        if let Some(name) = missing {
            return Decision::Unsupported(format!("this kernel has no field {name}"));
        }
    }
    let release = version(&facts.kernel_release);
    if let Hook::User { end: true, .. } = program.hook
        && RETURNS_KILL.contains(&release)
    {
        return Decision::Unsupported("before 6.14 this kernel ends processes under seccomp that return".to_owned());
    }
    let younger = |need: &&&str| need.strip_prefix(RELEASE).is_some_and(|need| release < version(need));
    if let Some(need) = program.fields.iter().find(younger) {
        return Decision::Unsupported(format!("this kernel is older than {need}"));
    }
    match program.fields.iter().find(|field| facts.missing_fields.iter().any(|missing| missing == *field)) {
        Some(field) => Decision::Unsupported(format!("this kernel has no field {field}")),
        None => Decision::Attach,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::{BTreeMap, BTreeSet};

    use seismo_common::config::Settings;

    use super::{Decision, Plan, Wanted, decide, family_state, lanes, plan, scratches, settings};
    use crate::bpf::support::Facts;
    use crate::health::{ProbeState, ProbeStatus};
    use crate::model::probe::{FamilySpec, Hook, ProgramSpec, TierSpec, TierTraits};

    const PROGRAM: ProgramSpec = ProgramSpec {
        name: "x",
        hook: Hook::TpBtf("sched_switch"),
        structs: &["task_struct"],
        fields: &["task_struct.sched_info.run_delay"],
        without: None,
        tiers: &[],
    };

    const fn program(name: &'static str, hook: Hook, tiers: &'static [&'static str]) -> ProgramSpec {
        ProgramSpec { name, hook, structs: &[], fields: &[], without: None, tiers }
    }

    const fn tier(name: &'static str, cookies: bool, scratches: u32) -> TierSpec {
        TierSpec {
            name,
            gives: "",
            helpers: &[],
            traits: TierTraits { cookies, iterators: false, scratches, lanes: cookies },
        }
    }

    static TIERED: FamilySpec = FamilySpec {
        name: "f",
        gives: "",
        programs: &[
            program("fast", Hook::TpBtf("new"), &["best", "good"]),
            program("extra", Hook::TpBtf("newest"), &["best"]),
            program("end", Hook::FExit("function"), &["traced"]),
            program("slow", Hook::TpBtf("old"), &["last"]),
        ],
        tiers: &[tier("best", true, 1), tier("good", true, 1), tier("traced", true, 12), tier("last", false, 1)],
        restart: &[],
        beside: &[],
        metrics: &[],
        samples: |_, _| {},
        workload_samples: |_, _| {},
    };

    fn facts() -> Facts {
        Facts { tracepoints: BTreeMap::from([("sched_switch".to_owned(), 4)]), ..Facts::default() }
    }

    fn with(tracepoints: &[&str], functions: &[&str]) -> Facts {
        let tracepoints = tracepoints.iter().map(|name| ((*name).to_owned(), 1)).collect();
        let functions = functions.iter().map(|name| ((*name).to_owned(), Vec::new())).collect();
        Facts { tracepoints, functions, ..facts() }
    }

    fn wanted() -> Wanted<'static> {
        Wanted { families: BTreeSet::from(["f"]), ..Wanted::default() }
    }

    fn attached(plan: &Plan) -> Vec<&str> {
        let attached = plan.programs.iter().filter(|planned| planned.decision == Decision::Attach);
        attached.map(|planned| planned.program.name).collect()
    }

    #[test]
    fn as_many_cpus_have_lanes_as_fit_beside_the_ring_where_the_tier_has_any() {
        let best = plan(&with(&["new", "newest", "old"], &[]), &[&TIERED], &wanted()).unwrap();
        assert_eq!([512 << 10, 1 << 20, 2 << 20, 8 << 20].map(|ring| lanes(&best, ring, 4)), [0, 2, 6, 8]);
        assert_eq!(lanes(&best, 8 << 20, 1000), 30);
        let last = plan(&with(&["old"], &[]), &[&TIERED], &wanted()).unwrap();
        assert_eq!((attached(&last), lanes(&last, 8 << 20, 4)), (vec!["slow"], 0));
    }

    #[test]
    fn a_program_is_attached_when_nothing_is_missing() {
        assert_eq!(decide(&facts(), &TIERED, &PROGRAM), Decision::Attach);
    }

    #[test]
    fn an_iterator_is_attached_where_the_kernel_has_it_and_what_its_program_calls() {
        let hook = Hook::Iter { over: "task_file", helpers: &["bpf_sock_from_file"] };
        let program = ProgramSpec { hook, ..PROGRAM };
        let missing = |what: &str| Decision::Unsupported(format!("this kernel has no {what}"));
        let mut facts = facts();
        assert_eq!(decide(&facts, &TIERED, &program), missing("iterator over task_file"));
        facts.iterators.insert("task_file".to_owned());
        assert_eq!(decide(&facts, &TIERED, &program), missing("bpf_sock_from_file"));
        facts.functions.insert("bpf_sock_from_file".to_owned(), Vec::new());
        assert_eq!(decide(&facts, &TIERED, &program), Decision::Attach);
    }

    #[test]
    fn no_return_is_probed_where_that_could_end_a_process() {
        let program =
            |end| ProgramSpec { hook: Hook::User { function: "f", end }, fields: &[], structs: &[], ..PROGRAM };
        let mut facts = Facts { user_probes: true, ..facts() };
        for (release, ends) in
            [("6.10.9", true), ("6.11.0", false), ("6.13.12", false), ("6.14.1", true), ("6.1.2", true)]
        {
            facts.kernel_release = release.to_owned();
            assert_eq!(decide(&facts, &TIERED, &program(true)) == Decision::Attach, ends, "{release}");
            assert_eq!(decide(&facts, &TIERED, &program(false)), Decision::Attach, "{release}");
        }
        facts.user_probes = false;
        let missing = Decision::Unsupported("this kernel has no probes in processes, for f".to_owned());
        assert_eq!(decide(&facts, &TIERED, &program(false)), missing);
    }

    #[test]
    fn the_first_missing_fact_is_named() {
        let unsupported = |text: &str| Decision::Unsupported(text.to_owned());
        let mut without = facts();
        let late = ProgramSpec { fields: &["Linux 5.12"], ..PROGRAM };
        without.kernel_release = "5.10.0-33-cloud-amd64".to_owned();
        assert_eq!(decide(&without, &TIERED, &late), unsupported("this kernel is older than Linux 5.12"));
        without.kernel_release = "5.12.1".to_owned();
        assert_eq!(decide(&without, &TIERED, &late), Decision::Attach);
        without.missing_fields = vec!["task_struct.sched_info.run_delay".to_owned()];
        let decision = decide(&without, &TIERED, &PROGRAM);
        assert_eq!(decision, unsupported("this kernel has no field task_struct.sched_info.run_delay"));
        without.missing_fields = vec!["task_struct.pid".to_owned()];
        assert_eq!(decide(&without, &TIERED, &PROGRAM), unsupported("this kernel has no field task_struct.pid"));
        without.tracepoints.clear();
        assert_eq!(decide(&without, &TIERED, &PROGRAM), unsupported("this kernel has no tracepoint sched_switch"));
        without.btf_error = Some("gone".to_owned());
        assert_eq!(decide(&without, &TIERED, &PROGRAM), unsupported("no kernel type information: gone"));
    }

    #[test]
    fn a_tracepoint_that_gives_too_little_is_named_with_what_it_gives() {
        let of = |arguments| ProgramSpec { hook: Hook::TpBtfOf { name: "sched_switch", arguments }, ..PROGRAM };
        assert_eq!(decide(&facts(), &TIERED, &of(4)), Decision::Attach);
        let refused = "this kernel's tracepoint sched_switch gives 4 arguments, not 5";
        assert_eq!(decide(&facts(), &TIERED, &of(5)), Decision::Unsupported(refused.to_owned()));
    }

    #[test]
    fn flags_of_block_requests_are_those_of_the_kernel_s_own_list() {
        let mut facts = facts();
        let plan = Plan::default();
        let flags = |facts: &Facts| {
            let settings = settings(facts, &plan, Settings::DEFAULT);
            (settings.block_counted, settings.block_flushing)
        };
        assert_eq!(flags(&facts), (1 << 13, 1 << 4));
        let bits = [("__RQF_FLUSH_SEQ", 1), ("__RQF_IO_STAT", 8)].map(|(name, bit)| (name.to_owned(), bit));
        facts.constants.insert("rqf_flags", bits.to_vec());
        assert_eq!(flags(&facts), (1 << 8, 1 << 1));
    }

    #[test]
    fn the_best_tier_that_the_kernel_carries_is_used_and_no_program_of_another() {
        let cases: [(&[&str], &[&str], &[&str]); 4] = [
            (&["new", "newest", "old"], &["function"], &["fast", "extra"]),
            (&["new", "old"], &["function"], &["fast"]),
            (&["old"], &["function"], &["end"]),
            (&["old"], &[], &["slow"]),
        ];
        for (tracepoints, functions, expected) in cases {
            let plan = plan(&with(tracepoints, functions), &[&TIERED], &wanted()).unwrap();
            assert_eq!(attached(&plan), expected, "{tracepoints:?} {functions:?}");
        }
        let none = plan(&with(&[], &[]), &[&TIERED], &wanted()).unwrap();
        assert_eq!(none.tiers.len(), 0);
        assert!(none.programs.iter().all(|planned| matches!(planned.decision, Decision::Unsupported(_))));
    }

    #[test]
    fn a_tier_that_the_kernel_refused_is_not_tried_again() {
        let refused = ["best", "good", "traced"].map(|tier| (("f", tier), String::new())).into();
        let plan = plan(&with(&["new", "newest", "old"], &["function"]), &[&TIERED], &Wanted { refused, ..wanted() });
        assert_eq!(attached(&plan.unwrap()), ["slow"]);
    }

    #[test]
    fn a_forced_tier_is_used_or_said_to_be_impossible() {
        let forced = |name| Wanted { forced: BTreeMap::from([("f", name)]), ..wanted() };
        let facts = with(&["new", "newest", "old"], &[]);
        assert_eq!(attached(&plan(&facts, &[&TIERED], &forced("last")).unwrap()), ["slow"]);
        let refused = plan(&facts, &[&TIERED], &forced("traced")).unwrap_err();
        assert_eq!(refused, "f.tier: traced cannot be used here: this kernel has no function function");
    }

    #[test]
    fn settings_say_what_the_tier_and_the_kernel_are_like() {
        let settings_of = |tracepoints: &[&str], functions: &[&str]| {
            let facts = with(tracepoints, functions);
            let plan = plan(&facts, &[&TIERED], &wanted()).unwrap();
            (settings(&facts, &plan, Settings::DEFAULT), scratches(&plan))
        };
        let (modern, one) = settings_of(&["new"], &["bpf_get_socket_ptr_cookie", "bpf_get_current_task_btf"]);
        assert_eq!((modern.cookies, modern.task_btf, modern.unix_cast, one), (1, 1, 0, 1));
        let (walking, _) = settings_of(&["old"], &["bpf_get_socket_ptr_cookie"]);
        assert_eq!((walking.cookies, walking.task_btf), (0, 0));
        let (traced, many) = settings_of(&[], &["function"]);
        assert_eq!((traced.cookies, many), (0, 12));
    }

    #[test]
    fn a_family_whose_tier_is_active_does_not_suffer_from_the_others() {
        let status = |program: &str, state| ProbeStatus {
            probe: "f".to_owned(),
            program: program.to_owned(),
            hook: String::new(),
            state,
            tier: String::new(),
            reason: "r".to_owned(),
            verified_instructions: 0,
            runs: None,
            run_ns: None,
        };
        let others = ["extra", "end", "slow"].map(|name| status(name, ProbeState::Disabled));
        let with_first = |state| [vec![status("fast", state)], others.to_vec()].concat();
        assert_eq!(family_state(&TIERED, &with_first(ProbeState::Active)).0, ProbeState::Active);
        assert_eq!(family_state(&TIERED, &with_first(ProbeState::Failed)).0, ProbeState::Failed);
        assert_eq!(family_state(&TIERED, &with_first(ProbeState::Disabled)).0, ProbeState::Disabled);
    }
}
