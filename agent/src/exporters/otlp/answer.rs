//! What a backend answered → taken, refused for good, or to be tried again, by the rules of the OTLP specification (1.x).
//!
//! HTTP: 2xx is taken, 429, 502, 503 and 504 are tried again (`Retry-After` in seconds or as a date), all else is final.
//! gRPC: the codes that the specification lists are tried again, `RESOURCE_EXHAUSTED` only where a `RetryInfo` says when.
//! A body that cannot be read counts as an empty one.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{HeaderMap, RETRY_AFTER};
use prost::Message as _;

use super::proto;

/// Longest text of a backend that is logged.
const MAX_TEXT: usize = 300;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Taken, but for so many spans or points, and why.
    Taken { rejected: u64, why: String },
    /// Would be refused again.
    Refused(String),
    /// Not now; at the earliest after so long.
    Later { after: Option<Duration>, why: String },
}

impl Answer {
    /// Place in [`crate::exporters::ATTEMPTS`].
    pub(super) fn kind(&self) -> usize {
        match self {
            Self::Taken { .. } => 0,
            Self::Refused(_) => 1,
            Self::Later { .. } => 2,
        }
    }

    /// Nothing was answered.
    pub(super) fn unreachable(why: impl std::fmt::Display) -> Self {
        Self::Later { after: None, why: why.to_string() }
    }
}

/// `now_s`: Unix time, for a `Retry-After` that is a date.
pub(super) fn of_http(status: StatusCode, headers: &HeaderMap, body: &[u8], now_s: i64) -> Answer {
    if status.is_success() {
        return taken(body);
    }
    let told = proto::RpcStatus::decode(body).map(|status| status.message).unwrap_or_default();
    let why = format!("answered {status} {}", shown(&told));
    match status.as_u16() {
        429 | 502 | 503 | 504 => {
            let after = headers.get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?, now_s));
            Answer::Later { after, why }
        }
        _ => Answer::Refused(why),
    }
}

/// `fields`: trailers, or the headers where there are no trailers.
pub(super) fn of_grpc(fields: &HeaderMap, body: &[u8]) -> Answer {
    let text = |name: &str| fields.get(name).and_then(|value| value.to_str().ok());
    let Some(code) = text("grpc-status").and_then(|code| code.parse::<u32>().ok()) else {
        return Answer::unreachable("the backend's answer has no grpc-status");
    };
    if code == 0 {
        // A frame's head: compressed or not, length.
        return taken(body.get(5..).unwrap_or_default());
    }
    let why = format!("answered gRPC code {code} {}", shown(text("grpc-message").unwrap_or_default()));
    let after = text("grpc-status-details-bin").and_then(retry_info);
    match code {
        // CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS.
        1 | 4 | 10 | 11 | 14 | 15 => Answer::Later { after, why },
        // RESOURCE_EXHAUSTED: recovery is possible only where the backend says so.
        8 if after.is_some() => Answer::Later { after, why },
        _ => Answer::Refused(why),
    }
}

/// gRPC over a proxy that answers itself.
pub(super) fn of_grpc_status(status: StatusCode) -> Answer {
    let why = format!("answered {status}");
    match status.as_u16() {
        429 | 502 | 503 | 504 => Answer::Later { after: None, why },
        _ => Answer::Refused(why),
    }
}

fn taken(body: &[u8]) -> Answer {
    let partial = proto::Response::decode(body).ok().and_then(|response| response.partial_success).unwrap_or_default();
    Answer::Taken { rejected: u64::try_from(partial.rejected).unwrap_or(0), why: shown(&partial.error_message) }
}

/// Harmless and short: it goes to the log.
fn shown(text: &str) -> String {
    crate::model::display::clip(&crate::model::display::printable(text), MAX_TEXT)
}

fn retry_after(text: &str, now_s: i64) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok()?;
    Some(Duration::from_secs(u64::try_from(date.as_second() - now_s).unwrap_or(0)))
}

