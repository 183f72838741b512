//! A request on its way from one host to another, as agents tell each other of it.

use std::sync::Arc;

use super::span::{SpanId, TraceId};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Of the client's span; the server's end computes the same.
    pub span: SpanId,
    pub trace: TraceId,
    /// Name of the service that asks, at most 255 bytes; empty where nobody said.
    pub client: Arc<str>,
}
