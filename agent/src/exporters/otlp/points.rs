//! The samples of one look at all metrics → requests of at most so many points: sums, gauges and histograms in OTLP's terms.
//!
//! Names are OpenTelemetry's own, dotted and with the unit beside them: receivers that spell them for Prometheus by
//! OpenTelemetry's compatibility rules get the names of the agent's page. Labels are attributes of the points. Counters are
//! cumulative with the time they began or deltas ([`Starts`]); base-2 exponential histograms are sent as they are counted, index by
//! index, others with their bounds. One batch is in memory at a time beside its encoded form. What a metric cannot have is
//! lost as `unfit`.

use std::borrow::Cow;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use super::encode::{packed, pair, scope, with_configured};
use super::outbox::Batch;
use super::proto::{KeyValue, Resource};
use super::proto_metrics::{
    Buckets, CUMULATIVE, DELTA, Exemplar as SentExemplar, ExemplarValue, Explicit, ExplicitPoint, Exponential,
    ExponentialPoint, Gauge, Metric, Number, Points, Request, ResourceMetrics, ScopeMetrics, Sum, Value,
};
use super::sender::Sender;
use super::settings::Signal;
use super::starts::Starts;
use super::{Compression, Config, Histograms, Temporality, target};
use crate::exporters::{Account, LossReason};
use crate::model::exemplar::{Exemplar, Exemplars};
use crate::model::metric::{Kind, Metric as Definition, Sample, Value as Measured};
use crate::model::spelling::labels;
use crate::semconv;

/// The end that samples are handed to.
pub struct OtlpMetrics {
    sender: Sender,
    encoder: PointEncoder,
}

impl OtlpMetrics {
    /// Starts to send, within a runtime; `None` where no metrics are to be sent. `older`: names of metrics that count since
    /// before the agent began, which was at `began_ns` (Unix time).
    pub fn start(
        config: &Config,
        account: Arc<Account>,
        host_name: &str,
        began_ns: u64,
        older: impl IntoIterator<Item = &'static str>,
    ) -> Result<Option<Self>, String> {
        let Some(settings) = config.settings(Signal::Metrics).transpose()? else { return Ok(None) };
        let encoder = PointEncoder::new(config, settings.compression, host_name, Starts::new(began_ns, older))?;
        let sender = Sender::start(config, settings, config.metrics.queue_bytes.0, account)?;
        Ok(Some(Self { sender, encoder }))
    }

    /// Takes the samples of a look at `now_ns` (Unix time), those of one metric together; never waits.
    pub fn take(&mut self, samples: &[Sample], exemplars: &Exemplars, now_ns: u64) {
        let Self { sender, encoder } = self;
        sender.offer(samples.len() as u64);
        let unfit = encoder.encode(samples, exemplars, now_ns, &mut |batch| sender.put(batch));
        sender.lose(LossReason::Unfit, unfit);
    }

    /// Sends what is left, each batch once, within `grace`; counts what could not be sent. Says how many points that is.
    pub async fn finish(self, grace: Duration) -> u64 {
        self.sender.finish(grace).await
    }
}

/// What is sent of a sample, by its metric and value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Gauge,
    Sum,
    Explicit,
    Exponential,
}

pub(super) struct PointEncoder {
    resource: Resource,
    compression: Compression,
    histograms: Histograms,
    temporality: Temporality,
    most: usize,
    starts: Starts,
}

impl PointEncoder {
    fn new(config: &Config, compression: Compression, host_name: &str, starts: Starts) -> Result<Self, String> {
        let host = pair(semconv::HOST_NAME, Cow::Owned(host_name.to_owned().into()));
        let own = if host_name.is_empty() { Vec::new() } else { vec![host] };
        Ok(Self {
            resource: with_configured(own, &target::attributes(&config.resource)?),
            compression,
            histograms: config.metrics.histograms,
            temporality: config.metrics.temporality,
            most: config.metrics.batch_points.max(1),
            starts,
        })
    }

