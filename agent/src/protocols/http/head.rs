//! HTTP/1 heads: the bytes up to the empty line to the few fields that spans and framing need.
//!
//! `httparse` does the reading. On top of it: where a head ends when it comes in pieces, and how long the body
//! is (RFC 9112 §6.3). What two servers could read differently (two lengths, a length beside an encoding, mixed
//! line ends) is refused with a reason, never decided. At most [`MAX_HEADERS`] header lines; folded lines are refused.

use std::mem::MaybeUninit;

use crate::model::context::InBand;

use super::super::{Body, Detect, context};

/// nginx and Go allow about as many within their default head size.
const MAX_HEADERS: usize = 128;
/// Methods that OpenTelemetry knows (RFC 9110, PATCH and QUERY). Others are shown as `_OTHER`.
const METHODS: [&str; 10] = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "CONNECT", "TRACE", "QUERY"];
/// Longest method that is taken for one, and longest first line that is looked at to tell HTTP.
const MAX_METHOD_BYTES: usize = 24;
const DETECT_BYTES: usize = 512;

pub(super) enum Parsed<T> {
    /// The head and how many bytes it has.
    Complete(usize, T),
    Partial,
    /// Not a head; why.
    Bad(&'static str),
}

#[derive(Debug)]
pub(super) struct RequestHead<'a> {
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    pub(super) minor_version: u8,
    pub(super) host: Option<&'a [u8]>,
    pub(super) user_agent: Option<&'a [u8]>,
    pub(super) in_band: InBand,
    pub(super) body: Body,
}

#[derive(Debug)]
pub(super) struct ResponseHead {
    pub(super) status: u16,
    /// The body as the header lines tell it; the request's method or the status may rule it out.
    pub(super) body: Result<Body, &'static str>,
}

/// The canonical spelling of a method that OpenTelemetry knows.
pub(super) fn known_method(method: &str) -> Option<&'static str> {
    METHODS.into_iter().find(|known| *known == method)
}

pub(super) fn parse_request(bytes: &[u8]) -> Parsed<RequestHead<'_>> {
    let mut headers = [MaybeUninit::uninit(); MAX_HEADERS];
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(bytes, &mut headers) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Parsed::Partial,
        Err(error) => return Parsed::Bad(reason(error)),
    };
    let (Some(method), Some(target), Some(minor_version)) = (request.method, request.path, request.version) else {
        return Parsed::Bad("head_first_line");
    };
    if mixes_line_ends(bytes.get(..length).unwrap_or_default()) {
        return Parsed::Bad("head_line_ends");
    }
    let fields = Fields::read(request.headers);
    match fields.body(minor_version, Body::None) {
        Ok(Body::ToClose) => Parsed::Bad("transfer_encoding"),
        Ok(body) => {
            let (host, user_agent) = (fields.host, fields.user_agent);
            let in_band = in_band(request.headers);
            Parsed::Complete(length, RequestHead { method, target, minor_version, host, user_agent, in_band, body })
        }
        Err(reason) => Parsed::Bad(reason),
    }
}

pub(super) fn parse_response(bytes: &[u8]) -> Parsed<ResponseHead> {
    let mut headers = [MaybeUninit::uninit(); MAX_HEADERS];
    let mut response = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    let length = match parser.parse_response_with_uninit_headers(&mut response, bytes, &mut headers) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Parsed::Partial,
        Err(error) => return Parsed::Bad(reason(error)),
    };
    let (Some(status), Some(minor_version)) = (response.code, response.version) else {
        return Parsed::Bad("head_first_line");
    };
    if !(100..=599).contains(&status) {
        return Parsed::Bad("head_status");
    }
    if mixes_line_ends(bytes.get(..length).unwrap_or_default()) {
        return Parsed::Bad("head_line_ends");
    }
    let body = Fields::read(response.headers).body(minor_version, Body::ToClose);
    Parsed::Complete(length, ResponseHead { status, body })
}

