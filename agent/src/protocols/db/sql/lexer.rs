//! Bytes of SQL to tokens: names, literals, parameters, signs. Comments and white space come out as nothing.
//!
//! Works on the beginning of a statement too: a name or parameter that the cut goes through is left out, a string
//! without its end goes to the end of the bytes. Linear, allocates nothing. Does not know any grammar.

use super::{Backslash, Syntax};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A keyword or a name.
    Word,
    /// A name in quotes, which are part of the text.
    Quoted,
    /// A string or a number, whatever is written in front of its quote (`E'…'`).
    Literal,
    /// `$1`.
    Parameter,
    /// One byte of punctuation or of an operator.
    Sign,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    pub(super) text: &'a [u8],
    /// White space or a comment stands before it.
    pub(super) spaced: bool,
}

pub(super) struct Tokens<'a> {
    bytes: &'a [u8],
    at: usize,
    syntax: Syntax,
    cut: bool,
    /// Where the last comment lies that names a trace.
    tracing: Option<(usize, usize)>,
}

/// What a comment holds that names a trace.
const TRACING: &[u8] = b"traceparent";

fn begins_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn continues_word(byte: u8) -> bool {
    begins_word(byte) || byte.is_ascii_digit() || byte == b'$'
}

impl<'a> Tokens<'a> {
    pub(super) fn new(bytes: &'a [u8], cut: bool, syntax: Syntax) -> Self {
        Self { bytes, at: 0, syntax, cut, tracing: None }
    }

