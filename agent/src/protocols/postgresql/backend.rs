//! The server's messages to answers: which of them belong to the request that is due, where it ends, and how it went.
//!
//! A simple query ends at `ReadyForQuery`; an execution at its own end; a `Sync` at `ReadyForQuery`. After an error in
//! a pipeline the server skips all until the next `Sync`: each execution in between gets an answer that says so. A
//! message that cannot answer what is due means that the two streams are not where they seemed to be: broken, never
//! guessed. Keeps a few numbers per connection.

use crate::model::attributes::Attributes;
use crate::semconv;

use super::super::Response;
use super::detect::{is_state, is_tag};
use super::exchange::{ABORTED, OK};
use super::wire::{Message, text};
use super::{HINT_ACKS, HINT_EXECUTE, HINT_FUNCTION, HINT_QUERY, HINT_STARTUP, HINT_SYNC, HINT_SYNC_NAMES};

/// What a message means for the answer that is due.
#[derive(Debug)]
pub(super) enum Meaning {
    /// It belongs to the answer, which goes on.
    Goes,
    /// It belongs to nothing that was asked.
    Aside,
    /// The answer is over with this message.
    Over(Response),
    Wrong(&'static str),
}

use Meaning::{Aside, Goes, Over, Wrong};

#[derive(Debug, Default)]
pub(super) struct Answers {
    /// A message of the answer that is due was read.
    begun: bool,
    rows: i64,
    /// The answer tells how many rows came.
    has_rows: bool,
    /// `SQLSTATE`.
    error: Option<String>,
    /// Completions of single steps so far.
    acks: u8,
    /// An error in a pipeline: the server skips all until the next `Sync`.
    failed: bool,
    /// The execution that is over took rows from the client.
    copied: bool,
}

impl Answers {
    /// Everything of the stream is unknown from here on.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// What is certain of an answer whose rest is lost: an error in a simple query is its last word.
    pub(super) fn cut(&mut self) -> Option<Response> {
        self.error.is_some().then(|| self.over())
    }

    /// The answer of a request that gets none, if the message with this tag is for a later one. `copy_syncs`: how many
    /// `Sync`s the server ignored because they came while it took rows.
    pub(super) fn before(&mut self, tag: u8, hint: Option<u8>, copy_syncs: &mut u8) -> Option<Response> {
        match (tag, plain(hint?)) {
            (b'Z', HINT_SYNC) if self.copied && *copy_syncs > 0 => {
                *copy_syncs -= 1;
                Some(response(OK, Attributes::default()))
            }
            (b'Z', hint) if self.failed && hint != HINT_SYNC => Some(response(ABORTED, Attributes::default())),
            _ => None,
        }
    }

    /// What a message means where a request with this `hint` is due.
    pub(super) fn read(&mut self, message: &Message<'_>, hint: Option<u8>) -> Meaning {
        if let Some(reason) = wrong_length(message) {
            return Wrong(reason);
        }
        let Some(hint) = hint.map(plain) else {
            // A server that stops says so to everybody.
            return if matches!(message.tag, b'N' | b'S' | b'A' | b'E') {
                Aside
            } else {
                Wrong("response_without_request")
            };
        };
        if matches!(message.tag, b'N' | b'S' | b'A') {
            return if self.begun { Goes } else { Aside };
        }
        if self.failed {
            return match (message.tag, hint) {
                (b'Z', HINT_SYNC) => self.ready(),
                (b'E', _) => self.error(message, hint),
                _ => Wrong("message_after_error"),
            };
        }
        self.begun = true;
        match (message.tag, hint) {
            (b'E', _) => self.error(message, hint),
            (b'Z', HINT_SYNC) => self.ready(),
            (b'Z', HINT_STARTUP | HINT_QUERY | HINT_FUNCTION) => Over(self.over()),
            (b'R' | b'K' | b'v', HINT_STARTUP) | (b'V', HINT_FUNCTION) => Goes,
            (b'W', HINT_QUERY) => {
                // Both sides send what is no answer to anything from here on.
                let mut response = self.over();
                response.opaque_after = true;
                Over(response)
            }
            (b'T' | b'H' | b'd' | b'c' | b'I', HINT_QUERY)
            | (b'T' | b't' | b'n' | b'1' | b'2' | b'3' | b'H' | b'd' | b'c', HINT_EXECUTE) => {
                self.has_rows |= message.tag == b'T';
                Goes
            }
            (b'G', HINT_QUERY) => Goes,
            (b'G', HINT_EXECUTE) => {
                self.copied = true;
                Goes
            }
            (b'D', HINT_QUERY | HINT_EXECUTE) => {
                self.has_rows = true;
                self.rows = self.rows.saturating_add(1);
                Goes
            }
            (b'C', HINT_QUERY | HINT_EXECUTE) => self.complete(message, hint),
            (b's' | b'I', HINT_EXECUTE) => Over(self.over()),
            (b'1' | b'2' | b'3' | b't' | b'T' | b'n', HINT_SYNC) => Goes,
            (b't', HINT_ACKS..) => Goes,
            (b'1' | b'2' | b'3' | b'T' | b'n', HINT_ACKS..) => {
                self.acks = self.acks.saturating_add(1);
                if self.acks >= hint - HINT_ACKS { Over(self.over()) } else { Goes }
            }
            (b'Z', _) => Wrong("ready_too_early"),
            _ => Wrong("message_kind"),
        }
    }

