//! The scope of a running agent: every kind of it, exclude over include, mistakes that change nothing.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use seismo_tests::agent::{Agent, Launch, nobody, program_for_all};
use seismo_tests::cgroup::Cgroup;
use seismo_tests::player::Player;
use seismo_tests::process::{Process, output};
use seismo_tests::rig::{Rig, free_port};
use seismo_tests::{http, wait};
use serde_json::{Value, json};

const CLIENT: &str = env!("CARGO_BIN_EXE_seismo-testclient");
const PATH: &str = "/api/seismo/scope";
const LIMIT: Duration = Duration::from_secs(10);

fn set(agent: &Agent<'_>, include: &[String], exclude: &[String]) -> Result<Value> {
    http::put(agent.port, PATH, &json!({ "include": include, "exclude": exclude }).to_string())?.json()
}

/// A player for each kind of scope, with the item that names it and no other; none is in the test's control group.
fn one_of_each(rig: &Rig, group: &Cgroup) -> Result<Vec<(String, Player)>> {
    let port = free_port()?;
    let port_text = port.to_string();
    let outside = |name: &'static str| move |command: Command| rig.outside(name, command);
    let in_group = |command: Command| Process::start("by-cgroup", rig.dir(), command, Some(group.door()?));
    let by_exe = Player::start(rig, CLIENT, "by-exe", &["play"], outside("by-exe"))?;
    let by_pid = Player::start(rig, CLIENT, "by-pid", &["play"], outside("by-pid"))?;
    let by_port = Player::start(rig, CLIENT, "by-port", &["play", &port_text], outside("by-port"))?;
    let by_netns = Player::start(rig, CLIENT, "by-netns", &["apart"], outside("by-netns"))?;
    let by_cgroup = Player::start(rig, CLIENT, "by-cgroup", &["play"], in_group)?;
    let namespace = format!("/proc/{}/ns/net", by_netns.process.pid());
    let ours = fs::read_link("/proc/self/ns/net")?;
    wait::until("a network namespace", LIMIT, || Ok((fs::read_link(&namespace)? != ours).then_some(())))?;
    Ok(vec![
        (format!("exe={}/by-exe", rig.dir().display()), by_exe),
        (format!("pid={}", by_pid.process.pid()), by_pid),
        (format!("port={port}"), by_port),
        (format!("netns={namespace}"), by_netns),
        (format!("cgroup={}", group.path().display()), by_cgroup),
    ])
}

#[test]
fn every_kind_of_scope_is_kept_and_exclude_wins_also_when_set_while_the_agent_runs() -> Result<()> {
    Rig::run(|rig| {
        let agent = Agent::start(rig)?;
        let group = Cgroup::new()?;
        let every = format!("exe={}/by-*", rig.dir().display());
        let mut expected = BTreeSet::new();
        let mut turn = |name: &str, scope: &dyn Fn(&[String]) -> [Vec<String>; 2], seen: &dyn Fn(usize) -> bool| {
            let mut players = one_of_each(rig, &group)?;
            for (index, (_, player)) in players.iter_mut().enumerate() {
                player.request(&format!("/{name}/early{index}"))?;
            }
            let items: Vec<String> = players.iter().map(|(item, _)| item.clone()).collect();
            let [include, exclude] = scope(&items);
            let answer = set(&agent, &include, &exclude)?;
            let adopted = answer.get("adopted").and_then(Value::as_u64);
            let ends = (0..players.len()).filter(|index| seen(*index)).count() as u64 * 2;
            ensure!(adopted == Some(ends), "{name}: {ends} ends are in scope: {answer}");
            for (index, (_, player)) in players.iter_mut().enumerate() {
                let path = format!("/{name}/player{index}");
                player.request(&path)?;
                if seen(index) {
                    expected.insert(path);
                }
            }
            set(&agent, &[], &[])
        };
        for kind in 0..5 {
            let only = |items: &[String]| [vec![items[kind].clone()], Vec::new()];
            turn(&format!("only{kind}"), &only, &|player| player == kind)?;
        }
        for kind in 0..5 {
            let without = |items: &[String]| [vec![every.clone()], vec![items[kind].clone()]];
            turn(&format!("without{kind}"), &without, &|player| player != kind)?;
        }
        // The ring keeps the order: what must not be seen would be here before this.
        turn("beacon", &|_| [vec![every.clone()], Vec::new()], &|_| true)?;
        let found = agent.awaited_spans(2 * expected.len(), |_| true)?;
        let paths: BTreeSet<String> = found.iter().map(|span| span.path()).collect();
        let unseen: Vec<_> = expected.difference(&paths).collect();
        let strangers: Vec<_> = paths.difference(&expected).collect();
        println!(
            "{} requests expected, {} spans; unseen {unseen:?}; out of scope {strangers:?}",
            expected.len(),
            found.len()
        );
        ensure!(
            unseen.is_empty() && strangers.is_empty() && found.len() == 2 * expected.len(),
            "the scope is not kept"
        );
        agent.nothing_lost()
    })
}

