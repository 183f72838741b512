//! Seismo's agent as a library: the binary is a thin `main` over it, tests use the same parts.
//!
//! Data flows one way: `bpf` (kernel boundary) → `probes` (wire to signal) → `flows` and `protocols`
//! (bytes to exchanges) → `traces` (spans) and `metrics` → `store` → `alerts` → `exporters`, `api`, `tui`.
//! `run` is the only wiring. Who may import whom is checked by `cargo xtask tidy`.

pub mod alerts;
pub mod api;
pub mod bpf;
pub mod checks;
pub mod cli;
pub mod clock;
pub mod config;
pub mod exporters;
pub mod flows;
pub mod health;
pub mod host;
pub mod metrics;
pub mod model;
pub mod probes;
pub mod promql;
pub mod protocols;
pub mod run;
pub mod section;
pub mod semconv;
pub mod store;
pub mod tls;
pub mod traces;
pub mod tui;
