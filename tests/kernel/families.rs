//! Probe families switched while the agent runs: off means no program attached and no metric, on means both again, and what
//! was running keeps running.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seismo_tests::agent::{Agent, Launch, nobody, program_for_all};
use seismo_tests::exposition::Page;
use seismo_tests::player::Player;
use seismo_tests::process::output;
use seismo_tests::rig::Rig;
use seismo_tests::{bpf, http, programs, wait};
use serde_json::{Value, json};

const CLIENT: &str = env!("CARGO_BIN_EXE_seismo-testclient");
const PATH: &str = "/api/seismo/probes";
const LIMIT: Duration = Duration::from_secs(10);

fn switch(agent: &Agent<'_>, family: &str, enabled: bool) -> Result<Value> {
    http::put(agent.port, PATH, &json!({ "family": family, "enabled": enabled }).to_string())?.json()
}

/// Programs of this agent that are attached now, by the kernel's own list of links.
fn attached(agent: &Agent<'_>) -> Result<BTreeSet<u32>> {
    let own = bpf::held_by(agent.process.pid())?;
    Ok(bpf::attached()?.intersection(&own).copied().collect())
}

/// State and hook of each program, by family.
fn states(agent: &Agent<'_>) -> Result<BTreeMap<String, Vec<(String, String)>>> {
    let mut states: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for program in agent.json(PATH)?.as_array().context("no list of programs")? {
        let text = |key: &str| program[key].as_str().unwrap_or_default().to_owned();
        states.entry(text("probe")).or_default().push((text("state"), text("hook")));
    }
    Ok(states)
}

/// How many programs of a family hang on a link: iterators only do while they are read, probes in processes while there is
/// one that has their function (`e2e::tasks`).
fn linked(programs: &[(String, String)]) -> usize {
    const OTHERS: [&str; 4] = ["iter/", "file/", "uprobe/", "uretprobe/"];
    let active = programs.iter().filter(|(state, _)| state == "active");
    active.filter(|(_, hook)| !OTHERS.iter().any(|kind| hook.starts_with(kind))).count()
}

/// Names of the metrics that each family fills, by the agent's own list.
fn metrics() -> Result<BTreeMap<String, Vec<String>>> {
    let mut command = Command::new(programs::seismo()?);
    command.args(["metrics", "--json"]);
    let listed: Value = serde_json::from_slice(&command.output()?.stdout)?;
    let groups = listed.as_array().context("no list of metrics")?;
    let names = |group: &Value| {
        let metrics = group["metrics"].as_array().cloned().unwrap_or_default();
        metrics.iter().filter_map(|metric| metric["name"].as_str().map(str::to_owned)).collect()
    };
    Ok(groups.iter().map(|group| (group["name"].as_str().unwrap_or_default().to_owned(), names(group))).collect())
}

#[test]
fn a_family_that_is_off_has_no_program_attached_and_no_metric_and_counts_again_when_it_is_on() -> Result<()> {
    Rig::run(|rig| {
        // Every call timed: else a program comes and goes by itself.
        let config = "probes:\n  interrupt: true\n  wakeup: on\nsyscalls:\n  sample_one_in: 1\n".to_owned();
        let agent = Agent::launch(rig, &Launch { config: Some(config), ..Launch::default() })?;
        let status = fs::read_to_string(format!("/proc/{}/status", agent.process.pid()))?;
        println!("{}", status.lines().find(|line| line.starts_with("CapEff")).unwrap_or("no CapEff"));
        let (before, metrics) = (attached(&agent)?, metrics()?);
        let all = states(&agent)?;
        ensure!(!before.is_empty(), "nothing is attached");
        for (family, programs) in all.iter().filter(|(_, programs)| programs.iter().any(|(state, _)| state == "active"))
        {
            let count = linked(programs);
            switch(&agent, family, false)?;
            let off = attached(&agent)?;
            println!("{family}: {count} programs; attached: {} before, {} while off", before.len(), off.len());
            ensure!(off.is_subset(&before) && off.len() + count == before.len(), "{family}: not {count} programs less");
            ensure!(
                states(&agent)?[family].iter().all(|(state, _)| state == "disabled"),
                "{family} is not shown as off"
            );
            let page = agent.page()?;
            // What adoption did before it was switched off is the pipeline's account of it.
            let shown = metrics.get(family).into_iter().flatten().filter(|name| !name.contains("adopt"));
            let shown: Vec<_> = shown.filter(|name| page.types.contains_key(*name)).collect();
            ensure!(shown.is_empty(), "{family} is off and shows {shown:?}");
            switch(&agent, family, true)?;
            ensure!(attached(&agent)? == before, "{family}: not the same programs are attached again");
            ensure!(states(&agent)?[family] == *programs, "{family} is not as it was");
        }
        // It counts again, and nothing that happened while it was off.
        let total = |metric: &'static str| move |page: &Page| page.sum(metric, &[("syscall", "getppid")]);
        let counts = total("seismo_syscalls_total");
        let start = counts(&agent.page()?);
        switch(&agent, "syscall", false)?;
        rig.client(CLIENT, "unseen", &["getppid", "50000"])?;
        switch(&agent, "syscall", true)?;
        let unseen = counts(&agent.page()?) - start;
        rig.client(CLIENT, "seen", &["getppid", "20000"])?;
        let seen = agent.reaches("calls", start + 20_000.0, counts)? - start;
        println!("getppid: {unseen} while off, then {seen}");
        ensure!(unseen < 500.0 && seen < 21_000.0, "calls were counted while the family was off");
        agent.nothing_lost()
    })
}

