//! The test harness: real servers and clients in a control group of their own, a handle on the agent, and
//! the numbers of both sides in a form that can be compared.
//!
//! Everything listens on loopback ports that were free a moment ago, everything is waited for rather than
//! slept for, and whatever was started ends with the test, by process id. A missing program is an error that
//! names the command which installs it; nothing is skipped.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod agent;
pub mod blockdevice;
pub mod bpf;
pub mod certified;
pub mod cgroup;
pub mod container;
pub mod controller;
pub mod conversation;
pub mod cpu_limit;
pub mod exemplars;
pub mod exposition;
pub mod haproxy;
pub mod http;
pub mod link;
pub mod memory_limit;
pub mod netns;
pub mod nginx;
pub mod numbers;
pub mod pattern;
pub mod peer;
pub mod phoenix;
pub mod player;
pub mod postgresql;
pub mod process;
pub mod programs;
pub mod prometheus;
pub mod redis;
pub mod relay;
pub mod rig;
pub mod rotel;
pub mod scripted;
pub mod shop;
pub mod spans;
pub mod tap;
pub mod victoria_metrics;
pub mod wait;
pub mod webhook;
pub mod wrk;
