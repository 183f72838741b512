//! Tokens of a statement to its summary (`SELECT orders customers`) and the names of operation and collection.
//!
//! Verbs and the tables they act on in the order in which they are written, as OpenTelemetry describes
//! `db.query.summary`. Names of common table expressions and functions are no tables; where a word could be several
//! things it is left out. Bounded in depth, names and length. Statements in one text are told apart by `; `.

use super::lexer::{Kind, Token};

/// OpenTelemetry's bound on a summary.
const MAX_SUMMARY_BYTES: usize = 255;
const MAX_NAME_BYTES: usize = 128;
const MAX_DEPTH: usize = 32;
/// Names of common table expressions that are remembered.
const MAX_EXPRESSIONS: usize = 16;

/// What is looked at behind a verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    /// Tables, and verbs that are nested.
    Query,
    /// A query of its own, later on.
    Wrapped,
    /// `TABLE` and a name.
    Definition,
    /// A name or a list of names.
    Target,
    Procedure,
    Nothing,
}

use Behind::{Definition, Nothing, Procedure, Query, Target, Wrapped};

/// Words that begin a statement.
const VERBS: &[(&str, Behind)] = &[
    ("SELECT", Query),
    ("INSERT", Query),
    ("UPDATE", Query),
    ("DELETE", Query),
    ("MERGE", Query),
    ("REPLACE", Query),
    ("WITH", Query),
    ("VALUES", Nothing),
    ("TABLE", Target),
    ("TRUNCATE", Target),
    ("COPY", Target),
    ("LOCK", Target),
    ("CALL", Procedure),
    ("EXPLAIN", Wrapped),
    ("PREPARE", Wrapped),
    ("DECLARE", Wrapped),
    ("CREATE", Definition),
    ("ALTER", Definition),
    ("DROP", Definition),
    ("ABORT", Nothing),
    ("ANALYZE", Nothing),
    ("BASE_BACKUP", Nothing),
    ("BEGIN", Nothing),
    ("CHECKPOINT", Nothing),
    ("CLOSE", Nothing),
    ("CLUSTER", Nothing),
    ("COMMENT", Nothing),
    ("COMMIT", Nothing),
    ("CREATE_REPLICATION_SLOT", Nothing),
    ("DEALLOCATE", Nothing),
    ("DESCRIBE", Nothing),
    ("DISCARD", Nothing),
    ("DO", Nothing),
    ("DROP_REPLICATION_SLOT", Nothing),
    ("END", Nothing),
    ("EXECUTE", Nothing),
    ("FETCH", Nothing),
    ("FLUSH", Nothing),
    ("GRANT", Nothing),
    ("IDENTIFY_SYSTEM", Nothing),
    ("IMPORT", Nothing),
    ("KILL", Nothing),
    ("LISTEN", Nothing),
    ("LOAD", Nothing),
    ("MOVE", Nothing),
    ("NOTIFY", Nothing),
    ("OPTIMIZE", Nothing),
    ("REASSIGN", Nothing),
    ("REFRESH", Nothing),
    ("REINDEX", Nothing),
    ("RELEASE", Nothing),
    ("RENAME", Nothing),
    ("RESET", Nothing),
    ("REVOKE", Nothing),
    ("ROLLBACK", Nothing),
    ("SAVEPOINT", Nothing),
    ("SECURITY", Nothing),
    ("SET", Nothing),
    ("SHOW", Nothing),
    ("START", Nothing),
    ("START_REPLICATION", Nothing),
    ("TIMELINE_HISTORY", Nothing),
    ("UNLISTEN", Nothing),
    ("USE", Nothing),
    ("VACUUM", Nothing),
    ("XA", Nothing),
];

