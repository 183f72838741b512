//! What is remembered: recent spans, recent samples of metrics, and the trait through which samples are read.
//!
//! The store of samples takes what `metrics` gathers and answers [`query::Query`]; a durable one will answer the same.

pub mod metrics;
pub mod query;
pub mod spans;

pub use metrics::{Account, MetricsConfig, Recent};
pub use query::{Label, Labels, MatchOp, Matcher, Query, Visit};

/// Every metric of the store.
pub const METRICS: &[&crate::model::metric::Metric] = &[&metrics::SERIES, &metrics::SAMPLES_DROPPED];
