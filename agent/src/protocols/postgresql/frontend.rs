//! The client's messages to requests: one for each statement executed, with what its name was prepared for.
//!
//! `Parse`, `Bind`, `Describe` and `Close` are the beginning of the `Execute`, `Flush` or `Sync` behind them; a statement that was prepared
//! and not executed by then is a request of its own. `Sync` and log-in take their turn and are nobody's exchange.
//! Values of parameters, passwords and rows are skipped by their length and never looked at.

use std::sync::Arc;

use super::super::Request;
use super::super::db::sql::{self, POSTGRESQL, Statement};
use super::exchange::{Doing, request};
use super::statements::{MAX_NAME_BYTES, Prepared};
use super::wire::{CANCEL_REQUEST, GSSENC_REQUEST, Message, SSL_REQUEST, text};
use super::{
    Config, HINT_ACKS, HINT_CANCEL, HINT_ENCRYPT, HINT_EXECUTE, HINT_FUNCTION, HINT_QUERY, HINT_STARTUP, HINT_SYNC,
    HINT_SYNC_NAMES, SYNCS_WITH_NAMES,
};

/// Most steps that wait for one answer: as many as a hint can say.
const MAX_ACKS: u8 = 200;
/// Names in doubt at once.
const MAX_DOUBTFUL: usize = 8;
/// Longest name of a database that is kept: the server's limit.
const MAX_DATABASE_BYTES: usize = 63;

type NamedStatement = (Box<[u8]>, Arc<Statement>);

/// What a message means.
#[derive(Debug)]
pub(super) enum Meaning {
    /// The beginning of a request.
    Goes,
    Aside,
    Request(Request),
    Wrong(&'static str),
}

use Meaning::{Aside, Goes, Wrong};

/// Steps since the last request.
#[derive(Debug, Default)]
struct Steps {
    prepared: Option<Arc<Statement>>,
    /// How many of them are answered.
    acks: u8,
}

#[derive(Debug)]
pub(super) struct Asks {
    texts: bool,
    statement_bytes: usize,
    database: Option<String>,
    /// All that the client sent since its log-in was read.
    knows_all: bool,
    prepared: Prepared,
    /// Names given since the last `Sync` that may have been taken before.
    doubtful: Vec<NamedStatement>,
    /// The same before a `Sync`, with its hint.
    awaiting: Option<(u8, Vec<NamedStatement>)>,
    batches: u8,
    steps: Steps,
    /// `Sync`s since the last execution.
    syncs: u8,
    /// Of those, how many came before the rows of a `COPY` ended: the server ignores them.
    pub(super) copy_syncs: u8,
}

impl Asks {
    pub(super) fn new(config: &Config, head_bytes: usize) -> Self {
        Self {
            texts: config.statement,
            statement_bytes: config.statement_bytes,
            database: None,
            knows_all: false,
            prepared: Prepared::new(config.statements_per_connection, head_bytes),
            doubtful: Vec::new(),
            awaiting: None,
            batches: 0,
            steps: Steps::default(),
            syncs: 0,
            copy_syncs: 0,
        }
    }

    /// Bytes were lost: only what cannot change on a connection is still known.
    pub(super) fn clear(&mut self) {
        self.knows_all = false;
        self.doubtful = Vec::new();
        self.awaiting = None;
        self.prepared.clear();
        self.steps = Steps::default();
        self.syncs = 0;
        self.copy_syncs = 0;
    }

    /// Answers were lost: what waits for one stays unknown.
    pub(super) fn doubt(&mut self) {
        self.awaiting = None;
    }

    /// The `Sync` with this hint was answered.
    pub(super) fn answered(&mut self, hint: u8, well: bool) {
        if let Some((_, names)) = self.awaiting.take_if(|(awaited, _)| *awaited == hint)
            && well
        {
            names.iter().for_each(|(name, statement)| self.prepared.prepare(name, statement));
        }
    }

