//! `SEISMO_…` variables over the file: a variable's name is derived from the key's path
//! (`capture.ring_bytes` → `SEISMO_CAPTURE_RING_BYTES`), so every documented key has one.
//!
//! OpenTelemetry's variables for exporters set the keys that mean the same. Lists are written `a,b` or as YAML in brackets. An empty variable counts as not set, as OpenTelemetry has it.

use super::node::{Node, Origin, Value};
use super::print::{at, tree};
use super::{Config, Problem};
use crate::section::Documented as _;

const PREFIX: &str = "SEISMO_";
/// Variables of OpenTelemetry's specification and the keys they set; a later one wins, a `SEISMO_…` variable wins over all.
/// `OTEL_SERVICE_NAME` is not among them: the agent sends spans of others, who have names of their own.
const OTEL: &[(&str, &str)] = &[
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "export.otlp.endpoint"),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "export.otlp.protocol"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "export.otlp.headers"),
    ("OTEL_EXPORTER_OTLP_COMPRESSION", "export.otlp.compression"),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "export.otlp.timeout"),
    ("OTEL_EXPORTER_OTLP_CERTIFICATE", "export.otlp.certificate"),
    ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "export.otlp.client_certificate"),
    ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "export.otlp.client_key"),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "export.otlp.traces.endpoint"),
    ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "export.otlp.traces.protocol"),
    ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "export.otlp.traces.headers"),
    ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "export.otlp.traces.compression"),
    ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "export.otlp.traces.timeout"),
    ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "export.otlp.traces.certificate"),
    ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "export.otlp.traces.client_certificate"),
    ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "export.otlp.traces.client_key"),
    ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "export.otlp.metrics.endpoint"),
    ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "export.otlp.metrics.protocol"),
    ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "export.otlp.metrics.headers"),
    ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "export.otlp.metrics.compression"),
    ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "export.otlp.metrics.timeout"),
    ("OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE", "export.otlp.metrics.certificate"),
    ("OTEL_EXPORTER_OTLP_METRICS_CLIENT_CERTIFICATE", "export.otlp.metrics.client_certificate"),
    ("OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY", "export.otlp.metrics.client_key"),
    ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "export.otlp.metrics.histograms"),
    ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "export.otlp.metrics.temporality"),
    ("OTEL_METRIC_EXPORT_INTERVAL", "export.otlp.metrics.interval"),
    ("OTEL_METRICS_EXPORTER", "export.otlp.metrics.enabled"),
    ("OTEL_TRACES_EXPORTER", "export.otlp.traces.enabled"),
    ("OTEL_RESOURCE_ATTRIBUTES", "export.otlp.resource"),
];
/// Read by the command line, not by the configuration.
const NOT_KEYS: [&str; 1] = [crate::cli::AGENT_VARIABLE];

/// Environment as `std::env::vars` gives it; a parameter so that tests need not change the process.
pub type Environment = [(String, String)];

/// Lays the variables that name a key over the tree.
pub(super) fn overlay(root: &mut Node, environment: &Environment) -> Result<(), Problem> {
    let defaults = tree(&Config::default());
    let otel = OTEL.iter().map(|(variable, path)| ((*path).to_owned(), (*variable).to_owned()));
    for (path, variable) in otel.chain(variables()) {
        let Some((_, text)) = environment.iter().find(|(name, text)| *name == variable && !text.is_empty()) else {
            continue;
        };
        let text = if variable.starts_with("OTEL_") { of_otel(&variable, text.trim()) } else { text.trim().to_owned() };
        let text = text.as_str();
        let origin = Origin::Variable(variable);
        let value = if text.starts_with(['[', '{']) {
            match Node::parse(text) {
                Ok(node) => node.moved_to(&origin).value,
                Err(problem) => return Err(Problem { origin: Some(origin), path, message: problem.message }),
            }
        } else if at(&defaults, &path).is_array() {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            Value::List(parts.map(|part| Node { origin: origin.clone(), value: Value::Raw(part.to_owned()) }).collect())
        } else {
            Value::Raw(text.to_owned())
        };
        root.set(&path, Node { origin, value });
    }
    Ok(())
}

/// The value of one of OpenTelemetry's variables as its key has it: times are milliseconds there, exporters are named, and
/// the temporality may be written in capitals.
fn of_otel(variable: &str, text: &str) -> String {
    if variable.ends_with("_TIMEOUT") || variable.ends_with("_INTERVAL") {
        format!("{text}ms")
    } else if variable.ends_with("S_EXPORTER") {
        text.split(',').any(|exporter| exporter.trim() == "otlp").to_string()
    } else if variable.ends_with("_TEMPORALITY_PREFERENCE") {
        text.to_lowercase()
    } else {
        text.to_owned()
    }
}

/// Variables with our prefix that name no key. Not an error: Kubernetes sets such variables for a service
/// called `seismo`; worth a line in the log, for it may be a typing error.
pub fn unknown_variables(environment: &Environment) -> Vec<&str> {
    let known: Vec<_> = variables().into_iter().map(|(_, variable)| variable).collect();
    environment
        .iter()
        .map(|(name, _)| name.as_str())
        .filter(|name| name.starts_with(PREFIX) && !NOT_KEYS.contains(name) && !known.iter().any(|known| known == name))
        .collect()
}

/// `(path, variable)` of every key that is not a section.
fn variables() -> Vec<(String, String)> {
    let mut keys = Vec::new();
    Config::document("", &mut keys);
    let paths: Vec<_> = keys.into_iter().map(|(path, _)| path).collect();
    let is_section =
        |path: &str| paths.iter().any(|other| other.strip_prefix(path).is_some_and(|r| r.starts_with('.')));
    paths
        .iter()
        .filter(|path| !is_section(path))
        .map(|path| (path.clone(), format!("{PREFIX}{}", path.replace('.', "_").to_uppercase())))
        .collect()
}
