//! A configuration file as a tree in which every value knows where it was written.
//!
//! YAML text → [`Node`]; environment variables are laid over it before anything is read, so that one
//! reader ([`super::read`]) and one error form serve both. Aliases and depth are bounded by the YAML
//! library's budget. Nothing here knows which keys exist.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::Problem;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Line of the file, from 1.
    Line(u64),
    /// Name of an environment variable.
    Variable(String),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub origin: Origin,
    pub value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    /// Text of an environment variable: whatever the key wants it to be.
    Raw(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key with its value; `origin` is the key's.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub key: String,
    pub origin: Origin,
    pub node: Node,
}

impl Node {
    /// Reads one YAML document; an empty one is `Null`.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Self { origin: Origin::Line(1), value: Value::Null });
        }
        serde_saphyr::from_str(text).map_err(|error| {
            let line = error.location().map_or(1, |location| location.line().max(1));
            Problem { origin: Some(Origin::Line(line)), path: String::new(), message: plain_message(&error) }
        })
    }

    /// The same tree, all of it written in `origin`.
    pub fn moved_to(mut self, origin: &Origin) -> Self {
        self.origin = origin.clone();
        self.value = match self.value {
            Value::List(items) => Value::List(items.into_iter().map(|item| item.moved_to(origin)).collect()),
            Value::Map(entries) => Value::Map(
                entries
                    .into_iter()
                    .map(|entry| Entry { origin: origin.clone(), node: entry.node.moved_to(origin), ..entry })
                    .collect(),
            ),
            other => other,
        };
        self
    }

    /// Puts `node` at a dotted path and makes the sections on the way. A value that stands where a section
    /// belongs is left alone: reading the tree reports it.
    pub fn set(&mut self, path: &str, node: Self) {
        if self.value == Value::Null {
            self.value = Value::Map(Vec::new());
        }
        let Value::Map(entries) = &mut self.value else { return };
        let (key, rest) = path.split_once('.').map_or((path, None), |(key, rest)| (key, Some(rest)));
        let origin = node.origin.clone();
        let at = entries.iter().position(|entry| entry.key == key).unwrap_or_else(|| {
            let empty = Self { origin: origin.clone(), value: Value::Null };
            entries.push(Entry { key: key.to_owned(), origin: origin.clone(), node: empty });
            entries.len() - 1
        });
        if let Some(entry) = entries.get_mut(at) {
            match rest {
                Some(rest) => entry.node.set(rest, node),
                None => {
                    entry.origin = origin;
                    entry.node = node;
                }
            }
        }
    }

    /// Where the value at a path (`capture.bytes`, `services[1].name`) was written, or the nearest above it.
    pub fn origin_of(&self, path: &str) -> Option<&Origin> {
        let mut node = self;
        let mut found = None;
        for step in path.split(['.', '[']) {
            let next = match (&node.value, step.strip_suffix(']')) {
                (Value::List(items), Some(index)) => items.get(index.parse::<usize>().ok()?),
                (Value::Map(entries), None) => entries.iter().find(|entry| entry.key == step).map(|entry| &entry.node),
                _ => None,
            };
            let Some(next) = next else { break };
            found = Some(&next.origin);
            node = next;
        }
        found
    }
}

/// The library's message on one line: without the source excerpt, without the position we print ourselves, and
/// without what it tells programmers to set.
fn plain_message(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    let message = match line.split_once(": ") {
        Some((place, rest)) if place.starts_with("line ") => rest,
        _ => line,
    };
    [" at line ", ", set ", "; use "]
        .iter()
        .fold(message, |kept, cut| kept.split(cut).next().unwrap_or(kept))
        .to_owned()
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(from)?;
        Ok(Self { origin: Origin::Line(spanned.referenced.line()), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a YAML value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        Value::deserialize(from)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = from.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = from.next_key::<Spanned<String>>()? {
            let origin = Origin::Line(key.referenced.line());
            entries.push(Entry { key: key.value, origin, node: from.next_value()? });
        }
        Ok(Value::Map(entries))
    }
}
