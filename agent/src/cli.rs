//! (being written)
pub const AGENT_VARIABLE: &str = "SEISMO_AGENT";