    fn complete(&mut self, message: &Message<'_>, hint: u8) -> Meaning {
        match text(message.contents) {
            Some((tag, _)) if is_tag(tag) => {
                self.has_rows |= tag.starts_with(b"SELECT ") || tag.starts_with(b"FETCH ");
                if hint == HINT_EXECUTE { Over(self.over()) } else { Goes }
            }
            _ => Wrong("command_tag"),
        }
    }

    fn error(&mut self, message: &Message<'_>, hint: u8) -> Meaning {
        let Some(error) = Failure::of(message.contents) else { return Wrong("error_fields") };
        self.error.get_or_insert(error.code);
        let piped = matches!(hint, HINT_EXECUTE | HINT_SYNC | HINT_ACKS..);
        self.failed |= piped;
        // No `ReadyForQuery` follows a log-in that failed or a connection that ends.
        if error.fatal || matches!(hint, HINT_EXECUTE | HINT_ACKS.. | HINT_STARTUP) { Over(self.over()) } else { Goes }
    }

    fn ready(&mut self) -> Meaning {
        // What was prepared for this `Sync` alone was skipped with the rest.
        if self.failed && self.error.is_none() {
            self.error = Some(ABORTED.to_owned());
        }
        self.copied = false;
        self.failed = false;
        self.has_rows = false;
        Over(self.over())
    }

    fn over(&mut self) -> Response {
        let mut attributes = Attributes::default();
        let error = self.error.take();
        if self.has_rows && error.is_none() {
            attributes.set(semconv::DB_RESPONSE_RETURNED_ROWS, self.rows);
        }
        let (failed, copied) = (self.failed, self.copied);
        *self = Self { failed, copied, ..Self::default() };
        response(error.as_deref().unwrap_or(OK), attributes)
    }
}

/// Every kind of `Sync` is answered in the same way.
fn plain(hint: u8) -> u8 {
    if (HINT_SYNC_NAMES..HINT_ACKS).contains(&hint) { HINT_SYNC } else { hint }
}

fn response(status: &str, attributes: Attributes) -> Response {
    Response { key: None, status: status.into(), attributes, body: super::super::Body::None, opaque_after: false }
}

/// Messages whose type fixes their length.
fn wrong_length(message: &Message<'_>) -> Option<&'static str> {
    let length = message.contents.len() as u64 + message.rest;
    let right = match message.tag {
        b'1' | b'2' | b'3' | b'I' | b'c' | b'n' | b's' => length == 0,
        b'Z' => length == 1 && matches!(message.contents, [b'I' | b'T' | b'E']),
        b'A' | b'C' | b'D' | b'E' | b'G' | b'H' | b'K' | b'N' | b'R' | b'S' | b'T' | b'V' | b'W' | b'd' | b't'
        | b'v' => true,
        _ => return Some("message_type"),
    };
    (!right).then_some("message_length")
}

/// Whether the fields of an error say that the server ends the connection: it may say so unasked.
pub(super) fn ends_connection(fields: &[u8]) -> bool {
    Failure::of(fields).is_some_and(|failure| failure.fatal)
}

struct Failure {
    code: String,
    fatal: bool,
}

impl Failure {
    fn of(fields: &[u8]) -> Option<Self> {
        let mut rest = fields;
        let mut fatal = false;
        while let Some((kind, value)) = rest.split_first() {
            let (value, behind) = text(value)?;
            match kind {
                // `V` is never translated; servers before 9.6 have only `S`.
                b'S' | b'V' => fatal |= matches!(value, b"FATAL" | b"PANIC"),
                b'C' if is_state(value) => {
                    return Some(Self { code: String::from_utf8_lossy(value).into_owned(), fatal });
                }
                b'C' => return None,
                _ => {}
            }
            rest = behind;
        }
        None
    }
}