    /// Hands the batches on; how many samples fit no metric of theirs.
    fn encode(
        &mut self,
        samples: &[Sample],
        exemplars: &Exemplars,
        now_ns: u64,
        batches: &mut impl FnMut(Batch),
    ) -> u64 {
        let (mut metrics, mut points, mut unfit) = (Vec::new(), 0, 0);
        let shapes: Vec<_> = samples.iter().map(|sample| self.shape(sample)).collect();
        let mut rest = samples.iter().zip(shapes).peekable();
        while let Some((first, shape)) = rest.next() {
            let Some(shape) = shape else {
                unfit += 1;
                continue;
            };
            let mut family = vec![first];
            while points + family.len() < self.most
                && let Some((sample, _)) =
                    rest.next_if(|(sample, other)| sample.metric.name == first.metric.name && *other == Some(shape))
            {
                family.push(sample);
            }
            points += family.len();
            metrics.push(self.family(first.metric, shape, &family, exemplars, now_ns));
            if points >= self.most {
                batches(self.batch(mem::take(&mut metrics), mem::take(&mut points)));
            }
        }
        if points > 0 {
            batches(self.batch(metrics, points));
        }
        self.starts.end(now_ns);
        unfit
    }

    fn shape(&self, sample: &Sample) -> Option<Shape> {
        match (sample.metric.kind, &sample.value) {
            (Kind::Counter, Measured::Count(_) | Measured::Float(_)) => Some(Shape::Sum),
            (Kind::Gauge, Measured::Count(_) | Measured::Float(_)) => Some(Shape::Gauge),
            (Kind::Histogram, Measured::Exponential(..)) if self.histograms == Histograms::Exponential => {
                Some(Shape::Exponential)
            }
            (Kind::Histogram, Measured::Exponential(..) | Measured::Histogram(_)) => Some(Shape::Explicit),
            _ => None,
        }
    }

    fn batch(&self, metrics: Vec<Metric>, points: usize) -> Batch {
        let request = Request {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(self.resource.clone()),
                scope_metrics: vec![ScopeMetrics { scope: Some(scope()), metrics }],
            }],
        };
        Batch { body: packed(&request, self.compression), items: points as u64 }
    }

    fn family(
        &mut self,
        definition: &Definition,
        shape: Shape,
        samples: &[&Sample],
        exemplars: &Exemplars,
        time_ns: u64,
    ) -> Metric {
        let temporality = match (self.temporality, shape) {
            (Temporality::Cumulative, _) | (Temporality::LowMemory, Shape::Sum) => CUMULATIVE,
            (Temporality::Delta | Temporality::LowMemory, _) => DELTA,
        };
        let starts = &mut self.starts;
        let mut told = |sample: &Sample| match temporality {
            DELTA => starts.added(sample, time_ns),
            _ => (starts.of(sample, time_ns), sample.value.clone()),
        };
        let points = match shape {
            Shape::Gauge => {
                let point = |sample: &&Sample| number(sample, &sample.value, [0, time_ns]);
                Points::Gauge(Gauge { points: samples.iter().map(point).collect() })
            }
            Shape::Sum => {
                let point = |sample: &&Sample| {
                    let (start_ns, value) = told(sample);
                    number(sample, &value, [start_ns, time_ns])
                };
                Points::Sum(Sum { points: samples.iter().map(point).collect(), temporality, is_monotonic: true })
            }
            Shape::Explicit => {
                let point = |sample: &&Sample| {
                    let (start_ns, value) = told(sample);
                    explicit(sample, &value, [start_ns, time_ns], exemplars)
                };
                Points::Explicit(Explicit { points: samples.iter().filter_map(point).collect(), temporality })
            }
            Shape::Exponential => {
                let point = |sample: &&Sample| {
                    let (start_ns, value) = told(sample);
                    exponential(sample, &value, [start_ns, time_ns], exemplars)
                };
                Points::Exponential(Exponential { points: samples.iter().filter_map(point).collect(), temporality })
            }
        };
        Metric {
            name: definition.name.to_owned(),
            description: definition.description.to_owned(),
            unit: definition.unit.to_owned(),
            points: Some(points),
        }
    }
}

fn attributes(sample: &Sample) -> Vec<KeyValue> {
    let value = |key: &str, text: &str| match key {
        // A truth value, by OpenTelemetry's specification.
        semconv::OTEL_METRIC_OVERFLOW => true.into(),
        _ => text.to_owned().into(),
    };
    labels(sample).map(|(key, text)| pair(key, Cow::Owned(value(key, text)))).collect()
}

