//! Plain values that the stages hand to each other; no behaviour beyond construction and formatting.
//!
//! `Sample` (kernel and agent counts), `ProcessEvent`, `ConnEvent` and `PayloadChunk` leave the probe stage;
//! parsers end in [`exchange::Exchange`]; traces end in [`span::Span`]; rules end in [`alert::Alert`].

pub mod alert;
pub mod attributes;
pub mod connection;
pub mod context;
pub mod display;
pub mod exchange;
pub mod exemplar;
pub mod exponential;
pub mod exported;
pub mod handover;
pub mod hashing;
pub mod hop;
pub mod metric;
pub mod payload;
pub mod probe;
pub mod process;
pub mod span;
pub mod span_json;
pub mod spelling;
pub mod task;
pub mod thread;
pub mod workload;
