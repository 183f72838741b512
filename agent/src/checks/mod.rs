//! Active checks: HTTP, TCP and DNS from this host to configured targets, at an interval, as metrics and for rules.
//!
//! Names are those of Prometheus' blackbox exporter, so that its dashboards and rules fit. Only what is configured is
//! contacted. Cost: one task a target; a name is looked up in a thread of its own, at most one at a time for each target. TLS
//! where the URL is https. No redirects, no request body.

mod connect;
mod dns;
mod http;
mod metrics;
mod run;

pub use metrics::METRICS;
pub use run::{Checks, Results};

use std::path::PathBuf;

use hyper::Uri;
use regex::bytes::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use crate::section::Interval;

/// Targets at most.
pub const MAX_TARGETS: usize = 1000;
const SHORTEST: Interval = Interval::millis(100);
const LONGEST: Interval = Interval::secs(86_400);
/// Memory of a compiled expression, bytes.
const MAX_EXPRESSION: usize = 1 << 20;

crate::section! {
    /// Active checks. Only these targets are contacted.
    pub struct Config {
        /// How often each target is checked, where it does not say; 100ms to 1day.
        pub interval: Interval = Interval::secs(15),
        /// How long one check may take, where the target does not say; not longer than its interval.
        pub timeout: Interval = Interval::secs(5),
        /// PEM file of who may vouch for https targets that name none, instead of the system's.
        pub certificate: Option<PathBuf> = None,
        /// What is checked, up to 1000. Each entry has a name and one of http: URL (http or https), tcp: HOST:PORT and dns: HOST[:PORT]
        /// of a server; and what it needs of interval, timeout; for http status: [CODES] (else any from 200 to 299),
        /// fail_if_not_matches: REGEX (on the body's first MiB) and certificate; for dns query: NAME, query_type (A) and status: [RCODES] (else 0).
        pub targets: Vec<Target> = Vec::new(),
    }
}

/// One target as it is configured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Value of the label `check`.
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Interval>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub status: Vec<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail_if_not_matches: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_type: Option<String>,
}

/// A target that can be checked.
#[derive(Debug)]
struct Check {
    name: String,
    /// Value of the label `instance`: the target as it was written.
    instance: String,
    interval: Interval,
    timeout: Interval,
    what: What,
}

#[derive(Debug)]
enum What {
    Http { at: Endpoint, tls: Option<Vouched>, authority: String, path: String, status: Vec<u16>, body: Option<Regex> },
    Tcp { at: Endpoint },
    Dns { at: Endpoint, question: dns::Question, rcodes: Vec<u16> },
}

/// Who may vouch for a target: the certificates of a file, else the system's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Vouched(Option<PathBuf>);

/// A host, as a name or an address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Endpoint {
    host: String,
    port: u16,
}

impl What {
    /// Value of the label `module`.
    const fn module(&self) -> &'static str {
        match self {
            Self::Http { .. } => "http",
            Self::Tcp { .. } => "tcp",
            Self::Dns { .. } => "dns",
        }
    }
}

impl Config {
    /// What is wrong with each target: its place in the list, its key, and what.
    pub fn problems(&self) -> Vec<(usize, &'static str, String)> {
        let mut problems: Vec<_> = (0..self.targets.len())
            .filter_map(|index| self.check(index).err().map(|(key, problem)| (index, key, problem)))
            .collect();
        for (index, target) in self.targets.iter().enumerate() {
            if self.targets.iter().take(index).any(|other| other.name == target.name) {
                problems.push((index, "name", format!("another target is called '{}'", target.name)));
            }
        }
        if self.targets.len() > MAX_TARGETS {
            problems.push((MAX_TARGETS, "name", format!("more than {MAX_TARGETS} targets")));
        }
        problems
    }

    /// Every target that is right.
    fn checks(&self) -> Vec<Check> {
        (0..self.targets.len().min(MAX_TARGETS)).filter_map(|index| self.check(index).ok()).collect()
    }

