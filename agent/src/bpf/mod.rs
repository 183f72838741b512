//! The kernel boundary: facts → plan → act, then records out of the ring and counts out of the maps.
//!
//! The only place with aya and `unsafe` in the agent. Nothing here knows a probe family or a protocol: families
//! arrive as [`crate::model::probe::FamilySpec`], records leave as [`decode::Record`].

mod btf;
pub mod capabilities;
pub mod counts;
mod cpus;
pub mod decode;
pub mod drain;
pub mod flow_control;
pub mod iterate;
pub mod lanes;
pub mod loader;
mod mapped;
pub mod memory;
pub mod missed;
pub mod offsets;
pub mod plan;
mod raw;
pub mod records;
mod registers;
pub mod ring;
mod rows;
pub mod scope;
mod specialise;
pub mod support;
mod user_load;
pub mod user_probes;
pub mod waking;
pub mod workloads;
