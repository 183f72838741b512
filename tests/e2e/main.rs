//! The agent beside real servers and clients: what it counted and timed against what they logged themselves.
//!
//! Needs root (or what the agent itself needs), the packages of `cargo xtask setup --test`, and a build of the agent.
#![cfg(test)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod accounting;
mod adopted;
mod alerts;
mod checks;
mod containers;
mod conversations;
mod encrypted;
mod exemplars;
mod explain;
mod export;
mod graph;
mod handovers;
mod haproxy;
mod hosts;
mod kernel_files;
mod large;
mod link;
mod metrics_export;
mod native;
mod nginx_counts;
mod nginx_times;
mod odd_bytes;
mod page;
mod postgresql;
mod query;
mod redis;
mod scrape;
mod scripted;
mod shutdown;
mod socat;
mod syscalls;
mod tasks;
