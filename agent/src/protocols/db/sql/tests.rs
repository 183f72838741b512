//! Statements with what must be kept of them; literals of any form that must never be.

use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::{Backslash, POSTGRESQL, Statement, Syntax, begins, read};

const BACKTICKS: Syntax = Syntax {
    backslash: Backslash::Escapes,
    dollar_quotes: false,
    double_quoted_names: false,
    backtick_names: true,
    hash_comments: true,
    nested_comments: false,
};

fn whole(text: &str) -> Statement {
    read(text.as_bytes(), false, &POSTGRESQL, 1000)
}

#[test]
fn literals_become_marks_and_everything_else_stays() {
    for (statement, masked) in [
        ("SELECT 1", "SELECT ?"),
        ("select  *\n\tfrom t where a = 'x''y' ;", "select * from t where a = ? ;"),
        ("SELECT a-1, .5, 1e-5, 0x1F, 1_000, 12ab FROM t1", "SELECT a-? FROM t1"),
        ("SELECT E'a\\'b', B'1', x'ff', N'n', U&'\\0041' FROM t", "SELECT ? FROM t"),
        ("SELECT $$a'b$$, $q$ $$ ' $q$, $1", "SELECT ?, $1"),
        ("SELECT 'a'::text, $1::int, DATE '2001-01-01'", "SELECT ?::text, $1::int, DATE ?"),
        ("SELECT \"a'b\", U&\"\\0041\" FROM \"T\"", "SELECT \"a'b\", U&\"\\0041\" FROM \"T\""),
        ("SELECT 1 -- it's\n + 2 /* a /* b */ 'c' */ + 3", "SELECT ? + ? + ?"),
        ("SELECT a FROM t WHERE b IN (1, 2,3 , 'x')", "SELECT a FROM t WHERE b IN (?)"),
        (
            "SELECT a FROM t WHERE b in ($1, $2, $3) AND c = f($4, $5)",
            "SELECT a FROM t WHERE b in ($1) AND c = f($4, $5)",
        ),
        ("INSERT INTO t (a, b) VALUES (1, 'x'), (2, 'y'),(3,'z')", "INSERT INTO t (a, b) VALUES (?)"),
        (
            "INSERT INTO t (a, b) VALUES ($1, $2), ($3, $4) RETURNING a",
            "INSERT INTO t (a, b) VALUES ($1, $2) RETURNING a",
        ),
        ("SELECT f(), (1)", "SELECT f(), (?)"),
        ("SELECT a->>'k', a @> '{}' FROM t", "SELECT a->>?, a @> ? FROM t"),
        ("SELECT NULL, TRUE", "SELECT NULL, TRUE"),
        ("SELECT 'C:\\', secret", "SELECT ?…"),
        ("SELECT 'C:\\\\', a", "SELECT ?, a"),
        ("SELECT 'open", "SELECT ?"),
        ("SELECT \"open", "SELECT…"),
        ("DO $$ begin perform 1; end $$", "DO ?"),
        ("", ""),
    ] {
        assert_eq!(whole(statement).text, masked, "{statement}");
    }
}

#[test]
fn other_quotes_and_comments_are_a_matter_of_syntax() {
    for (statement, masked) in [
        ("SELECT `a` FROM t WHERE b = \"it\\\"s\" AND c = 'x\\'y' # end", "SELECT `a` FROM t WHERE b = ? AND c = ?"),
        ("SELECT 5--1", "SELECT ?--?"),
        ("SELECT 5 -- 1", "SELECT ?"),
        ("SELECT _utf8'a', $x", "SELECT _utf8?, $x"),
    ] {
        assert_eq!(read(statement.as_bytes(), false, &BACKTICKS, 1000).text, masked, "{statement}");
    }
}

#[test]
fn a_text_ends_at_its_bound_and_says_so() {
    let statement = "SELECT abc, def FROM orders WHERE x = 'literal'";
    for limit in 0..60 {
        let kept = read(statement.as_bytes(), false, &POSTGRESQL, limit);
        assert!(kept.text.trim_end_matches('…').len() <= limit, "{limit}");
        assert_eq!(kept.text.ends_with('…'), limit < "SELECT abc, def FROM orders WHERE x = ?".len(), "{limit}");
        assert_eq!(kept.summary, "SELECT orders", "the bound is for the text alone");
    }
}

