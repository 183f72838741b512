//! A request on its way from one host to another, as agents tell each other of it.

use super::span::{SpanId, TraceId};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Of the client's span; the server's end computes the same.
    pub span: SpanId,
    pub trace: TraceId,
}
