//! Results of queries in the JSON of the Prometheus HTTP API, written straight into the answer's bytes.
//!
//! A value is a string (`"NaN"`, `"+Inf"`), its time a number of seconds with at most three decimals. One pass, nothing
//! kept beside the text.

use std::fmt::Write as _;

use crate::promql::{Series, Value};
use crate::store::Labels;

/// `{"resultType": …, "result": …}` of an instant query; at most `limit` series, and whether that left some out.
pub(super) fn instant(value: &Value, at_ms: i64, limit: usize) -> (String, bool) {
    let mut out = String::new();
    let number = match value {
        Value::Scalar(number) => {
            out.push_str("{\"resultType\":\"scalar\",\"result\":");
            point(&mut out, at_ms, *number);
            out.push('}');
            1
        }
        Value::Vector(points) => {
            out.push_str("{\"resultType\":\"vector\",\"result\":");
            list(&mut out, points.iter().take(limit), |out, each| {
                out.push_str("{\"metric\":");
                labels(out, &each.labels);
                out.push_str(",\"value\":");
                point(out, at_ms, each.value);
                out.push('}');
            });
            out.push('}');
            points.len()
        }
        Value::Matrix(found) => return matrix(&found.series, limit),
    };
    (out, number > limit)
}

/// The same for series over time.
pub(super) fn matrix(series: &[Series], limit: usize) -> (String, bool) {
    let mut out = "{\"resultType\":\"matrix\",\"result\":".to_owned();
    list(&mut out, series.iter().take(limit), |out, (of, points)| {
        out.push_str("{\"metric\":");
        labels(out, of);
        out.push_str(",\"values\":");
        list(out, points.iter(), |out, (at_ms, value)| point(out, *at_ms, *value));
        out.push('}');
    });
    out.push('}');
    (out, series.len() > limit)
}

/// `[{"__name__": …}, …]`
pub(super) fn label_sets<'a>(sets: impl Iterator<Item = &'a Labels>) -> String {
    let mut out = String::new();
    list(&mut out, sets, labels);
    out
}

/// `["a", "b"]`
pub(super) fn texts<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let mut out = String::new();
    list(&mut out, texts, text);
    out
}

fn labels(out: &mut String, of: &Labels) {
    out.push('{');
    for (index, label) in of.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        text(out, &label.name);
        out.push(':');
        text(out, &label.value);
    }
    out.push('}');
}

fn list<T>(out: &mut String, items: impl Iterator<Item = T>, mut write: impl FnMut(&mut String, T)) {
    out.push('[');
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(',');
        }
        write(out, item);
    }
    out.push(']');
}

fn text(out: &mut String, text: &str) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            control if control < ' ' => _ = write!(out, "\\u{:04x}", u32::from(control)),
            other => out.push(other),
        }
    }
    out.push('"');
}

fn point(out: &mut String, at_ms: i64, value: f64) {
    let sign = if at_ms < 0 { "-" } else { "" };
    let (seconds, millis) = (at_ms.unsigned_abs() / 1000, at_ms.unsigned_abs() % 1000);
    let _infallible = write!(out, "[{sign}{seconds}");
    if millis > 0 {
        let _infallible = write!(out, ".{millis:03}");
    }
    out.push_str(",\"");
    number(out, value);
    out.push_str("\"]");
}

/// As Go's shortest decimal form: never an exponent.
fn number(out: &mut String, value: f64) {
    if value.is_infinite() {
        out.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    } else {
        let _infallible = write!(out, "{value}");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::promql::Point;

    fn json(text: &str) -> serde_json::Value {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn a_vector_has_one_time_and_every_value_as_text() {
        let odd = "a\"\\\n\u{1}ü";
        let values = [1e-7, 1e21, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.5];
        let points = values.map(|value| Point { labels: Labels::new([("l", odd)]), value });
        let (text, cut) = instant(&Value::Vector(points.to_vec()), 1_435_781_451_007, usize::MAX);
        let found = json(&text);
        assert!(!cut && text.contains("[1435781451.007,\"0.0000001\"]"), "{text}");
        assert_eq!(found["result"][0]["metric"], json!({ "l": odd }));
        let seen: Vec<_> = (0..6).map(|at| found["result"][at]["value"][1].as_str().unwrap_or("")).collect();
        assert_eq!(seen, ["0.0000001", "1000000000000000000000", "NaN", "+Inf", "-Inf", "-0.5"]);
    }

    #[test]
    fn scalars_and_matrices_have_their_own_forms() {
        let (text, _) = instant(&Value::Scalar(2.0), 3000, 9);
        assert_eq!(text, r#"{"resultType":"scalar","result":[3,"2"]}"#);
        let series = [(Labels::new([("a", "b")]), vec![(1000, 1.0), (-1500, 2.5)]), (Labels::default(), vec![])];
        let expected = json!([{ "metric": { "a": "b" }, "values": [[1, "1"], [-1.5, "2.5"]] }]);
        let (text, cut) = matrix(&series, 1);
        assert!(cut);
        assert_eq!(json(&text), json!({ "resultType": "matrix", "result": expected }));
    }
}