/// Words between a verb and the name it is for.
const FILLERS: &[&str] = &["ONLY", "LATERAL", "TABLE", "IF", "NOT", "EXISTS", "IGNORE", "LOW_PRIORITY", "BINARY"];
/// Words between `CREATE` and what is made.
const MODIFIERS: &[&str] = &[
    "OR",
    "REPLACE",
    "TEMP",
    "TEMPORARY",
    "UNLOGGED",
    "UNIQUE",
    "GLOBAL",
    "LOCAL",
    "MATERIALIZED",
    "RECURSIVE",
    "FOREIGN",
    "CONCURRENTLY",
    "TRUSTED",
    "DEFAULT",
    "EVENT",
];
/// What can be made; the first two have rows, and names that are worth keeping.
const KINDS: &[&str] = &[
    "TABLE",
    "VIEW",
    "INDEX",
    "SEQUENCE",
    "SCHEMA",
    "DATABASE",
    "USER",
    "ROLE",
    "GROUP",
    "FUNCTION",
    "PROCEDURE",
    "AGGREGATE",
    "TRIGGER",
    "TYPE",
    "DOMAIN",
    "EXTENSION",
    "POLICY",
    "RULE",
    "PUBLICATION",
    "SUBSCRIPTION",
    "SERVER",
    "TABLESPACE",
    "OPERATOR",
    "CAST",
    "COLLATION",
    "CONVERSION",
    "LANGUAGE",
    "STATISTICS",
    "SYSTEM",
    "OWNED",
];
/// Words that end a list of tables.
const ENDS_TABLES: &[&str] = &[
    "WHERE",
    "GROUP",
    "ORDER",
    "HAVING",
    "LIMIT",
    "OFFSET",
    "FETCH",
    "UNION",
    "INTERSECT",
    "EXCEPT",
    "FOR",
    "WINDOW",
    "RETURNING",
    "SET",
    "VALUES",
];

fn among(word: &[u8], words: &[&'static str]) -> Option<&'static str> {
    words.iter().copied().find(|known| known.as_bytes().eq_ignore_ascii_case(word))
}

/// The verb that begins a statement with this word.
pub(super) fn verb(word: &[u8]) -> Option<&'static str> {
    behind(word).map(|(verb, _)| verb)
}

fn behind(word: &[u8]) -> Option<(&'static str, Behind)> {
    VERBS.iter().copied().find(|(verb, _)| verb.as_bytes().eq_ignore_ascii_case(word))
}

fn is(word: &[u8], keyword: &str) -> bool {
    word.eq_ignore_ascii_case(keyword.as_bytes())
}

/// One level of brackets.
#[derive(Clone, Copy, Debug, Default)]
struct Level {
    /// The query that is written here.
    verb: &'static str,
    /// A comma separates tables.
    tables: bool,
    /// Between `WITH` and the query it is for.
    with: bool,
}

/// A name in parts.
#[derive(Debug)]
struct Name {
    text: String,
    /// A bracket behind it makes it a function.
    or_function: bool,
    /// Its last part is a dot.
    dotted: bool,
}

/// What the last token was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Last {
    #[default]
    Nothing,
    Open,
    /// The bracket of a common table expression.
    OpenExpression,
    Close,
    Comma,
    With,
    Distinct,
    As,
    Other,
}

#[derive(Debug, Default)]
pub(super) struct Summary {
    text: String,
    /// Verb of this statement, once there is one; and whether a later one replaces it.
    operation: Option<&'static str>,
    provisional: bool,
    /// Of the statements before.
    operations: Vec<&'static str>,
    collections: Vec<String>,
    procedure: String,
    /// What is looked at in this statement.
    mode: Option<Behind>,
    outermost: Level,
    /// Open brackets, and how many more than are looked at.
    levels: Vec<Level>,
    deeper: usize,
    /// A name comes next; `Some(true)`: or a function.
    expected: Option<bool>,
    name: Option<Name>,
    expressions: Vec<Vec<u8>>,
    last: Last,
}

/// What a whole text comes to.
pub(super) struct Names {
    pub(super) summary: String,
    pub(super) operation: String,
    pub(super) collection: String,
    pub(super) procedure: String,
}

impl Summary {
    pub(super) fn add(&mut self, token: &Token<'_>) {
        if self.continues_name(token) {
            return;
        }
        match (token.kind, token.text) {
            (Kind::Word, word) => self.word(word),
            (Kind::Quoted, text) => {
                self.begin_name(text);
                self.last = Last::Other;
            }
            (Kind::Sign, b"(") => self.open(),
            (Kind::Sign, b")") => self.close(),
            (Kind::Sign, b",") => {
                if self.level().tables {
                    self.expected = Some(true);
                }
                self.last = Last::Comma;
            }
            (Kind::Sign, b";") => self.end_statement(),
            _ => {
                self.expected = None;
                self.last = Last::Other;
            }
        }
    }

