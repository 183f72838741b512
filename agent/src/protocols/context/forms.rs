//! Values of the headers that carry trace ids, each form by its own specification.
//!
//! Text in, ids out or why not. Strict where two readers could differ (lengths, digits), generous where systems in use
//! are (upper-case hex outside of W3C's own header). Ids of 64 bits become 128 with zeros in front. No allocation but
//! for percent-decoding.

use crate::model::context::MAX_REQUEST_ID_BYTES;
use crate::model::span::{SpanId, TraceId};

use super::{Ids, Read, Refused};
use Refused::{Malformed, Zero};

/// Pairs of a comment or a list that are looked at.
pub(super) const MAX_PAIRS: usize = 32;

/// A number in hex, 1 to `digits` of them.
fn hex(text: &str, digits: usize) -> Result<u128, Refused> {
    let sound = (1..=digits).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if sound { u128::from_str_radix(text, 16).map_err(|_| Malformed) } else { Err(Malformed) }
}

fn decimal(text: &str) -> Result<u64, Refused> {
    let sound = (1..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if sound { text.parse().map_err(|_| Malformed) } else { Err(Malformed) }
}

fn trace(number: u128) -> Result<TraceId, Refused> {
    if number == 0 { Err(Zero) } else { Ok(TraceId(number.to_be_bytes())) }
}

fn span(number: u64) -> Result<SpanId, Refused> {
    if number == 0 { Err(Zero) } else { Ok(SpanId(number.to_be_bytes())) }
}

fn span_of_hex(text: &str, digits: usize) -> Result<SpanId, Refused> {
    span(u64::try_from(hex(text, digits)?).map_err(|_| Malformed)?)
}

/// `00-TRACE-SPAN-FLAGS`, lower-case; a later version may have more behind it.
pub(super) fn traceparent(text: &str) -> Read {
    let lower = text.bytes().all(|byte| !byte.is_ascii_uppercase());
    let mut parts = text.splitn(5, '-');
    let (Some(version), Some(trace_id), Some(span_id), Some(flags)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Malformed);
    };
    let lengths = (version.len(), trace_id.len(), span_id.len(), flags.len()) == (2, 32, 16, 2);
    let (version, flags) = (hex(version, 2)?, hex(flags, 2)?);
    if !lengths || !lower || version == 0xff || (version == 0 && parts.next().is_some()) {
        return Err(Malformed);
    }
    let (trace, span) = (trace(hex(trace_id, 32)?)?, span_of_hex(span_id, 16)?);
    Ok(Ids { trace: Some(trace), span: Some(span), sampled: Some(flags & 1 == 1) })
}

/// `TRACE-SPAN`, with `-SAMPLED` and `-PARENT` or without, or `SAMPLED` alone.
pub(super) fn b3(text: &str) -> Read {
    if text.len() == 1 {
        return b3_sampled(text);
    }
    let mut parts = text.split('-');
    let (Some(trace_id), Some(span_id)) = (parts.next(), parts.next()) else { return Err(Malformed) };
    let sampled = parts.next().map(b3_sampled).transpose()?.and_then(|ids| ids.sampled);
    let parent = parts.next().is_none_or(|parent| parent.len() == 16 && hex(parent, 16).is_ok());
    if !parent || parts.next().is_some() {
        return Err(Malformed);
    }
    let (trace, span) = (trace_hex(trace_id)?.trace, span_hex(span_id)?.span);
    Ok(Ids { trace, span, sampled })
}

pub(super) fn b3_sampled(text: &str) -> Read {
    let sampled = match text {
        "1" | "d" => Some(true),
        "0" => Some(false),
        _ if text.eq_ignore_ascii_case("true") => Some(true),
        _ if text.eq_ignore_ascii_case("false") => Some(false),
        _ => return Err(Malformed),
    };
    Ok(Ids { sampled, ..Ids::default() })
}

/// `1`: to be kept whatever else is said.
pub(super) fn b3_flags(text: &str) -> Read {
    Ok(Ids { sampled: (text == "1").then_some(true), ..Ids::default() })
}

/// 16 or 32 digits.
pub(super) fn trace_hex(text: &str) -> Read {
    if !matches!(text.len(), 16 | 32) {
        return Err(Malformed);
    }
    Ok(Ids { trace: Some(trace(hex(text, 32)?)?), ..Ids::default() })
}

/// 16 digits.
pub(super) fn span_hex(text: &str) -> Read {
    if text.len() != 16 {
        return Err(Malformed);
    }
    Ok(Ids { span: Some(span_of_hex(text, 16)?), ..Ids::default() })
}

