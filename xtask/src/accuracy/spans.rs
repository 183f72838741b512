//! The agent's spans as the judge needs them: one JSON object a line in, identity, place, parent and times out.
//!
//! The place stands where a user would see it: in the path of an HTTP request, in a Redis key (`lab:17:0`), in the name
//! of a column (`lab_17_0`). A span without one has no key; a line that is no span is an error.

use anyhow::{Context, Result};
use serde_json::Value;

use super::truth::{Key, Kind};

#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub id: String,
    pub parent: Option<String>,
    pub trace: String,
    pub kind: Kind,
    /// Of the server of the call.
    pub port: u16,
    /// Nothing where the span names no place.
    pub key: Option<Key>,
    pub service: String,
    /// Unix time, ns.
    pub start_ns: u64,
    /// Unix time, ns.
    pub end_ns: u64,
    pub incomplete: bool,
    /// How its parent was found, where the agent says so.
    pub method: Option<String>,
    /// Sum of the parts of its time breakdown, ns.
    pub accounted_ns: Option<u64>,
}

/// Spans of the agent's answer.
pub fn parse(text: &str) -> Result<Vec<Span>> {
    text.lines()
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_str(line).ok().as_ref().and_then(span).with_context(|| format!("no span: {line}")))
        .collect()
}

fn span(json: &Value) -> Option<Span> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let number = |value: &Value| value.as_str()?.parse::<u64>().ok();
    let attributes = json["attributes"].as_object()?;
    let kind = match json["kind"].as_u64()? {
        2 => Kind::Server,
        3 => Kind::Client,
        _ => return None,
    };
    let port = attributes.get("server.port").and_then(Value::as_u64).and_then(|port| port.try_into().ok()).unwrap_or(0);
    let said = |name: &str| attributes.get(name).and_then(Value::as_str);
    let place = said("url.path").and_then(|path| place(path, "/task/", '/'));
    let place = place.or_else(|| said("db.query.text").and_then(place_in_statement));
    let parts = attributes.iter().filter(|(name, _)| name.starts_with("seismo.time."));
    let accounted_ns = parts.map(|(_, part)| part.as_u64()).fold(None, |sum, part| Some(sum.unwrap_or(0) + part?));
    Some(Span {
        id: text(&json["spanId"])?,
        parent: text(&json["parentSpanId"]).filter(|id| !id.is_empty()),
        trace: text(&json["traceId"])?,
        kind,
        port,
        key: place.map(|place| Key { place, kind, port }),
        service: text(&json["resource"]["service.name"]).unwrap_or_default(),
        start_ns: number(&json["startTimeUnixNano"])?,
        end_ns: number(&json["endTimeUnixNano"])?,
        incomplete: attributes.contains_key("seismo.incomplete"),
        method: said("seismo.link.method").map(str::to_owned),
        accounted_ns,
    })
}

fn place_in_statement(statement: &str) -> Option<String> {
    place(statement, "lab:", ':').or_else(|| place(statement, "lab_", '_'))
}

/// The numbers after `mark`, with a slash between them.
fn place(text: &str, mark: &str, between: char) -> Option<String> {
    let (_, rest) = text.split_once(mark)?;
    let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != between).unwrap_or(rest.len());
    let (place, _) = rest.split_at(end);
    (!place.is_empty()).then(|| place.replace(between, "/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_names_its_place_where_its_protocol_shows_one() {
        for (attributes, wanted) in [
            (r#"{"server.port":80,"url.path":"/task/17/0/1"}"#, Some("17/0/1")),
            (r#"{"server.port":80,"url.path":"/health"}"#, None),
            (r#"{"server.port":80,"db.query.text":"GET lab:17:0:1"}"#, Some("17/0/1")),
            (r#"{"server.port":80,"db.query.text":"SELECT ? AS lab_17_1_0 FROM x"}"#, Some("17/1/0")),
            (r#"{"server.port":80,"db.query.text":"SET lab:"}"#, None),
        ] {
            let line = format!(
                r#"{{"attributes":{attributes},"kind":3,"spanId":"a","traceId":"b","parentSpanId":"","resource":{{}},"startTimeUnixNano":"5","endTimeUnixNano":"7"}}"#
            );
            let spans = parse(&line).unwrap();
            let key = spans[0].key.as_ref();
            assert_eq!(key.map(|key| key.place.as_str()), wanted, "{attributes}");
            assert!(spans[0].parent.is_none() && spans[0].accounted_ns.is_none());
        }
    }

    #[test]
    fn the_parts_of_a_spans_time_are_summed() {
        let line = r#"{"attributes":{"seismo.time.on_cpu":3,"seismo.time.unknown":4,"seismo.link.method":"thread"},"kind":2,"spanId":"a","traceId":"b","parentSpanId":"c","resource":{"service.name":"s"},"startTimeUnixNano":"5","endTimeUnixNano":"12"}"#;
        let span = parse(line).unwrap().remove(0);
        assert_eq!(
            (span.accounted_ns, span.method.as_deref(), span.parent.as_deref()),
            (Some(7), Some("thread"), Some("c"))
        );
    }

    #[test]
    fn a_line_that_is_no_span_is_an_error() {
        assert!(parse("{\"lost\":3}").is_err());
        assert!(parse("\n").unwrap().is_empty());
    }
}
