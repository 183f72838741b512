//! Samples to a page in the format that was asked for: text 0.0.4, OpenMetrics 1.0 or protobuf with native histograms.
//!
//! Samples of one metric stand together, as `metrics::gather` leaves them. Cost: one pass, one page in memory; 50 000
//! series in some tens of ms.

use std::fmt;

use super::{protobuf, text};
use crate::model::exemplar::Exemplars;
use crate::model::metric::{Kind, Sample, Value};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.0 text.
    OpenMetrics,
    /// Delimited `MetricFamily` messages.
    Protobuf,
}

impl Format {
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }
}

/// The format that an `Accept` header asks for; text when it doesn't say.
pub fn negotiate(accept: Option<&str>) -> Format {
    let mut best = (Format::Text, 0.0);
    for range in accept.unwrap_or_default().split(',') {
        let mut parts = range.split(';').map(str::trim);
        let format = match parts.next() {
            Some("application/vnd.google.protobuf") => Format::Protobuf,
            Some("application/openmetrics-text") => Format::OpenMetrics,
            Some("text/plain" | "text/*" | "*/*") => Format::Text,
            _ => continue,
        };
        let mut quality = 1.0;
        let mut known = true;
        for (key, value) in parts.filter_map(|part| part.split_once('=')) {
            match (key.trim(), value.trim()) {
                ("q", value) => quality = value.parse().unwrap_or(0.0),
                ("version", version) if format == Format::OpenMetrics => known &= matches!(version, "1.0.0" | "0.0.1"),
                ("proto", proto) => known &= proto == "io.prometheus.client.MetricFamily",
                ("encoding", encoding) => known &= encoding == "delimited",
                _ => {}
            }
        }
        if known && quality > best.1 {
            best = (format, quality);
        }
    }
    best.0
}

/// Writes a page. Samples of one metric stand together. Text 0.0.4 shows no exemplars.
pub fn render(samples: &[Sample], exemplars: &Exemplars, format: Format) -> Result<Vec<u8>, RenderError> {
    // A histogram's series take some twenty lines.
    let mut page = String::with_capacity(samples.len() * 256);
    let mut bytes = Vec::new();
    for family in samples.chunk_by(|one, other| one.metric.name == other.metric.name) {
        let Some(Sample { metric, .. }) = family.first() else { continue };
        if family.iter().any(|sample| !std::ptr::eq(sample.metric, *metric) && sample.metric != *metric) {
            return Err(RenderError(format!("{} has two definitions", metric.name)));
        }
        if let Some(wrong) = family.iter().find(|sample| !fits(metric.kind, &sample.value)) {
            return Err(RenderError(format!("{} is a {:?} and has {:?}", metric.name, metric.kind, wrong.value)));
        }
        match format {
            Format::Protobuf => protobuf::family(metric, family, exemplars, &mut bytes),
            Format::Text | Format::OpenMetrics => {
                let exemplars = Some(exemplars).filter(|_| format == Format::OpenMetrics);
                text::family(metric, family, exemplars, &mut page);
            }
        }
    }
    match format {
        Format::Protobuf => return Ok(bytes),
        Format::OpenMetrics => page.push_str("# EOF\n"),
        Format::Text => {}
    }
    Ok(page.into_bytes())
}