#[test]
fn a_summary_has_the_verbs_and_their_tables() {
    for (statement, summary, operation, collection) in [
        ("SELECT * FROM orders WHERE a = 1", "SELECT orders", "SELECT", "orders"),
        ("select a from public.\"Orders\" o, items", "SELECT public.Orders items", "SELECT", ""),
        ("SELECT * FROM ONLY a JOIN b ON a.x = b.x LEFT JOIN c USING (d)", "SELECT a b c", "SELECT", ""),
        ("SELECT 1", "SELECT", "SELECT", ""),
        ("SELECT a FROM (SELECT * FROM b JOIN c ON 1=1) s", "SELECT SELECT b c", "SELECT", ""),
        ("(SELECT a FROM b) UNION ALL (SELECT a FROM c)", "SELECT b SELECT c", "SELECT", ""),
        ("SELECT EXTRACT(day FROM ts), a IS DISTINCT FROM b FROM t FOR UPDATE", "SELECT t", "SELECT", "t"),
        ("SELECT * FROM generate_series(1, 5) g, t", "SELECT t", "SELECT", "t"),
        ("SELECT * FROM t, LATERAL (SELECT 1 FROM u) x", "SELECT t SELECT u", "SELECT", ""),
        ("INSERT INTO shipping (a, b) SELECT a, b FROM orders", "INSERT shipping SELECT orders", "INSERT", ""),
        ("INSERT INTO t (update) VALUES (1) ON CONFLICT (id) DO UPDATE SET a = 1", "INSERT t", "INSERT", "t"),
        ("UPDATE t SET a = 1, b = 2 FROM u WHERE t.x = u.x", "UPDATE t u", "UPDATE", ""),
        ("DELETE FROM t USING u WHERE a = 1", "DELETE t u", "DELETE", ""),
        ("MERGE INTO t USING s ON t.a = s.a WHEN MATCHED THEN UPDATE SET a = 1", "MERGE t s", "MERGE", ""),
        ("WITH r AS (SELECT * FROM orders) SELECT * FROM r JOIN t ON 1=1", "WITH SELECT orders SELECT t", "SELECT", ""),
        (
            "WITH a(x, y) AS (DELETE FROM t RETURNING *), b AS NOT MATERIALIZED (UPDATE u SET a = 1) INSERT INTO v SELECT * FROM a",
            "WITH DELETE t UPDATE u INSERT v SELECT",
            "INSERT",
            "",
        ),
        ("TRUNCATE TABLE a, b CASCADE", "TRUNCATE a b", "TRUNCATE", ""),
        ("COPY t (a, b) FROM STDIN", "COPY t", "COPY", "t"),
        ("COPY (SELECT a FROM t) TO STDOUT", "COPY SELECT t", "COPY", "t"),
        ("CREATE TABLE IF NOT EXISTS x (a int)", "CREATE TABLE x", "CREATE", "x"),
        ("CREATE TEMP TABLE x AS SELECT * FROM t", "CREATE TABLE x SELECT t", "CREATE", ""),
        ("CREATE USER bob PASSWORD 'x'", "CREATE USER", "CREATE", ""),
        ("CREATE UNIQUE INDEX i ON t (a)", "CREATE INDEX", "CREATE", ""),
        ("DROP TABLE IF EXISTS a.b", "DROP TABLE a.b", "DROP", "a.b"),
        ("EXPLAIN (ANALYZE) SELECT * FROM t", "EXPLAIN SELECT t", "EXPLAIN", "t"),
        ("PREPARE p AS INSERT INTO t VALUES ($1)", "PREPARE INSERT t", "PREPARE", "t"),
        ("BEGIN; UPDATE t SET a = 1; COMMIT", "BEGIN; UPDATE t; COMMIT", "", "t"),
        ("SELECT 1; SELECT 2;", "SELECT; SELECT", "SELECT", ""),
        ("SET search_path TO x", "SET", "SET", ""),
        ("GRANT SELECT ON t TO u", "GRANT", "GRANT", ""),
        ("/* c */ -- d\n SHOW x", "SHOW", "SHOW", ""),
        ("hello world from t", "", "", ""),
        ("", "", "", ""),
    ] {
        let seen = whole(statement);
        let seen = (seen.summary.as_str(), seen.operation.as_str(), seen.collection.as_str());
        assert_eq!(seen, (summary, operation, collection), "{statement}");
    }
    assert_eq!(whole("CALL billing.close_month(1, 'x')").procedure, "billing.close_month");
    assert_eq!(whole("CALL billing.close_month(1, 'x')").summary, "CALL billing.close_month");
}

