//! Samples to a page: OpenMetrics 1.0 or Prometheus' text format 0.0.4.
//!
//! `prometheus-client` writes OpenMetrics from a collector over our own samples. The older format differs
//! in the headers alone, which are rewritten from that page: HELP and TYPE of a counter name it with
//! `_total`, there is no UNIT and no EOF. Values and labels are the same bytes in both (bucket bounds read
//! `1.0`, as Prometheus 3 stores them). Cost: 50 000 series in well under 100 ms, one page in memory.

use std::collections::HashMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::{Registry, Unit};

use crate::model::metric::{Kind, Metric, Sample, Value};
use crate::model::spelling::{Spelling, label_name, labels};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.0 text.
    OpenMetrics,
}

impl Format {
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The format that an `Accept` header asks for; text when it doesn't say.
pub fn negotiate(accept: Option<&str>) -> Format {
    let mut best = (Format::Text, 0.0);
    for range in accept.unwrap_or_default().split(',') {
        let mut parts = range.split(';').map(str::trim);
        let format = match parts.next() {
            Some("application/openmetrics-text") => Format::OpenMetrics,
            Some("text/plain" | "text/*" | "*/*") => Format::Text,
            _ => continue,
        };
        let mut quality = 1.0;
        let mut known_version = true;
        for (key, value) in parts.filter_map(|part| part.split_once('=')) {
            match (key.trim(), value.trim()) {
                ("q", value) => quality = value.parse().unwrap_or(0.0),
                ("version", version) if format == Format::OpenMetrics => {
                    known_version = matches!(version, "1.0.0" | "0.0.1");
                }
                _ => {}
            }
        }
        if known_version && quality > best.1 {
            best = (format, quality);
        }
    }
    best.0
}

/// Writes a page. Samples of one metric stand together (as `metrics::gather` leaves them).
pub fn render(samples: Vec<Sample>, format: Format) -> Result<String, RenderError> {
    for pair in samples.windows(2) {
        if let [one, other] = pair
            && one.metric.name == other.metric.name
            && one.metric != other.metric
        {
            return Err(RenderError(format!("{} has two definitions", one.metric.name)));
        }
    }
    // A histogram's series take some twenty lines.
    let mut page = String::with_capacity(samples.len() * 256);
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Page(samples)));
    encode(&mut page, &registry).map_err(|_| RenderError("a value can't be written as OpenMetrics".to_owned()))?;
    Ok(match format {
        Format::OpenMetrics => page,
        Format::Text => classic(&page),
    })
}

/// Why there is no page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderError(String);

impl fmt::Display for RenderError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for RenderError {}

/// The registry wants to own what it collects from.
#[derive(Debug)]
struct Page(Vec<Sample>);

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for family in self.0.chunk_by(|one, other| one.metric.name == other.metric.name) {
            if let Some(first) = family.first() {
                encode_family(&mut encoder, first.metric, family)?;
            }
        }
        Ok(())
    }
}

fn encode_family(encoder: &mut DescriptorEncoder<'_>, metric: &Metric, samples: &[Sample]) -> fmt::Result {
    let spelling = Spelling::of(metric);
    let unit = spelling.unit.map(|unit| match unit {
        "seconds" => Unit::Seconds,
        "bytes" => Unit::Bytes,
        other => Unit::Other(other.to_owned()),
    });
    let kind = match metric.kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
    };
    let mut family = encoder.encode_descriptor(&spelling.base, metric.description, unit.as_ref(), kind)?;
    for sample in samples {
        let named = NamedLabels(sample);
        if labels(sample).next().is_none() {
            encode_value(&mut family, metric.kind, &sample.value)?;
        } else {
            encode_value(&mut family.encode_family(&named)?, metric.kind, &sample.value)?;
        }
    }
    Ok(())
}

type NoExemplar = Exemplar<NoLabelSet, f64>;

