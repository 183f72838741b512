//! Who is who on this host: process names, containers, cgroups and network namespaces, out of procfs and cgroupfs.
//!
//! Everything takes the root of procfs as a parameter, so tests run against a directory they made.

pub mod callers;
pub mod cgroup;
pub mod container;
pub mod glob;
pub mod kernel_files;
mod kernel_text;
pub mod names;
pub mod netns;
pub mod place;
mod ports;
pub mod procfs;
pub mod runtime;
mod service;
mod tree;
pub mod workloads;
