//! A real PostgreSQL with psql and psycopg: each statement is one exchange on both ends, with what it did and how it went.
//!
//! Simple and extended queries, names, pipelines, COPY and errors; on a connection that was there before the agent; and with one record in
//! ten dropped on purpose. No literal of a statement may be in any span.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use seismo_tests::agent::{Agent, Launch};
use seismo_tests::postgresql::Postgresql;
use seismo_tests::rig::Rig;
use seismo_tests::spans::{Kind, Span};

const ROUNDS: usize = 20;

/// Name of the span, error, masked statement, rows.
type Told = (String, String, String, String);

fn told(name: &str, error: &str, text: &str, rows: &str) -> Told {
    (name.to_owned(), error.to_owned(), text.to_owned(), rows.to_owned())
}

fn seen(span: &Span) -> Told {
    let attribute = |key: &str| span.attribute(key);
    (span.name.clone(), attribute("error.type"), attribute("db.query.text"), attribute("db.response.returned_rows"))
}

/// How often each is to be seen on each end, for what the clients do.
fn expected(clients: &[&str], rounds: usize) -> BTreeMap<Told, usize> {
    let mut all = BTreeMap::new();
    let mut add = |told: Told, times: usize| *all.entry(told).or_insert(0) += times;
    let select = |table: usize| {
        told(&format!("SELECT t{table}"), "", &format!("SELECT a FROM t{table} WHERE a < $1"), &table.to_string())
    };
    for client in clients {
        match *client {
            "simple" => {
                add(told("SELECT t3", "", "SELECT a FROM t3 WHERE a <> ?", "3"), rounds);
                add(told("SELECT nowhere", "42P01", "SELECT a FROM nowhere WHERE b = ?", ""), rounds);
            }
            "extended" => {
                add(told("SELECT t4", "", "SELECT a FROM t4 WHERE a < $1 AND ? <> ?", "4"), rounds);
                add(told("SELECT t5", "22012", "SELECT a / $1 FROM t5", ""), rounds);
            }
            "named" => {
                add(told("PREPARE SELECT t6", "", "SELECT a FROM t6 WHERE a < $1", ""), 1);
                add(select(6), rounds + 1);
                add(told("SELECT t2", "", "SELECT a FROM t2 WHERE ? <> ?", "2"), rounds);
            }
            "pipeline" => (1..6).for_each(|table| add(select(table), rounds)),
            "pipeline-error" => {
                add(select(1), rounds);
                add(told("SELECT t2", "22012", "SELECT a / $1 FROM t2", ""), rounds);
                add(told("SELECT t3", "pipeline_aborted", "SELECT a FROM t3 WHERE a < $1", ""), rounds);
            }
            "copy" => {
                let text = "CREATE TABLE IF NOT EXISTS copied (a int, b text)";
                add(told("CREATE TABLE copied", "", text, ""), 1);
                add(told("COPY copied", "", "COPY copied FROM STDIN", ""), rounds);
                add(told("COPY SELECT t7", "", "COPY (SELECT a FROM t7) TO STDOUT", ""), rounds);
            }
            "psql" => {
                add(told("SELECT t8", "", "SELECT a FROM t8 WHERE ? <> ?;", "8"), rounds);
                add(told("INSERT kept", "42P01", "INSERT INTO kept VALUES (?);", ""), rounds);
            }
            other => panic!("{other}"),
        }
    }
    all
}

/// psql takes the `;` off the statements that it sends.
fn psql_statements() -> String {
    "SELECT a FROM t8 WHERE 'zqsecret' <> 'x';\nINSERT INTO kept VALUES (7781, 'zqsecret');\n".repeat(ROUNDS)
}

fn on(server: &Postgresql, kind: Kind, spans: &[Span]) -> Vec<Span> {
    let port = server.port.to_string();
    spans.iter().filter(|span| span.kind == kind && span.attribute("server.port") == port).cloned().collect()
}

fn count(spans: &[Span]) -> BTreeMap<Told, usize> {
    let mut all = BTreeMap::new();
    for span in spans {
        *all.entry(seen(span)).or_insert(0) += 1;
    }
    all
}

fn no_literal(spans: &[Span]) -> Result<()> {
    for span in spans {
        // Ids and times are numbers too.
        let kept = ["name", "db.query.text", "db.query.summary", "db.collection.name", "db.namespace"];
        let text: String =
            kept.map(|key| if key == "name" { span.name.clone() } else { span.attribute(key) }).join("\n");
        ensure!(!text.contains("zqsecret") && !text.contains("7781"), "a literal was kept: {text}");
    }
    Ok(())
}

