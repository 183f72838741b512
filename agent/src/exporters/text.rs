//! The page as text: Prometheus' format 0.0.4 and OpenMetrics 1.0, which differ in the headers alone.
//!
//! In the older one HELP and TYPE of a counter name it with `_total`, and there is no UNIT, no exemplar and no EOF; samples
//! are the same bytes in both (bucket bounds read `1.0`, as Prometheus 3 stores them). Written straight into the page: the
//! labels of a sample are spelled once for all its lines, bounds once for a family.

use std::fmt::Write as _;

use crate::model::exemplar::{Exemplar, Exemplars};
use crate::model::metric::{Histogram, Kind, Metric, Sample, Value};
use crate::model::spelling::{Spelling, label_name, labels_as};
use crate::semconv::OTEL_METRIC_OVERFLOW;

/// Appends a family: samples of one metric; in OpenMetrics where there are exemplars to show.
pub(super) fn family(metric: &Metric, samples: &[Sample], exemplars: Option<&Exemplars>, out: &mut String) {
    let open_metrics = exemplars.is_some();
    let spelling = Spelling::of(metric);
    let (family, total) = (spelling.family(), if metric.kind == Kind::Counter { "_total" } else { "" });
    let shown = if open_metrics { "" } else { total };
    let kind = match metric.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    append(out, &["# HELP ", &family, shown, " "]);
    escape(metric.description, open_metrics, out);
    append(out, &["\n# TYPE ", &family, shown, " ", kind, "\n"]);
    if let Some(unit) = spelling.unit.filter(|_| open_metrics) {
        append(out, &["# UNIT ", &family, " ", unit, "\n"]);
    }
    let names: Vec<_> = metric.labels.iter().map(|label| label_name(label)).collect();
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    let overflow = label_name(OTEL_METRIC_OVERFLOW);
    let mut labels = String::new();
    let mut bounds = Bounds::default();
    for sample in samples {
        labels.clear();
        for (name, value) in labels_as(sample, &names, &overflow) {
            let joint = if labels.is_empty() { "" } else { "," };
            append(&mut labels, &[joint, name, "=\""]);
            escape(value, true, &mut labels);
            labels.push('"');
        }
        match &sample.value {
            Value::Count(count) => line(out, &family, total, &labels, &Number::Whole(*count)),
            Value::Float(value) => line(out, &family, total, &labels, &Number::Float(*value)),
            Value::Histogram(histogram) | Value::Exponential(_, histogram) => {
                line(out, &family, "_sum", &labels, &Number::Float(histogram.sum));
                let count = histogram.counts.iter().sum();
                line(out, &family, "_count", &labels, &Number::Whole(count));
                let exemplars = exemplars.map_or(&[][..], |exemplars| exemplars.of(sample));
                buckets(out, [&family, &labels], histogram, exemplars, &mut bounds);
            }
        }
    }
}

/// The spelling of bounds that one sample after the other has.
#[derive(Default)]
struct Bounds {
    of: Vec<f64>,
    texts: Vec<String>,
}

fn buckets(
    out: &mut String,
    [family, labels]: [&str; 2],
    histogram: &Histogram,
    exemplars: &[(u8, Exemplar)],
    bounds: &mut Bounds,
) {
    if bounds.of != *histogram.bounds {
        bounds.of = histogram.bounds.to_vec();
        bounds.texts = histogram.bounds.iter().map(|bound| dtoa::Buffer::new().format(*bound).to_owned()).collect();
    }
    let texts = bounds.texts.iter().map(String::as_str).chain(["+Inf"]);
    let joint = if labels.is_empty() { "" } else { "," };
    let mut sum = 0_u64;
    let mut exemplars = exemplars.iter().peekable();
    for (index, (bound, count)) in texts.zip(&histogram.counts).enumerate() {
        sum += count;
        append(out, &[family, "_bucket{le=\"", bound, "\"", joint, labels, "} "]);
        Number::Whole(sum).write(out);
        if let Some((_, exemplar)) = exemplars.next_if(|(bucket, _)| usize::from(*bucket) == index) {
            show(exemplar, out);
        }
        out.push('\n');
    }
}

/// Behind a bucket's value: the trace, what was observed, and when (s, as Prometheus keeps it: to the ms).
fn show(exemplar: &Exemplar, out: &mut String) {
    out.push_str(" # {trace_id=\"");
    hexadecimal(&exemplar.trace_id.0, out);
    out.push_str("\",span_id=\"");
    hexadecimal(&exemplar.span_id.0, out);
    out.push_str("\"} ");
    Number::Float(exemplar.value).write(out);
    let millis = exemplar.wall_ns / 1_000_000;
    let _infallible = write!(out, " {}.{:03}", millis / 1000, millis % 1000);
}

fn hexadecimal(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        let _infallible = write!(out, "{byte:02x}");
    }
}

fn line(out: &mut String, family: &str, suffix: &str, labels: &str, value: &Number) {
    append(out, &[family, suffix]);
    if !labels.is_empty() {
        append(out, &["{", labels, "}"]);
    }
    out.push(' ');
    value.write(out);
    out.push('\n');
}

enum Number {
    Whole(u64),
    Float(f64),
}

impl Number {
    fn write(&self, out: &mut String) {
        match self {
            Self::Whole(whole) => {
                // The longest has twenty digits.
                let mut digits = [0_u8; 20];
                let mut at = digits.len();
                let mut rest = *whole;
                while let Some(digit) = at.checked_sub(1).and_then(|place| digits.get_mut(place)) {
                    *digit = b'0' + (rest % 10) as u8;
                    at -= 1;
                    rest /= 10;
                    if rest == 0 {
                        break;
                    }
                }
                out.extend(digits.iter().skip(at).map(|digit| char::from(*digit)));
            }
            Self::Float(value) if value.is_nan() => out.push_str("NaN"),
            Self::Float(value) if value.is_infinite() => out.push_str(if *value > 0.0 { "+Inf" } else { "-Inf" }),
            Self::Float(value) => out.push_str(dtoa::Buffer::new().format(*value)),
        }
    }
}

fn append(out: &mut String, parts: &[&str]) {
    parts.iter().for_each(|part| out.push_str(part));
}

/// Label values, and the HELP of OpenMetrics, escape quotes; the HELP of the older format does not.
fn escape(text: &str, quotes: bool, out: &mut String) {
    let mut rest = text;
    while let Some(at) = rest.find(['\\', '\n', '"']) {
        let (clean, special) = rest.split_at(at);
        out.push_str(clean);
        match special.as_bytes().first() {
            Some(b'\n') => out.push_str("\\n"),
            Some(b'"') if !quotes => out.push('"'),
            Some(b'"') => out.push_str("\\\""),
            _ => out.push_str("\\\\"),
        }
        rest = special.get(1..).unwrap_or_default();
    }
    out.push_str(rest);
}
