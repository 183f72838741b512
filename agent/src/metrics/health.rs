//! The agent's account of itself as metrics: records per stage, losses by reason, probes, build.
//!
//! `seismo_pipeline_records_total{stage,outcome}`: `entered` = `passed` + `dropped` + what is pending.
//! `seismo_probe_state` is a state set: 1 for the present state, 0 for every other one, so that a change
//! of state is a change of values and not of series. A (probe, hook) pair served by several programs shows
//! the worst of their states.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::health::{Health, ProbeState, Stage};
use crate::model::metric::{Kind, Metric, Sample, Source, Value};

pub static PIPELINE_RECORDS: Metric = Metric {
    name: "seismo.pipeline.records",
    unit: "{record}",
    kind: Kind::Counter,
    description: "Records at each stage by what became of them; entered is passed plus dropped plus pending",
    labels: &["stage", "outcome"],
};

pub static RECORDS_DROPPED: Metric = Metric {
    name: "seismo.records.dropped",
    unit: "{record}",
    kind: Kind::Counter,
    description: "Records lost by the stage that lost them and the reason",
    labels: &["stage", "reason"],
};

pub static PROBE_STATE: Metric = Metric {
    name: "seismo.probe.state",
    unit: "{state}",
    kind: Kind::Gauge,
    description: "1 for the state that a probe is in, 0 for the others",
    labels: &["probe", "hook", "state"],
};

pub static PROBE_TIER: Metric = Metric {
    name: "seismo.probe.tier",
    unit: "{tier}",
    kind: Kind::Gauge,
    description: "Always 1; the labels say which of its ways of seeing a probe uses",
    labels: &["probe", "tier"],
};

pub static PROBE_RUNS: Metric = Metric {
    name: "seismo.probe.runs",
    unit: "{run}",
    kind: Kind::Counter,
    description: "Runs of each kernel program, where the kernel counts them",
    labels: &["probe", "program"],
};

pub static PROBE_MISSED: Metric = Metric {
    name: "seismo.probe.missed",
    unit: "{run}",
    kind: Kind::Counter,
    description: "Runs of kernel programs that the kernel left out, because an interrupt came while the same program ran on \
                  that CPU: what it would have counted is missing",
    labels: &["probe", "program"],
};

pub static CPU_UNCOUNTED: Metric = Metric {
    name: "seismo.cpu.uncounted",
    unit: "{event}",
    kind: Kind::Counter,
    description: "Times that something could not be counted, by workload or device, because it was on a CPU that was put into \
                  the machine after the agent had started: from its next start on there is room for it",
    labels: &[],
};

pub static PROBE_RUN: Metric = Metric {
    name: "seismo.probe.run",
    unit: "s",
    kind: Kind::Counter,
    description: "Time that each kernel program has run, where the kernel measures it",
    labels: &["probe", "program"],
};

pub static HEAP: Metric = Metric {
    name: "seismo.heap",
    unit: "By",
    kind: Kind::Gauge,
    description: "Heap of the agent that is in use, looked at every 5 s; absent where the allocator does not tell",
    labels: &[],
};

pub static BUILD_INFO: Metric = Metric {
    name: "seismo.build_info",
    unit: "{build}",
    kind: Kind::Gauge,
    description: "Always 1; the labels say which build this is",
    labels: &["version"],
};

/// From the worst to the best.
const STATES: [ProbeState; 5] =
    [ProbeState::Failed, ProbeState::Unsupported, ProbeState::Degraded, ProbeState::Active, ProbeState::Disabled];

/// [`Health`] as a source of metrics.
#[derive(Debug)]
pub struct HealthSource(pub Arc<Health>);

impl Source for HealthSource {
    fn collect(&self, out: &mut Vec<Sample>) {
        stages(&self.0, out);
        probes(&self.0, out);
        let heap = self.0.heap().map(|in_use| Sample { metric: &HEAP, labels: vec![], value: Value::Count(in_use) });
        out.extend(heap);
    }
}

fn stages(health: &Health, out: &mut Vec<Sample>) {
    let drops = health.drops();
    for stage in Stage::ALL {
        let counts = health.stage(stage);
        let dropped = drops.iter().filter(|((at, _), _)| *at == stage).map(|(_, count)| count).sum();
        let outcomes = [
            ("entered", counts.entered.load(Ordering::Relaxed)),
            ("passed", counts.passed.load(Ordering::Relaxed)),
            ("dropped", dropped),
        ];
        out.extend(outcomes.map(|(outcome, count)| Sample {
            metric: &PIPELINE_RECORDS,
            labels: vec![stage.name().into(), outcome.into()],
            value: Value::Count(count),
        }));
    }
    out.extend(drops.into_iter().map(|((stage, reason), count)| Sample {
        metric: &RECORDS_DROPPED,
        labels: vec![stage.name().into(), reason.into()],
        value: Value::Count(count),
    }));
}