/// The pause in a `google.rpc.Status` with a `RetryInfo`, in base64 with or without padding.
fn retry_info(text: &str) -> Option<Duration> {
    let status = proto::RpcStatus::decode(&*base64(text.trim())?).ok()?;
    let info = status.details.iter().find(|any| any.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let pause = proto::RetryInfo::decode(&*info.value).ok()?.retry_delay?;
    let (seconds, nanos) = (u64::try_from(pause.seconds).ok()?, u32::try_from(pause.nanos).ok()?);
    Duration::from_secs(seconds).checked_add(Duration::from_nanos(nanos.into()))
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let (mut bits, mut count, mut out) = (0_u32, 0, Vec::with_capacity(text.len()));
    for letter in text.trim_end_matches('=').bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn fields(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    /// `taken`, `refused` or `later`, with the seconds asked for.
    fn kind(answer: &Answer) -> (&'static str, Option<u64>) {
        match answer {
            Answer::Taken { .. } => ("taken", None),
            Answer::Refused(_) => ("refused", None),
            Answer::Later { after, .. } => ("later", after.map(|after| after.as_secs())),
        }
    }

    #[test]
    fn http_answers_are_sorted_as_the_specification_has_it() {
        let date = "Tue, 14 Nov 2023 22:13:50 GMT";
        let cases = [
            (200, "", ("taken", None)),
            (202, "", ("taken", None)),
            (400, "", ("refused", None)),
            (404, "", ("refused", None)),
            (413, "", ("refused", None)),
            (500, "", ("refused", None)),
            (429, "", ("later", None)),
            (429, "7", ("later", Some(7))),
            (503, date, ("later", Some(30))),
            (502, "soon", ("later", None)),
            (504, "Tue, 14 Nov 2000 22:13:50 GMT", ("later", Some(0))),
        ];
        for (status, after, expected) in cases {
            let headers = if after.is_empty() { HeaderMap::new() } else { fields(&[("retry-after", after)]) };
            let answer = of_http(StatusCode::from_u16(status).unwrap(), &headers, b"", 1_700_000_000);
            assert_eq!(kind(&answer), expected, "{status} {after}");
        }
    }

    #[test]
    fn grpc_codes_are_sorted_as_the_specification_has_it() {
        for code in 0..=16_u32 {
            let code_text = code.to_string();
            let expected = match code {
                0 => "taken",
                1 | 4 | 10 | 11 | 14 | 15 => "later",
                _ => "refused",
            };
            let answer = of_grpc(&fields(&[("grpc-status", &code_text)]), b"");
            assert_eq!(kind(&answer), (expected, None), "{code}");
        }
        assert_eq!(kind(&of_grpc(&fields(&[]), b"")).0, "later");
    }

    #[test]
    fn a_retry_info_says_when_to_come_again() {
        let info = proto::RetryInfo { retry_delay: Some(proto::Pause { seconds: 12, nanos: 5 }) };
        let any =
            proto::Any { type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(), value: info.encode_to_vec() };
        let status = proto::RpcStatus { code: 8, message: "busy".to_owned(), details: vec![any] };
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let encoded: String = status
            .encode_to_vec()
            .chunks(3)
            .flat_map(|chunk| {
                let bits =
                    chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
                let digit = move |place: usize| char::from(DIGITS[(bits >> (18 - 6 * place)) as usize & 63]);
                (0..=chunk.len()).map(digit).collect::<Vec<_>>()
            })
            .collect();
        let exhausted = fields(&[("grpc-status", "8"), ("grpc-status-details-bin", &encoded)]);
        assert_eq!(kind(&of_grpc(&exhausted, b"")), ("later", Some(12)));
        let unreadable = fields(&[("grpc-status", "8"), ("grpc-status-details-bin", "?")]);
        assert_eq!(kind(&of_grpc(&unreadable, b"")), ("refused", None));
    }

    #[test]
    fn a_partial_success_says_how_many_were_rejected() {
        let partial = proto::PartialSuccess { rejected: 3, error_message: "too\nold".to_owned() };
        let body = proto::Response { partial_success: Some(partial) }.encode_to_vec();
        let expected = Answer::Taken { rejected: 3, why: "too·old".to_owned() };
        assert_eq!(of_http(StatusCode::OK, &HeaderMap::new(), &body, 0), expected);
        let framed = [&[0, 0, 0, 0, body.len() as u8], &body[..]].concat();
        assert_eq!(of_grpc(&fields(&[("grpc-status", "0")]), &framed), expected);
        let negative = proto::PartialSuccess { rejected: -1, error_message: String::new() };
        let body = proto::Response { partial_success: Some(negative) }.encode_to_vec();
        assert_eq!(kind(&of_http(StatusCode::OK, &HeaderMap::new(), &body, 0)).0, "taken");
    }
}
