//! What to attach, decided from the facts by a pure function.

use std::collections::BTreeSet;

use seismo_common::offsets::FIELDS;

use super::support::Facts;
use crate::health::{ProbeState, ProbeStatus};
use crate::model::probe::{FamilySpec, Hook, ProgramSpec};

/// Decision for one program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Attach,
    /// Switched off in the configuration.
    Disabled,
    /// The fact that stands against it.
    Unsupported(String),
}

/// One program with its decision.
#[derive(Clone, Debug)]
pub struct Planned {
    pub family: &'static str,
    pub program: &'static ProgramSpec,
    pub decision: Decision,
}

/// Decides for every program of every family; `enabled` are the families that the configuration wants.
pub fn plan(facts: &Facts, families: &[&'static FamilySpec], enabled: &BTreeSet<&str>) -> Vec<Planned> {
    let mut planned = Vec::new();
    for family in families {
        for program in family.programs {
            let decision = if enabled.contains(family.name) { decide(facts, program) } else { Decision::Disabled };
            planned.push(Planned { family: family.name, program, decision });
        }
    }
    planned
}

/// State of a family, from its programs' states: what it lost makes it degraded, a missing heart makes it fail.
pub fn family_state(family: &FamilySpec, statuses: &[ProbeStatus]) -> (ProbeState, Vec<String>) {
    let mut state = ProbeState::Active;
    let mut reasons = Vec::new();
    for program in family.programs {
        let Some(status) = statuses.iter().find(|status| status.program == program.name) else { continue };
        match (status.state, program.without) {
            (ProbeState::Active | ProbeState::Degraded, _) => {}
            (ProbeState::Disabled, _) => return (ProbeState::Disabled, Vec::new()),
            (_, Some(loss)) => {
                reasons.push(format!("{loss}: {}", status.reason));
                if state == ProbeState::Active {
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

fn decide(facts: &Facts, program: &ProgramSpec) -> Decision {
    if let Some(error) = &facts.btf_error {
        return Decision::Unsupported(format!("no kernel type information: {error}"));
    }
    match program.hook {
        Hook::TpBtf(name) if !facts.tracepoints.contains(name) => {
            return Decision::Unsupported(format!("this kernel has no tracepoint {name}"));
        }
        Hook::TpBtf(_) => {}
        Hook::Iter { over, helpers } => {
            if !facts.iterators.contains(over) {
                return Decision::Unsupported(format!("this kernel has no iterator over {over}"));
            }
            if let Some(helper) = helpers.iter().find(|helper| !facts.functions.contains(**helper)) {
                return Decision::Unsupported(format!("this kernel has no {helper} for programs"));
            }
        }
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
    match program.fields.iter().find(|field| facts.missing_fields.iter().any(|missing| missing == *field)) {
        Some(field) => Decision::Unsupported(format!("this kernel has no field {field}")),
        None => Decision::Attach,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Decision, decide};
    use crate::bpf::support::Facts;
    use crate::model::probe::{Hook, ProgramSpec};

    const PROGRAM: ProgramSpec = ProgramSpec {
        name: "x",
        hook: Hook::TpBtf("sched_switch"),
        structs: &["task_struct"],
        fields: &["task_struct.sched_info.run_delay"],
        without: None,
    };

    fn facts() -> Facts {
        Facts {
            btf_error: None,
            tracepoints: BTreeSet::from(["sched_switch".to_owned()]),
            missing_fields: Vec::new(),
            ..Facts::read(&[])
        }
    }

    #[test]
    fn a_program_is_attached_when_nothing_is_missing() {
        assert_eq!(decide(&facts(), &PROGRAM), Decision::Attach);
    }

    #[test]
    fn an_iterator_is_attached_where_the_kernel_has_it_and_what_its_program_calls() {
        let hook = Hook::Iter { over: "task_file", helpers: &["bpf_sock_from_file"] };
        let program = ProgramSpec { hook, ..PROGRAM };
        let missing = |what: &str| Decision::Unsupported(format!("this kernel has no {what}"));
        let mut facts = facts();
        assert_eq!(decide(&facts, &program), missing("iterator over task_file"));
        facts.iterators.insert("task_file".to_owned());
        assert_eq!(decide(&facts, &program), missing("bpf_sock_from_file for programs"));
        facts.functions.insert("bpf_sock_from_file".to_owned());
        assert_eq!(decide(&facts, &program), Decision::Attach);
    }

    #[test]
    fn the_first_missing_fact_is_named() {
        let mut without = facts();
        without.missing_fields = vec!["task_struct.sched_info.run_delay".to_owned()];
        assert_eq!(
            decide(&without, &PROGRAM),
            Decision::Unsupported("this kernel has no field task_struct.sched_info.run_delay".to_owned())
        );
        without.missing_fields = vec!["task_struct.pid".to_owned()];
        assert_eq!(
            decide(&without, &PROGRAM),
            Decision::Unsupported("this kernel has no field task_struct.pid".to_owned())
        );
        without.tracepoints.clear();
        assert_eq!(
            decide(&without, &PROGRAM),
            Decision::Unsupported("this kernel has no tracepoint sched_switch".to_owned())
        );
        without.btf_error = Some("gone".to_owned());
        assert_eq!(decide(&without, &PROGRAM), Decision::Unsupported("no kernel type information: gone".to_owned()));
    }
}
