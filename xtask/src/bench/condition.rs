//! What is attached while a workload runs, as the agent's own configuration.
//!
//! The agent attaches everything, the empty programs of the floor too, so that loader, hooks and their order are the
//! real ones. Written as JSON, which is YAML.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::peers::Peer;

/// Families of a default configuration.
const ALL: &[&str] = &["process", "scheduler", "syscall", "tcp", "payload"];
/// Those that a floor is without, beside them.
const OTHERS: &[&str] = &["adopt", "block", "drop", "memory", "workload", "pressure", "cgroup"];
/// With who wakes whom, as where a process in scope runs Java.
const WITH_WAKEUPS: &[&str] = &["process", "tcp", "payload", "wakeup"];
/// What spans are made from. They cost nothing where nothing is sent, started or ended.
const FOR_SPANS: &[&str] = &["process", "tcp", "payload"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing: bare against bare.
    Null,
    /// Empty programs on sys_enter, sys_exit, sched_switch, sock_send_length and sock_recv_length.
    Floor,
    /// A default configuration: every family, no payload in scope.
    Metrics,
    /// The same, every system call timed.
    EveryCall,
    /// The scheduler family alone.
    Scheduler,
    /// What spans need and nothing else, the workload in scope.
    Spans,
    /// Every family, the workload in scope.
    MetricsAndSpans,
    /// The same as for spans, and who wakes whom in the workload.
    Wakeups,
    /// The program that only writes records, and a ring as large as with a scope.
    Records,
    /// Another tool instead of the agent.
    Peer(Peer),
}

impl Condition {
    /// Families that must be active for the measurement to be of what it says.
    pub fn families(self) -> &'static [&'static str] {
        match self {
            Self::Null | Self::Peer(_) => &[],
            Self::Floor => &["floor"],
            Self::Records => &["records"],
            Self::Scheduler => &["scheduler"],
            Self::Spans => FOR_SPANS,
            Self::Wakeups => WITH_WAKEUPS,
            Self::Metrics | Self::EveryCall | Self::MetricsAndSpans => ALL,
        }
    }

    /// The agent's configuration; `scope` is the workload's cgroup. Run statistics cost two clock reads a run.
    pub fn configuration(self, scope: &Path, run_statistics: bool) -> String {
        let mut probes: Map<String, Value> =
            ALL.iter().map(|name| ((*name).to_owned(), json!(self.families().contains(name)))).collect();
        let alone = match self {
            Self::Floor => Some("floor"),
            Self::Records => Some("records"),
            _ => None,
        };
        if let Some(alone) = alone {
            probes.extend(OTHERS.iter().map(|name| ((*name).to_owned(), json!(false))));
            probes.insert(alone.to_owned(), json!(true));
        }
        if self == Self::Wakeups {
            probes.insert("wakeup".to_owned(), json!("on"));
        }
        if run_statistics {
            probes.insert("stats".to_owned(), json!(true));
        }
        let mut configuration = json!({ "probes": probes });
        if self == Self::EveryCall {
            configuration["syscalls"] = json!({ "sample_one_in": 1 });
        }
        if matches!(self, Self::Spans | Self::MetricsAndSpans | Self::Wakeups | Self::Records) {
            configuration["scope"] = json!({ "include": [format!("cgroup={}", scope.display())] });
        }
        configuration.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::Condition;

    fn configuration(condition: Condition, run_statistics: bool) -> Value {
        serde_json::from_str(&condition.configuration(Path::new("/cgroup/w"), run_statistics)).unwrap()
    }

    #[test]
    fn the_floor_attaches_the_empty_programs_alone() {
        let probes = configuration(Condition::Floor, true)["probes"].clone();
        let on: Vec<_> = probes.as_object().unwrap().iter().filter(|(_, on)| **on == json!(true)).collect();
        assert_eq!(on.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["floor", "stats"]);
    }

    #[test]
    fn only_conditions_with_spans_put_the_workload_in_scope() {
        use Condition::{EveryCall, Floor, Metrics, MetricsAndSpans, Scheduler, Spans, Wakeups};
        for condition in [Floor, Metrics, EveryCall, Scheduler] {
            assert_eq!(configuration(condition, false).get("scope"), None, "{condition:?}");
        }
        for condition in [Spans, MetricsAndSpans, Wakeups] {
            let configuration = configuration(condition, false);
            assert_eq!(configuration["scope"]["include"], json!(["cgroup=/cgroup/w"]), "{condition:?}");
        }
    }

    #[test]
    fn spans_alone_leave_system_calls_and_the_scheduler_untouched() {
        let probes = &configuration(Condition::Spans, false)["probes"];
        assert_eq!((&probes["syscall"], &probes["scheduler"]), (&json!(false), &json!(false)));
        assert_eq!((&probes["payload"], &probes["tcp"]), (&json!(true), &json!(true)));
    }

    #[test]
    fn only_every_call_changes_the_sampling() {
        assert_eq!(configuration(Condition::EveryCall, false)["syscalls"]["sample_one_in"], json!(1));
        assert_eq!(configuration(Condition::Metrics, false).get("syscalls"), None);
    }
}
