//! Active checks against real servers on loopback: what the page says is what the server did, and rules see it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seismo_tests::agent::{Agent, Launch};
use seismo_tests::exposition::Page;
use seismo_tests::nginx::{FILE_BYTES, Nginx};
use seismo_tests::process::Process;
use seismo_tests::rig::{Rig, free_port};
use seismo_tests::{programs, wait};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);

const RULES: &str = r#"groups:
  - name: checks
    interval: 200ms
    rules:
      - alert: CheckFails
        expr: probe_success{check="fail"} == 0
"#;

/// A resolver that knows two names and refuses to ask anybody else.
fn dnsmasq(rig: &Rig, port: u16) -> Result<Process> {
    let mut command = Command::new(programs::find("dnsmasq")?);
    command
        .args(["--keep-in-foreground", "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--user=root"])
        .args(["--pid-file=", "--bind-interfaces", "--listen-address=127.0.0.1", "--log-queries", "--log-facility=-"])
        .arg(format!("--port={port}"))
        .args(["--host-record=shop.example,192.0.2.1,2001:db8::1", "--address=/many.example/192.0.2.2"])
        .args(["--txt-record=many.example,one", "--txt-record=many.example,two"]);
    rig.inside("dnsmasq", command)
}

fn value(page: &Page, metric: &str, check: &str) -> Option<f64> {
    page.select(metric, &[("check", check)]).next().map(|sample| sample.value)
}

/// Waits until a check has this value.
fn becomes(agent: &Agent<'_>, metric: &str, check: &str, wanted: f64) -> Result<Page> {
    let what = format!("{metric} of {check} to be {wanted}");
    let page = agent.page_where(&what, |page| value(page, metric, check) == Some(wanted));
    page.with_context(|| {
        let now = agent.page().map(|page| value(&page, metric, check));
        format!("{what}; it is {now:?}")
    })
}

#[test]
fn http_checks_follow_a_real_server_into_failure_and_back() -> Result<()> {
    Rig::run(|rig| {
        let nginx = Nginx::start(rig, None)?;
        let (port, closed) = (nginx.port, free_port()?);
        let config = format!(
            "checks:\n  interval: 500ms\n  timeout: 500ms\n  targets:\n\
             \x20 - {{name: fail, http: 'http://127.0.0.1:{port}/fail', fail_if_not_matches: '^well'}}\n\
             \x20 - {{name: file, http: 'http://localhost:{port}/static/file'}}\n\
             \x20 - {{name: missing, http: 'http://127.0.0.1:{port}/missing', status: [404]}}\n\
             \x20 - {{name: unmatched, http: 'http://127.0.0.1:{port}/', fail_if_not_matches: never}}\n\
             \x20 - {{name: port, tcp: '127.0.0.1:{port}'}}\n\
             \x20 - {{name: closed, tcp: '127.0.0.1:{closed}'}}\n"
        );
        let launch = Launch { config: Some(config), rules: Some(RULES.to_owned()), ..Launch::default() };
        let agent = Agent::launch(rig, &launch)?;
        let verdicts =
            [("fail", 1.0), ("missing", 1.0), ("file", 1.0), ("unmatched", 0.0), ("port", 1.0), ("closed", 0.0)];
        let page = agent.page_where("every check at its verdict", |page| {
            verdicts.iter().all(|(check, success)| value(page, "probe_success", check) == Some(*success))
        })?;
        let number = |metric, check| value(&page, metric, check).with_context(|| format!("no {metric} of {check}"));
        ensure!(number("probe_http_status_code", "missing")? == 404.0, "the status differs");
        ensure!(number("probe_http_content_length", "file")? == FILE_BYTES as f64, "the length differs");
        ensure!(number("probe_http_uncompressed_body_length", "file")? == FILE_BYTES as f64, "the body differs");
        ensure!(number("probe_http_version", "file")? == 1.1, "the version differs");
        ensure!(number("probe_failed_due_to_regex", "unmatched")? == 1.0, "the expression is not told");
        ensure!(value(&page, "probe_failed_due_to_regex", "file").is_none(), "an expression where none is");
        ensure!(value(&page, "probe_http_status_code", "port").is_none(), "a status without HTTP");
        ensure!(number("probe_ip_protocol", "port")? == 4.0, "the protocol differs");
        let phases = page.select("probe_http_duration_seconds", &[("check", "file")]);
        let phases: Vec<(&str, f64)> = phases.map(|sample| (sample.labels["phase"].as_str(), sample.value)).collect();
        let (sum, whole) =
            (phases.iter().map(|(_, time)| time).sum::<f64>(), number("probe_duration_seconds", "file")?);
        println!("phases {phases:?}: {sum} of {whole}");
        ensure!(phases.len() == 4 && sum <= whole, "the phases are not parts of the whole");
        let instance = format!("http://127.0.0.1:{port}/fail");
        let with = [("check", "fail"), ("module", "http"), ("instance", instance.as_str())];
        ensure!(page.select("probe_success", &with).count() == 1, "the labels differ");

        nginx.fail(true)?;
        let page = becomes(&agent, "probe_success", "fail", 0.0)?;
        ensure!(value(&page, "probe_http_status_code", "fail") == Some(500.0), "the status differs");
        let firing = |wanted: usize| {
            wait::until(&format!("{wanted} alerts"), PATIENCE, || {
                let answer = agent.json("/api/v1/alerts")?;
                let alerts = answer.pointer("/data/alerts").and_then(Value::as_array).context("no alerts")?;
                let firing = |alert: &&Value| alert.pointer("/state").and_then(Value::as_str) == Some("firing");
                Ok((alerts.iter().filter(firing).count() == wanted).then_some(()))
            })
        };
        firing(1)?;
        nginx.fail(false)?;
        becomes(&agent, "probe_success", "fail", 1.0)?;
        firing(0)?;

        // Each check that the server answered is a line in its log, and no other.
        let page = agent.page()?;
        let counted = page.sum("seismo_check_runs_total", &[("check", "missing"), ("outcome", "success")]);
        let logged = nginx.log()?.iter().filter(|request| request.path == "/missing").count();
        println!("missing: {counted} checks counted, {logged} requests logged since");
        ensure!(counted >= 1.0 && counted <= logged as f64, "the server saw fewer checks than were counted");
        ensure!(
            page.sum("seismo_check_runs_total", &[("check", "closed"), ("outcome", "refused")]) >= 1.0,
            "not refused"
        );
        agent.stop()
    })
}

