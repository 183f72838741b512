//! `SEISMO_…` variables over the file: a variable's name is derived from the key's path
//! (`capture.ring_bytes` → `SEISMO_CAPTURE_RING_BYTES`), so every documented key has one.
//!
//! Lists are written `a,b` or as YAML in brackets. An empty variable counts as not set, as OpenTelemetry has it.

use super::node::{Node, Origin, Value};
use super::print::{at, tree};
use super::{Config, Problem};
use crate::section::Documented as _;

const PREFIX: &str = "SEISMO_";
/// Read by the command line, not by the configuration.
const NOT_KEYS: [&str; 1] = [crate::cli::AGENT_VARIABLE];

/// Environment as `std::env::vars` gives it; a parameter so that tests need not change the process.
pub type Environment = [(String, String)];

/// Lays the variables that name a key over the tree.
pub(super) fn overlay(root: &mut Node, environment: &Environment) -> Result<(), Problem> {
    let defaults = tree(&Config::default());
    for (path, variable) in variables() {
        let Some((_, text)) = environment.iter().find(|(name, text)| *name == variable && !text.is_empty()) else {
            continue;
        };
        let origin = Origin::Variable(variable);
        let text = text.trim();
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
