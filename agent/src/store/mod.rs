//! (being written)

pub mod spans;