    /// Where not all is known that the client sent, a name may have been taken before: behind the `Sync` it counts only
    /// once the server has taken it. Gives the `Sync` its hint.
    fn end_batch(&mut self) -> u8 {
        let names = std::mem::take(&mut self.doubtful);
        if names.is_empty() {
            return HINT_SYNC;
        }
        names.iter().for_each(|(name, _)| self.prepared.close(b'S', name));
        if self.awaiting.is_some() {
            return HINT_SYNC;
        }
        // A number of its own: an older `Sync` may still be answered.
        self.batches = (self.batches + 1) % SYNCS_WITH_NAMES;
        let hint = HINT_SYNC_NAMES + self.batches;
        self.awaiting = Some((hint, names));
        hint
    }

    pub(super) fn bytes(&self) -> usize {
        self.prepared.bytes()
    }

    /// Whether messages were read that belong to a request still to come.
    pub(super) fn has_steps(&self) -> bool {
        self.steps.acks > 0
    }

    /// The request that has to be made of the steps so far before a message with this tag.
    pub(super) fn before(&mut self, tag: u8) -> Option<Request> {
        let ends = match tag {
            b'P' => self.steps.prepared.is_some(),
            // Nothing of the other way to ask belongs to these.
            b'Q' | b'F' | 0 => self.has_steps(),
            _ => false,
        };
        (ends || self.steps.acks >= MAX_ACKS).then(|| self.of_steps())
    }

    fn of_steps(&mut self) -> Request {
        let steps = std::mem::take(&mut self.steps);
        let doing = steps.prepared.map_or(Doing::Nothing, Doing::Preparing);
        self.request(&doing, HINT_ACKS + steps.acks, 0)
    }

    fn request(&self, doing: &Doing, hint: u8, rest: u64) -> Request {
        request(doing, hint, rest, self.database.as_deref(), self.texts)
    }

    fn step(&mut self) -> Meaning {
        self.steps.acks += 1;
        Goes
    }

    pub(super) fn read(&mut self, message: &Message<'_>) -> Meaning {
        let (contents, rest) = (message.contents, message.rest);
        let length = contents.len() as u64 + rest;
        match message.tag {
            0 => self.untyped(message),
            b'Q' => {
                let Some(statement) = self.statement(contents, rest) else { return Wrong("query") };
                self.prepared.end_unnamed();
                self.forget_freed(&statement);
                Meaning::Request(self.request(&Doing::Statement(Arc::new(statement)), HINT_QUERY, rest))
            }
            b'P' => {
                let Some((name, behind)) = text(contents) else { return self.unnamed_step(rest) };
                let Some(statement) = self.statement_of_parse(behind, rest) else { return Wrong("parse") };
                let statement = Arc::new(statement);
                self.prepared.prepare(name, &statement);
                if !self.knows_all && !name.is_empty() {
                    if self.doubtful.len() < MAX_DOUBTFUL && name.len() <= MAX_NAME_BYTES {
                        self.doubtful.push((name.into(), Arc::clone(&statement)));
                    } else {
                        self.prepared.close(b'S', name);
                    }
                }
                self.steps.prepared = Some(statement);
                self.step()
            }
            b'B' => {
                let Some((portal, behind)) = text(contents) else { return self.unnamed_step(rest) };
                match text(behind) {
                    Some((name, _)) => self.prepared.bind(portal, name),
                    // Too long a name is one that is not known.
                    None if rest > 0 => self.prepared.close(b'P', portal),
                    None => return Wrong("bind"),
                }
                self.step()
            }
            b'D' | b'C' => match contents.split_first() {
                Some((kind @ (b'S' | b'P'), name)) => {
                    if message.tag == b'C'
                        && let Some((name, _)) = text(name)
                    {
                        self.prepared.close(*kind, name);
                    }
                    self.step()
                }
                _ => Wrong("describe_or_close"),
            },
            b'E' => {
                let statement = text(contents).and_then(|(portal, _)| self.prepared.of_portal(portal));
                let steps = std::mem::take(&mut self.steps);
                self.syncs = 0;
                if let Some(statement) = &statement {
                    self.forget_freed(statement);
                }
                let doing = match (statement, steps.prepared) {
                    (Some(statement), Some(now)) if Arc::ptr_eq(&statement, &now) => Doing::Statement(statement),
                    (Some(statement), _) => Doing::Prepared(statement),
                    (None, _) => Doing::Unknown,
                };
                Meaning::Request(self.request(&doing, HINT_EXECUTE, rest))
            }
            b'H' | b'S' | b'X' | b'c' if length > 0 => Wrong("message_length"),
            b'H' if self.has_steps() => Meaning::Request(self.of_steps()),
            b'S' => {
                self.syncs = self.syncs.saturating_add(1);
                let steps = std::mem::take(&mut self.steps);
                let doing = steps.prepared.map_or(Doing::Nothing, Doing::Preparing);
                let hint = self.end_batch();
                Meaning::Request(self.request(&doing, hint, 0))
            }
            b'F' => Meaning::Request(self.request(&Doing::Function, HINT_FUNCTION, rest)),
            b'c' | b'f' => {
                self.copy_syncs = std::mem::take(&mut self.syncs);
                self.aside()
            }
            b'H' | b'X' | b'd' | b'p' => self.aside(),
            _ => Wrong("message_type"),
        }
    }