pub(super) fn trace_decimal(text: &str) -> Read {
    Ok(Ids { trace: Some(trace(decimal(text)?.into())?), ..Ids::default() })
}

pub(super) fn span_decimal(text: &str) -> Read {
    Ok(Ids { span: Some(span(decimal(text)?)?), ..Ids::default() })
}

/// Above zero: kept.
pub(super) fn priority(text: &str) -> Read {
    let priority: i8 = text.parse().map_err(|_| Malformed)?;
    Ok(Ids { sampled: Some(priority > 0), ..Ids::default() })
}

/// `_dd.p.tid=HEX16` in a list of tags.
pub(super) fn datadog_upper(text: &str) -> Option<u64> {
    let value = text.split(',').take(MAX_PAIRS).find_map(|tag| tag.trim().strip_prefix("_dd.p.tid="))?;
    let number = if value.len() == 16 { hex(value, 16).ok()? } else { return None };
    u64::try_from(number).ok()
}

pub(super) fn with_upper(trace: TraceId, upper: u64) -> TraceId {
    TraceId((u128::from_be_bytes(trace.0) | u128::from(upper) << 64).to_be_bytes())
}

/// `TRACE:SPAN:PARENT:FLAGS`, leading zeros left out; the colons may be percent-encoded.
pub(super) fn jaeger(text: &str) -> Read {
    let decoded;
    let text = if text.contains('%') {
        decoded = percent_decoded(text);
        decoded.as_str()
    } else {
        text
    };
    let mut parts = text.split(':');
    let (Some(trace_id), Some(span_id), Some(parent), Some(flags), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Malformed);
    };
    hex(parent, 16)?;
    let sampled = Some(hex(flags, 2)? & 1 == 1);
    Ok(Ids { trace: Some(trace(hex(trace_id, 32)?)?), span: Some(span_of_hex(span_id, 16)?), sampled })
}

/// `Root=1-HEX8-HEX24;Parent=HEX16;Sampled=0|1`, in any order; only the root must be there.
pub(super) fn xray(text: &str) -> Read {
    let mut ids = Ids::default();
    for pair in text.split(';').take(MAX_PAIRS) {
        let Some((key, value)) = pair.trim().split_once('=') else { continue };
        match key {
            "Root" => {
                let mut parts = value.split('-');
                let (Some("1"), Some(time), Some(rest), None) =
                    (parts.next(), parts.next(), parts.next(), parts.next())
                else {
                    return Err(Malformed);
                };
                if (time.len(), rest.len()) != (8, 24) {
                    return Err(Malformed);
                }
                ids.trace = Some(trace(hex(time, 8)? << 96 | hex(rest, 24)?)?);
            }
            "Parent" => ids.span = span_hex(value)?.span,
            "Sampled" => ids.sampled = matches!(value, "0" | "1").then_some(value == "1"),
            _ => {}
        }
    }
    if ids.trace.is_none() { Err(Malformed) } else { Ok(ids) }
}

/// `HEX32/DECIMAL;o=FLAGS`, of which only the trace must be there.
pub(super) fn google(text: &str) -> Read {
    let (ids, options) = text.split_once(';').map_or((text, ""), |(ids, options)| (ids, options));
    let (trace_id, span_id) = ids.split_once('/').map_or((ids, None), |(trace, span)| (trace, Some(span)));
    if trace_id.len() != 32 {
        return Err(Malformed);
    }
    let span = match span_id.map(decimal).transpose()? {
        None | Some(0) => None,
        Some(number) => Some(SpanId(number.to_be_bytes())),
    };
    let sampled = options.strip_prefix("o=").map(|flags| flags == "1");
    Ok(Ids { trace: Some(trace(hex(trace_id, 32)?)?), span, sampled })
}

/// Visible ASCII, not too long, and not nothing but zeros.
pub(super) fn request_id(text: &str) -> Option<&str> {
    let sound = (1..=MAX_REQUEST_ID_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    let says_something = text.bytes().any(|byte| !matches!(byte, b'0' | b'-' | b'_'));
    (sound && says_something).then_some(text)
}

/// `%41` is `A`; what is no such escape stays as it is.
pub(super) fn percent_decoded(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let escaped = behind.get(..2).filter(|_| *first == b'%').and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::try_from(hex(digits, 2).ok()?).ok()
        });
        match escaped {
            Some(byte) => {
                decoded.push(byte);
                rest = behind.get(2..).unwrap_or_default();
            }
            None => {
                decoded.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
