//! TLS to a real nginx: spans and metrics arrive at the collector behind it, alerts at the webhook behind it, checks tell when
//! its certificate expires, a certificate that proves nothing is a failure with its reason, and who wants to know its client
//! is shown a certificate too.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seismo_tests::agent::{Agent, Launch};
use seismo_tests::certified::{Certified, EXPIRES_S};
use seismo_tests::nginx::Nginx;
use seismo_tests::programs;
use seismo_tests::rig::Rig;
use seismo_tests::rotel::{Ports, Rotel};
use seismo_tests::scripted::{Language, Server, client};
use seismo_tests::wait;
use seismo_tests::webhook::Webhook;

const REQUESTS: usize = 50;
const LIMIT: Duration = Duration::from_secs(30);

fn launch(config: String) -> Launch {
    Launch { config: Some(config), ..Launch::default() }
}

fn spans_arrive(grpc: bool) -> Result<()> {
    Rig::run(|rig| {
        let ports = Ports::free()?;
        let rotel = Rotel::start(rig, "rotel", ports)?;
        let front = Certified::start(rig, ports)?;
        let (protocol, port) = if grpc { ("grpc", front.grpc) } else { ("http/protobuf", front.port) };
        let [certificate, key] = front.client().map(|file| file.display().to_string());
        let own = if grpc {
            format!("client_certificate: {certificate}\n    client_key: {key}\n    ")
        } else {
            String::new()
        };
        let agent = Agent::launch(
            rig,
            &launch(format!(
                "export:\n  otlp:\n    endpoint: https://localhost:{port}\n    protocol: {protocol}\n    \
                 certificate: {}\n    {own}batch_wait: 100ms\n    metrics: {{interval: 500ms}}\n",
                front.authority().display()
            )),
        )?;
        let server = Server::start(rig, Language::Python)?;
        let paths: Vec<String> = (0..REQUESTS).map(|turn| format!("/user/{turn}")).collect();
        client(rig, Language::Python, server.port, &paths)?;
        agent.awaited_spans(2 * REQUESTS, |_| true)?;
        wait::until("the spans to arrive", LIMIT, || Ok((rotel.count() >= 2 * REQUESTS).then_some(())))?;
        let page = agent.page_where("points to be sent", |page| {
            page.sum("seismo_export_points_total", &[("outcome", "sent")]) > 0.0
        })?;
        ensure!(page.sum("seismo_export_requests_total", &[("outcome", "failed")]) == 0.0, "a request failed");
        println!("{protocol} over TLS: {} spans arrived", rotel.count());
        agent.stop()
    })
}

#[test]
fn spans_and_metrics_arrive_over_https() -> Result<()> {
    spans_arrive(false)
}

#[test]
fn spans_and_metrics_arrive_over_encrypted_grpc() -> Result<()> {
    spans_arrive(true)
}

#[test]
fn a_backend_that_wants_a_certificate_takes_nothing_without() -> Result<()> {
    Rig::run(|rig| {
        let ports = Ports::free()?;
        let rotel = Rotel::start(rig, "rotel", ports)?;
        let front = Certified::start(rig, ports)?;
        let agent = Agent::launch(
            rig,
            &launch(format!(
                "export:\n  otlp:\n    endpoint: https://localhost:{}\n    protocol: grpc\n    certificate: {}\n    \
                 traces: {{enabled: false}}\n    metrics: {{interval: 500ms}}\n",
                front.grpc,
                front.authority().display()
            )),
        )?;
        let page = agent.page_where("points to be refused", |page| {
            page.sum("seismo_export_points_total", &[("outcome", "lost")]) > 0.0
        })?;
        ensure!(page.sum("seismo_export_points_total", &[("outcome", "sent")]) == 0.0, "points were taken");
        ensure!(rotel.count() == 0, "the collector has something");
        agent.stop()
    })
}

#[test]
fn spans_wait_where_nobody_vouches_for_the_backend() -> Result<()> {
    Rig::run(|rig| {
        let ports = Ports::free()?;
        let front = Certified::start(rig, ports)?;
        let nginx = Nginx::start(rig, None)?;
        let agent = Agent::launch(
            rig,
            &launch(format!(
                "export:\n  otlp:\n    traces: {{endpoint: 'https://localhost:{}/v1/traces'}}\n    certificate: {}\n    \
                 batch_wait: 100ms\n",
                front.port,
                front.other().display()
            )),
        )?;
        let mut curl = Command::new(programs::find("curl")?);
        curl.args(["--silent", "--fail", &format!("http://127.0.0.1:{}/", nginx.port)]);
        rig.inside("curl", curl)?.finish(LIMIT)?;
        let page = agent.page_where("attempts to fail", |page| {
            page.sum("seismo_export_requests_total", &[("outcome", "failed")]) >= 1.0
        })?;
        let count = |outcome| page.sum("seismo_export_spans_total", &[("outcome", outcome)]);
        ensure!(count("sent") == 0.0 && count("lost") == 0.0, "spans are neither sent nor lost yet");
        agent.stop()
    })
}