    /// What stands in the last comment that was passed by and names a trace.
    pub(super) fn tracing_comment(&self) -> Option<&'a [u8]> {
        let (from, to) = self.tracing?;
        self.bytes.get(from..to)
    }

    /// Whether anything of the statement is not among the tokens.
    pub(super) fn is_cut(&self) -> bool {
        self.cut
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn ahead(&self, by: usize) -> Option<u8> {
        self.bytes.get(self.at + by).copied()
    }

    fn ends(&self) -> bool {
        self.at >= self.bytes.len()
    }

    fn skip_while(&mut self, wanted: impl Fn(u8) -> bool) {
        self.at += self.rest().iter().take_while(|byte| wanted(**byte)).count();
    }

    pub(super) fn next_token(&mut self) -> Option<Token<'a>> {
        let before = self.at;
        self.skip_blank();
        let (spaced, from) = (self.at > before, self.at);
        let first = self.ahead(0)?;
        let kind = self.token(first);
        let text = self.bytes.get(from..self.at)?;
        // Its rest may be behind the cut, and half a name is another name.
        if self.cut && self.ends() && matches!(kind, Kind::Word | Kind::Quoted | Kind::Parameter) {
            return None;
        }
        Some(Token { kind, text, spaced })
    }

    fn skip_blank(&mut self) {
        loop {
            self.skip_while(|byte| byte.is_ascii_whitespace() || byte == 0x0b);
            match (self.ahead(0), self.ahead(1)) {
                (Some(b'-'), Some(b'-')) if !self.syntax.hash_comments || self.dash_is_comment() => {
                    self.skip_while(|byte| byte != b'\n');
                }
                (Some(b'#'), _) if self.syntax.hash_comments => self.skip_while(|byte| byte != b'\n'),
                (Some(b'/'), Some(b'*')) => self.skip_comment(),
                _ => return,
            }
        }
    }

    fn dash_is_comment(&self) -> bool {
        self.ahead(2).is_none_or(|byte| byte.is_ascii_whitespace() || byte.is_ascii_control())
    }

    fn skip_comment(&mut self) {
        let mut depth = 0usize;
        let from = self.at + 2;
        while !self.ends() {
            match (self.ahead(0), self.ahead(1)) {
                (Some(b'/'), Some(b'*')) if depth == 0 || self.syntax.nested_comments => {
                    depth += 1;
                    self.at += 2;
                }
                (Some(b'*'), Some(b'/')) => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        let text = self.bytes.get(from..self.at - 2).unwrap_or_default();
                        if text.windows(TRACING.len()).any(|window| window == TRACING) {
                            self.tracing = Some((from, self.at - 2));
                        }
                        return;
                    }
                }
                _ => self.at += 1,
            }
        }
    }

    fn token(&mut self, first: u8) -> Kind {
        match first {
            b'\'' => self.string(1, self.syntax.backslash),
            b'"' if self.syntax.double_quoted_names => self.quoted(b'"'),
            b'"' => self.string(1, self.syntax.backslash),
            b'`' if self.syntax.backtick_names => self.quoted(b'`'),
            b'$' if self.syntax.dollar_quotes => self.dollar(),
            b'0'..=b'9' => self.number(),
            b'.' if self.ahead(1).is_some_and(|byte| byte.is_ascii_digit()) => self.number(),
            byte if begins_word(byte) || byte == b'$' => self.word(),
            _ => {
                self.at += 1;
                Kind::Sign
            }
        }
    }

    fn word(&mut self) -> Kind {
        let from = self.at;
        self.skip_while(continues_word);
        let word = self.bytes.get(from..self.at).unwrap_or_default();
        match (word, self.ahead(0), self.ahead(1)) {
            ([b'e' | b'E'], Some(b'\''), _) => self.string(1, Backslash::Escapes),
            ([b'b' | b'B' | b'x' | b'X' | b'n' | b'N'], Some(b'\''), _) => self.string(1, self.syntax.backslash),
            ([b'u' | b'U'], Some(b'&'), Some(b'\'')) => self.string(2, self.syntax.backslash),
            ([b'u' | b'U'], Some(b'&'), Some(b'"')) if self.syntax.double_quoted_names => {
                self.at += 1;
                self.quoted(b'"')
            }
            _ => Kind::Word,
        }
    }

    /// Digits and whatever is stuck to them: nothing of that is a name.
    fn number(&mut self) -> Kind {
        let from = self.at;
        loop {
            self.skip_while(|byte| continues_word(byte) || byte == b'.');
            let number = self.bytes.get(from..self.at).unwrap_or_default();
            let hexadecimal = matches!(number, [b'0', b'x' | b'X', ..]);
            let exponent = matches!(number, [.., b'e' | b'E']) && !hexadecimal;
            let signed = matches!(self.ahead(0), Some(b'+' | b'-'));
            if !(exponent && signed && self.ahead(1).is_some_and(|byte| byte.is_ascii_digit())) {
                return Kind::Literal;
            }
            self.at += 1;
        }
    }

    /// A string whose quote is the last of the next `opening` bytes; doubled quotes are part of it.
    fn string(&mut self, opening: usize, backslash: Backslash) -> Kind {
        self.at += opening;
        let quote = self.bytes.get(self.at - 1).copied().unwrap_or(b'\'');
        let mut escaped = false;
        while let Some(byte) = self.ahead(0) {
            self.at += 1;
            if byte == b'\\' {
                escaped = !escaped;
                continue;
            }
            if byte == quote {
                match (escaped, backslash) {
                    (true, Backslash::Escapes) => {}
                    (true, Backslash::Unknown) => {
                        self.give_up();
                        return Kind::Literal;
                    }
                    (false, _) if self.ahead(0) == Some(quote) => self.at += 1,
                    (false, _) => return Kind::Literal,
                }
            }
            escaped = false;
        }
        Kind::Literal
    }

    /// Nothing behind this can be told apart any more.
    fn give_up(&mut self) {
        self.at = self.bytes.len();
        self.cut = true;
    }

    fn quoted(&mut self, quote: u8) -> Kind {
        self.at += 1;
        while let Some(byte) = self.ahead(0) {
            self.at += 1;
            if byte == quote {
                if self.ahead(0) != Some(quote) {
                    return Kind::Quoted;
                }
                self.at += 1;
            }
        }
        // Without its end it may hold anything.
        self.cut = true;
        Kind::Quoted
    }

    /// `$1`, or `$tag$ … $tag$`.
    fn dollar(&mut self) -> Kind {
        let from = self.at;
        self.at += 1;
        if self.ahead(0).is_some_and(|byte| byte.is_ascii_digit()) {
            self.skip_while(|byte| continues_word(byte) && byte != b'$');
            let digits = self.bytes.get(from + 1..self.at).unwrap_or_default();
            return if digits.iter().all(u8::is_ascii_digit) { Kind::Parameter } else { Kind::Literal };
        }
        self.skip_while(|byte| continues_word(byte) && byte != b'$');
        if self.ahead(0) != Some(b'$') {
            // No quote, and no SQL either: if the cut goes through it, its rest may make it one.
            self.cut |= self.ends();
            return Kind::Literal;
        }
        self.at += 1;
        let tag = self.bytes.get(from..self.at).unwrap_or_default();
        let found = self.rest().windows(tag.len()).position(|window| window == tag);
        self.at = found.map_or(self.bytes.len(), |place| self.at + place + tag.len());
        Kind::Literal
    }
}
