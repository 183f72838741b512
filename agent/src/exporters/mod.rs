//! Ways out of the agent: pages that are pulled, and notifications and spans that are pushed. One file or folder each.

pub mod account;
pub mod hops;
pub mod lines;
pub mod otlp;
pub mod prometheus;
mod protobuf;
mod text;
pub mod webhook;

pub use account::{ATTEMPTS, Account, Counts, Items, LossReason};

crate::section! {
    /// Where spans and metrics are sent. Nowhere unless a place is named; `sampling` says which spans.
    pub struct Config {
        /// Finished spans that may wait to be looked at. What is above is counted in `seismo_export_overrun_total`.
        pub backlog: usize = 16_384,
    }
    sections {
        /// OpenTelemetry's protocol (OTLP), over HTTP or gRPC.
        pub otlp: otlp::Config,
        /// A file, or standard output.
        pub lines: lines::Config,
    }
}

impl Config {
    /// Keys with values that cannot work, and why.
    pub fn problems(&self) -> impl Iterator<Item = (String, String)> {
        self.otlp.problems().into_iter().map(|(key, problem)| (format!("otlp.{key}"), problem))
    }

    /// Whether spans go anywhere.
    pub fn is_wanted(&self) -> bool {
        self.otlp.takes_spans() || self.lines.path.is_some()
    }
}