#[test]
fn checks_over_tls_tell_when_the_certificate_expires_and_why_one_is_not_accepted() -> Result<()> {
    Rig::run(|rig| {
        let front = Certified::start(rig, Ports::free()?)?;
        let plain = Nginx::start(rig, None)?;
        let config = format!(
            "checks:\n  interval: 500ms\n  timeout: 500ms\n  certificate: {ca}\n  targets:\n\
             \x20 - {{name: good, http: 'https://localhost:{port}/', fail_if_not_matches: '^ok'}}\n\
             \x20 - {{name: address, http: 'https://127.0.0.1:{port}/'}}\n\
             \x20 - {{name: expired, http: 'https://localhost:{expired}/'}}\n\
             \x20 - {{name: stranger, http: 'https://localhost:{port}/', certificate: {other}}}\n\
             \x20 - {{name: misnamed, http: 'https://127.0.0.2:{port}/'}}\n\
             \x20 - {{name: plain, http: 'https://127.0.0.1:{plain}/'}}\n\
             \x20 - {{name: missing, http: 'https://localhost:{port}/', certificate: /nonexistent.pem}}\n\
             \x20 - {{name: http, http: 'http://127.0.0.1:{plain}/'}}\n",
            ca = front.authority().display(),
            other = front.other().display(),
            port = front.port,
            expired = front.expired,
            plain = plain.port,
        );
        let agent = Agent::launch(rig, &launch(config))?;
        let outcomes = [
            ("good", "success"),
            ("address", "success"),
            ("expired", "certificate"),
            ("stranger", "certificate"),
            ("misnamed", "certificate"),
            ("plain", "tls"),
            ("missing", "tls"),
            ("http", "success"),
        ];
        let page = agent.page_where("every check at its verdict", |page| {
            outcomes.iter().all(|(check, outcome)| {
                page.sum("seismo_check_runs_total", &[("check", check), ("outcome", outcome)]) >= 1.0
            })
        });
        let page = page.with_context(|| match agent.page() {
            Ok(page) => format!("{:?}", page.select("seismo_check_runs_total", &[]).collect::<Vec<_>>()),
            Err(error) => error.to_string(),
        })?;
        let value = |metric: &str, check: &str| {
            page.samples
                .iter()
                .find(|sample| sample.name == metric && sample.labels.get("check").is_some_and(|own| own == check))
                .map(|sample| sample.value)
        };
        for (check, outcome) in outcomes {
            ensure!(value("probe_success", check) == Some(f64::from(u8::from(outcome == "success"))), "{check}");
        }
        for (check, expires) in
            [("good", Some(EXPIRES_S as f64)), ("stranger", None), ("expired", None), ("http", None)]
        {
            let found = value("probe_ssl_earliest_cert_expiry", check);
            println!("{check}: expires {found:?}");
            ensure!(found == expires, "{check} expires at {found:?}");
        }
        ensure!(value("probe_http_ssl", "good") == Some(1.0), "not said to be encrypted");
        ensure!(value("probe_http_ssl", "http") == Some(0.0), "said to be encrypted");
        let phases = page.by("probe_http_duration_seconds", "phase", &[("check", "good")]);
        ensure!(phases.len() == 5 && phases.contains_key("tls"), "phases: {phases:?}");
        agent.stop()
    })
}

/// Fires from the beginning.
const ALWAYS: &str =
    "groups:\n- name: always\n  interval: 500ms\n  rules:\n  - {alert: Running, expr: seismo_build_info > 0}\n";

#[test]
fn alerts_arrive_over_https_and_only_where_the_certificate_is_vouched_for() -> Result<()> {
    Rig::run(|rig| {
        let webhook = Webhook::start()?;
        let front = Certified::start_before(rig, Ports::free()?, webhook.port)?;
        let (good, expired) = (front.port, front.expired);
        for (host, certificate, outcome) in [
            (format!("localhost:{good}"), front.authority(), "sent"),
            (format!("127.0.0.1:{good}"), front.authority(), "sent"),
            (format!("localhost:{good}"), front.other(), "certificate"),
            (format!("127.0.0.2:{good}"), front.authority(), "certificate"),
            (format!("localhost:{expired}"), front.authority(), "certificate"),
        ] {
            let heard = webhook.bodies().len();
            let config =
                format!("alerts:\n  webhook: https://{host}/alerts\n  certificate: {}\n", certificate.display());
            let launch = Launch { rules: Some(ALWAYS.to_owned()), config: Some(config), ..Launch::default() };
            let agent = Agent::launch(rig, &launch)?;
            let page = agent.page_where("the notification to be sent or not", |page| {
                page.sum("seismo_notifications_total", &[]) >= 1.0
            })?;
            let counts: Vec<_> = page.select("seismo_notifications_total", &[]).filter(|one| one.value > 0.0).collect();
            println!("{host}: {counts:?}");
            let label = if outcome == "sent" { ("outcome", "sent") } else { ("reason", outcome) };
            ensure!(page.sum("seismo_notifications_total", &[label]) == 1.0, "{host}: {counts:?}");
            let more = webhook.bodies().len() - heard;
            ensure!(more == usize::from(outcome == "sent"), "{host}: the webhook heard {more} times");
            agent.stop()?;
        }
        ensure!(webhook.statuses("Running") == ["firing", "firing"], "{:?}", webhook.statuses("Running"));
        Ok(())
    })
}
