//! The page as protobuf: `io.prometheus.client.MetricFamily` messages, each behind its length, with native histograms.
//!
//! Exponential histograms are written as native and as classic ones in the same message: who reads native histograms takes
//! those. Exemplars stand with their classic bucket and, for who reads the native one, with the histogram. Field numbers are those of Prometheus' `metrics.proto`; only the fields that are used are here, so there is no
//! schema to compile. One pass; a nested message is written aside first, for its length.

use crate::model::exemplar::{Exemplar, Exemplars};
use crate::model::exponential::Exponential;
use crate::model::exported::hex;
use crate::model::metric::{Histogram, Kind, Metric, Sample, Value};
use crate::model::spelling::{Spelling, label_name, labels_as};
use crate::semconv::OTEL_METRIC_OVERFLOW;

/// Field numbers of `MetricFamily`.
mod family_field {
    pub const NAME: u64 = 1;
    pub const HELP: u64 = 2;
    pub const TYPE: u64 = 3;
    pub const METRIC: u64 = 4;
    pub const UNIT: u64 = 5;
}

/// Field numbers of `Metric`.
mod metric_field {
    pub const LABEL: u64 = 1;
    pub const GAUGE: u64 = 2;
    pub const COUNTER: u64 = 3;
    pub const HISTOGRAM: u64 = 7;
}

/// Field numbers of `Histogram`.
mod histogram_field {
    pub const SAMPLE_COUNT: u64 = 1;
    pub const SAMPLE_SUM: u64 = 2;
    pub const BUCKET: u64 = 3;
    pub const SCHEMA: u64 = 5;
    pub const ZERO_THRESHOLD: u64 = 6;
    pub const ZERO_COUNT: u64 = 7;
    pub const POSITIVE_SPAN: u64 = 12;
    pub const POSITIVE_DELTA: u64 = 13;
    pub const EXEMPLARS: u64 = 16;
}

/// Field numbers of `Bucket`.
mod bucket_field {
    pub const CUMULATIVE_COUNT: u64 = 1;
    pub const UPPER_BOUND: u64 = 2;
    pub const EXEMPLAR: u64 = 3;
}

/// Field numbers of `Exemplar`.
mod exemplar_field {
    pub const LABEL: u64 = 1;
    pub const VALUE: u64 = 2;
    pub const TIMESTAMP: u64 = 3;
}

/// Wire types.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;

/// A message being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3 | VARINT);
        self.varint(value);
    }

    /// `sint32` and `sint64`.
    fn signed(&mut self, field: u64, value: i64) {
        self.number(field, zigzag(value));
    }

    fn double(&mut self, field: u64, value: f64) {
        self.varint(field << 3 | FIXED64);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | BYTES);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63).cast_unsigned()
}

/// Appends a family with its length: samples of one metric.
pub(super) fn family(metric: &Metric, samples: &[Sample], exemplars: &Exemplars, out: &mut Vec<u8>) {
    let spelling = Spelling::of(metric);
    let mut message = Message::default();
    message.bytes(family_field::NAME, spelling.to_string().as_bytes());
    message.bytes(family_field::HELP, metric.description.as_bytes());
    let kind = match metric.kind {
        Kind::Counter => 0,
        Kind::Gauge => 1,
        Kind::Histogram => 4,
    };
    message.number(family_field::TYPE, kind);
    let names: Vec<_> = metric.labels.iter().map(|label| label_name(label)).collect();
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    let overflow = label_name(OTEL_METRIC_OVERFLOW);
    for sample in samples {
        let mut each = Message::default();
        for (name, value) in labels_as(sample, &names, &overflow) {
            each.bytes(metric_field::LABEL, &label(name, value).0);
        }
        let (field, value) = match &sample.value {
            Value::Count(count) => (level(metric.kind), scalar(*count as f64)),
            Value::Float(value) => (level(metric.kind), scalar(*value)),
            Value::Histogram(classic) => (metric_field::HISTOGRAM, histogram(classic, None, exemplars.of(sample))),
            Value::Exponential(native, classic) => {
                (metric_field::HISTOGRAM, histogram(classic, Some(native), exemplars.of(sample)))
            }
        };
        each.bytes(field, &value.0);
        message.bytes(family_field::METRIC, &each.0);
    }
    if let Some(unit) = spelling.unit {
        message.bytes(family_field::UNIT, unit.as_bytes());
    }
    let mut length = Message::default();
    length.varint(message.0.len() as u64);
    out.extend_from_slice(&length.0);
    out.extend_from_slice(&message.0);
}