#[test]
fn what_notes_sends_in_scope_is_attached_only_while_something_is_in_scope() -> Result<()> {
    Rig::run(|rig| {
        let config = "syscalls:\n  sample_one_in: 1\n".to_owned();
        let agent = Agent::launch(rig, &Launch { config: Some(config), ..Launch::default() })?;
        let notes = |hook: &str| hook.ends_with("/tcp_sendmsg_locked");
        let noting = states(&agent)?["payload"].iter().filter(|(state, hook)| state == "active" && notes(hook)).count();
        let scope = agent.json("/api/seismo/scope")?;
        let set = |include: &Value| {
            let body = json!({ "include": include, "exclude": [] }).to_string();
            http::put(agent.port, "/api/seismo/scope", &body)?.json()
        };
        let before = attached(&agent)?;
        set(&json!([]))?;
        let without = attached(&agent)?;
        switch(&agent, "payload", false)?;
        switch(&agent, "payload", true)?;
        let again = attached(&agent)?;
        println!("{noting} note sends; attached: {} with a scope, {} without", before.len(), without.len());
        ensure!(without.is_subset(&before) && without.len() + noting == before.len(), "not {noting} less");
        ensure!(again == without, "switching the family attached it without a scope");
        ensure!(set(&json!(["pid=no"])).is_err() && attached(&agent)? == without, "a wrong scope attached it");
        set(&scope["include"])?;
        ensure!(attached(&agent)? == before, "not the same programs are attached again");
        agent.stop()
    })
}

#[test]
fn waits_and_faults_while_a_family_was_off_are_not_counted_when_it_is_on_again() -> Result<()> {
    const WAITED: &str = "seismo_scheduler_runqueue_duration_seconds_sum";
    const FAULTS: &str = "process_paging_faults_total";
    Rig::run(|rig| {
        let config = "metrics:\n  workload_labels: [cgroup]\n".to_owned();
        let agent = Agent::launch(rig, &Launch { config: Some(config), ..Launch::default() })?;
        let group = rig.cgroup().name()?;
        let file = rig.file("page", &"x".repeat(4096))?;
        let mut spinner = rig.start_client(CLIENT, "spinner", &["spin", "8", "60000"])?;
        let (pid, waited) = (spinner.pid(), |page: &Page| page.of_group(group, WAITED, &[]));
        wait::until("the spinner to be seen", LIMIT, || Ok((waited(&agent.page()?) > 0.2).then_some(())))?;
        spinner.signal(libc::SIGSTOP);
        let seen = agent.still(waited)?;
        switch(&agent, "scheduler", false)?;
        switch(&agent, "memory", false)?;
        let before = run_queue_s(pid)?;
        spinner.signal(libc::SIGCONT);
        let mut toucher = rig.start_client(CLIENT, "toucher", &["touch", "20000", &file.display().to_string()])?;
        wait::until("the faults", LIMIT, || Ok(toucher.out().ends_with('\n').then_some(())))?;
        wait::until("waits while nobody looks", LIMIT, || Ok((run_queue_s(pid)? > before + 5.0).then_some(())))?;
        spinner.signal(libc::SIGSTOP);
        switch(&agent, "memory", true)?;
        switch(&agent, "scheduler", true)?;
        // Each of its threads leaves its CPU once more.
        spinner.signal(libc::SIGKILL);
        spinner.wait(LIMIT)?;
        drop(toucher.input()?);
        toucher.finish(LIMIT)?;
        let faults = |page: &Page| page.of_group(group, FAULTS, &[]);
        let (late, faults) = agent.still(|page| (waited(page), faults(page)))?;
        println!("run queue before: {seen:.3} s, while off: more than 5 s, afterwards: {late:.3} s; faults {faults}");
        ensure!(faults < 10_000.0, "faults of the time between are counted");
        ensure!(late - seen < 1.0, "waits of the time between are counted");
        Ok(())
    })
}

/// Time that the threads of a process have waited for a CPU, by the kernel's account, s.
fn run_queue_s(pid: u32) -> Result<f64> {
    let mut sum = 0.0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        sum += text.split(' ').nth(1).context("no run delay")?.parse::<f64>()? / 1e9;
    }
    Ok(sum)
}

