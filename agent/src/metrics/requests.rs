//! From exchanges to request metrics: which histogram, which labels and how long.
//!
//! The protocol chose the metric and its own labels; the workload label comes first. An exchange that is
//! not whole has no duration that we know, so it is counted by reason and never put into a histogram.

use compact_str::CompactString;

use crate::model::exchange::{Exchange, Measure};
use crate::model::exemplar::{Exemplar, Shown};
use crate::model::metric::{Kind, Metric};
use crate::model::process::Resource;
use crate::model::span::Span;
use crate::semconv::SERVICE_NAME;

use super::Table;
use super::table::bucket;

pub static INCOMPLETE_EXCHANGES: Metric = Metric {
    name: "seismo.exchanges.incomplete",
    unit: "{exchange}",
    kind: Kind::Counter,
    description: "Requests that are in no duration histogram, because one of their ends was not seen",
    labels: &[SERVICE_NAME, "protocol", "reason"],
};

/// Longest list of label values: the workload's and the protocol's.
const MAX_LABELS: usize = 16;

/// Counts one exchange of the process that `resource` describes. Returns the exemplars of the series that has its duration.
pub fn record_exchange(table: &Table, exchange: &Exchange, resource: &Resource) -> Option<Shown> {
    let service = resource.service_name.as_str();
    if let Some(reason) = exchange.incomplete {
        table.add(&INCOMPLETE_EXCHANGES, &[service, exchange.protocol, reason.name()], 1);
        return None;
    }
    let seconds = exchange.end_ns.saturating_sub(exchange.request.first_ns) as f64 / 1e9;
    with_labels(service, &exchange.measure, |labels| table.observe(exchange.measure.metric, labels, seconds))
}

/// Makes a finished span the exemplar of the bucket that its request was counted in. Nothing for one that was not counted.
pub fn record_exemplar(span: &Span) {
    let Some(counted) = &span.counted else { return };
    let Some(series) = &counted.series else { return };
    let exemplar = Exemplar {
        trace_id: span.trace_id,
        span_id: span.span_id,
        value: span.duration_ns() as f64 / 1e9,
        wall_ns: span.end_ns,
        place: counted.place,
    };
    series.show(bucket(exemplar.value), exemplar);
}

/// All values of the labels of a request's series, in order.
fn with_labels<R>(service: &str, measure: &Measure, with: impl FnOnce(&[&str]) -> R) -> R {
    let mut labels = [""; MAX_LABELS];
    let values = std::iter::once(service).chain(measure.labels.iter().map(CompactString::as_str));
    for (place, value) in labels.iter_mut().zip(values) {
        *place = value;
    }
    debug_assert!(measure.labels.len() < MAX_LABELS, "{}", measure.metric.name);
    let given = (measure.labels.len() + 1).min(MAX_LABELS);
    with(&labels[..given])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Config;
    use crate::model::attributes::Attributes;
    use crate::model::connection::{Connection, Cookie, Role, Transport};
    use crate::model::exchange::{Incomplete, Measure, MessageFacts};
    use crate::model::metric::{Source, Value};

    static DURATION: Metric = Metric {
        name: "test.server.duration",
        unit: "s",
        kind: Kind::Histogram,
        description: "Duration",
        labels: &[SERVICE_NAME, "code"],
    };

    fn exchange(incomplete: Option<Incomplete>) -> Exchange {
        Exchange {
            connection: Connection {
                cookie: Cookie(1),
                transport: Transport::Tcp,
                local: ([127, 0, 0, 1], 80).into(),
                peer: ([127, 0, 0, 1], 9).into(),
                peer_cookie: None,
            },
            number: 1,
            wire: None,
            role: Role::Server,
            pid: 1,
            protocol: "http",
            operation: "GET".into(),
            resource: "/".into(),
            status: Some("200".into()),
            error: None,
            request: MessageFacts { first_ns: 1_000_000, ..MessageFacts::default() },
            response: None,
            end_ns: 4_000_000,
            attributes: Attributes::default(),
            measure: Measure { metric: &DURATION, labels: vec!["200".into()] },
            incomplete,
            context: None,
        }
    }

    #[test]
    fn a_whole_exchange_is_timed_and_a_partial_one_is_counted_by_reason() {
        let table = Table::new(Config::default());
        let shop = Resource { service_name: "shop".to_owned(), ..Resource::default() };
        record_exchange(&table, &exchange(None), &shop);
        record_exchange(&table, &exchange(Some(Incomplete::Gap)), &shop);
        let mut samples = Vec::new();
        table.collect(&mut samples);
        samples.retain(|sample| sample.labels.len() > 1);
        assert_eq!(samples[0].labels, ["shop", "200"]);
        let Some(histogram) = samples[0].value.histogram() else { panic!("not a histogram") };
        assert_eq!((histogram.sum, histogram.counts.iter().sum::<u64>()), (0.003, 1));
        assert_eq!(samples[1].labels, ["shop", "http", "gap"]);
        assert_eq!(samples[1].value, Value::Count(1));
    }
}
