//! Reads typed configuration out of a [`Node`] tree: a serde deserializer whose errors say where and which key.
//!
//! Types are strict (`"5"` is not a number), except that an environment variable is text and becomes what
//! the key wants (`true` a truth value, `5` a number). A section or list left empty counts as not written.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::Problem;
use super::node::{Entry, Node, Origin, Value};

impl Error for Problem {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { origin: None, path: String::new(), message: message.to_string() }
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format_args!("{} is out of range for {expected}", shown(found)))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format_args!("expected {expected}, found {}", shown(found)))
    }

    fn unknown_field(_field: &str, known: &'static [&'static str]) -> Self {
        Self::custom(format_args!("unknown key (known here: {})", known.join(", ")))
    }

    fn unknown_variant(found: &str, known: &'static [&'static str]) -> Self {
        Self::custom(format_args!("'{found}' is none of {}", known.join(", ")))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format_args!("'{field}' is missing"))
    }
}

fn shown(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Signed(number) => number.to_string(),
        Unexpected::Unsigned(number) => number.to_string(),
        Unexpected::Str(text) => format!("text '{text}'"),
        other => other.to_string(),
    }
}

impl Problem {
    /// Adds a step of the path while the error climbs; the innermost origin stays.
    fn within(mut self, step: &str, origin: &Origin) -> Self {
        let joint = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("{step}{joint}{}", self.path);
        self.origin.get_or_insert_with(|| origin.clone());
        self
    }
}

impl Node {
    fn wrong(&self, expected: &str) -> Problem {
        let found = match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(value) => format!("'{value}'"),
            Value::Int(number) => format!("the number {number}"),
            Value::Float(number) => format!("the number {number}"),
            Value::Text(text) | Value::Raw(text) => format!("text '{text}'"),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a section".to_owned(),
        };
        Problem::custom(format_args!("expected {expected}, found {found}"))
    }

    fn int(&self) -> Result<i128, Problem> {
        match &self.value {
            Value::Int(number) => Ok(*number),
            Value::Raw(text) => text.parse().map_err(|_| self.wrong("a whole number")),
            _ => Err(self.wrong("a whole number")),
        }
    }
}

macro_rules! whole_numbers {
    ($($method:ident => $visit:ident as $ty:ty),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
            let number = self.int()?;
            let fitting = <$ty>::try_from(number).map_err(|_| {
                Problem::custom(format_args!("{number} is not between {} and {}", <$ty>::MIN, <$ty>::MAX))
            })?;
            visitor.$visit(fitting)
        }
    )*};
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Problem;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Int(number) => match (u64::try_from(*number), i64::try_from(*number)) {
                (Ok(number), _) => visitor.visit_u64(number),
                (_, Ok(number)) => visitor.visit_i64(number),
                _ => visitor.visit_i128(*number),
            },
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Text(text) | Value::Raw(text) => visitor.visit_str(text),
            Value::List(_) => self.deserialize_seq(visitor),
            Value::Map(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.value {
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Raw(text) if text == "true" => visitor.visit_bool(true),
            Value::Raw(text) if text == "false" => visitor.visit_bool(false),
            _ => Err(self.wrong("true or false")),
        }
    }

    whole_numbers!(
        deserialize_i8 => visit_i8 as i8, deserialize_i16 => visit_i16 as i16, deserialize_i32 => visit_i32 as i32,
        deserialize_i64 => visit_i64 as i64, deserialize_u8 => visit_u8 as u8, deserialize_u16 => visit_u16 as u16,
        deserialize_u32 => visit_u32 as u32, deserialize_u64 => visit_u64 as u64
    );

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.value {
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Int(number) => visitor.visit_f64(*number as f64),
            Value::Raw(text) => visitor.visit_f64(text.parse().map_err(|_| self.wrong("a number"))?),
            _ => Err(self.wrong("a number")),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.value {
            Value::Text(text) | Value::Raw(text) => visitor.visit_str(text),
            _ => Err(self.wrong("text")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        if self.value == Value::Null { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.value {
            Value::List(items) => visitor.visit_seq(Items { items: items.iter(), index: 0 }),
            Value::Null => visitor.visit_seq(Items { items: [].iter(), index: 0 }),
            _ => Err(self.wrong("a list")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.value {
            Value::Map(entries) => visitor.visit_map(Entries { entries: entries.iter(), current: None }),
            Value::Null => visitor.visit_map(Entries { entries: [].iter(), current: None }),
            _ => Err(self.wrong("a section of keys")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        match &self.value {
            Value::Text(text) | Value::Raw(text) => visitor.visit_enum(Variant(text)),
            _ => Err(self.wrong(&format!("one of {}", known.join(", ")))),
        }
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

struct Items<'de> {
    items: std::slice::Iter<'de, Node>,
    index: usize,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Problem;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Problem> {
        let Some(item) = self.items.next() else { return Ok(None) };
        let step = format!("[{}]", self.index);
        self.index += 1;
        seed.deserialize(item).map(Some).map_err(|problem| problem.within(&step, &item.origin))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Entries<'de> {
    entries: std::slice::Iter<'de, Entry>,
    current: Option<&'de Entry>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Problem;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Problem> {
        let Some(entry) = self.entries.next() else { return Ok(None) };
        self.current = Some(entry);
        let key: StrDeserializer<'de, Problem> = entry.key.as_str().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|problem| problem.within(&entry.key, &entry.origin))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Problem> {
        let Some(entry) = self.current.take() else {
            return Err(Problem::custom("a value was asked for before its key"));
        };
        seed.deserialize(&entry.node).map_err(|problem| problem.within(&entry.key, &entry.node.origin))
    }
}

/// The name of a variant without content.
struct Variant<'de>(&'de str);

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = Problem;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), Problem> {
        let name: StrDeserializer<'de, Problem> = self.0.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'de> {
    type Error = Problem;

    fn unit_variant(self) -> Result<(), Problem> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _seed: T) -> Result<T::Value, Problem> {
        Err(Problem::custom(format_args!("'{}' cannot be written as a plain word here", self.0)))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, _visitor: V) -> Result<V::Value, Problem> {
        Err(Problem::custom(format_args!("'{}' cannot be written as a plain word here", self.0)))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Problem> {
        Err(Problem::custom(format_args!("'{}' cannot be written as a plain word here", self.0)))
    }
}
