//! Paths to routes of low cardinality: `/user/123/cart` → `/user/{id}/cart`.
//!
//! One walk over each segment, no pattern engine. A segment that looks like a value (a number, a UUID, a hash, a
//! date, an address, encoded text) becomes `{id}`, with the extension of a file kept. At most [`MAX_SEGMENTS`]
//! segments, the rest is `*`. Per service at most `routes_per_service` routes, any further one is `/*`.
//! A heuristic: what it cannot tell from a word it keeps, and the bound catches it.

use std::hash::BuildHasher as _;
use std::net::SocketAddr;

use compact_str::CompactString;

use crate::model::hashing::{Map, RandomState, Set};

const MAX_SEGMENTS: usize = 8;
/// Services whose routes are remembered; one more and all are learned anew.
const MAX_SERVICES: usize = 1024;
const PLACEHOLDER: &str = "{id}";

/// The routes each service has shown so far.
#[derive(Debug)]
pub(super) struct Routes {
    per_service: usize,
    hasher: RandomState,
    seen: Map<SocketAddr, Set<u64>>,
}

impl Routes {
    pub(super) fn new(per_service: usize) -> Self {
        Self { per_service, hasher: RandomState::default(), seen: Map::default() }
    }

    /// The route of a path at the service with this address.
    pub(super) fn route(&mut self, service: SocketAddr, path: &str) -> CompactString {
        let route = template(path);
        let key = self.hasher.hash_one(&route);
        if self.seen.len() >= MAX_SERVICES && !self.seen.contains_key(&service) {
            self.seen.clear();
        }
        let seen = self.seen.entry(service).or_default();
        if seen.contains(&key) {
            return route;
        }
        if seen.len() >= self.per_service {
            return CompactString::const_new("/*");
        }
        seen.insert(key);
        route
    }
}

/// The path with placeholders for what looks like a value.
pub(super) fn template(path: &str) -> CompactString {
    let mut route = CompactString::with_capacity(path.len().min(64));
    let mut segments = path.split('/').enumerate().peekable();
    while let Some((depth, segment)) = segments.next() {
        if depth > 0 {
            route.push('/');
        }
        if depth > MAX_SEGMENTS {
            route.push('*');
            break;
        }
        match segment.rsplit_once('.') {
            // Only the last segment names a file.
            Some((stem, extension)) if segments.peek().is_none() && is_extension(extension) && !stem.contains('@') => {
                route.push_str(if is_value(stem) { PLACEHOLDER } else { stem });
                route.push('.');
                route.push_str(extension);
            }
            _ => route.push_str(if is_value(segment) { PLACEHOLDER } else { segment }),
        }
    }
    route
}

fn is_extension(text: &str) -> bool {
    (1..=5).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && text.bytes().any(|byte| byte.is_ascii_alphabetic())
}

/// Whether a segment is a value of the request rather than a word of the application.
fn is_value(segment: &str) -> bool {
    if segment.is_empty() {
        return false;
    }
    segment.bytes().all(|byte| byte.is_ascii_digit())
        || segment.len() > 48
        // Encoded or outside the words that people put into routes: addresses, lists, names of things.
        || segment.bytes().any(|byte| !byte.is_ascii() || matches!(byte, b'%' | b'@' | b',' | b'=' | b';' | b'+'))
        || segment.split(['-', '_', '.', '~', ':']).any(is_identifier)
}

/// Whether a part between separators was made by a machine.
fn is_identifier(part: &str) -> bool {
    let (mut digits, mut run, mut longest_run, mut hex, mut lower, mut upper) = (0, 0, 0, 0, 0, 0);
    for byte in part.bytes() {
        run = if byte.is_ascii_digit() { run + 1 } else { 0 };
        longest_run = longest_run.max(run);
        digits += usize::from(byte.is_ascii_digit());
        hex += usize::from(byte.is_ascii_hexdigit());
        lower += usize::from(byte.is_ascii_lowercase());
        upper += usize::from(byte.is_ascii_uppercase());
    }
    let length = part.len();
    longest_run >= 4
        || (hex == length && length >= 8 && (digits > 0 || length >= 16))
        || (length >= 16 && digits >= 2)
        || (length >= 20 && lower > 0 && upper >= 4)
        || (length >= 20 && upper == length)
}

#[cfg(test)]
mod tests {
    use super::{Routes, template};

    #[test]
    fn values_become_placeholders_and_words_stay() {
        for (path, route) in [
            ("/", "/"),
            ("", ""),
            ("/user/123", "/user/{id}"),
            ("/user/123/", "/user/{id}/"),
            ("/user/me/cart", "/user/me/cart"),
            ("/api/v1/items", "/api/v1/items"),
            ("/api/v2.1/oauth2/token", "/api/v2.1/oauth2/token"),
            ("/o/550e8400-e29b-41d4-a716-446655440000", "/o/{id}"),
            ("/o/01ARZ3NDEKTSV4RRFFQ69G5FAV", "/o/{id}"),
            ("/commit/da39a3ee5e6b4b0d3255bfef95601890afd80709", "/commit/{id}"),
            ("/commit/da39a3ee", "/commit/{id}"),
            ("/report/2024-01-31", "/report/{id}"),
            ("/report/2024-01-31.pdf", "/report/{id}.pdf"),
            ("/order-12345/lines", "/{id}/lines"),
            ("/mail/someone@example.com", "/mail/{id}"),
            ("/find/a%20word", "/find/{id}"),
            ("/static/app.css", "/static/app.css"),
            ("/static/app.8f3a2b1c.js", "/static/{id}.js"),
            ("/static/favicon.ico", "/static/favicon.ico"),
            ("/img/20240131_120000.jpg", "/img/{id}.jpg"),
            ("/t/dGhpc0lzQVRva2VuMTIzNDU2", "/t/{id}"),
            ("/get-all-the-things/with_many_words", "/get-all-the-things/with_many_words"),
            ("/facade/decade", "/facade/decade"),
            ("/a/b/c/d/e/f/g/h/i/j/k", "/a/b/c/d/e/f/g/h/*"),
            ("//x", "//x"),
            ("/файл", "/{id}"),
        ] {
            assert_eq!(template(path), route, "{path}");
        }
    }

    #[test]
    fn past_its_bound_a_service_shows_one_more_route_only() {
        let mut routes = Routes::new(3);
        let service = "10.0.0.1:80".parse().unwrap();
        let other = "10.0.0.2:80".parse().unwrap();
        for word in ["a", "b", "c"] {
            assert_eq!(routes.route(service, &format!("/{word}")), format!("/{word}"));
        }
        assert_eq!(routes.route(service, "/d"), "/*");
        assert_eq!(routes.route(service, "/a"), "/a", "known routes stay");
        assert_eq!(routes.route(other, "/d"), "/d", "each service has its own bound");
    }
}