fn encode_value(encoder: &mut MetricEncoder<'_>, kind: Kind, value: &Value) -> fmt::Result {
    match (kind, value) {
        (Kind::Counter, Value::Count(count)) => encoder.encode_counter(count, None::<&NoExemplar>),
        (Kind::Counter, Value::Float(sum)) => encoder.encode_counter(sum, None::<&NoExemplar>),
        (Kind::Gauge, Value::Count(level)) => encoder.encode_gauge(level),
        (Kind::Gauge, Value::Float(level)) => encoder.encode_gauge(level),
        (Kind::Histogram, Value::Histogram(histogram)) => {
            let bounds = histogram.bounds.iter().copied().chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(histogram.counts.iter().copied()).collect();
            let count = histogram.counts.iter().sum();
            encoder.encode_histogram(histogram.sum, count, &buckets, None::<&HashMap<usize, NoExemplar>>)
        }
        _ => Err(fmt::Error),
    }
}

struct NamedLabels<'a>(&'a Sample);

impl EncodeLabelSet for NamedLabels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder) -> fmt::Result {
        use std::fmt::Write;
        for (name, value) in labels(self.0) {
            let mut label = encoder.encode_label();
            let mut key = label.encode_label_key()?;
            key.write_str(&label_name(name))?;
            let mut text = key.encode_label_value()?;
            text.write_str(value)?;
            text.finish()?;
        }
        Ok(())
    }
}

