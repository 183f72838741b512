//! Python's http.server with requests, node's http with itself and with requests: counts and clocks of both sides.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use seismo_tests::agent::Agent;
use seismo_tests::numbers;
use seismo_tests::rig::Rig;
use seismo_tests::scripted::{Language, Request, Server, by_status, client};
use seismo_tests::spans::{Kind, Span};

const QUICK: usize = 400;
const MISSING: usize = 100;
/// Long enough that an interpreter's own time within the clock's interval stays below the 5 %.
const SLOW_MILLIS: usize = 100;
const SLOW: usize = 30;
/// Allowed where 5 % is less.
const SLACK_NS: u64 = 20_000;

fn paths() -> Vec<String> {
    let quick = (0..QUICK).map(|turn| format!("/user/{turn}"));
    let missing = (0..MISSING).map(|turn| format!("/missing/{turn}"));
    let slow = (0..SLOW).map(|turn| format!("/wait/{SLOW_MILLIS}/{turn}"));
    quick.chain(missing).chain(slow).collect()
}

fn slow_requests(requests: &[Request]) -> Vec<u64> {
    requests.iter().filter(|request| request.path.starts_with("/wait/")).map(|request| request.ns).collect()
}

fn slow_spans(spans: &[Span], kind: Kind) -> Vec<u64> {
    let slow = spans.iter().filter(|span| span.kind == kind && span.path().starts_with("/wait/"));
    slow.map(Span::duration_ns).collect()
}

fn pair(server_language: Language, client_language: Language) -> Result<()> {
    Rig::run(|rig| {
        let server = Server::start(rig, server_language)?;
        let agent = Agent::start(rig)?;
        let paths = paths();
        let asked = client(rig, client_language, server.port, &paths)?;
        let answered = server.logged(paths.len())?;
        let port = server.port.to_string();

        let sides = [
            ("http_server_request_duration_seconds_count", by_status(&answered)),
            ("http_client_request_duration_seconds_count", by_status(&asked)),
        ];
        for (metric, logged) in sides {
            let counted = agent.settled(&logged, |page| page.by(metric, "http_response_status_code", &[]))?;
            println!("{metric}: logged {logged:?}, seismo {counted:?}");
            ensure!(counted == logged, "{metric}: {counted:?} where {logged:?} was logged");
        }

        let spans = agent.awaited_spans(2 * paths.len(), |span| span.attribute("server.port") == port)?;
        ensure!(spans.len() == 2 * paths.len(), "{} spans of {} requests", spans.len(), paths.len());
        let mut by_path: BTreeMap<String, usize> = BTreeMap::new();
        spans.iter().for_each(|span| *by_path.entry(span.path()).or_default() += 1);
        ensure!(paths.iter().all(|path| by_path.get(path) == Some(&2)), "not two spans of each path");

        let what = format!("{client_language:?} client of {server_language:?}");
        numbers::agree(&what, &slow_requests(&asked), &slow_spans(&spans, Kind::Client), SLACK_NS)?;
        let what = format!("{server_language:?} server");
        numbers::agree(&what, &slow_requests(&answered), &slow_spans(&spans, Kind::Server), SLACK_NS)?;
        agent.nothing_lost()
    })
}

#[test]
fn requests_to_http_server_are_counted_and_timed_as_both_scripts_log_them() -> Result<()> {
    pair(Language::Python, Language::Python)
}

#[test]
fn node_to_node_is_counted_and_timed_as_both_scripts_log_it() -> Result<()> {
    pair(Language::Node, Language::Node)
}

#[test]
fn requests_to_node_are_counted_and_timed_as_both_scripts_log_them() -> Result<()> {
    pair(Language::Node, Language::Python)
}
