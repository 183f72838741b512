//! What a check found, as the metrics of Prometheus' blackbox exporter.
//!
//! Values of the last check of each target; a value that the check did not come to is absent. The labels `instance`, `module` and
//! `check` tell targets apart, as the labels of a scrape would.

use super::Check;
use super::run::Findings;
use crate::model::metric::{Kind, Metric, Sample, Value};

const fn gauge(name: &'static str, unit: &'static str, description: &'static str) -> Metric {
    Metric { name, unit, kind: Kind::Gauge, description, labels: &["check", "module", "instance"] }
}

const fn phases(name: &'static str, description: &'static str) -> Metric {
    Metric { name, unit: "s", kind: Kind::Gauge, description, labels: &["check", "module", "instance", "phase"] }
}

static SUCCESS: Metric = gauge("probe.success", "{success}", "1 if the last check of the target succeeded, else 0");
static DURATION: Metric = gauge("probe.duration", "s", "How long the last check of the target took");
static LOOKUP: Metric = gauge("probe.dns_lookup_time", "s", "How long the lookup of the target's name took");
static IP_PROTOCOL: Metric = gauge("probe.ip_protocol", "{version}", "IP version of the target's address, 4 or 6");
static HTTP_STATUS: Metric = gauge("probe.http.status_code", "{status}", "Status code of the answer");
static HTTP_VERSION: Metric = gauge("probe.http.version", "{version}", "HTTP version of the answer");
static HTTP_LENGTH: Metric =
    gauge("probe.http.content_length", "{byte}", "Length of the answer as its head says, -1 if it does not");
static HTTP_BODY: Metric =
    gauge("probe.http.uncompressed_body_length", "{byte}", "Bytes of the answer's body that were read, at most 1 MiB");
static HTTP_SSL: Metric = gauge("probe.http.ssl", "{truth}", "1 if the connection was encrypted, else 0");
static SSL_EXPIRY: Metric = gauge(
    "probe.ssl.earliest_cert_expiry",
    "{timestamp}",
    "Unix time (s) at which the first of the certificates that the target showed expires; absent where one is not accepted",
);
static HTTP_DURATION: Metric = phases("probe.http.duration", "How long each part of an HTTP check took");
static REGEX: Metric = gauge("probe.failed_due_to_regex", "{failure}", "1 if the body did not match, else 0");
static DNS_DURATION: Metric = phases("probe.dns.duration", "How long each part of a DNS check took");
static DNS_ANSWERS: Metric = gauge("probe.dns.answer_rrs", "{record}", "Records in the answer");
static DNS_AUTHORITIES: Metric = gauge("probe.dns.authority_rrs", "{record}", "Records in the authority section");
static DNS_ADDITIONAL: Metric = gauge("probe.dns.additional_rrs", "{record}", "Records in the additional section");
static DNS_RCODE: Metric = gauge("probe.dns.rcode", "{code}", "Response code of the answer");
static DNS_ANSWERED: Metric = gauge("probe.dns.query_succeeded", "{success}", "1 if the server answered, else 0");
pub(super) static RUNS: Metric = Metric {
    name: "seismo.check.runs",
    unit: "{check}",
    kind: Kind::Counter,
    description: "Checks by what became of them",
    labels: &["check", "outcome"],
};

/// Every metric of the checks.
pub const METRICS: &[&Metric] = &[
    &SUCCESS,
    &DURATION,
    &LOOKUP,
    &IP_PROTOCOL,
    &HTTP_STATUS,
    &HTTP_VERSION,
    &HTTP_LENGTH,
    &HTTP_BODY,
    &HTTP_SSL,
    &SSL_EXPIRY,
    &HTTP_DURATION,
    &REGEX,
    &DNS_DURATION,
    &DNS_ANSWERS,
    &DNS_AUTHORITIES,
    &DNS_ADDITIONAL,
    &DNS_RCODE,
    &DNS_ANSWERED,
    &RUNS,
];

/// Samples of one target's last check.
pub(super) fn samples(check: &Check, succeeded: bool, seconds: f64, findings: &Findings) -> Vec<Sample> {
    let mut out = Vec::new();
    let mut push = |metric: &'static Metric, phase: Option<&'static str>, value: f64| {
        let own = [check.name.clone().into(), check.what.module().into(), check.instance.clone().into()];
        let labels = own.into_iter().chain(phase.map(Into::into)).collect();
        out.push(Sample { metric, labels, value: Value::Float(value) });
    };
    let yes = |is: bool| f64::from(u8::from(is));
    push(&SUCCESS, None, yes(succeeded));
    push(&DURATION, None, seconds);
    if let Some(seconds) = findings.lookup_seconds {
        push(&LOOKUP, None, seconds);
    }
    if let Some(version) = findings.ip_protocol {
        push(&IP_PROTOCOL, None, f64::from(version));
    }
    let known = |phase: &'static str, seconds: Option<f64>| seconds.map(|seconds| (phase, seconds));
    let begin = [known("resolve", findings.lookup_seconds), known("connect", findings.connect_seconds)];
    match check.what.module() {
        "http" => {
            let answer = findings.http.as_ref();
            push(&HTTP_SSL, None, yes(findings.tls.is_some()));
            if let Some(expires_s) = findings.tls.and_then(|tls| tls.expires_s) {
                push(&SSL_EXPIRY, None, expires_s as f64);
            }
            let rest = [
                known("tls", findings.tls.map(|tls| tls.handshake_seconds)),
                known("processing", answer.map(|answer| answer.processing_seconds)),
                known("transfer", answer.map(|answer| answer.transfer_seconds)),
            ];
            for (phase, seconds) in begin.into_iter().chain(rest).flatten() {
                push(&HTTP_DURATION, Some(phase), seconds);
            }
        }
        "dns" => {
            let request = known("request", findings.dns.map(|answer| answer.request_seconds));
            for (phase, seconds) in begin.into_iter().chain([request]).flatten() {
                push(&DNS_DURATION, Some(phase), seconds);
            }
            push(&DNS_ANSWERED, None, yes(findings.dns.is_some()));
        }
        _ => {}
    }
    if let Some(answer) = &findings.http {
        push(&HTTP_STATUS, None, f64::from(answer.status));
        push(&HTTP_VERSION, None, answer.version);
        push(&HTTP_LENGTH, None, answer.content_length);
        push(&HTTP_BODY, None, answer.body_bytes as f64);
        if let Some(matched) = answer.matched {
            push(&REGEX, None, yes(!matched));
        }
    }
    if let Some(answer) = &findings.dns {
        push(&DNS_RCODE, None, f64::from(answer.rcode));
        push(&DNS_ANSWERS, None, f64::from(answer.answers));
        push(&DNS_AUTHORITIES, None, f64::from(answer.authorities));
        push(&DNS_ADDITIONAL, None, f64::from(answer.additional));
    }
    out
}