#[test]
fn requests_go_on_when_payload_is_switched_off_and_on_and_only_those_of_the_time_between_have_no_span() -> Result<()> {
    Rig::run(|rig| {
        let agent = Agent::start(rig)?;
        let mut player = Player::start(rig, CLIENT, "player", &["play"], |command| rig.inside("player", command))?;
        player.request("/before")?;
        agent.awaited_spans(2, |span| span.path() == "/before")?;
        switch(&agent, "payload", false)?;
        player.request("/between")?;
        switch(&agent, "payload", true)?;
        player.request("/after")?;
        agent.awaited_spans(2, |span| span.path() == "/after")?;
        let paths: BTreeSet<String> = agent.spans()?.iter().map(|span| span.path()).collect();
        println!("spans: {paths:?}");
        ensure!(!paths.contains("/between"), "a request was read while payload was off");
        ensure!(http::get(agent.port, "/readyz")?.status == 200, "not ready");
        agent.stop()
    })
}

#[test]
fn a_wrong_name_or_user_changes_nothing_and_is_told() -> Result<()> {
    Rig::run(|rig| {
        let config = "syscalls:\n  sample_one_in: 1\n".to_owned();
        let agent = Agent::launch(rig, &Launch { config: Some(config), ..Launch::default() })?;
        let before = attached(&agent)?;
        let cases = [
            (
                json!({ "family": "shceduler", "enabled": false }),
                404,
                "there is no probe family 'shceduler'; there are ",
            ),
            (json!({ "family": "", "enabled": true }), 404, "there is no probe family ''"),
            (json!({ "family": "scheduler" }), 400, "missing field `enabled`"),
            (json!({ "family": "scheduler", "enabled": "off" }), 400, "expected a boolean"),
            (json!({ "family": "scheduler", "enabled": false, "now": true }), 400, "unknown field `now`"),
            (json!([]), 400, ""),
        ];
        for (body, status, word) in cases {
            let answer = http::put(agent.port, PATH, &body.to_string())?;
            println!("{body}: {} {}", answer.status, answer.body);
            ensure!(answer.status == status && answer.body.contains(word), "{body}: {} {}", answer.status, answer.body);
        }
        let set = |words: Vec<std::ffi::OsString>, family: &str| {
            let mut command = Command::new(&words[0]);
            command.args(&words[1..]).args(["probes", "set", family, "off"]);
            command.env("SEISMO_AGENT", format!("http://127.0.0.1:{}", agent.port));
            output(command, rig.dir(), "set", LIMIT)
        };
        let (status, _, err) = set(vec![programs::seismo()?.into()], "shceduler")?;
        println!("wrong name: {:?}: {}", status.code(), err.trim_end());
        ensure!(status.code() == Some(2) && err.lines().count() == 1, "{err}");
        let mut words = nobody()?;
        words.push(program_for_all(rig)?.into_os_string());
        let (status, _, err) = set(words, "scheduler")?;
        println!("as nobody: {:?}: {}", status.code(), err.trim_end());
        ensure!(status.code() == Some(1) && err.contains("only root"), "{err}");
        ensure!(attached(&agent)? == before, "something was detached");
        let shown = agent.ask(&["probes", "set", "scheduler", "off"])?;
        ensure!(shown.contains("disabled") && shown.contains("switched off while the agent runs"), "{shown}");
        ensure!(agent.ask(&["probes"])?.contains("switched off while the agent runs"), "the reason is not shown");
        agent.stop()
    })
}

#[test]
fn sighup_brings_families_to_what_the_file_says_and_one_that_was_off_at_the_start_can_be_switched_on() -> Result<()> {
    Rig::run(|rig| {
        let launch = Launch { config: Some("probes:\n  syscall: false\n".to_owned()), ..Launch::default() };
        let agent = Agent::launch(rig, &launch)?;
        let on = |agent: &Agent<'_>, family: &str| Ok(linked(&states(agent)?[family]) > 0) as Result<bool>;
        ensure!(!on(&agent, "syscall")? && !agent.page()?.has("seismo_syscalls_total"), "it is on at the start");
        switch(&agent, "syscall", true)?;
        agent.page_where("system calls", |page| page.has("seismo_syscalls_total"))?;
        rig.file("seismo.yaml", "probes:\n  syscall: false\n  scheduler: false\n  pressure: false\n")?;
        agent.process.signal(libc::SIGHUP);
        wait::until("the file's families", LIMIT, || {
            Ok((!on(&agent, "syscall")? && !on(&agent, "scheduler")?).then_some(()))
        })?;
        wait::until("no pressure", LIMIT, || {
            Ok((states(&agent)?["pressure"].iter().all(|(state, _)| state == "disabled")).then_some(()))
        })?;
        rig.file("seismo.yaml", "probes:\n  sycsall: true\n")?;
        agent.process.signal(libc::SIGHUP);
        wait::until("the mistake to be told", LIMIT, || {
            Ok(agent.process.err().contains("nothing is changed").then_some(()))
        })?;
        ensure!(!on(&agent, "scheduler")?, "a wrong file changed something");
        rig.file("seismo.yaml", "probes:\n  syscall: true\n")?;
        agent.process.signal(libc::SIGHUP);
        wait::until("all of them", LIMIT, || Ok((on(&agent, "syscall")? && on(&agent, "scheduler")?).then_some(())))?;
        agent.stop()
    })
}
