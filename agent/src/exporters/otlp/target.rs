//! An endpoint's URL, headers and attributes as text → what a request needs. Refused where they cannot work.

use std::fmt;

use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};

/// Whom to ask for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub tls: bool,
    pub host: String,
    pub port: u16,
    pub authority: String,
    pub path: String,
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "http{}://{}{}", if self.tls { "s" } else { "" }, self.authority, self.path)
    }
}

impl Target {
    /// `suffix` is added to the path.
    pub(super) fn parse(url: &str, suffix: &str) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|error| format!("{url:?} is not a URL: {error}"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(format!("{url:?} does not begin with http:// or https://")),
        };
        let authority = uri.authority().ok_or_else(|| format!("{url:?} names no host"))?;
        if authority.as_str().contains('@') {
            return Err("a user name in a URL is not supported; use headers".to_owned());
        }
        Ok(Self {
            tls,
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            authority: authority.to_string(),
            path: match uri.path_and_query().map_or("/", |path| path.as_str()) {
                path if suffix.is_empty() => path.to_owned(),
                path => format!("{}{suffix}", path.trim_end_matches('/')),
            },
        })
    }
}

/// `NAME=VALUE` each, values percent-decoded.
pub(super) fn attributes(texts: &[String]) -> Result<Vec<(String, String)>, String> {
    let read = |text: &String| {
        let wrong = || format!("'{}' is not NAME=VALUE", text.escape_debug());
        let (name, value) = text.split_once('=').ok_or_else(wrong)?;
        let (name, value) = (name.trim(), decoded(value.trim()).ok_or_else(wrong)?);
        if name.is_empty() { Err(wrong()) } else { Ok((name.to_owned(), value)) }
    };
    texts.iter().map(read).collect()
}

/// The same as headers. What is wrong is named without its value: it may be a secret.
pub(super) fn headers(texts: &[String]) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let read = |(index, text): (usize, &String)| {
        let pairs = attributes(std::slice::from_ref(text)).map_err(|_| format!("[{index}] is not NAME=VALUE"))?;
        let (name, value) = pairs.into_iter().next().unwrap_or_default();
        let wrong = || format!("'{}' cannot be sent as a header", name.escape_debug());
        let parsed: HeaderName = name.parse().map_err(|_| wrong())?;
        let mut value = HeaderValue::from_str(&value).map_err(|_| wrong())?;
        value.set_sensitive(true);
        Ok((parsed, value))
    };
    texts.iter().enumerate().map(read).collect()
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, behind) = rest.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = behind;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Target, attributes, headers};

    #[test]
    fn an_endpoint_becomes_host_port_and_path() {
        let cases = [
            ("http://localhost:4318", "/v1/traces", "localhost", 4318, "/v1/traces"),
            ("http://localhost:4318/", "/v1/traces", "localhost", 4318, "/v1/traces"),
            ("http://[::1]:4318/otlp/", "/v1/traces", "::1", 4318, "/otlp/v1/traces"),
            ("http://collector/x?y=z", "", "collector", 80, "/x?y=z"),
            ("https://collector", "/v1/metrics", "collector", 443, "/v1/metrics"),
            ("https://[::1]:4318/x", "", "::1", 4318, "/x"),
        ];
        for (url, suffix, host, port, path) in cases {
            let target = Target::parse(url, suffix).unwrap();
            assert_eq!((target.host.as_str(), target.port, target.path.as_str()), (host, port, path), "{url}");
            assert_eq!(target.tls, url.starts_with("https"));
            assert!(target.to_string().starts_with(url.split('/').next().unwrap()), "{target}");
        }
    }

    #[test]
    fn endpoints_that_cannot_work_are_refused() {
        for (url, expected) in [
            ("ftp://example.org/", "does not begin with http://"),
            ("localhost:4318", "does not begin with http://"),
            ("http://u:p@example.org/", "a user name"),
            ("http://", "is not a URL"),
            ("grpc://x", "does not begin with http://"),
        ] {
            let error = Target::parse(url, "").unwrap_err();
            assert!(error.contains(expected), "{url}: {error}");
        }
    }

    #[test]
    fn pairs_are_percent_decoded_and_wrong_headers_do_not_show_their_value() {
        let found = attributes(&["a = b%20c%3D".to_owned(), "d==".to_owned()]).unwrap();
        assert_eq!(found, [("a".to_owned(), "b c=".to_owned()), ("d".to_owned(), "=".to_owned())]);
        for wrong in ["", "a", "=b", "a=%2", "a=%zz", "a=%ff", "a=%+1"] {
            assert!(attributes(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
        assert_eq!(headers(&["Api-Key=secret".to_owned()]).unwrap()[0].0, "api-key");
        for wrong in ["a b=secret", "a=secret%0a", "secret"] {
            let error = headers(&[wrong.to_owned()]).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