    fn check(&self, index: usize) -> Result<Check, (&'static str, String)> {
        let target = self.targets.get(index).ok_or(("name", "no such target".to_owned()))?;
        if target.name.trim().is_empty() {
            return Err(("name", "the name is empty".to_owned()));
        }
        let interval = target.interval.unwrap_or(self.interval);
        if !(SHORTEST..=LONGEST).contains(&interval) {
            return Err(("interval", format!("{interval} is not between {SHORTEST} and {LONGEST}")));
        }
        let timeout = target.timeout.unwrap_or(self.timeout.min(interval));
        if timeout > interval || timeout.0.is_zero() {
            return Err(("timeout", format!("{timeout} is not between 0 and the interval of {interval}")));
        }
        let (instance, mut what) = target.what()?;
        if let What::Http { tls: Some(Vouched(certificate @ None)), .. } = &mut what {
            certificate.clone_from(&self.certificate);
        }
        Ok(Check { name: target.name.clone(), instance, interval, timeout, what })
    }
}

impl Target {
    fn what(&self) -> Result<(String, What), (&'static str, String)> {
        let of_http = self.fail_if_not_matches.is_some() || self.certificate.is_some();
        let of_dns = self.query.is_some() || self.query_type.is_some();
        match (&self.http, &self.tcp, &self.dns) {
            (Some(url), None, None) if !of_dns => {
                let wrong = |problem| ("http", problem);
                let (at, tls, authority, path) = address(url).map_err(wrong)?;
                if self.certificate.is_some() && !tls {
                    return Err(("certificate", format!("'{url}' is not https")));
                }
                let status = self.status.clone();
                if let Some(code) = status.iter().find(|code| !(100..=999).contains(*code)) {
                    return Err(("status", format!("{code} is not a status code")));
                }
                let build = |text: &String| RegexBuilder::new(text).size_limit(MAX_EXPRESSION).build();
                let body = self.fail_if_not_matches.as_ref().map(build).transpose();
                let body = body.map_err(|error| ("fail_if_not_matches", error.to_string()))?;
                let tls = tls.then(|| Vouched(self.certificate.clone()));
                Ok((url.clone(), What::Http { at, tls, authority, path, status, body }))
            }
            (None, Some(place), None) if !of_dns && !of_http && self.status.is_empty() => {
                let at = Endpoint::parse(place, None).map_err(|problem| ("tcp", problem))?;
                Ok((place.clone(), What::Tcp { at }))
            }
            (None, None, Some(server)) if !of_http => {
                let at = Endpoint::parse(server, Some(dns::PORT)).map_err(|problem| ("dns", problem))?;
                let name = self.query.as_deref().ok_or(("query", "which name is to be asked for?".to_owned()))?;
                let kind = self.query_type.as_deref().unwrap_or("A");
                let question = dns::Question::new(name, kind).map_err(|problem| ("query", problem))?;
                let rcodes = if self.status.is_empty() { vec![dns::NO_ERROR] } else { self.status.clone() };
                Ok((server.clone(), What::Dns { at, question, rcodes }))
            }
            (None, None, None) => Err(("name", "one of http, tcp and dns is needed".to_owned())),
            (Some(_), None, None) | (None, Some(_), None) | (None, None, Some(_)) => {
                Err(("name", "has keys of another kind of check".to_owned()))
            }
            _ => Err(("name", "only one of http, tcp and dns can be checked".to_owned())),
        }
    }
}

/// Host, whether it is https, authority and path of a URL.
fn address(url: &str) -> Result<(Endpoint, bool, String, String), String> {
    let uri: Uri = url.parse().map_err(|error| format!("'{url}' is not a URL: {error}"))?;
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(format!("'{url}' does not begin with http:// or https://")),
    };
    let authority = uri.authority().ok_or_else(|| format!("'{url}' names no host"))?;
    if authority.as_str().contains('@') {
        return Err("a user name in a URL is not supported".to_owned());
    }
    let host = authority.host().trim_matches(['[', ']']).to_owned();
    let path = uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
    Ok((Endpoint { host, port }, tls, authority.to_string(), path))
}

impl Endpoint {
    /// `HOST:PORT`, `[ADDRESS]:PORT`; without a port where there is a usual one.
    fn parse(text: &str, usual: Option<u16>) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not HOST:PORT");
        if let (Some(port), Ok(address)) = (usual, text.parse::<std::net::IpAddr>()) {
            return Ok(Self { host: address.to_string(), port });
        }
        let (host, port) = match (text.rsplit_once(':'), usual) {
            (Some((host, port)), _) => (host, port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?),
            (None, Some(port)) => (text, port),
            (None, None) => return Err(wrong()),
        };
        let host = host.trim_matches(['[', ']']);
        let plain = !host.is_empty() && !host.contains(['/', '@', ' ']);
        plain.then(|| Self { host: host.to_owned(), port }).ok_or_else(wrong)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn problems(yaml: &str) -> Vec<String> {
        let config: Config = serde_saphyr::from_str(yaml).unwrap();
        config.problems().into_iter().map(|(index, key, problem)| format!("{index} {key}: {problem}")).collect()
    }