#[test]
fn dns_checks_tell_what_a_real_resolver_answers() -> Result<()> {
    Rig::run(|rig| {
        let (port, silent) = (free_port()?, std::net::UdpSocket::bind("127.0.0.1:0")?);
        let silent_port = silent.local_addr()?.port();
        let config = format!(
            "checks:\n  interval: 200ms\n  timeout: 100ms\n  targets:\n\
             \x20 - {{name: a, dns: '127.0.0.1:{port}', query: shop.example}}\n\
             \x20 - {{name: aaaa, dns: '127.0.0.1:{port}', query: SHOP.example., query_type: AAAA}}\n\
             \x20 - {{name: txt, dns: '127.0.0.1:{port}', query: many.example, query_type: TXT}}\n\
             \x20 - {{name: refused, dns: '127.0.0.1:{port}', query: elsewhere.example}}\n\
             \x20 - {{name: expected, dns: '127.0.0.1:{port}', query: elsewhere.example, status: [5]}}\n\
             \x20 - {{name: silent, dns: '127.0.0.1:{silent_port}', query: shop.example}}\n"
        );
        let agent = Agent::launch(rig, &Launch { config: Some(config), ..Launch::default() })?;
        // Nobody is there yet.
        let page = becomes(&agent, "probe_success", "a", 0.0)?;
        ensure!(value(&page, "probe_dns_answer_rrs", "a").is_none(), "records without an answer");
        ensure!(value(&page, "probe_dns_query_succeeded", "a") == Some(0.0), "an answer where nobody is");
        let mut server = dnsmasq(rig, port)?;
        for (check, success, answers, code) in [
            ("a", 1.0, 1.0, 0.0),
            ("aaaa", 1.0, 1.0, 0.0),
            ("txt", 1.0, 2.0, 0.0),
            ("refused", 0.0, 0.0, 5.0),
            ("expected", 1.0, 0.0, 5.0),
        ] {
            let page = becomes(&agent, "probe_dns_rcode", check, code)?;
            println!("{check}: {:?} records", value(&page, "probe_dns_answer_rrs", check));
            ensure!(value(&page, "probe_dns_answer_rrs", check) == Some(answers), "{check}: the records differ");
            ensure!(value(&page, "probe_success", check) == Some(success), "{check}: the verdict differs");
            ensure!(value(&page, "probe_dns_query_succeeded", check) == Some(1.0), "{check}: no answer told");
        }
        let page = becomes(&agent, "probe_success", "silent", 0.0)?;
        ensure!(
            page.sum("seismo_check_runs_total", &[("check", "silent"), ("outcome", "timeout")]) >= 1.0,
            "no timeout"
        );
        ensure!(value(&page, "probe_duration_seconds", "silent").is_some_and(|time| time >= 0.1), "given up too early");
        server.signal(libc::SIGKILL);
        server.wait(PATIENCE)?;
        becomes(&agent, "probe_success", "a", 0.0)?;
        agent.stop()
    })
}

#[test]
fn a_wrong_target_is_refused_before_anything_starts() -> Result<()> {
    Rig::run(|rig| {
        let config = "checks:\n  targets:\n  - {name: shop, http: 'ftp://127.0.0.1/'}\n";
        let file = rig.file("wrong.yaml", config)?;
        let mut command = Command::new(programs::seismo()?);
        command.args(["config", "check"]).arg(&file);
        let (status, _, err) = seismo_tests::process::output(command, rig.dir(), "check", PATIENCE)?;
        println!("{err}");
        ensure!(status.code() == Some(2), "{status}");
        let place = format!("{}:3: checks.targets[0].http: ", Path::new(&file).display());
        ensure!(err.contains(&place), "{err}");
        Ok(())
    })
}
