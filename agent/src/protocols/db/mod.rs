//! What all database protocols share: the two duration metrics, and the span attributes that do not depend on the
//! database.
//!
//! In: what a protocol knows of one operation, and the facts of its exchange. Out: its [`Conclusion`]. Names are
//! OpenTelemetry's database semantic conventions. No parser, no state, and no row in the registry; statements are
//! masked by the protocol that knows their syntax, before they come here.

pub mod sql;

use compact_str::CompactString;

use crate::model::attributes::Attributes;
use crate::model::connection::Role;
use crate::model::display;
use crate::model::exchange::Measure;
use crate::model::metric::{Kind, Metric};
use crate::semconv;

use super::{Conclusion, Facts};

const LABELS: &[&str] = &[
    semconv::SERVICE_NAME,
    semconv::DB_SYSTEM_NAME,
    semconv::DB_OPERATION_NAME,
    semconv::DB_COLLECTION_NAME,
    semconv::DB_NAMESPACE,
    semconv::ERROR_TYPE,
];

pub static CLIENT_DURATION: Metric = Metric {
    name: "db.client.operation.duration",
    unit: "s",
    kind: Kind::Histogram,
    description: "Duration of database operations, first request byte written to last response byte read",
    labels: LABELS,
};

pub static SERVER_DURATION: Metric = Metric {
    name: "db.server.operation.duration",
    unit: "s",
    kind: Kind::Histogram,
    description: "Duration of database operations, first request byte read to last response byte written",
    labels: LABELS,
};

/// One operation on a database, as its protocol saw it. Texts are bounded by the protocol; empty: not known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Operation<'a> {
    /// `db.system.name`.
    pub system: &'static str,
    /// `db.operation.name`: low cardinality, first part of the span name.
    pub name: &'a str,
    /// Second part of the span name, low cardinality: a table, a procedure. No namespace.
    pub target: &'a str,
    /// `db.collection.name`.
    pub collection: &'a str,
    /// `db.namespace`.
    pub namespace: &'a str,
    /// As the exchange's status, in the protocol's words (`OK`); `None` without an answer.
    pub status: Option<&'a str>,
    /// `db.response.status_code`: the database's own code of an error or a warning.
    pub status_code: Option<&'a str>,
    /// The code says that the operation failed.
    pub failed: bool,
}

/// Adds what every database span has to `attributes` and makes the conclusion. A connection that ended first is the
/// error whatever the database said before.
pub fn conclude(operation: &Operation<'_>, mut attributes: Attributes, facts: &Facts) -> Conclusion {
    let error = facts.failure.or_else(|| operation.status_code.filter(|_| operation.failed));
    let server = facts.server();
    attributes.set(semconv::DB_SYSTEM_NAME, operation.system);
    let texts = [
        (semconv::DB_OPERATION_NAME, operation.name),
        (semconv::DB_COLLECTION_NAME, operation.collection),
        (semconv::DB_NAMESPACE, operation.namespace),
        (semconv::DB_RESPONSE_STATUS_CODE, operation.status_code.unwrap_or_default()),
        (semconv::ERROR_TYPE, error.unwrap_or_default()),
    ];
    for (key, text) in texts {
        if !text.is_empty() {
            attributes.set(key, text.to_owned());
        }
    }
    attributes.set(semconv::SERVER_ADDRESS, display::address(server.ip()));
    attributes.set(semconv::SERVER_PORT, i64::from(server.port()));
    let peer = display::address(facts.peer.ip());
    if facts.role == Role::Server {
        attributes.set(semconv::CLIENT_ADDRESS, peer.clone());
    }
    attributes.set(semconv::NETWORK_PEER_ADDRESS, peer);
    attributes.set(semconv::NETWORK_PEER_PORT, i64::from(facts.peer.port()));
    let metric = match facts.role {
        Role::Client => &CLIENT_DURATION,
        Role::Server => &SERVER_DURATION,
    };
    let labels =
        [operation.system, operation.name, operation.collection, operation.namespace, error.unwrap_or_default()];
    Conclusion {
        operation: operation.name.into(),
        resource: operation.target.into(),
        status: operation.status.map(CompactString::new),
        error: error.map(CompactString::new),
        attributes,
        measure: Measure { metric, labels: labels.map(CompactString::new).to_vec() },
    }
}

#[cfg(test)]
mod tests {
    use super::{CLIENT_DURATION, Operation, SERVER_DURATION, conclude};
    use crate::metrics::check_definitions;
    use crate::model::attributes::{Attributes, Value};
    use crate::model::connection::Role;
    use crate::protocols::Facts;
    use crate::semconv;

    fn facts(role: Role, failure: Option<&'static str>) -> Facts {
        let (local, peer) = ("10.0.0.1:40000".parse().unwrap(), "10.0.0.2:6379".parse().unwrap());
        let (local, peer) = if role == Role::Client { (local, peer) } else { (peer, local) };
        Facts { role, local, peer, request_body_bytes: None, response_body_bytes: None, failure }
    }

    #[test]
    fn both_ends_name_the_same_server_and_the_client_of_each_other() {
        let operation = Operation { system: "redis", name: "GET", namespace: "3", ..Operation::default() };
        for (role, peer, metric) in
            [(Role::Client, "10.0.0.2", &CLIENT_DURATION), (Role::Server, "10.0.0.1", &SERVER_DURATION)]
        {
            let conclusion = conclude(&operation, Attributes::default(), &facts(role, None));
            let attributes = &conclusion.attributes;
            assert_eq!(attributes.text(semconv::SERVER_ADDRESS), Some("10.0.0.2"));
            assert_eq!(attributes.get(semconv::SERVER_PORT), Some(&Value::Int(6379)));
            assert_eq!(attributes.text(semconv::NETWORK_PEER_ADDRESS), Some(peer));
            assert_eq!(attributes.get(semconv::CLIENT_ADDRESS).is_some(), role == Role::Server);
            assert_eq!(attributes.get(semconv::DB_COLLECTION_NAME), None, "what is not known is not there");
            assert_eq!(conclusion.measure.metric.name, metric.name);
            assert_eq!(conclusion.measure.labels, ["redis", "GET", "", "3", ""]);
            assert_eq!(conclusion.measure.labels.len() + 1, metric.labels.len(), "the workload comes first");
        }
    }

    #[test]
    fn a_code_is_an_error_where_it_says_so_and_a_broken_connection_is_one_anyway() {
        let code = Operation { system: "redis", name: "GET", status_code: Some("WRONGTYPE"), ..Operation::default() };
        for (failed, failure, error) in [
            (true, None, Some("WRONGTYPE")),
            (false, None, None),
            (true, Some("connection_reset"), Some("connection_reset")),
            (false, Some("connection_reset"), Some("connection_reset")),
        ] {
            let operation = Operation { failed, ..code };
            let conclusion = conclude(&operation, Attributes::default(), &facts(Role::Client, failure));
            assert_eq!(conclusion.error.as_deref(), error);
            assert_eq!(conclusion.attributes.text(semconv::ERROR_TYPE), error);
            assert_eq!(conclusion.attributes.text(semconv::DB_RESPONSE_STATUS_CODE), Some("WRONGTYPE"));
        }
    }

    #[test]
    fn the_metrics_are_sound() {
        assert_eq!(check_definitions([&CLIENT_DURATION, &SERVER_DURATION]), Vec::<String>::new());
    }
}