    /// Without the beginning of a request before it, a message belongs to none.
    fn aside(&self) -> Meaning {
        if self.has_steps() { Goes } else { Aside }
    }

    /// A name that does not end within what is kept.
    fn unnamed_step(&mut self, rest: u64) -> Meaning {
        if rest == 0 {
            return Wrong("name");
        }
        self.prepared.end_unnamed();
        self.step()
    }

    fn statement(&self, contents: &[u8], rest: u64) -> Option<Statement> {
        let (bytes, cut) = match text(contents) {
            Some((bytes, b"")) if rest == 0 => (bytes, false),
            None if rest > 0 => (contents, true),
            _ => return None,
        };
        Some(sql::read(bytes, cut, &POSTGRESQL, self.statement_bytes))
    }

    /// Types of parameters follow the statement.
    fn statement_of_parse(&self, contents: &[u8], rest: u64) -> Option<Statement> {
        let (bytes, cut) = match text(contents) {
            Some((bytes, _)) => (bytes, false),
            None if rest > 0 => (contents, true),
            None => return None,
        };
        Some(sql::read(bytes, cut, &POSTGRESQL, self.statement_bytes))
    }

    /// Statements that free the names of others.
    fn forget_freed(&mut self, statement: &Statement) {
        let summary = &statement.summary;
        if summary.contains("DEALLOCATE") || summary.contains("DISCARD") {
            self.prepared.clear();
        }
    }

    fn untyped(&mut self, message: &Message<'_>) -> Meaning {
        let hint = match message.code {
            SSL_REQUEST | GSSENC_REQUEST => HINT_ENCRYPT,
            CANCEL_REQUEST => HINT_CANCEL,
            _ => {
                self.log_in(message.contents);
                HINT_STARTUP
            }
        };
        Meaning::Request(self.request(&Doing::Nothing, hint, message.rest))
    }

    /// Pairs of strings, ended by an empty name.
    fn log_in(&mut self, contents: &[u8]) {
        self.knows_all = true;
        let mut rest = contents;
        let (mut user, mut database) = (None, None);
        while let Some((name, behind)) = text(rest).filter(|(name, _)| !name.is_empty()) {
            let Some((value, behind)) = text(behind) else { break };
            match name {
                b"user" => user = Some(value),
                b"database" => database = Some(value),
                _ => {}
            }
            rest = behind;
        }
        // Without a name it is the user's own.
        self.database = database.filter(|name| !name.is_empty()).or(user).map(|name| {
            let name = name.get(..MAX_DATABASE_BYTES).unwrap_or(name);
            String::from_utf8_lossy(name).into_owned()
        });
    }
}
