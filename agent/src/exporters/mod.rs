//! Ways out of the agent: pages that are pulled and notifications that are pushed. One file each.

pub mod prometheus;
mod protobuf;
mod text;
pub mod webhook;