#[test]
fn half_a_name_is_no_name() {
    let statement = b"SELECT a FROM orders JOIN customers ON 1=1";
    for end in 0..statement.len() {
        let seen = read(&statement[..end], true, &POSTGRESQL, 1000);
        for word in seen.summary.split(' ') {
            assert!(["", "SELECT", "orders", "customers"].contains(&word), "{end}: {word}");
        }
        assert!(seen.text.ends_with('…'));
    }
}

#[test]
fn brackets_without_end_and_names_without_end_are_bounded() {
    let deep = format!("SELECT {} 'secret' {}", "(".repeat(100_000), ")".repeat(100_000));
    assert_eq!(whole(&deep).summary, "SELECT");
    let long = format!("SELECT * FROM {}, {}", "n".repeat(10_000), "m,".repeat(10_000));
    let seen = whole(&long);
    assert!(seen.summary.len() <= 255 && seen.text.len() <= 1003);
}

#[test]
fn a_statement_begins_with_a_verb() {
    for (text, cut, expected) in [
        ("SELECT 1", false, Some(true)),
        ("  /* c */ (select 1)", false, Some(true)),
        ("SEL", true, None),
        ("", true, None),
        ("", false, Some(true)),
        ("hello", false, Some(false)),
        ("'a'", false, Some(false)),
    ] {
        assert_eq!(begins(text.as_bytes(), cut, &POSTGRESQL), expected, "{text:?}");
    }
}

/// A literal that holds the mark, in each way of writing one.
fn literal() -> impl Strategy<Value = String> {
    let filling = prop_oneof![
        Just(String::new()),
        Just(" x ".to_owned()),
        Just("''".to_owned()),
        Just("--".to_owned()),
        Just("/*".to_owned()),
        Just("$1".to_owned()),
        Just("$$".to_owned()),
        Just("\"".to_owned()),
        Just("\\\\".to_owned()),
        Just("ß'' \n".to_owned()),
    ];
    (filling.clone(), filling, 0..9usize).prop_map(|(before, after, form)| {
        let inner = format!("{before}zqsecret{after}");
        match form {
            0 => format!("E'{inner}\\'zqsecret'"),
            1 => format!("$tag$ ' {inner} $tag$"),
            2 => "7781".to_owned(),
            3 => "0x7781".to_owned(),
            4 => "17781.5e-7781".to_owned(),
            5 => format!("'{inner}\\'"),
            6 => format!("U&'{inner}'"),
            7 => format!("N'{inner}'"),
            _ => format!("'{inner}'"),
        }
    })
}

/// A piece of a statement that has no literal.
fn filler() -> impl Strategy<Value = String> {
    let words = [
        "SELECT",
        "a",
        "FROM",
        "orders",
        ",",
        "(",
        ")",
        "IN (",
        "VALUES (",
        "WHERE x =",
        "::text",
        "$1",
        "/* zqsecret */",
        "-- zqsecret 7781\n",
        "\"n\"",
        ";",
        "AS",
        "->>",
        "||",
        "JOIN t ON",
        "INSERT INTO t",
        "\n",
    ];
    (0..words.len()).prop_map(move |at| words[at].to_owned())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_literal_is_ever_kept(
        pieces in vec(prop_oneof![2 => filler(), 1 => literal()], 0..20),
        cut in any::<proptest::sample::Index>(),
    ) {
        let text = pieces.join(" ");
        let end = cut.index(text.len() + 1);
        for (bytes, is_cut) in [(text.as_bytes(), false), (&text.as_bytes()[..end], true)] {
            let kept = read(bytes, is_cut, &POSTGRESQL, 400);
            for part in [&kept.text, &kept.summary, &kept.collection, &kept.operation, &kept.procedure] {
                prop_assert!(!part.contains("zq") && !part.contains("7781"), "{text:?} gave {kept:?}");
            }
        }
    }

    #[test]
    fn masking_twice_is_masking_once(pieces in vec(filler(), 0..20)) {
        let once = whole(&pieces.join(" "));
        let twice = whole(&once.text);
        prop_assert_eq!(&once.text, &twice.text);
        prop_assert_eq!(once.summary, twice.summary);
    }

    #[test]
    fn any_bytes_give_bounded_texts(bytes in vec(any::<u8>(), 0..300), cut in any::<bool>(), limit in 0usize..100) {
        for syntax in [POSTGRESQL, BACKTICKS] {
            let kept = read(&bytes, cut, &syntax, limit);
            prop_assert!(kept.text.len() <= limit + '…'.len_utf8());
            prop_assert!(kept.summary.len() <= 255);
            begins(&bytes, cut, &syntax);
        }
    }
}
