//! What of a span and of its resource leaves the agent: the one list of attributes that JSON, OTLP and Jaeger share.
//!
//! Attributes that the protocol set come first, then what the agent adds of its own. Nothing is copied: an iterator over
//! the span. Does not encode anything but ids.

use std::borrow::Cow;

use super::attributes::Value;
use super::process::Resource;
use super::span::Span;
use super::thread::STATES;
use crate::semconv;

/// Why a span is not whole.
pub const INCOMPLETE: &str = "seismo.incomplete";
/// Where a span's time went, ns; in the order of [`STATES`].
pub const TIME: [&str; STATES.len()] = [
    "seismo.time.on_cpu",
    "seismo.time.runqueue",
    "seismo.time.disk",
    "seismo.time.network",
    "seismo.time.futex",
    "seismo.time.sleep",
    "seismo.time.throttled",
    "seismo.time.unknown",
];

/// All attributes of a span; states without any time are left out.
pub fn attributes(span: &Span) -> impl Iterator<Item = (&'static str, Cow<'_, Value>)> {
    let given = span.attributes.iter().map(|(key, value)| (key, Cow::Borrowed(value)));
    let incomplete = span.incomplete.map(|why| (INCOMPLETE, Cow::Owned(Value::from(why.name()))));
    let times = span.time.iter().flat_map(|time| TIME.into_iter().zip(time.0)).filter(|(_, ns)| *ns > 0);
    given.chain(incomplete).chain(times.map(|(key, ns)| (key, Cow::Owned(Value::Int(ns.cast_signed())))))
}

/// All attributes of a resource; what is not known is left out.
pub fn resource(resource: &Resource) -> impl Iterator<Item = (&'static str, Cow<'_, Value>)> {
    let texts = [
        (semconv::PROCESS_EXECUTABLE_NAME, resource.executable_name.as_str()),
        (semconv::CONTAINER_ID, resource.container_id.as_deref().unwrap_or_default()),
        (semconv::HOST_NAME, &resource.host_name),
    ];
    let texts = texts.into_iter().filter(|(_, text)| !text.is_empty());
    [
        (semconv::SERVICE_NAME, Value::from(resource.service_name.clone())),
        (semconv::PROCESS_PID, Value::Int(resource.pid.into())),
    ]
    .into_iter()
    .chain(texts.map(|(key, text)| (key, Value::from(text.to_owned()))))
    .map(|(key, value)| (key, Cow::Owned(value)))
}

/// Bytes of an id as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).map_or('?', |digit| char::from(*digit));
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::{STATES, TIME, hex};

    #[test]
    fn every_state_has_the_attribute_of_its_name() {
        assert_eq!(TIME.map(|key| key.trim_start_matches("seismo.time.")), STATES);
    }

    #[test]
    fn ids_are_written_in_lower_case_with_leading_zeros() {
        assert_eq!(hex(&[0, 0x0a, 0xff]), "000aff");
    }
}