const fn level(kind: Kind) -> u64 {
    match kind {
        Kind::Counter => metric_field::COUNTER,
        Kind::Gauge | Kind::Histogram => metric_field::GAUGE,
    }
}

fn scalar(value: f64) -> Message {
    let mut message = Message::default();
    message.double(1, value);
    message
}

fn label(name: &str, value: &str) -> Message {
    let mut pair = Message::default();
    pair.bytes(1, name.as_bytes());
    pair.bytes(2, value.as_bytes());
    pair
}

fn exemplar(of: &Exemplar) -> Message {
    let mut message = Message::default();
    for (name, id) in [("trace_id", hex(&of.trace_id.0)), ("span_id", hex(&of.span_id.0))] {
        message.bytes(exemplar_field::LABEL, &label(name, &id).0);
    }
    message.double(exemplar_field::VALUE, of.value);
    // `google.protobuf.Timestamp`.
    let mut time = Message::default();
    time.number(1, of.wall_ns / 1_000_000_000);
    time.number(2, of.wall_ns % 1_000_000_000);
    message.bytes(exemplar_field::TIMESTAMP, &time.0);
    message
}

/// `exemplars`: by the index of their classic bucket.
fn histogram(classic: &Histogram, native: Option<&Exponential>, exemplars: &[(u8, Exemplar)]) -> Message {
    use histogram_field::{
        BUCKET, EXEMPLARS, POSITIVE_DELTA, POSITIVE_SPAN, SAMPLE_COUNT, SAMPLE_SUM, SCHEMA, ZERO_COUNT, ZERO_THRESHOLD,
    };
    let mut message = Message::default();
    message.number(SAMPLE_COUNT, classic.counts.iter().sum());
    message.double(SAMPLE_SUM, classic.sum);
    let mut sum = 0;
    // The bucket without an end is told by the count, unless it has an exemplar.
    for (index, count) in classic.counts.iter().enumerate() {
        sum += count;
        let own = exemplars.iter().find(|(bucket, _)| usize::from(*bucket) == index);
        let bound = classic.bounds.get(index).copied();
        if bound.is_none() && own.is_none() {
            continue;
        }
        let mut bucket = Message::default();
        bucket.number(bucket_field::CUMULATIVE_COUNT, sum);
        bucket.double(bucket_field::UPPER_BOUND, bound.unwrap_or(f64::INFINITY));
        if let Some((_, of)) = own {
            bucket.bytes(bucket_field::EXEMPLAR, &exemplar(of).0);
        }
        message.bytes(BUCKET, &bucket.0);
    }
    let Some(native) = native else { return message };
    message.signed(SCHEMA, native.schema.into());
    message.double(ZERO_THRESHOLD, native.zero_threshold);
    message.number(ZERO_COUNT, native.zero);
    let (mut deltas, mut last) = (Message::default(), 0);
    for (offset, counts) in spans(native) {
        let mut span = Message::default();
        span.signed(1, offset.into());
        span.number(2, counts.len() as u64);
        message.bytes(POSITIVE_SPAN, &span.0);
        for count in counts {
            let count = count.cast_signed();
            deltas.varint(zigzag(count - last));
            last = count;
        }
    }
    // A histogram without any span would not be told from a classic one.
    if native.counts.is_empty() {
        message.bytes(POSITIVE_SPAN, &[]);
    }
    message.bytes(POSITIVE_DELTA, &deltas.0);
    for (_, of) in exemplars {
        message.bytes(EXEMPLARS, &exemplar(of).0);
    }
    message
}