fn probes(health: &Health, out: &mut Vec<Sample>) {
    let mut states: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut tiers: BTreeSet<(String, String)> = BTreeSet::new();
    for program in health.probes() {
        let rank = STATES.iter().position(|state| *state == program.state).unwrap_or(0);
        // Absent, not zero, while the kernel keeps no run statistics.
        let runs = program.runs.map(|runs| (&PROBE_RUNS, Value::Count(runs)));
        let time = program.run_ns.map(|ns| (&PROBE_RUN, Value::Float(ns as f64 / 1e9)));
        out.extend(runs.into_iter().chain(time).map(|(metric, value)| Sample {
            metric,
            labels: vec![program.probe.clone().into(), program.program.clone().into()],
            value,
        }));
        if !program.tier.is_empty() && program.state == ProbeState::Active {
            tiers.insert((program.probe.clone(), program.tier));
        }
        states.entry((program.probe, program.hook)).and_modify(|worst| *worst = rank.min(*worst)).or_insert(rank);
    }
    out.extend(tiers.into_iter().map(|(probe, tier)| Sample {
        metric: &PROBE_TIER,
        labels: vec![probe.into(), tier.into()],
        value: Value::Count(1),
    }));
    for ((probe, hook), present) in states {
        out.extend(STATES.iter().enumerate().map(|(rank, state)| Sample {
            metric: &PROBE_STATE,
            labels: vec![probe.clone().into(), hook.clone().into(), state.name().into()],
            value: Value::Count(u64::from(rank == present)),
        }));
    }
}

/// `seismo_build_info{version}`.
#[derive(Debug)]
pub struct BuildInfo(pub &'static str);

impl Source for BuildInfo {
    fn collect(&self, out: &mut Vec<Sample>) {
        out.push(Sample { metric: &BUILD_INFO, labels: vec![Cow::Borrowed(self.0)], value: Value::Count(1) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::ProbeStatus;

    fn read(health: Health) -> Vec<String> {
        let mut samples = Vec::new();
        HealthSource(Arc::new(health)).collect(&mut samples);
        samples
            .iter()
            .map(|sample| format!("{} {} {:?}", sample.metric.name, sample.labels.join(","), sample.value))
            .collect()
    }

    #[test]
    fn each_stage_accounts_for_its_records() {
        let health = Health::new();
        health.enter(Stage::Collected, 10);
        health.pass(Stage::Collected, 7);
        health.lose(Stage::Collected, "queue_full", 2);
        let lines = read(health);
        for expected in [
            "seismo.pipeline.records collected,entered Count(10)",
            "seismo.pipeline.records collected,passed Count(7)",
            "seismo.pipeline.records collected,dropped Count(2)",
            "seismo.pipeline.records stored,entered Count(0)",
            "seismo.records.dropped collected,queue_full Count(2)",
        ] {
            assert!(lines.iter().any(|line| line == expected), "{expected} in {lines:#?}");
        }
    }

    #[test]
    fn a_probe_is_in_exactly_one_state_the_worst_of_its_programs() {
        let program = |name: &str, state| ProbeStatus {
            probe: "tcp".to_owned(),
            program: name.to_owned(),
            hook: "tp_btf/inet_sock_set_state".to_owned(),
            state,
            reason: String::new(),
            tier: String::new(),
            verified_instructions: 1,
            runs: Some(3),
            run_ns: Some(1_500_000_000),
        };
        let health = Health::new();
        health.set_probes(vec![program("one", ProbeState::Active), program("two", ProbeState::Degraded)]);
        let lines = read(health);
        let states: Vec<&String> = lines.iter().filter(|line| line.starts_with("seismo.probe.state")).collect();
        assert_eq!(
            states,
            [
                "seismo.probe.state tcp,tp_btf/inet_sock_set_state,failed Count(0)",
                "seismo.probe.state tcp,tp_btf/inet_sock_set_state,unsupported Count(0)",
                "seismo.probe.state tcp,tp_btf/inet_sock_set_state,degraded Count(1)",
                "seismo.probe.state tcp,tp_btf/inet_sock_set_state,active Count(0)",
                "seismo.probe.state tcp,tp_btf/inet_sock_set_state,disabled Count(0)",
            ]
        );
        assert!(lines.contains(&"seismo.probe.run tcp,two Float(1.5)".to_owned()));
        assert!(lines.contains(&"seismo.probe.runs tcp,one Count(3)".to_owned()));
    }
}