#[test]
fn a_mistake_in_a_new_scope_changes_nothing_and_says_what_is_wrong() -> Result<()> {
    Rig::run(|rig| {
        let agent = Agent::start(rig)?;
        let before = agent.json(PATH)?;
        let nine: Vec<String> = (1..=9).map(|port| format!("port={port}")).collect();
        let cases = [
            (json!({ "include": ["pid=x"] }), "pid=x: not a process id"),
            (json!({ "include": ["pid=4194304999"] }), "no such process"),
            (json!({ "include": ["pid=4194303"] }), "no such process"),
            (json!({ "include": ["cgroup=/no/such/group"] }), "no such cgroup"),
            (json!({ "include": ["netns=/nonexistent"] }), "netns=/nonexistent"),
            (json!({ "include": nine }), "more than 8"),
            (json!({ "inclde": [] }), "inclde"),
            (json!({ "include": "all" }), "sequence"),
            (json!(["all"]), ""),
        ];
        for (body, word) in cases {
            let answer = http::put(agent.port, PATH, &body.to_string())?;
            println!("{body}: {} {}", answer.status, answer.body);
            ensure!(answer.status == 400 && answer.body.contains(word), "{body}: {} {}", answer.status, answer.body);
            ensure!(agent.json(PATH)? == before, "{body} changed the scope");
        }
        // What was in scope still is.
        let mut player = Player::start(rig, CLIENT, "player", &["play"], |command| rig.inside("player", command))?;
        player.request("/still")?;
        agent.awaited_spans(2, |span| span.path() == "/still")?;
        agent.stop()
    })
}

#[test]
fn only_root_may_change_the_scope_and_its_command_shows_what_is_in_force() -> Result<()> {
    Rig::run(|rig| {
        let agent = Agent::start(rig)?;
        let before = agent.ask(&["scope"])?;
        ensure!(before == format!("include cgroup={}\n", rig.cgroup().path().display()), "{before}");
        let mut words = nobody()?;
        words.push(program_for_all(rig)?.into_os_string());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(["scope", "set", "all"]);
        command.env("SEISMO_AGENT", format!("http://127.0.0.1:{}", agent.port));
        let (status, _, err) = output(command, rig.dir(), "set", LIMIT)?;
        println!("as nobody: {:?}: {}", status.code(), err.trim_end());
        ensure!(status.code() == Some(1) && err.contains("only root"), "{err}");
        ensure!(agent.ask(&["scope", "show"])? == before, "nobody changed the scope");
        let after = agent.ask(&["scope", "set", "port=1", "--exclude", "pid=1"])?;
        ensure!(after == "include port=1\nexclude pid=1\n0 open connections taken up\n", "{after}");
        let empty = agent.ask(&["scope", "set"])?;
        ensure!(empty.starts_with("nothing is in scope"), "{empty}");
        agent.stop()
    })
}

#[test]
fn sighup_takes_the_scope_of_the_file_and_a_wrong_file_changes_nothing() -> Result<()> {
    Rig::run(|rig| {
        let group = Cgroup::new()?;
        let file = |text: &str| rig.file("seismo.yaml", text);
        let launch = Launch { config: Some("scope:\n  exclude: [port=1]\n".to_owned()), ..Launch::default() };
        let agent = Agent::launch(rig, &launch)?;
        let mut player = Player::start(rig, CLIENT, "other", &["play"], |command| {
            Process::start("other", rig.dir(), command, Some(group.door()?))
        })?;
        player.request("/before")?;
        let own = format!("cgroup={}", rig.cgroup().path().display());
        let both = json!({ "include": [format!("cgroup={}", group.path().display()), own], "exclude": [] });
        file(&format!("scope:\n  include: [cgroup={}]\nspans:\n  capacity: 7\n", group.path().display()))?;
        agent.process.signal(libc::SIGHUP);
        wait::until("the new scope", LIMIT, || Ok((agent.json(PATH)? == both).then_some(())))?;
        // Its connection is older than its place in the scope.
        player.request("/after")?;
        agent.awaited_spans(2, |span| span.path() == "/after")?;
        ensure!(agent.spans()?.iter().all(|span| span.path() != "/before"), "read before it was in scope");
        ensure!(
            agent.process.err().contains("at the next start also: spans"),
            "a key that needs a restart is not named"
        );
        for (wrong, word) in
            [("scope:\n  include: [pid=4194303]\n", "no such process"), ("scpe:\n", "seismo.yaml:1: scpe")]
        {
            file(wrong)?;
            agent.process.signal(libc::SIGHUP);
            wait::until("the refusal in the log", LIMIT, || Ok(agent.process.err().contains(word).then_some(())))?;
            ensure!(agent.json(PATH)? == both, "a wrong file changed the scope");
        }
        agent.stop()
    })
}

#[test]
fn a_connection_that_leaves_the_scope_is_forgotten_and_taken_up_again_when_it_comes_back() -> Result<()> {
    Rig::run(|rig| {
        let config = Some("flows:\n  idle_check: 1s\n".to_owned());
        let agent = Agent::launch(rig, &Launch { config, ..Launch::default() })?;
        let mut player = Player::start(rig, CLIENT, "player", &["play"], |command| rig.inside("player", command))?;
        player.request("/first")?;
        agent.awaited_spans(2, |span| span.path() == "/first")?;
        let inside = agent.json(PATH)?;
        set(&agent, &["port=1".to_owned()], &[])?;
        player.request("/unseen")?;
        let tracked = agent.settled(&0.0, |page| page.sum("seismo_table_entries", &[("table", "flows")]))?;
        ensure!(tracked == 0.0, "{tracked} connections are tracked that are out of scope");
        let answer = http::put(agent.port, PATH, &inside.to_string())?.json()?;
        ensure!(answer.get("adopted").and_then(Value::as_u64) == Some(2), "{answer}");
        player.request("/again")?;
        agent.awaited_spans(2, |span| span.path() == "/again")?;
        ensure!(agent.spans()?.iter().all(|span| span.path() != "/unseen"), "read while it was out of scope");
        agent.stop()
    })
}