/// Where the head in `bytes` ends: behind its first empty line. No empty line begins before `from`.
pub(super) fn head_end(bytes: &[u8], from: usize) -> Option<usize> {
    let mut rest = bytes.get(from..)?;
    let mut at = from;
    while let Some(line) = rest.iter().position(|byte| *byte == b'\n') {
        at += line + 1;
        rest = rest.get(line + 1..)?;
        match rest {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
    None
}

/// Strict start predicate.
pub(super) fn detect(bytes: &[u8]) -> Detect {
    const RESPONSE: &[u8] = b"HTTP/1.";
    let start = bytes.get(..RESPONSE.len()).unwrap_or(bytes);
    if start == RESPONSE {
        return match bytes.get(RESPONSE.len()..).unwrap_or_default() {
            [] | [b'0' | b'1'] => Detect::More,
            [b'0' | b'1', b' ', ..] => Detect::Response,
            _ => Detect::No,
        };
    }
    if bytes.is_empty() || RESPONSE.starts_with(bytes) {
        return Detect::More;
    }
    let method = bytes.split(|byte| *byte == b' ').next().unwrap_or_default();
    if method.is_empty() || method.len() > MAX_METHOD_BYTES || !method.iter().all(|byte| is_method_byte(*byte)) {
        return Detect::No;
    }
    let Some(target) = bytes.get(method.len() + 1..) else {
        return Detect::More;
    };
    let Some(first) = target.first() else {
        return Detect::More;
    };
    if METHODS.iter().any(|known| known.as_bytes() == method) {
        return if first.is_ascii_graphic() { Detect::Request } else { Detect::No };
    }
    // Any word could begin like this; only the whole line tells.
    match target.iter().position(|byte| *byte == b'\n') {
        Some(end) => {
            let line = target.get(..end).unwrap_or_default().trim_ascii_end();
            if line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0") { Detect::Request } else { Detect::No }
        }
        None if target.len() < DETECT_BYTES && target.iter().all(|byte| *byte >= b' ' || *byte == b'\r') => {
            Detect::More
        }
        None => Detect::No,
    }
}

fn is_method_byte(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte == b'-' || byte == b'_'
}

/// A head whose lines end in both ways is read in two ways.
fn mixes_line_ends(head: &[u8]) -> bool {
    let feeds = head.iter().filter(|byte| **byte == b'\n').count();
    let pairs = head.iter().zip(head.iter().skip(1)).filter(|(a, b)| **a == b'\r' && **b == b'\n').count();
    pairs != 0 && pairs != feeds
}

fn reason(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName => "head_name",
        httparse::Error::HeaderValue => "head_value",
        httparse::Error::NewLine => "head_new_line",
        httparse::Error::Status => "head_status",
        httparse::Error::Token => "head_token",
        httparse::Error::TooManyHeaders => "head_too_many_lines",
        httparse::Error::Version => "head_version",
    }
}

/// The trace that a request says it belongs to.
fn in_band(headers: &[httparse::Header<'_>]) -> InBand {
    let mut reader = context::Reader::default();
    headers.iter().for_each(|header| reader.header(header.name, header.value));
    reader.finish()
}

/// The header lines that matter.
#[derive(Default)]
struct Fields<'a> {
    length: Option<u64>,
    encoding: Option<Encoding>,
    host: Option<&'a [u8]>,
    user_agent: Option<&'a [u8]>,
    refused: Option<&'static str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Chunked,
    /// Coded, and only the end of the connection ends it.
    Unframed,
}

impl<'a> Fields<'a> {
    fn read(headers: &[httparse::Header<'a>]) -> Self {
        let mut fields = Self::default();
        for header in headers {
            // The length tells most names apart before their bytes are compared.
            match header.name.len() {
                4 if header.name.eq_ignore_ascii_case("host") => {
                    fields.host = if fields.host.is_none() { Some(header.value) } else { Some(b"") };
                }
                10 if header.name.eq_ignore_ascii_case("user-agent") => fields.user_agent = Some(header.value),
                14 if header.name.eq_ignore_ascii_case("content-length") => fields.add_length(header.value),
                17 if header.name.eq_ignore_ascii_case("transfer-encoding") => fields.add_encoding(header.value),
                _ => {}
            }
        }
        fields
    }

    /// One value, or the same value again, also as a list.
    fn add_length(&mut self, value: &[u8]) {
        for item in value.split(|byte| *byte == b',') {
            match (decimal(item.trim_ascii()), self.length) {
                (None, _) => self.refused = Some("content_length_invalid"),
                (Some(length), Some(other)) if length != other => self.refused = Some("content_length_conflict"),
                (Some(length), _) => self.length = Some(length),
            }
        }
    }

    fn add_encoding(&mut self, value: &[u8]) {
        for item in value.split(|byte| *byte == b',') {
            let item = item.trim_ascii();
            let encoding = if item.eq_ignore_ascii_case(b"chunked") {
                Encoding::Chunked
            } else if [&b"gzip"[..], b"deflate", b"compress"].iter().any(|known| item.eq_ignore_ascii_case(known)) {
                Encoding::Unframed
            } else {
                self.refused = Some("transfer_encoding");
                continue;
            };
            if self.encoding == Some(Encoding::Chunked) {
                // Chunked is the last coding and there once.
                self.refused = Some("transfer_encoding");
            }
            self.encoding = Some(encoding);
        }
    }

    fn body(&self, minor_version: u8, otherwise: Body) -> Result<Body, &'static str> {
        match (self.refused, self.encoding, self.length) {
            (Some(reason), _, _) => Err(reason),
            (None, Some(_), Some(_)) => Err("length_and_encoding"),
            // HTTP/1.0 has no encodings: who adds one to it is read in two ways.
            (None, Some(_), None) if minor_version == 0 => Err("transfer_encoding"),
            (None, Some(Encoding::Chunked), None) => Ok(Body::Framed),
            (None, Some(Encoding::Unframed), None) => Ok(Body::ToClose),
            (None, None, Some(0)) => Ok(Body::None),
            (None, None, Some(length)) => Ok(Body::Length(length)),
            (None, None, None) => Ok(otherwise),
        }
    }
}

/// Digits only, and small enough for a signed 64-bit attribute.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = text.iter().try_fold(0u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')))?;
    (value <= i64::MAX as u64).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::{Body, Detect, Parsed, detect, head_end, parse_request, parse_response};

    #[test]
    fn starts_are_told_from_anything_else() {
        for (bytes, verdict) in [
            (&b""[..], Detect::More),
            (b"G", Detect::More),
            (b"GET", Detect::More),
            (b"GET ", Detect::More),
            (b"GET /", Detect::Request),
            (b"GET  /", Detect::No),
            (b"HEAD /", Detect::Request),
            (b"get /", Detect::No),
            (b"PROPFIND /a", Detect::More),
            (b"PROPFIND /a HTTP/1.1\r\n", Detect::Request),
            (b"HELO example.com\r\n", Detect::No),
            (b"PRI * HTTP/2.0\r\n\r\n", Detect::No),
            (b"SSH-2.0-OpenSSH_9.2\r\n", Detect::No),
            (b"H", Detect::More),
            (b"HTTP/1.", Detect::More),
            (b"HTTP/1.1 ", Detect::Response),
            (b"HTTP/1.1\t", Detect::No),
            (b"HTTP/2 200", Detect::No),
            (b"*1\r\n$4\r\nPING\r\n", Detect::No),
            (b"\x16\x03\x01", Detect::No),
            (b"\r\n", Detect::No),
        ] {
            assert_eq!(detect(bytes), verdict, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn the_end_of_a_head_is_found_wherever_the_search_goes_on() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbody\r\n\r\n";
        let end = head.len() - b"body\r\n\r\n".len();
        for from in 0..end - 3 {
            assert_eq!(head_end(head, from), Some(end));
        }
        for cut in 0..end {
            assert_eq!(head_end(&head[..cut], 0), None, "{cut} bytes");
        }
        assert_eq!(head_end(b"GET / HTTP/1.0\n\nx", 0), Some(16));
    }

    #[test]
    fn the_length_of_a_body_is_certain_or_refused() {
        for (lines, body) in [
            ("", Ok(Body::None)),
            ("Content-Length: 0\r\n", Ok(Body::None)),
            ("content-length:  12 \r\n", Ok(Body::Length(12))),
            ("Content-Length: 12\r\nContent-Length: 12\r\n", Ok(Body::Length(12))),
            ("Content-Length: 12, 12\r\n", Ok(Body::Length(12))),
            ("Content-Length: 12\r\nContent-Length: 13\r\n", Err("content_length_conflict")),
            ("Content-Length: -1\r\n", Err("content_length_invalid")),
            ("Content-Length: +1\r\n", Err("content_length_invalid")),
            ("Content-Length: 0x1\r\n", Err("content_length_invalid")),
            ("Content-Length: 1 1\r\n", Err("content_length_invalid")),
            ("Content-Length: \r\n", Err("content_length_invalid")),
            ("Content-Length: 9223372036854775808\r\n", Err("content_length_invalid")),
            ("Content-Length: 18446744073709551617\r\n", Err("content_length_invalid")),
            ("Transfer-Encoding: chunked\r\n", Ok(Body::Framed)),
            ("Transfer-Encoding: gzip, Chunked\r\n", Ok(Body::Framed)),
            ("Transfer-Encoding: gzip\r\n", Err("transfer_encoding")),
            ("Transfer-Encoding: xchunked\r\n", Err("transfer_encoding")),
            ("Transfer-Encoding: chunked, chunked\r\n", Err("transfer_encoding")),
            ("Transfer-Encoding: chunked, gzip\r\n", Err("transfer_encoding")),
            ("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", Err("length_and_encoding")),
            ("A: b\r\n folded\r\n", Err("head_name")),
            ("A: b\nContent-Length: 4\r\n", Err("head_line_ends")),
            ("A: b\0c\r\n", Err("head_value")),
            ("Content-Length : 4\r\n", Err("head_name")),
        ] {
            let head = format!("POST / HTTP/1.1\r\n{lines}\r\n");
            let seen = match parse_request(head.as_bytes()) {
                Parsed::Complete(length, request) => {
                    assert_eq!(length, head.len());
                    Ok(request.body)
                }
                Parsed::Partial => panic!("{lines:?} is whole"),
                Parsed::Bad(reason) => Err(reason),
            };
            assert_eq!(seen, body, "{lines:?}");
        }
    }

    #[test]
    fn a_response_without_a_length_ends_with_the_connection() {
        for (head, body) in [
            ("HTTP/1.1 200 OK\r\n\r\n", Ok(Body::ToClose)),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", Ok(Body::ToClose)),
            ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Err("transfer_encoding")),
            ("HTTP/1.1 204\r\n\r\n", Ok(Body::ToClose)),
            ("HTTP/1.1 200 OK\n\n", Ok(Body::ToClose)),
        ] {
            match parse_response(head.as_bytes()) {
                Parsed::Complete(_, response) => assert_eq!(response.body, body, "{head:?}"),
                _ => panic!("{head:?}"),
            }
        }
        for head in ["HTTP/1.1 099 X\r\n\r\n", "HTTP/1.1 600 X\r\n\r\n", "HTTP/1.1 2x0 X\r\n\r\n"] {
            assert!(matches!(parse_response(head.as_bytes()), Parsed::Bad("head_status")), "{head:?}");
        }
    }
}
