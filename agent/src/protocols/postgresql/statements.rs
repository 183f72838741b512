//! What a connection has prepared: names of statements and portals to the statements behind them.
//!
//! Bounded in number and bytes; the one not used for longest goes. A name that is not known, or that was given to
//! two different statements without being freed between, stands for no statement: whoever executes it is told so.
//! Everything is forgotten where bytes of the client were lost, since a name may have changed hands there.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::db::sql::Statement;

/// Longest name that is remembered; the server's own identifiers have 63 bytes.
pub(super) const MAX_NAME_BYTES: usize = 128;
const MAX_PORTALS: usize = 32;
/// What an entry takes beside its texts, about.
const ENTRY_BYTES: usize = 128;

#[derive(Debug)]
struct Entry {
    /// `None`: it could be either of two.
    statement: Option<Arc<Statement>>,
    used: u64,
}

/// Names of one kind, least recently used out first.
#[derive(Debug)]
struct Names {
    entries: HashMap<Box<[u8]>, Entry>,
    limit: usize,
    limit_bytes: usize,
    bytes: usize,
    uses: u64,
}

impl Names {
    fn new(limit: usize, limit_bytes: usize) -> Self {
        Self { entries: HashMap::new(), limit, limit_bytes, bytes: 0, uses: 0 }
    }

    fn get(&mut self, name: &[u8]) -> Option<Arc<Statement>> {
        self.uses += 1;
        let entry = self.entries.get_mut(name)?;
        entry.used = self.uses;
        entry.statement.clone()
    }

    fn set(&mut self, name: &[u8], statement: Option<Arc<Statement>>) {
        self.remove(name);
        if name.len() > MAX_NAME_BYTES {
            return;
        }
        self.uses += 1;
        self.bytes += cost(name, statement.as_deref());
        self.entries.insert(name.into(), Entry { statement, used: self.uses });
        while self.entries.len() > self.limit || self.bytes > self.limit_bytes {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(name, _)| name.clone());
            let Some(oldest) = oldest else { return };
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, name: &[u8]) {
        if let Some(entry) = self.entries.remove(name) {
            self.bytes = self.bytes.saturating_sub(cost(name, entry.statement.as_deref()));
        }
    }

    fn clear(&mut self) {
        self.entries = HashMap::new();
        self.bytes = 0;
    }
}

fn cost(name: &[u8], statement: Option<&Statement>) -> usize {
    let texts = statement.map_or(0, |statement| statement.text.len() + statement.summary.len());
    ENTRY_BYTES + name.len() + texts
}

#[derive(Debug)]
pub(super) struct Prepared {
    statements: Names,
    portals: Names,
}

impl Prepared {
    pub(super) fn new(statements: usize, bytes: usize) -> Self {
        Self { statements: Names::new(statements, bytes), portals: Names::new(MAX_PORTALS, bytes) }
    }

    /// `Parse`.
    pub(super) fn prepare(&mut self, name: &[u8], statement: &Arc<Statement>) {
        // The server refuses a name that is taken: whether it was, only its answer tells.
        let taken = !name.is_empty()
            && self.statements.entries.get(name).is_some_and(|entry| entry.statement.as_ref() != Some(statement));
        self.statements.set(name, (!taken).then(|| Arc::clone(statement)));
    }

    /// `Bind`.
    pub(super) fn bind(&mut self, portal: &[u8], statement: &[u8]) {
        let statement = self.statements.get(statement);
        self.portals.set(portal, statement);
    }

    pub(super) fn of_portal(&mut self, portal: &[u8]) -> Option<Arc<Statement>> {
        self.portals.get(portal)
    }

    /// `Close`, of a statement or a portal.
    pub(super) fn close(&mut self, kind: u8, name: &[u8]) {
        match kind {
            b'S' => self.statements.remove(name),
            _ => self.portals.remove(name),
        }
    }

    /// A simple query ends the statement and the portal without names.
    pub(super) fn end_unnamed(&mut self) {
        self.statements.remove(b"");
        self.portals.remove(b"");
    }

    pub(super) fn clear(&mut self) {
        self.statements.clear();
        self.portals.clear();
    }

    pub(super) fn bytes(&self) -> usize {
        // Portals share their statements' texts, unless these are forgotten: counted as if they did not.
        self.statements.bytes + self.portals.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::{Prepared, Statement};
    use std::sync::Arc;

    fn statement(text: &str) -> Arc<Statement> {
        Arc::new(Statement { text: text.to_owned(), ..Statement::default() })
    }

    fn executed(prepared: &mut Prepared, name: &str) -> Option<String> {
        prepared.bind(b"", name.as_bytes());
        prepared.of_portal(b"").map(|statement| statement.text.clone())
    }

    #[test]
    fn a_name_stands_for_its_statement_until_it_is_closed() {
        let mut prepared = Prepared::new(10, 10_000);
        prepared.prepare(b"a", &statement("SELECT a"));
        prepared.prepare(b"", &statement("SELECT b"));
        assert_eq!(executed(&mut prepared, "a").as_deref(), Some("SELECT a"));
        assert_eq!(executed(&mut prepared, "").as_deref(), Some("SELECT b"));
        prepared.prepare(b"", &statement("SELECT c"));
        assert_eq!(executed(&mut prepared, "").as_deref(), Some("SELECT c"), "no name is ever taken");
        prepared.close(b'S', b"a");
        assert_eq!(executed(&mut prepared, "a"), None);
        prepared.end_unnamed();
        assert_eq!(executed(&mut prepared, ""), None);
    }

    #[test]
    fn a_name_given_twice_stands_for_nothing() {
        let mut prepared = Prepared::new(10, 10_000);
        prepared.prepare(b"a", &statement("SELECT a"));
        prepared.prepare(b"a", &statement("SELECT a"));
        assert_eq!(executed(&mut prepared, "a").as_deref(), Some("SELECT a"));
        prepared.prepare(b"a", &statement("SELECT b"));
        assert_eq!(executed(&mut prepared, "a"), None);
        prepared.close(b'S', b"a");
        prepared.prepare(b"a", &statement("SELECT b"));
        assert_eq!(executed(&mut prepared, "a").as_deref(), Some("SELECT b"));
    }

    #[test]
    fn what_was_not_used_for_longest_makes_room() {
        let mut prepared = Prepared::new(3, 10_000);
        for name in ["a", "b", "c"] {
            prepared.prepare(name.as_bytes(), &statement(name));
        }
        assert!(executed(&mut prepared, "a").is_some());
        prepared.prepare(b"d", &statement("d"));
        assert_eq!(executed(&mut prepared, "b"), None);
        for name in ["a", "c", "d"] {
            assert_eq!(executed(&mut prepared, name).as_deref(), Some(name));
        }
        let mut small = Prepared::new(1000, 1000);
        for number in 0..100 {
            small.prepare(format!("{number}").as_bytes(), &statement(&"x".repeat(200)));
        }
        assert!(small.bytes() <= 1000);
        small.prepare(&[b'n'; 1000], &statement("SELECT a"));
        assert_eq!(executed(&mut small, &"n".repeat(1000)), None, "too long a name");
        small.clear();
        assert_eq!(small.bytes(), 0);
    }
}
