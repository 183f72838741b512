//! PostgreSQL's exchanges in neutral terms: span attributes, error and the duration metric.
//!
//! Out of a request and its answer: a `SQLSTATE` is the status and the error of what failed, `OK` the status of what did not. A span is called by
//! its statement's summary, or by the system where no statement is known. Names are OpenTelemetry's database conventions.

use std::sync::Arc;

use crate::model::attributes::Attributes;
use crate::model::context::InBand;
use crate::semconv;

use super::super::db::{self, Operation, sql::Statement};
use super::super::{Body, Conclusion, Config as Protocols, Dialect, Facts, Limits, Parser, Request, Response};
use super::{Config, Postgresql};

/// `db.system.name`.
const SYSTEM: &str = "postgresql";
/// Status of what did not fail.
pub(super) const OK: &str = "OK";
/// Status and error of what the server skipped because something before it in its pipeline failed.
pub(super) const ABORTED: &str = "pipeline_aborted";
/// Set where a name was executed whose preparation was not seen, or not for certain.
const STATEMENT_UNKNOWN: &str = "seismo.db.statement.unknown";

/// Room for the attributes that most spans have.
const ATTRIBUTES: usize = 16;
/// OpenTelemetry's bound on a summary.
const MAX_SUMMARY_BYTES: usize = 255;

struct Shared {
    config: Config,
}

pub(super) fn dialect(config: &Protocols) -> Box<dyn Dialect> {
    Box::new(Shared { config: config.postgresql.clone() })
}

/// What a request does, as far as its bytes tell.
pub(super) enum Doing {
    Statement(Arc<Statement>),
    /// Prepared by an earlier request.
    Prepared(Arc<Statement>),
    /// Only prepared, not executed.
    Preparing(Arc<Statement>),
    /// By a name that is not known.
    Unknown,
    /// `FunctionCall`.
    Function,
    /// Nobody's exchange.
    Nothing,
}

/// A request with what its statement tells.
pub(super) fn request(doing: &Doing, hint: u8, rest: u64, database: Option<&str>, texts: bool) -> Request {
    let nothing = InBand::default();
    let in_band = match doing {
        Doing::Statement(statement) | Doing::Preparing(statement) => &statement.in_band,
        // Its comment is of whoever prepared it.
        Doing::Prepared(_) | Doing::Unknown | Doing::Function | Doing::Nothing => &nothing,
    };
    let mut attributes = Attributes::default();
    let mut truncated_values = 0;
    if !matches!(doing, Doing::Nothing) {
        attributes = Attributes::with_capacity(ATTRIBUTES);
        if let Some(database) = database {
            attributes.set(semconv::DB_NAMESPACE, database.to_owned());
        }
    }
    match doing {
        Doing::Statement(statement) | Doing::Prepared(statement) => {
            set(&mut attributes, semconv::DB_OPERATION_NAME, &statement.operation);
            set(&mut attributes, semconv::DB_QUERY_SUMMARY, &statement.summary);
        }
        Doing::Preparing(statement) => {
            attributes.set(semconv::DB_OPERATION_NAME, "PREPARE");
            let mut summary = format!("PREPARE {}", statement.summary);
            summary.truncate(summary.floor_char_boundary(MAX_SUMMARY_BYTES));
            set(&mut attributes, semconv::DB_QUERY_SUMMARY, summary.trim_end());
        }
        Doing::Unknown => attributes.set(STATEMENT_UNKNOWN, true),
        Doing::Function => attributes.set(semconv::DB_OPERATION_NAME, "CALL"),
        Doing::Nothing => {}
    }
    if let Doing::Statement(statement) | Doing::Prepared(statement) | Doing::Preparing(statement) = doing {
        set(&mut attributes, semconv::DB_COLLECTION_NAME, &statement.collection);
        set(&mut attributes, semconv::DB_STORED_PROCEDURE_NAME, &statement.procedure);
        if texts {
            set(&mut attributes, semconv::DB_QUERY_TEXT, &statement.text);
            truncated_values = u32::from(statement.text.ends_with('…'));
        }
    }
    Request {
        key: None,
        attributes,
        hint,
        body: if rest == 0 { Body::None } else { Body::Length(rest) },
        silent: matches!(doing, Doing::Nothing),
        // Where nothing is known before it, `detect` has looked at it.
        certain: true,
        truncated_values,
        in_band: in_band.clone(),
    }
}

fn set(attributes: &mut Attributes, key: &'static str, text: &str) {
    if !text.is_empty() {
        attributes.set(key, text.to_owned());
    }
}

impl Dialect for Shared {
    fn parser(&self, limits: Limits) -> Box<dyn Parser> {
        Box::new(Postgresql::new(limits, &self.config))
    }

    fn conclude(&mut self, asked: Request, answered: Option<Response>, facts: &Facts) -> Conclusion {
        let mut attributes = asked.attributes;
        let text = |key| attributes.text(key).unwrap_or_default().to_owned();
        let (name, collection, namespace) =
            (text(semconv::DB_OPERATION_NAME), text(semconv::DB_COLLECTION_NAME), text(semconv::DB_NAMESPACE));
        let called = match (text(semconv::DB_QUERY_SUMMARY), name.as_str()) {
            (summary, _) if !summary.is_empty() => summary,
            (_, "") => SYSTEM.to_owned(),
            (_, name) => name.to_owned(),
        };
        let status = answered.as_ref().map(|response| response.status.as_str());
        // Every other status is a code.
        let code = status.filter(|status| ![OK, ABORTED].contains(status));
        let mut facts = *facts;
        if status == Some(ABORTED) {
            facts.failure = facts.failure.or(Some(ABORTED));
        }
        if let Some(response) = &answered {
            for (key, value) in response.attributes.iter() {
                attributes.set(key, value.clone());
            }
        }
        let (operation, resource) = called.split_once(' ').unwrap_or((&called, ""));
        let whole = Operation {
            system: SYSTEM,
            name: &name,
            target: resource,
            collection: &collection,
            namespace: &namespace,
            status,
            status_code: code,
            failed: true,
        };
        let mut conclusion = db::conclude(&whole, attributes, &facts);
        // A span's name begins with the summary's first word, which is not always the operation (`WITH`).
        conclusion.operation = operation.into();
        conclusion
    }
}