const fn fits(kind: Kind, value: &Value) -> bool {
    match kind {
        Kind::Counter | Kind::Gauge => matches!(value, Value::Count(_) | Value::Float(_)),
        Kind::Histogram => value.histogram().is_some(),
    }
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::model::exemplar::Exemplar;
    use crate::model::metric::{Histogram, Metric};
    use crate::model::span::{SpanId, TraceId};
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

    fn page(samples: &[Sample], format: Format) -> String {
        String::from_utf8(render(samples, &Exemplars::default(), format).unwrap()).unwrap()
    }

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
        insta::assert_snapshot!(page(&samples(), Format::OpenMetrics));
    }

    #[test]
    fn a_text_page_names_counters_as_queries_do() {
        insta::assert_snapshot!(page(&samples(), Format::Text));
    }

    #[test]
    fn an_empty_page_is_valid_in_every_format() {
        assert_eq!(page(&[], Format::OpenMetrics), "# EOF\n");
        assert_eq!(page(&[], Format::Text), "");
        assert_eq!(page(&[], Format::Protobuf), "");
    }

    #[test]
    fn a_value_that_its_metric_cannot_have_is_refused() {
        let wrong = Sample { metric: &TIME, labels: vec![], value: Value::Count(1) };
        assert_eq!(
            render(&[wrong], &Exemplars::default(), Format::Protobuf).unwrap_err().to_string(),
            "seismo.time is a Histogram and has Count(1)"
        );
    }

    #[test]
    fn two_definitions_of_one_name_are_refused() {
        static OTHER: Metric =
            Metric { name: "seismo.fill", unit: "1", kind: Kind::Gauge, description: "Other", labels: &[] };
        let sample = |metric| Sample { metric, labels: vec![], value: Value::Count(1) };
        let twice = [sample(&FILL), sample(&OTHER)];
        let error = render(&twice, &Exemplars::default(), Format::Text).unwrap_err();
        assert_eq!(error.to_string(), "seismo.fill has two definitions");
    }

    #[test]
    fn exemplars_stand_with_their_bucket_where_the_format_has_them() {
        let samples = samples();
        let labels = samples.last().unwrap().labels.clone();
        let exemplar = |value, wall_ns| Exemplar {
            trace_id: TraceId([0xab; 16]),
            span_id: SpanId([0x01; 8]),
            value,
            wall_ns,
            place: 0,
        };
        let mut exemplars = Exemplars::default();
        let second = 1_700_000_000_000_000_000;
        exemplars.insert(&TIME, labels, vec![(0, exemplar(0.00007, second)), (2, exemplar(2.5, second + 7_999_999))]);
        let page = |format| String::from_utf8(render(&samples, &exemplars, format).unwrap()).unwrap();
        let shown: Vec<_> =
            page(Format::OpenMetrics).lines().filter_map(|line| Some(line.split_once(" # {")?.1.to_owned())).collect();
        let trace = "ab".repeat(16);
        assert_eq!(
            shown,
            [
                format!("trace_id=\"{trace}\",span_id=\"0101010101010101\"}} 0.00007 1700000000.000"),
                format!("trace_id=\"{trace}\",span_id=\"0101010101010101\"}} 2.5 1700000000.007"),
            ]
        );
        let bucket = "seismo_time_seconds_bucket{le=\"+Inf\",device=\"sda\"} 6 # {";
        assert!(page(Format::OpenMetrics).contains(bucket));
        assert_eq!(page(Format::Text), self::page(&samples, Format::Text));
        let binary = render(&samples, &exemplars, Format::Protobuf).unwrap();
        assert_eq!(binary.windows(32).filter(|part| *part == trace.as_bytes()).count(), 2);
    }

    #[test]
    fn bucket_bounds_read_the_same_on_the_page_and_in_the_store() {
        let bounds = [1e-9, 0.00001, 0.0001, 0.00025, 0.5, 1.0, 2.5, 10.0, 1e6];
        let histogram = Histogram { bounds: Cow::Owned(bounds.to_vec()), counts: vec![1; 10], sum: 1.0 };
        let sample = Sample { metric: &TIME, labels: vec![], value: Value::Histogram(histogram) };
        let mut store = Recent::new(MetricsConfig { keep_all: true, ..MetricsConfig::default() }, vec![]);
        store.append(1, std::slice::from_ref(&sample));
        let page = page(&[sample], Format::Text);
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
            (
                Some(
                    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,\
                     application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                ),
                Format::Protobuf,
            ),
            (Some("application/vnd.google.protobuf;proto=other.Message;encoding=delimited,*/*;q=0.1"), Format::Text),
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
            let start = std::time::Instant::now();
            let page = page(&many, format);
            let took = start.elapsed();
            println!("{format:?}: {} bytes in {took:?}", page.len());
            assert_eq!(page.lines().filter(|line| !line.starts_with('#')).count(), 50_000);
            // An unoptimised build on a busy machine; optimised it is some tens of ms.
            assert!(took < std::time::Duration::from_secs(2));
        }
    }
}
