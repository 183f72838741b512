//! What a request says of the trace it belongs to: ids that somebody upstream put into it.
//!
//! Made by the protocols out of headers and comments, used by `traces` to link requests and to name their trace. One per
//! request; at most [`MAX_REQUEST_ID_BYTES`] of text. Valid by construction: an id that is all zeros is never here.
//! Says nothing about who put it there: a context can lie.

use super::span::{SpanId, TraceId};

/// Longest request id that is kept; longer ones are no ids.
pub const MAX_REQUEST_ID_BYTES: usize = 128;

/// How the ids were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// `traceparent` (W3C Trace Context), as a header or in an SQL comment.
    W3c,
    /// `b3` or `X-B3-…`.
    B3,
    /// `uber-trace-id`.
    Jaeger,
    /// `x-datadog-…`.
    Datadog,
    /// `X-Amzn-Trace-Id`.
    XRay,
    /// `x-cloud-trace-context`.
    Google,
    /// Only an `x-request-id` or `x-correlation-id`.
    RequestId,
}

impl Form {
    pub const fn name(self) -> &'static str {
        match self {
            Self::W3c => "w3c",
            Self::B3 => "b3",
            Self::Jaeger => "jaeger",
            Self::Datadog => "datadog",
            Self::XRay => "xray",
            Self::Google => "google",
            Self::RequestId => "request_id",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    pub form: Form,
    pub trace_id: Option<TraceId>,
    /// Of the span that sent the request, as its sender calls it.
    pub span_id: Option<SpanId>,
    /// What the sender decided; `None`: not said, or left open.
    pub sampled: Option<bool>,
    /// As written, visible ASCII.
    pub request_id: Option<Box<str>>,
}

/// What was read of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InBand {
    pub context: Option<Box<Context>>,
    /// Contexts that were there and are none: malformed, all zeros, too long, twice.
    pub refused: u32,
}