/// Runs of buckets in use, each with its distance from the end of the one before; the first from index 0. Two empty
/// buckets cost no more than a span.
fn spans(native: &Exponential) -> Vec<(i32, &[u64])> {
    const GAP: usize = 3;
    let mut spans = Vec::new();
    let (mut end, mut rest, mut index) = (0, &native.counts[..], native.first);
    loop {
        let empty = rest.iter().position(|count| *count > 0).unwrap_or(rest.len());
        let (_, used) = rest.split_at(empty);
        if used.is_empty() {
            return spans;
        }
        index += empty as i32;
        let length = used.windows(GAP).position(|window| window.iter().all(|count| *count == 0));
        let length = length.unwrap_or_else(|| used.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1));
        let (run, after) = used.split_at(length);
        spans.push((index - end, run));
        index += length as i32;
        (end, rest) = (index, after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::span::{SpanId, TraceId};

    fn native(first: i32, counts: &[u64]) -> Exponential {
        Exponential { first, counts: counts.to_vec(), ..Exponential::quarters() }
    }

    #[test]
    fn spans_leave_out_runs_of_empty_buckets_and_keep_short_ones() {
        let histogram = native(-10, &[0, 4, 0, 0, 2, 0, 0, 0, 0, 1, 0]);
        assert_eq!(spans(&histogram), [(-9, &[4, 0, 0, 2][..]), (4, &[1][..])]);
        assert_eq!(spans(&native(5, &[])), []);
        assert_eq!(spans(&native(5, &[0, 0])), []);
        assert_eq!(spans(&native(5, &[1])), [(5, &[1][..])]);
    }

    #[test]
    fn a_counter_is_written_as_the_schema_says() {
        static CALLS: Metric =
            Metric { name: "calls", unit: "{call}", kind: Kind::Counter, description: "C", labels: &["a.b"] };
        let sample = Sample { metric: &CALLS, labels: vec!["x".into()], value: Value::Count(3) };
        let mut out = Vec::new();
        family(&CALLS, &[sample], &Exemplars::default(), &mut out);
        let mut expected = b"\x29\x0a\x0bcalls_total\x12\x01C\x18\x00\x22\x15\x0a\x08\x0a\x03a_b\x12\x01x".to_vec();
        expected.extend_from_slice(b"\x1a\x09\x09");
        expected.extend_from_slice(&3f64.to_le_bytes());
        assert_eq!(out, expected);
    }

    #[test]
    fn an_exemplar_stands_with_its_bucket_and_with_the_native_histogram() {
        let classic = Histogram { bounds: vec![1.0].into(), counts: vec![2, 5], sum: 1.5 };
        let one = Exemplar {
            trace_id: TraceId([0xab; 16]),
            span_id: SpanId([0x01; 8]),
            value: 3.0,
            wall_ns: 2_000_000_005,
            place: 0,
        };
        let trace = "ab".repeat(16);
        let mut expected = format!("\n\u{2c}\n\u{8}trace_id\u{12}\u{20}{trace}").into_bytes();
        expected.extend_from_slice(b"\n\x1b\n\x07span_id\x12\x100101010101010101\x11");
        expected.extend_from_slice(&3f64.to_le_bytes());
        expected.extend_from_slice(b"\x1a\x04\x08\x02\x10\x05");
        assert_eq!(exemplar(&one).0, expected);
        let times = |message: &Message| message.0.windows(expected.len()).filter(|part| *part == expected).count();
        // Only a bucket that has one shows +Inf.
        let infinite = f64::INFINITY.to_le_bytes();
        let ends = |message: &Message| message.0.windows(8).any(|part| part == infinite);
        for (bucket, end) in [(0, false), (1, true)] {
            let alone = histogram(&classic, None, &[(bucket, one)]);
            assert_eq!((times(&alone), ends(&alone)), (1, end));
            let both = histogram(&classic, Some(&native(3, &[2, 4])), &[(bucket, one)]);
            assert_eq!((times(&both), ends(&both)), (2, end));
        }
    }

    #[test]
    fn a_native_histogram_has_deltas_of_its_counts() {
        let classic = Histogram { bounds: vec![1.0].into(), counts: vec![2, 5], sum: 1.5 };
        let native = Exponential { zero: 1, ..native(3, &[2, 4]) };
        let message = histogram(&classic, Some(&native), &[]).0;
        // Schema 2, zero count 1, span (3, 2), deltas 2 and 2.
        let tail = b"\x38\x01\x62\x04\x08\x06\x10\x02\x6a\x02\x04\x04";
        assert!(message.ends_with(tail), "{message:02x?}");
        let schema = [0x28, 0x04, 0x31];
        assert!(message.windows(3).any(|window| window == schema), "{message:02x?}");
    }
}
