//! Spans in OTLP's terms.

use std::sync::Arc;

use super::attributes::Attributes;
use super::exchange::Incomplete;
use super::process::Resource;
use super::thread::Breakdown;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TraceId(pub [u8; 16]);

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SpanId(pub [u8; 8]);

/// OTLP `SpanKind`; numbers as in the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpanKind {
    Server = 2,
    Client = 3,
}

/// OTLP `Status.code`; numbers as in the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StatusCode {
    Unset = 0,
    Error = 2,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    pub parent_span_id: Option<SpanId>,
    pub name: String,
    pub kind: SpanKind,
    /// Unix time, ns.
    pub start_ns: u64,
    /// Unix time, ns.
    pub end_ns: u64,
    pub status: StatusCode,
    pub attributes: Attributes,
    pub resource: Arc<Resource>,
    pub incomplete: Option<Incomplete>,
    /// Where its time went; `None` where no thread's account is known.
    pub time: Option<Breakdown>,
}
