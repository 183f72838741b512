//! The effective configuration as YAML that `config check` accepts, each key under its documentation and default.
//!
//! Secrets are shown as `***`: values of headers, passwords and query parameters in addresses, and the path of the webhook,
//! which is what such services tell callers by. What is printed is thus no copy of a configuration that has any.

use std::fmt::Write as _;

use serde_json::Value;

use super::Config;
use crate::section::Documented as _;

/// What is shown of a secret.
const MASK: &str = "***";

/// Text of `seismo config print`.
pub fn print(config: &Config) -> String {
    let mut keys = Vec::new();
    Config::document("", &mut keys);
    let (mut effective, default) = (tree(config), tree(&Config::default()));
    mask("", &mut effective);
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

/// Hides the secrets of a value, by the last part of its key.
fn mask(key: &str, value: &mut Value) {
    match value {
        Value::Object(members) => members.iter_mut().for_each(|(key, value)| mask(key, value)),
        Value::Array(items) => items.iter_mut().for_each(|item| mask(key, item)),
        Value::String(text) => {
            let shown = match key {
                "headers" => pair(text, '='),
                "endpoint" | "http" | "redis" => address(text, false),
                "webhook" => address(text, true),
                _ => return,
            };
            *text = shown;
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// `NAME=VALUE` without the value; without a name there is nothing to show.
fn pair(text: &str, joint: char) -> String {
    match text.split_once(joint) {
        Some((name, _)) => format!("{name}{joint}{MASK}"),
        None => MASK.to_owned(),
    }
}

/// A URL without password, values of its query and, where that is a secret, path.
fn address(text: &str, hide_path: bool) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return MASK.to_owned() };
    let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let authority = match authority.rsplit_once('@') {
        Some((user, host)) => format!("{}@{host}", pair(user, ':')),
        None => authority.to_owned(),
    };
    let (path, query) = tail.split_once('?').map_or((tail, None), |(path, query)| (path, Some(query)));
    let path = if hide_path && path.len() > 1 { format!("/{MASK}") } else { path.to_owned() };
    let query = query.map(|query| query.split('&').map(|part| pair(part, '=')).collect::<Vec<_>>().join("&"));
    format!("{scheme}://{authority}{path}{}", query.map_or_else(String::new, |query| format!("?{query}")))
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