#[test]
fn each_statement_is_one_exchange_on_both_ends() -> Result<()> {
    Rig::run(|rig| {
        let server = Postgresql::start(rig)?;
        let agent = Agent::start(rig)?;
        let kinds = ["simple", "extended", "named", "pipeline", "pipeline-error", "copy"];
        for what in kinds {
            server.client(rig, what, ROUNDS)?.finish()?;
        }
        server.psql(rig, "statements", &psql_statements())?;
        let mut all = kinds.to_vec();
        all.push("psql");
        let expected = expected(&all, ROUNDS);
        let total: usize = expected.values().sum();
        let is_ours = |span: &Span| span.attribute("server.port") == server.port.to_string();
        let spans = agent.awaited_spans(2 * total, is_ours).or_else(|_| agent.spans())?;
        no_literal(&spans)?;
        for kind in [Kind::Client, Kind::Server] {
            let mine = on(&server, kind, &spans);
            let found = count(&mine);
            println!("{kind:?}: {} exchanges of {total} expected", mine.len());
            let differ: Vec<_> = found.iter().filter(|(told, times)| expected.get(*told) != Some(times)).collect();
            let missing: Vec<_> = expected.keys().filter(|told| !found.contains_key(*told)).collect();
            ensure!(differ.is_empty() && missing.is_empty(), "{kind:?}: {differ:?}, missing {missing:?}");
            for span in &mine {
                ensure!(span.attribute("seismo.incomplete").is_empty(), "{span:?}");
                ensure!(span.attribute("db.namespace") == "postgres", "{span:?}");
                ensure!(span.attribute("db.system.name") == "postgresql", "{span:?}");
            }
        }
        agent.nothing_lost()
    })
}

#[test]
fn a_connection_from_before_the_agent_is_read_from_its_next_statement_on() -> Result<()> {
    Rig::run(|rig| {
        let server = Postgresql::start(rig)?;
        let mut client = server.client(rig, "named", ROUNDS)?;
        client.ready()?;
        let agent = Agent::start(rig)?;
        client.finish()?;
        let is_ours = |span: &Span| span.attribute("server.port") == server.port.to_string();
        let spans = agent.awaited_spans(4 * ROUNDS, is_ours)?;
        no_literal(&spans)?;
        for kind in [Kind::Client, Kind::Server] {
            let found = count(&on(&server, kind, &spans));
            // The statement was prepared before: it is not known, and not guessed.
            let unknown = told("postgresql", "", "", "6");
            let known = told("SELECT t2", "", "SELECT a FROM t2 WHERE ? <> ?", "2");
            let expected = BTreeMap::from([(unknown, ROUNDS), (known, ROUNDS)]);
            ensure!(found == expected, "{kind:?}: {found:?}");
        }
        let unknown = spans.iter().filter(|span| span.attribute("seismo.db.statement.unknown") == "true").count();
        ensure!(unknown == 2 * ROUNDS, "{unknown} say that their statement is unknown");
        agent.nothing_lost()
    })
}

#[test]
fn with_one_record_in_ten_dropped_nothing_wrong_is_told() -> Result<()> {
    const STATEMENTS: usize = 600;
    Rig::run(|rig| {
        let server = Postgresql::start(rig)?;
        let config = Some("capture:\n  drop_one_in: 10\n".to_owned());
        let agent = Agent::launch(rig, &Launch { config, ..Launch::default() })?;
        let mut clients = [server.client(rig, "tables", STATEMENTS)?, server.client(rig, "tables", STATEMENTS)?];
        clients.iter_mut().try_for_each(|client| client.finish())?;
        agent.still(|page| page.sum("seismo_records_dropped_total", &[]) as u64)?;
        let spans = agent.spans()?;
        no_literal(&spans)?;
        for kind in [Kind::Client, Kind::Server] {
            let mine = on(&server, kind, &spans);
            let (mut whole, mut incomplete) = (0, 0);
            for span in &mine {
                if !span.attribute("seismo.incomplete").is_empty()
                    || span.attribute("error.type") == "connection_closed"
                {
                    incomplete += 1;
                    continue;
                }
                whole += 1;
                let table = span.attribute("db.collection.name");
                let (rows, error) = (span.attribute("db.response.returned_rows"), span.attribute("error.type"));
                let right = match table.strip_prefix('t') {
                    Some(count) => rows == count && error.is_empty(),
                    None => table.starts_with("missing") && rows.is_empty() && error == "42P01",
                };
                ensure!(right, "told wrong: {span:?}");
            }
            println!("{kind:?}: {whole} whole and {incomplete} incomplete of {}", 2 * STATEMENTS);
            ensure!(whole + incomplete <= 2 * STATEMENTS, "more than there were");
            ensure!(whole > STATEMENTS / 4, "too little is left");
            ensure!(whole < 2 * STATEMENTS, "nothing was dropped");
        }
        let dropped = agent.page()?;
        dropped.select("seismo_records_dropped_total", &[]).find(|each| each.value > 0.0).context("no drop counted")?;
        Ok(())
    })
}
