//! An alert as Prometheus and Alertmanager know it.

use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertState {
    Inactive,
    Pending,
    Firing,
    Resolved,
}

impl AlertState {
    /// Spelling of the Prometheus API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Pending => "pending",
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub state: AlertState,
    /// Since when the expression holds, Unix time, ms.
    pub active_at_ms: i64,
    /// When it began to fire, Unix time, ms.
    pub fired_at_ms: Option<i64>,
    pub resolved_at_ms: Option<i64>,
    pub value: f64,
}