    /// Dots and what is behind them belong to a name; anything else ends it.
    fn continues_name(&mut self, token: &Token<'_>) -> bool {
        let Some(name) = &mut self.name else { return false };
        match (token.kind, token.text, name.dotted) {
            (Kind::Sign, b".", false) => {
                name.dotted = true;
                name.text.push('.');
                return true;
            }
            (Kind::Word | Kind::Quoted, text, true) => {
                name.dotted = false;
                push_name(&mut name.text, text);
                return true;
            }
            _ => {}
        }
        let is_function = name.or_function && token.text == b"(";
        self.end_name(is_function);
        false
    }

    fn begin_name(&mut self, text: &[u8]) -> bool {
        let Some(or_function) = self.expected.take() else { return false };
        let mut name = Name { text: String::new(), or_function, dotted: false };
        push_name(&mut name.text, text);
        self.name = Some(name);
        true
    }

    fn end_name(&mut self, is_function: bool) {
        let Some(name) = self.name.take() else { return };
        let text = name.text.trim_end_matches('.');
        if is_function || self.expressions.iter().any(|other| other.eq_ignore_ascii_case(text.as_bytes())) {
            return;
        }
        if self.mode == Some(Procedure) {
            self.procedure = text.to_owned();
        } else if !self.collections.iter().any(|other| other == text) && self.collections.len() < MAX_EXPRESSIONS {
            self.collections.push(text.to_owned());
        }
        self.push(text);
    }

    fn push(&mut self, word: &str) {
        let space = usize::from(!self.text.is_empty());
        if self.text.len() + space + word.len() <= MAX_SUMMARY_BYTES {
            if space > 0 {
                self.text.push(' ');
            }
            self.text.push_str(word);
        }
    }

    fn level(&mut self) -> &mut Level {
        self.levels.last_mut().unwrap_or(&mut self.outermost)
    }

    fn open(&mut self) {
        if self.levels.len() < MAX_DEPTH && self.deeper == 0 {
            let tables = self.expected.is_some() && self.mode == Some(Query);
            self.levels.push(Level { tables, ..Level::default() });
        } else {
            self.deeper += 1;
        }
        if self.mode != Some(Query) {
            self.expected = None;
        }
        self.last = if self.last == Last::As { Last::OpenExpression } else { Last::Open };
    }

    fn close(&mut self) {
        self.expected = None;
        if self.deeper > 0 {
            self.deeper -= 1;
        } else {
            self.levels.pop();
        }
        self.last = Last::Close;
    }

    fn end_statement(&mut self) {
        self.end_name(false);
        if let Some(operation) = self.operation.take() {
            self.operations.push(operation);
        }
        self.mode = None;
        self.provisional = false;
        self.outermost = Level::default();
        self.levels.clear();
        self.deeper = 0;
        self.expected = None;
        self.expressions.clear();
        self.last = Last::Nothing;
    }

    fn word(&mut self, word: &[u8]) {
        let last = std::mem::replace(&mut self.last, Last::Other);
        let Some(mode) = self.mode else { return self.first_word(word) };
        match mode {
            Query => self.word_of_query(word, last),
            Wrapped => {
                if let Some((_, Query)) = behind(word) {
                    self.mode = Some(Query);
                    self.begin_query(word);
                }
            }
            Definition => self.word_of_definition(word),
            Target | Procedure => {
                if self.expected.is_some() && among(word, FILLERS).is_none() {
                    self.begin_name(word);
                } else if self.expected.is_none() {
                    self.level().tables = false;
                }
            }
            Nothing => {}
        }
    }

    fn first_word(&mut self, word: &[u8]) {
        let Some((verb, mode)) = behind(word) else {
            self.mode = Some(Nothing);
            return;
        };
        if !self.text.is_empty() && self.text.len() < MAX_SUMMARY_BYTES {
            self.text.push(';');
        }
        self.mode = Some(mode);
        self.operation = Some(verb);
        match mode {
            Query => self.begin_query(word),
            Target => {
                self.push(verb);
                self.expected = Some(false);
                self.level().tables = verb != "COPY";
                if verb == "COPY" {
                    // `COPY (SELECT …)`.
                    self.mode = Some(Query);
                }
            }
            Procedure => {
                self.push(verb);
                self.expected = Some(false);
            }
            _ => self.push(verb),
        }
    }

