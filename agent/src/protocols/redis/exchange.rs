//! Redis exchanges in neutral terms: operation, database, error.
//!
//! In: a command and the answer to it. Out: what `db` makes a conclusion of. Names that no list of commands has are
//! believed when the server did, up to a bound; any other is [`OTHER`], so that nobody can fill a label.

use std::collections::HashSet;

use crate::semconv;

use super::super::{Conclusion, Config as Protocols, Dialect, Facts, Limits, Parser, Request, Response, db};
use super::command::OTHER;
use super::{Config, Redis, commands};

const SYSTEM: &str = "redis";

/// What all Redis connections share.
struct Shared {
    config: Config,
    /// Commands of modules and later versions that were answered without an error.
    believed: HashSet<String>,
}

pub(super) fn dialect(config: &Protocols) -> Box<dyn Dialect> {
    Box::new(Shared { config: config.redis.clone(), believed: HashSet::new() })
}

impl Shared {
    fn believes(&mut self, name: &str, succeeded: bool) -> bool {
        if commands::known(name).is_some() || self.believed.contains(name) {
            return true;
        }
        let room = succeeded && self.believed.len() < self.config.other_commands;
        room && self.believed.insert(name.to_owned())
    }
}

impl Dialect for Shared {
    fn parser(&self, limits: Limits) -> Box<dyn Parser> {
        Box::new(Redis::new(limits, &self.config))
    }

    fn conclude(&mut self, asked: Request, answered: Option<Response>, facts: &Facts) -> Conclusion {
        let mut attributes = asked.attributes;
        let answer = answered.as_ref().map(|answered| &answered.attributes);
        let code = answer.and_then(|answer| answer.text(semconv::DB_RESPONSE_STATUS_CODE));
        let succeeded = answered.is_some() && code.is_none();
        let mut name = attributes.text(semconv::DB_OPERATION_NAME).unwrap_or(OTHER).to_owned();
        if name != OTHER && !self.believes(&name, succeeded) {
            // The name may be anything, in the statement too.
            OTHER.clone_into(&mut name);
            attributes.set(semconv::DB_QUERY_TEXT, OTHER);
        }
        if let Some(batch) = answer.and_then(|answer| answer.get(semconv::DB_OPERATION_BATCH_SIZE)) {
            attributes.set(semconv::DB_OPERATION_BATCH_SIZE, batch.clone());
        }
        let operation = db::Operation {
            system: SYSTEM,
            name: &name,
            // The one that it worked in, not the one that a SELECT asked for.
            namespace: answer.and_then(|answer| answer.text(semconv::DB_NAMESPACE)).unwrap_or_default(),
            status: answered.as_ref().map(|answered| answered.status.as_str()),
            status_code: code,
            failed: code.is_some(),
            ..db::Operation::default()
        };
        attributes.remove(semconv::DB_NAMESPACE);
        db::conclude(&operation, attributes, facts)
    }
}
