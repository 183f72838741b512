//! Tokens of a statement to its masked text: `?` for a literal, single spaces, lists made short, a bound kept.
//!
//! `IN (1, 2, 3)` becomes `IN (?)`, `VALUES (1, 2), (3, 4)` becomes `VALUES (?)`: a list's length is not kept, and
//! of a list of parameters in `IN` the first is. Where the bound is reached the text ends with `…`.

use super::lexer::{Kind, Token};

/// Groups in brackets, one in another, that are looked at for repetition.
const MAX_DEPTH: usize = 32;

#[derive(Debug)]
pub(super) struct Mask {
    text: String,
    limit: usize,
    full: bool,
    /// Open brackets.
    groups: Vec<Group>,
    /// Brackets deeper than [`MAX_DEPTH`].
    deeper: usize,
    /// Where the last group of nothing but values lies, while nothing but a comma came after it.
    values: Option<usize>,
    /// A comma behind a value, not yet written.
    comma: Option<bool>,
    last: Last,
}

#[derive(Clone, Copy, Debug)]
struct Group {
    /// Of its bracket in the text.
    at: usize,
    /// Only literals, parameters and commas.
    values: bool,
    /// Of `IN`.
    list: bool,
    /// Length of the text at the end of the group of values before it.
    before: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    Literal,
    Parameter,
    In,
    Other,
}

impl Mask {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            text: String::new(),
            limit,
            full: false,
            groups: Vec::new(),
            deeper: 0,
            values: None,
            comma: None,
            last: Last::Other,
        }
    }

    pub(super) fn add(&mut self, token: &Token<'_>) {
        if self.full {
            return;
        }
        let list = self.groups.last().is_some_and(|group| group.list);
        let repeats = match token.kind {
            Kind::Literal => self.last == Last::Literal,
            Kind::Parameter => self.last == Last::Parameter && list,
            _ => false,
        };
        if repeats && self.comma.take().is_some() {
            return;
        }
        if token.text == b"," && matches!(self.last, Last::Literal | Last::Parameter) && self.comma.is_none() {
            self.comma = Some(token.spaced);
            return;
        }
        if let Some(spaced) = self.comma.take() {
            self.write(",", spaced);
        }
        match (token.kind, token.text) {
            (Kind::Sign, b"(") => self.open(token.spaced),
            (Kind::Sign, b")") => self.close(token.spaced),
            (Kind::Sign, b",") => self.write(",", token.spaced),
            (Kind::Literal, _) => {
                self.values = None;
                self.write("?", token.spaced);
            }
            (Kind::Parameter, text) => {
                self.values = None;
                self.write(&String::from_utf8_lossy(text), token.spaced);
            }
            (_, text) => {
                self.values = None;
                if let Some(group) = self.groups.last_mut() {
                    group.values = false;
                }
                self.write(&String::from_utf8_lossy(text), token.spaced);
            }
        }
        self.last = match token.kind {
            Kind::Literal => Last::Literal,
            Kind::Parameter => Last::Parameter,
            Kind::Word if token.text.eq_ignore_ascii_case(b"in") => Last::In,
            _ => Last::Other,
        };
    }

    fn open(&mut self, spaced: bool) {
        if let Some(group) = self.groups.last_mut() {
            group.values = false;
        }
        let before = self.values.take();
        let list = self.last == Last::In;
        self.write("(", spaced);
        if self.groups.len() < MAX_DEPTH {
            let at = self.text.len();
            self.groups.push(Group { at, values: true, list, before });
        } else {
            self.deeper += 1;
        }
    }

    fn close(&mut self, spaced: bool) {
        self.write(")", spaced);
        if self.deeper > 0 {
            self.deeper -= 1;
            return;
        }
        self.values = None;
        if let Some(group) = self.groups.pop()
            && group.values
            && group.at < self.text.len().saturating_sub(1)
            && !self.full
        {
            if let Some(end) = group.before {
                self.text.truncate(end);
            }
            self.values = Some(self.text.len());
        }
    }

    fn write(&mut self, text: &str, spaced: bool) {
        let spaced = spaced && !self.text.is_empty();
        if self.text.len() + usize::from(spaced) + text.len() > self.limit {
            self.full = true;
            return;
        }
        if spaced {
            self.text.push(' ');
        }
        self.text.push_str(text);
    }

    /// `cut`: something of the statement is not among the tokens.
    pub(super) fn finish(mut self, cut: bool) -> String {
        if cut || self.full {
            self.text.push('…');
        }
        self.text
    }
}