    #[test]
    fn targets_of_each_kind_are_understood() {
        let yaml = "targets:\n\
            - {name: shop, http: 'http://[::1]:8080/health?x=1', status: [200, 204], fail_if_not_matches: 'ok$'}\n\
            - {name: plain, http: 'http://shop', interval: 1s, timeout: 500ms}\n\
            - {name: safe, http: 'https://shop', certificate: a.pem}\n\
            - {name: db, tcp: 'localhost:5432'}\n\
            - {name: resolver, dns: '127.0.0.1', query: shop.example, query_type: aaaa, status: [3]}\n\
            - {name: other, dns: 'ns.example:5353', query: shop.example.}\n";
        assert_eq!(problems(yaml), Vec::<String>::new());
        let config: Config = serde_saphyr::from_str(yaml).unwrap();
        let checks = config.checks();
        let places: Vec<_> = checks
            .iter()
            .map(|check| match &check.what {
                What::Http { at, path, .. } => format!("{}|{}{path}", at.host, at.port),
                What::Tcp { at } | What::Dns { at, .. } => format!("{}|{}", at.host, at.port),
            })
            .collect();
        assert_eq!(
            places,
            ["::1|8080/health?x=1", "shop|80/", "shop|443/", "localhost|5432", "127.0.0.1|53", "ns.example|5353"]
        );
        assert_eq!(checks[0].timeout, Interval::secs(5));
        assert_eq!(checks[1].timeout, Interval::millis(500));
        let again: Config = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
        assert_eq!(again, config);
    }

    #[test]
    fn a_wrong_target_is_refused_with_what_is_wrong() {
        let cases = [
            ("{name: '', tcp: 'a:1'}", "0 name: the name is empty"),
            ("{name: x}", "0 name: one of http, tcp and dns is needed"),
            ("{name: x, tcp: 'a:1', http: 'http://a'}", "0 name: only one of"),
            ("{name: x, http: 'ftp://a'}", "0 http: 'ftp://a' does not begin"),
            ("{name: x, http: 'http://a', certificate: a.pem}", "0 certificate: 'http://a' is not https"),
            ("{name: x, tcp: 'a:1', certificate: a.pem}", "0 name: has keys of another kind"),
            ("{name: x, http: '/a'}", "0 http: '/a' does not begin with http://"),
            ("{name: x, http: 'http://u:p@a/'}", "0 http: a user name"),
            ("{name: x, http: 'http://a', status: [7]}", "0 status: 7 is not"),
            ("{name: x, http: 'http://a', fail_if_not_matches: '('}", "0 fail_if_not_matches: regex parse error"),
            ("{name: x, http: 'http://a', query: b}", "0 name: has keys of another kind"),
            ("{name: x, tcp: a}", "0 tcp: 'a' is not HOST:PORT"),
            ("{name: x, tcp: 'a:0'}", "0 tcp: 'a:0' is not"),
            ("{name: x, tcp: 'a:1', status: [200]}", "0 name: has keys of another kind"),
            ("{name: x, dns: a}", "0 query: which name"),
            ("{name: x, dns: a, query: b, query_type: Z}", "0 query: 'Z' is no type"),
            ("{name: x, dns: a, query: 'b..c'}", "0 query: 'b..c' is not a name"),
            ("{name: x, tcp: 'a:1', interval: 1ms}", "0 interval: 1ms is not between"),
            ("{name: x, tcp: 'a:1', interval: 1s, timeout: 2s}", "0 timeout: 2s is not between"),
            ("{name: x, tcp: 'a:1'}, {name: x, tcp: 'a:2'}", "1 name: another target"),
        ];
        for (target, expected) in cases {
            let found = problems(&format!("targets: [{target}]"));
            assert!(found.len() == 1 && found[0].starts_with(expected), "{target}: {found:?}");
        }
        assert!(serde_saphyr::from_str::<Config>("targets: [{name: x, tcp: 'a:1', extra: 1}]").is_err());
    }
}
