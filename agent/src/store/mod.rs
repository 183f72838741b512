//! What is remembered: recent samples of metrics, and the trait through which everything reads them.
//!
//! A store takes what `metrics` gathers and answers [`query::Query`]; a durable one will answer the same.

pub mod metrics;
pub mod query;

pub use metrics::{Account, MetricsConfig, Recent};
pub use query::{Label, Labels, MatchOp, Matcher, Query, Visit};
