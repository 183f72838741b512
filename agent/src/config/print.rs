//! The effective configuration as YAML that `config check` accepts, each key under its documentation and default.

use std::fmt::Write as _;

use serde_json::Value;

use super::Config;
use crate::section::Documented as _;

/// Text of `seismo config print`.
pub fn print(config: &Config) -> String {
    let mut keys = Vec::new();
    Config::document("", &mut keys);
    let (effective, default) = (tree(config), tree(&Config::default()));
    let mut out = String::new();
    for (path, documentation) in &keys {
        let depth = path.matches('.').count();
        let indent = "  ".repeat(depth);
        let key = path.rsplit('.').next().unwrap_or(path);
        if depth == 0 && !out.is_empty() {
            out.push('\n');
        }
        for line in documentation.lines() {
            let _infallible = writeln!(out, "{indent}#{line}");
        }
        let below = format!("{path}.");
        let _infallible = if keys.iter().any(|(other, _)| other.starts_with(&below)) {
            writeln!(out, "{indent}{key}:")
        } else {
            let _infallible = writeln!(out, "{indent}# Default: {}", inline(at(&default, path)));
            writeln!(out, "{indent}{key}: {}", inline(at(&effective, path)))
        };
    }
    out
}

/// A configuration as a JSON tree: same keys, same spelling of values.
pub(super) fn tree(config: &Config) -> Value {
    serde_json::to_value(config).unwrap_or_default()
}

/// The value at a dotted path.
pub(super) fn at<'tree>(tree: &'tree Value, path: &str) -> &'tree Value {
    path.split('.').fold(tree, |value, key| &value[key])
}

/// A value on one line: JSON is YAML; plain words lose their quotes where YAML reads the same text back.
fn inline(value: &Value) -> String {
    if let Value::String(text) = value
        && serde_saphyr::from_str::<Value>(text).is_ok_and(|plain| plain == *value)
    {
        return text.clone();
    }
    value.to_string()
}