    /// A verb of a query, at the beginning or nested.
    fn begin_query(&mut self, word: &[u8]) {
        let Some((verb, _)) = behind(word) else { return };
        self.push(verb);
        if self.levels.is_empty() && self.provisional {
            self.operation = Some(verb);
            self.provisional = false;
        }
        self.expected = None;
        if verb == "WITH" {
            self.provisional |= self.levels.is_empty();
            self.level().with = true;
            self.last = Last::With;
            return;
        }
        let level = self.level();
        *level = Level { verb, tables: verb == "UPDATE", with: false };
        if verb == "UPDATE" {
            self.expected = Some(false);
        }
    }

    fn word_of_query(&mut self, word: &[u8], last: Last) {
        let level = *self.level();
        let verb = behind(word).filter(|(_, behind)| *behind == Query).map(|(verb, _)| verb);
        let begins = match verb {
            Some("SELECT") => true,
            Some("WITH") => matches!(last, Last::Open | Last::OpenExpression),
            // Not reserved words: they may be names, and belong to clauses (`FOR UPDATE`).
            Some("REPLACE") | None => false,
            Some(_) => last == Last::OpenExpression || (level.with && last == Last::Close),
        };
        if begins {
            return self.begin_query(word);
        }
        if level.with && (last == Last::With || last == Last::Comma) {
            if is(word, "RECURSIVE") {
                self.last = Last::With;
            } else if self.expressions.len() < MAX_EXPRESSIONS {
                self.expressions.push(word.to_vec());
            }
            return;
        }
        if self.expected.is_some() {
            if among(word, FILLERS).is_none() {
                if is(word, "VALUES") {
                    self.expected = None;
                } else {
                    self.begin_name(word);
                }
            }
            return;
        }
        let queries = !level.verb.is_empty();
        if is(word, "JOIN") {
            self.expected = Some(true);
        } else if is(word, "FROM") && queries && last != Last::Distinct {
            self.expected = Some(true);
            self.level().tables = true;
        } else if is(word, "INTO") && matches!(level.verb, "INSERT" | "MERGE" | "REPLACE" | "SELECT") {
            self.expected = Some(false);
        } else if is(word, "USING") && matches!(level.verb, "DELETE" | "MERGE") {
            self.expected = Some(true);
        } else if is(word, "DISTINCT") {
            self.last = Last::Distinct;
        } else if is(word, "AS") || (last == Last::As && (is(word, "NOT") || is(word, "MATERIALIZED"))) {
            self.last = Last::As;
        } else if among(word, ENDS_TABLES).is_some() {
            self.level().tables = false;
        }
    }

    fn word_of_definition(&mut self, word: &[u8]) {
        if self.expected.is_some() {
            if among(word, FILLERS).is_none() && !is(word, "CONCURRENTLY") {
                self.begin_name(word);
                // `CREATE TABLE x AS SELECT …`.
                self.mode = Some(if self.operation == Some("CREATE") { Query } else { Nothing });
            }
            return;
        }
        if among(word, MODIFIERS).is_some() {
            return;
        }
        let kind = among(word, KINDS);
        if let Some(kind) = kind {
            self.push(kind);
        }
        if matches!(kind, Some("TABLE" | "VIEW")) {
            self.expected = Some(false);
        } else {
            self.mode = Some(Nothing);
        }
    }

    pub(super) fn finish(mut self) -> Names {
        self.end_statement();
        let operation = match self.operations.split_first() {
            Some((first, rest)) if rest.iter().all(|other| other == first) => (*first).to_owned(),
            _ => String::new(),
        };
        let only = self.collections.len() == 1;
        Names {
            summary: self.text,
            operation,
            collection: self.collections.into_iter().next().filter(|_| only).unwrap_or_default(),
            procedure: self.procedure,
        }
    }
}

/// Adds a part of a name without its quotes, within the bound.
fn push_name(name: &mut String, text: &[u8]) {
    let inner = match text {
        [b'"' | b'`', inner @ .., b'"' | b'`'] => inner,
        other => other,
    };
    for letter in String::from_utf8_lossy(inner).chars() {
        if name.len() + letter.len_utf8() > MAX_NAME_BYTES {
            return;
        }
        name.push(if letter.is_control() { ' ' } else { letter });
    }
}
