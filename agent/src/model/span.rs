//! Spans in OTLP's terms.

use std::str::FromStr;
use std::sync::Arc;

use compact_str::CompactString;

use super::attributes::Attributes;
use super::exchange::Incomplete;
use super::exemplar::Shown;
use super::process::Resource;
use super::thread::Breakdown;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TraceId(pub [u8; 16]);

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SpanId(pub [u8; 8]);

impl FromStr for TraceId {
    type Err = String;

    /// 1 to 32 hexadecimal digits of either case; fewer than 32 mean leading zeros, as Jaeger has it.
    fn from_str(text: &str) -> Result<Self, String> {
        let digits = (1..=32).contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        let number = if digits { u128::from_str_radix(text, 16).unwrap_or(0) } else { 0 };
        if number == 0 {
            return Err(format!(
                "'{}' is not a trace id (1 to 32 hexadecimal digits, not all zeros)",
                text.escape_debug()
            ));
        }
        Ok(Self(number.to_be_bytes()))
    }
}

/// OTLP `SpanKind`; numbers as in the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpanKind {
    Server = 2,
    Client = 3,
}

impl SpanKind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
        }
    }
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
    pub name: CompactString,
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
    /// How its request is counted; taken off once nobody counts by it any more.
    pub counted: Option<Box<Counted>>,
}

/// What a span's request is in metrics, for those that count finished spans.
#[derive(Clone, Debug, PartialEq)]
pub struct Counted {
    pub protocol: &'static str,
    /// The exemplars of the series that has its duration; `None` where it is incomplete.
    pub series: Option<Shown>,
    /// Its number in the store of spans, once it is there.
    pub place: u64,
}

impl Span {
    pub const fn duration_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.start_ns)
    }
}

#[cfg(test)]
impl Span {
    /// A whole server span without attributes, for tests to change.
    pub fn example() -> Self {
        Self {
            trace_id: TraceId([1; 16]),
            span_id: SpanId([2; 8]),
            parent_span_id: None,
            name: "GET /".into(),
            kind: SpanKind::Server,
            start_ns: 0,
            end_ns: 1,
            status: StatusCode::Unset,
            attributes: Attributes::default(),
            resource: Arc::default(),
            incomplete: None,
            time: None,
            counted: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::TraceId;

    #[test]
    fn a_trace_id_is_read_from_hexadecimal_digits_alone() {
        let one = Ok(TraceId(1_u128.to_be_bytes()));
        assert_eq!("1".parse(), one);
        assert_eq!(format!("{:032}", 1).parse(), one);
        assert_eq!("AB".parse::<TraceId>(), "ab".parse());
        for wrong in ["", "0", "g", "+1", "-1", "0x1", &"1".repeat(33), &"0".repeat(32), "ü"] {
            assert!(wrong.parse::<TraceId>().is_err(), "{wrong}");
        }
    }
}