fn number(sample: &Sample, value: &Measured, [start_ns, time_ns]: [u64; 2]) -> Number {
    let value = match value {
        Measured::Count(count) => match i64::try_from(*count) {
            Ok(count) => Some(Value::Int(count)),
            Err(_) => Some(Value::Double(*count as f64)),
        },
        Measured::Float(value) => Some(Value::Double(*value)),
        // Not of this shape.
        Measured::Histogram(_) | Measured::Exponential(..) => None,
    };
    Number { start_ns, time_ns, value, attributes: attributes(sample) }
}

fn explicit(
    sample: &Sample,
    value: &Measured,
    [start_ns, time_ns]: [u64; 2],
    exemplars: &Exemplars,
) -> Option<ExplicitPoint> {
    let histogram = value.histogram()?;
    Some(ExplicitPoint {
        start_ns,
        time_ns,
        count: histogram.counts.iter().sum(),
        sum: Some(histogram.sum),
        bucket_counts: histogram.counts.clone(),
        explicit_bounds: histogram.bounds.to_vec(),
        exemplars: sent(exemplars.of(sample)),
        attributes: attributes(sample),
    })
}

fn exponential(
    sample: &Sample,
    value: &Measured,
    [start_ns, time_ns]: [u64; 2],
    exemplars: &Exemplars,
) -> Option<ExponentialPoint> {
    let Measured::Exponential(native, classic) = value else { return None };
    Some(ExponentialPoint {
        attributes: attributes(sample),
        start_ns,
        time_ns,
        count: native.count(),
        sum: Some(classic.sum),
        scale: native.schema,
        zero_count: native.zero,
        // OTLP numbers a bucket by its lower bound, Prometheus and `Exponential` by its upper one.
        positive: Some(Buckets { offset: native.first - 1, bucket_counts: native.counts.clone() }),
        exemplars: sent(exemplars.of(sample)),
        zero_threshold: native.zero_threshold,
    })
}