/// An OpenMetrics page with the headers of the text format 0.0.4.
fn classic(page: &str) -> String {
    let mut out = String::with_capacity(page.len());
    let families = page.strip_suffix("# EOF\n").unwrap_or(page);
    let Some(families) = families.strip_prefix("# HELP ") else { return out };
    // A raw newline can't be inside a label value: what follows one with '#' is a header.
    for family in families.trim_end_matches('\n').split("\n# HELP ") {
        let (help, after) = family.split_once('\n').unwrap_or((family, ""));
        let (kind, after) = after.split_once('\n').unwrap_or((after, ""));
        let rows = match after.strip_prefix("# UNIT ") {
            Some(unit) => unit.split_once('\n').map_or("", |(_, rows)| rows),
            None => after,
        };
        let (name, help) = help.split_once(' ').unwrap_or((help, ""));
        let kind = kind.rsplit(' ').next().unwrap_or_default();
        let total = if kind == "counter" { "_total" } else { "" };
        out.push_str(&format!("# HELP {name}{total} {help}\n# TYPE {name}{total} {kind}\n"));
        out.push_str(rows);
        if !rows.is_empty() {
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::model::metric::Histogram;
    use crate::store::query::METRIC_NAME;
    use crate::store::{Matcher, MetricsConfig, Query, Recent};

    static CALLS: Metric = Metric {
        name: "seismo.calls",
        unit: "{call}",
        kind: Kind::Counter,
        description: "Calls so far",
        labels: &["http.route", "error.type"],
    };
    static TIME: Metric =
        Metric { name: "seismo.time", unit: "s", kind: Kind::Histogram, description: "Time", labels: &["device"] };
    static FILL: Metric =
        Metric { name: "seismo.fill", unit: "1", kind: Kind::Gauge, description: "Fill", labels: &[] };
    static IO: Metric = Metric { name: "seismo.io", unit: "By", kind: Kind::Counter, description: "I/O", labels: &[] };

    fn samples() -> Vec<Sample> {
        let texts = |labels: &[&'static str]| labels.iter().map(|text| Cow::Borrowed(*text)).collect::<Vec<_>>();
        vec![
            Sample { metric: &CALLS, labels: texts(&["/a \"b\"\\\n# HELP x", ""]), value: Value::Count(u64::MAX) },
            Sample { metric: &CALLS, labels: texts(&["/", "500"]), value: Value::Count(1) },
            Sample { metric: &CALLS, labels: vec![], value: Value::Count(7) },
            Sample { metric: &FILL, labels: vec![], value: Value::Float(0.25) },
            Sample { metric: &IO, labels: vec![], value: Value::Float(1.5) },
            Sample {
                metric: &TIME,
                labels: texts(&["sda"]),
                value: Value::Histogram(Histogram {
                    bounds: Cow::Borrowed(&[0.0001, 1.0]),
                    counts: vec![1, 2, 3],
                    sum: 4.5,
                }),
            },
        ]
    }

    #[test]
    fn an_openmetrics_page_has_units_and_an_end() {
        insta::assert_snapshot!(render(samples(), Format::OpenMetrics).unwrap());
    }

    #[test]
    fn a_text_page_names_counters_as_queries_do() {
        insta::assert_snapshot!(render(samples(), Format::Text).unwrap());
    }

    #[test]
    fn an_empty_page_is_valid_in_both_formats() {
        assert_eq!(render(vec![], Format::OpenMetrics).unwrap(), "# EOF\n");
        assert_eq!(render(vec![], Format::Text).unwrap(), "");
    }

    #[test]
    fn two_definitions_of_one_name_are_refused() {
        static OTHER: Metric =
            Metric { name: "seismo.fill", unit: "1", kind: Kind::Gauge, description: "Other", labels: &[] };
        let sample = |metric| Sample { metric, labels: vec![], value: Value::Count(1) };
        let error = render(vec![sample(&FILL), sample(&OTHER)], Format::Text).unwrap_err();
        assert_eq!(error.to_string(), "seismo.fill has two definitions");
    }

    #[test]
    fn bucket_bounds_read_the_same_on_the_page_and_in_the_store() {
        let bounds = [1e-9, 0.00001, 0.0001, 0.00025, 0.5, 1.0, 2.5, 10.0, 1e6];
        let histogram = Histogram { bounds: Cow::Owned(bounds.to_vec()), counts: vec![1; 10], sum: 1.0 };
        let sample = Sample { metric: &TIME, labels: vec![], value: Value::Histogram(histogram) };
        let mut store = Recent::new(MetricsConfig { keep_all: true, ..MetricsConfig::default() }, vec![]);
        store.append(1, std::slice::from_ref(&sample));
        let page = render(vec![sample], Format::Text).unwrap();
        let mut buckets = 0;
        let name = Matcher::equal(METRIC_NAME, "seismo_time_seconds_bucket");
        store.select(&[name], 0, 1, &mut |labels, _| {
            let expected = format!("{{le=\"{}\"", labels.get("le"));
            assert!(page.contains(&expected), "{expected} in {page}");
            buckets += 1;
        });
        assert_eq!(buckets, 10);
    }

    #[test]
    fn the_format_is_the_one_with_the_highest_quality() {
        let cases = [
            (None, Format::Text),
            (Some("*/*"), Format::Text),
            (Some("text/html,*/*;q=0.8"), Format::Text),
            (Some("application/openmetrics-text"), Format::OpenMetrics),
            (
                Some(
                    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                     text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                ),
                Format::OpenMetrics,
            ),
            (Some("application/openmetrics-text;q=0.2, text/plain;q=0.9"), Format::Text),
            (Some("application/openmetrics-text; version=2.0.0, text/plain;q=0.5"), Format::Text),
            (Some("application/openmetrics-text;q=rubbish"), Format::Text),
        ];
        for (accept, expected) in cases {
            assert_eq!(negotiate(accept), expected, "{accept:?}");
        }
    }

    #[test]
    fn fifty_thousand_series_are_rendered_quickly() {
        let many: Vec<Sample> = (0..50_000)
            .map(|route| Sample {
                metric: &CALLS,
                labels: vec![Cow::Owned(format!("/api/v1/route/{route}")), Cow::Borrowed("500")],
                value: Value::Count(route),
            })
            .collect();
        for format in [Format::OpenMetrics, Format::Text] {
            let many = many.clone();
            let start = std::time::Instant::now();
            let page = render(many, format).unwrap();
            let took = start.elapsed();
            println!("{format:?}: {} bytes in {took:?}", page.len());
            assert_eq!(page.lines().filter(|line| !line.starts_with('#')).count(), 50_000);
            // An unoptimised build on a busy machine; optimised it is some 10 ms.
            assert!(took < std::time::Duration::from_secs(2));
        }
    }
}
