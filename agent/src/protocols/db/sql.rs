//! A statement in SQL to what may be kept of it: masked text, summary, names of operation and collection.
//!
//! In: the bytes of a statement, or of its beginning only; out: a [`Statement`]. Never keeps a literal: strings and numbers become
//! `?`, comments are dropped once their trace ids are read, and where a string's end depends on a setting that is not known, all that follows is
//! masked. One pass, no grammar: what is no SQL gives an empty operation. Parameters (`$1`) are kept, their values
//! are not here. Texts are bounded by the caller, a summary by 255 bytes as in OpenTelemetry's conventions.

mod lexer;
mod mask;
mod summary;

use crate::model::context::InBand;

use super::super::context;

use self::lexer::Tokens;
use self::mask::Mask;
use self::summary::Summary;

/// What differs between the databases.
#[derive(Clone, Copy, Debug)]
pub struct Syntax {
    /// What a backslash does in an ordinary string.
    pub backslash: Backslash,
    /// `$tag$ … $tag$` is a string.
    pub dollar_quotes: bool,
    /// `"…"` is a name; otherwise it is a string.
    pub double_quoted_names: bool,
    /// `` `…` `` is a name.
    pub backtick_names: bool,
    /// `#` begins a comment, and `--` only before white space.
    pub hash_comments: bool,
    /// `/* /* */ */` is one comment.
    pub nested_comments: bool,
}

/// What a backslash does in an ordinary string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backslash {
    /// Escapes the byte behind it.
    Escapes,
    /// A setting decides (`standard_conforming_strings`): where that moves the string's end, nothing behind it is kept.
    Unknown,
}

pub const POSTGRESQL: Syntax = Syntax {
    backslash: Backslash::Unknown,
    dollar_quotes: true,
    double_quoted_names: true,
    backtick_names: false,
    hash_comments: false,
    nested_comments: true,
};

/// What is kept of a statement, or of several in one text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statement {
    /// Masked, white space made single, lists of literals made one; ends with `…` where it was cut.
    pub text: String,
    /// `db.query.summary`: verbs and the tables they act on, in order.
    pub summary: String,
    /// The verb; empty where it is not known, or where several statements have different ones.
    pub operation: String,
    /// The table, where it is only one.
    pub collection: String,
    /// Of `CALL`.
    pub procedure: String,
    /// The trace that a comment says it belongs to.
    pub in_band: InBand,
}

/// Reads a statement. `cut`: the bytes are only its beginning. `text_bytes`: most bytes of masked text kept.
pub fn read(bytes: &[u8], cut: bool, syntax: &Syntax, text_bytes: usize) -> Statement {
    let mut mask = Mask::new(text_bytes);
    let mut summary = Summary::default();
    let mut tokens = Tokens::new(bytes, cut, *syntax);
    while let Some(token) = tokens.next_token() {
        mask.add(&token);
        summary.add(&token);
    }
    let text = mask.finish(tokens.is_cut());
    let in_band = tokens.tracing_comment().map(context::comment).unwrap_or_default();
    let names = summary.finish();
    Statement {
        text,
        summary: names.summary,
        operation: names.operation,
        collection: names.collection,
        procedure: names.procedure,
        in_band,
    }
}

/// Whether a statement can begin with these bytes: a word that begins one, behind white space, comments and `(`.
/// `None`: too few bytes to tell.
pub fn begins(bytes: &[u8], cut: bool, syntax: &Syntax) -> Option<bool> {
    let mut tokens = Tokens::new(bytes, cut, *syntax);
    while let Some(token) = tokens.next_token() {
        match token.kind {
            lexer::Kind::Sign if matches!(token.text, b"(" | b";") => {}
            lexer::Kind::Word => return Some(summary::verb(token.text).is_some()),
            _ => return Some(false),
        }
    }
    // White space alone is an empty statement.
    if cut { None } else { Some(true) }
}

#[cfg(test)]
mod tests;