fn sent(exemplars: &[(u8, Exemplar)]) -> Vec<SentExemplar> {
    let each = |(_, exemplar): &(u8, Exemplar)| SentExemplar {
        time_ns: exemplar.wall_ns,
        value: Some(ExemplarValue::Double(exemplar.value)),
        span_id: exemplar.span_id.0.to_vec(),
        trace_id: exemplar.trace_id.0.to_vec(),
    };
    exemplars.iter().map(each).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use prost::Message as _;

    use super::*;
    use crate::model::exponential::Exponential as Native;
    use crate::model::metric::Histogram;
    use crate::model::span::{SpanId, TraceId};

    static CALLS: Definition = Definition {
        name: "seismo.calls",
        unit: "{call}",
        kind: Kind::Counter,
        description: "Calls",
        labels: &["http.route", "error.type"],
    };
    static FILL: Definition =
        Definition { name: "seismo.fill", unit: "1", kind: Kind::Gauge, description: "Fill", labels: &[] };
    static TIME: Definition =
        Definition { name: "seismo.time", unit: "s", kind: Kind::Histogram, description: "Time", labels: &["device"] };
    static SIZE: Definition =
        Definition { name: "seismo.size", unit: "By", kind: Kind::Histogram, description: "Size", labels: &[] };

    fn native() -> Sample {
        let mut native = Native::quarters();
        // 1 is in (2^-0.25, 1], 3 in (2^1.5, 2^1.75], 0 at zero.
        [1.0, 1.0, 3.0, 0.0].into_iter().for_each(|value| native.observe(value));
        let classic = Histogram { bounds: vec![2.0].into(), counts: vec![3, 1], sum: 5.0 };
        Sample { metric: &TIME, labels: vec!["sda".into()], value: Measured::Exponential(native, classic) }
    }

    fn samples() -> Vec<Sample> {
        let calls = |labels: &[&'static str], count| Sample {
            metric: &CALLS,
            labels: labels.iter().map(|label| (*label).into()).collect(),
            value: Measured::Count(count),
        };
        let classic = Histogram { bounds: vec![10.0, 20.0].into(), counts: vec![1, 2, 3], sum: 99.0 };
        vec![
            calls(&["/a", ""], 7),
            calls(&["/b", "500"], u64::MAX),
            calls(&[], 1),
            Sample { metric: &FILL, labels: vec![], value: Measured::Float(0.25) },
            Sample { metric: &SIZE, labels: vec![], value: Measured::Histogram(classic) },
            native(),
        ]
    }

    /// What a receiver reads, request by request, and how many samples were unfit.
    fn sent(config: &Config, samples: &[Sample], exemplars: &Exemplars) -> (Vec<(u64, Request)>, u64) {
        let starts = Starts::new(100, []);
        let mut encoder = PointEncoder::new(config, Compression::None, "node", starts).unwrap();
        let mut requests = Vec::new();
        let unfit = encoder.encode(samples, exemplars, 900, &mut |batch| {
            requests.push((batch.items, Request::decode(batch.body).unwrap()));
        });
        (requests, unfit)
    }

    fn metrics(requests: &[(u64, Request)]) -> Vec<Metric> {
        let scopes = requests.iter().flat_map(|(_, request)| &request.resource_metrics[0].scope_metrics);
        scopes.flat_map(|scope| scope.metrics.clone()).collect()
    }

    fn texts(attributes: &[KeyValue]) -> Vec<String> {
        attributes.iter().map(|pair| format!("{}={:?}", pair.key, pair.value.clone().unwrap().value.unwrap())).collect()
    }

    #[test]
    fn every_kind_of_metric_is_sent_under_its_own_name_with_its_unit() {
        let config = Config { resource: vec!["deployment.environment.name=test".to_owned()], ..Config::default() };
        let (requests, unfit) = sent(&config, &samples(), &Exemplars::default());
        assert_eq!((requests.len(), requests[0].0, unfit), (1, 6, 0));
        let resource = requests[0].1.resource_metrics[0].resource.clone().unwrap();
        let expected = ["host.name=Text(\"node\")", "deployment.environment.name=Text(\"test\")"];
        assert_eq!(texts(&resource.attributes), expected);
        let metrics = metrics(&requests);
        let named: Vec<_> = metrics.iter().map(|metric| (metric.name.as_str(), metric.unit.as_str())).collect();
        assert_eq!(
            named,
            [("seismo.calls", "{call}"), ("seismo.fill", "1"), ("seismo.size", "By"), ("seismo.time", "s")]
        );
        let Some(Points::Sum(sum)) = &metrics[0].points else { panic!("not a sum") };
        assert!(sum.is_monotonic && sum.temporality == CUMULATIVE);
        let values: Vec<_> = sum.points.iter().map(|point| point.value.clone().unwrap()).collect();
        assert_eq!(values, [Value::Int(7), Value::Double(u64::MAX as f64), Value::Int(1)]);
        assert!(sum.points.iter().all(|point| (point.start_ns, point.time_ns) == (100, 900)));
        assert_eq!(texts(&sum.points[1].attributes), ["http.route=Text(\"/b\")", "error.type=Text(\"500\")"]);
        assert_eq!(texts(&sum.points[2].attributes), ["otel.metric.overflow=Bool(true)"]);
        let Some(Points::Gauge(gauge)) = &metrics[1].points else { panic!("not a gauge") };
        assert_eq!((gauge.points[0].value.clone(), gauge.points[0].start_ns), (Some(Value::Double(0.25)), 0));
        let Some(Points::Explicit(explicit)) = &metrics[2].points else { panic!("not of explicit bounds") };
        let point = &explicit.points[0];
        assert_eq!((point.count, point.sum, &point.bucket_counts[..]), (6, Some(99.0), &[1, 2, 3][..]));
        assert_eq!(point.explicit_bounds, [10.0, 20.0]);
    }

    #[test]
    fn an_exponential_histogram_keeps_every_bucket_under_the_index_of_its_lower_bound() {
        let exemplar =
            Exemplar { trace_id: TraceId([7; 16]), span_id: SpanId([8; 8]), value: 3.0, wall_ns: 850, place: 0 };
        let mut exemplars = Exemplars::default();
        exemplars.insert(&TIME, vec!["sda".into()], vec![(1, exemplar)]);
        let (requests, _) = sent(&Config::default(), &[native()], &exemplars);
        let Some(Points::Exponential(found)) = metrics(&requests)[0].points.clone() else { panic!("not exponential") };
        let point = &found.points[0];
        assert_eq!((point.count, point.sum, point.scale, point.zero_count), (4, Some(5.0), 2, 1));
        assert_eq!(point.zero_threshold, 2f64.powi(-30));
        let positive = point.positive.clone().unwrap();
        // OTLP: bucket i holds what is above base^i and at most base^(i+1); 1 = base^0 and 3 lies between base^6 and base^7.
        assert_eq!((positive.offset, positive.bucket_counts), (-1, vec![2, 0, 0, 0, 0, 0, 0, 1]));
        let seen = &point.exemplars[0];
        assert_eq!((seen.time_ns, seen.value.clone()), (850, Some(ExemplarValue::Double(3.0))));
        assert_eq!((seen.trace_id.len(), seen.span_id.len()), (16, 8));
        let metrics_config = crate::exporters::otlp::Metrics { histograms: Histograms::Explicit, ..Default::default() };
        let config = Config { metrics: metrics_config, ..Config::default() };
        let (requests, _) = sent(&config, &[native()], &exemplars);
        let Some(Points::Explicit(found)) = metrics(&requests)[0].points.clone() else { panic!("not explicit") };
        assert_eq!((found.points[0].count, &found.points[0].bucket_counts[..]), (4, &[3, 1][..]));
    }

    #[test]
    fn what_was_added_is_sent_where_that_is_preferred() {
        for (temporality, [sums, histograms]) in [
            (Temporality::Cumulative, [CUMULATIVE, CUMULATIVE]),
            (Temporality::Delta, [DELTA, DELTA]),
            (Temporality::LowMemory, [CUMULATIVE, DELTA]),
        ] {
            let mut config = Config::default();
            config.metrics.temporality = temporality;
            let mut encoder = PointEncoder::new(&config, Compression::None, "node", Starts::new(100, [])).unwrap();
            let mut requests = Vec::new();
            for now_ns in [900, 1000] {
                requests.clear();
                encoder.encode(&samples(), &Exemplars::default(), now_ns, &mut |batch| {
                    requests.push((batch.items, Request::decode(batch.body).unwrap()));
                });
            }
            // The second time nothing was added.
            let metrics = metrics(&requests);
            let all = |wanted: i32| if wanted == DELTA { (900, 0) } else { (100, 1) };
            let Some(Points::Sum(sum)) = &metrics[0].points else { panic!("not a sum") };
            let point = &sum.points[2];
            assert_eq!((sum.temporality, point.start_ns), (sums, all(sums).0), "{temporality:?}");
            assert_eq!(point.value, Some(Value::Int(all(sums).1)), "{temporality:?}");
            let Some(Points::Gauge(gauge)) = &metrics[1].points else { panic!("not a gauge") };
            assert_eq!(gauge.points[0].value, Some(Value::Double(0.25)), "a gauge is what it is");
            let Some(Points::Explicit(explicit)) = &metrics[2].points else { panic!("not of explicit bounds") };
            let Some(Points::Exponential(found)) = &metrics[3].points else { panic!("not exponential") };
            assert_eq!((explicit.temporality, found.temporality), (histograms, histograms));
            let (start_ns, share) = all(histograms);
            assert_eq!((explicit.points[0].start_ns, explicit.points[0].count), (start_ns, 6 * share as u64));
            assert_eq!((found.points[0].start_ns, found.points[0].count), (start_ns, 4 * share as u64));
        }
    }

    #[test]
    fn requests_have_at_most_so_many_points_and_all_of_them_together() {
        for most in 1..8 {
            let mut config = Config::default();
            config.metrics.batch_points = most;
            let (requests, _) = sent(&config, &samples(), &Exemplars::default());
            let counts: Vec<_> = requests.iter().map(|(items, _)| *items as usize).collect();
            assert!(counts.iter().all(|count| (1..=most).contains(count)), "{most}: {counts:?}");
            assert_eq!(counts.iter().sum::<usize>(), 6);
            let metrics = metrics(&requests);
            let points = metrics.iter().map(|metric| match metric.points.clone().unwrap() {
                Points::Gauge(gauge) => gauge.points.len(),
                Points::Sum(sum) => sum.points.len(),
                Points::Explicit(explicit) => explicit.points.len(),
                Points::Exponential(exponential) => exponential.points.len(),
            });
            assert_eq!(points.sum::<usize>(), 6);
        }
    }

    #[test]
    fn a_value_that_its_metric_cannot_have_is_not_sent_and_is_told() {
        let wrong = Sample { metric: &TIME, labels: vec![], value: Measured::Count(1) };
        let (requests, unfit) = sent(&Config::default(), &[wrong, native()], &Exemplars::default());
        assert_eq!((requests.len(), requests[0].0, unfit), (1, 1, 1));
    }
}
