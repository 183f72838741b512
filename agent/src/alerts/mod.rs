//! Alert rules: Prometheus rule files, evaluated in the agent over the store of recent samples.
//!
//! `rule` reads and checks files, `evaluate` steps the state of every alert, `notify` spells a change of
//! state for a webhook, `view` spells the states for the API. All pure: the time and the store are
//! parameters. Bound: the alerts of a rule are at most the series of its result, so at most the store's
//! series limit; a group's `limit` lowers it.

mod evaluate;
mod file;
mod notify;
mod rule;
mod template;
mod view;

pub use evaluate::{ALERTS, Account, EVALUATIONS, Engine};
pub use notify::payload;
pub use rule::{Group, Report, Rule, RuleError, check, load, selectors};

/// Every metric of the rules.
pub const METRICS: &[&crate::model::metric::Metric] = &[&ALERTS, &EVALUATIONS];

crate::section! {
    /// Alert rules and where their alerts are sent.
    pub struct Config {
        /// Prometheus rule files; `*` and `?` stand for parts of a file name.
        pub rules: Vec<String> = Vec::new(),
        /// How often rules are evaluated, where their group does not say.
        pub evaluation_interval: crate::section::Interval = crate::section::Interval::secs(5),
        /// URL (http://… or https://…) that gets each firing and each resolved alert, in Alertmanager's webhook format.
        pub webhook: Option<String> = None,
        /// PEM file of who may vouch for an https webhook, instead of the system's.
        pub certificate: Option<std::path::PathBuf> = None,
        /// Notifications that wait for the webhook at most; further ones are dropped and counted.
        pub notification_queue: usize = 1000,
        /// Address of this agent as readers of a notification can open it.
        pub external_url: String = "http://127.0.0.1:9464".to_owned(),
    }
}
