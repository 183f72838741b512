//! A rule goes pending, fires and resolves as a real server starts and stops failing; the webhook hears of it
//! exactly twice.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use seismo_tests::agent::{Agent, Launch};
use seismo_tests::nginx::Nginx;
use seismo_tests::rig::Rig;
use seismo_tests::wait;
use seismo_tests::webhook::Webhook;
use serde_json::Value;

const CLIENT: &str = env!("CARGO_BIN_EXE_seismo-testclient");

const RULES: &str = r#"groups:
  - name: requests
    interval: 1s
    rules:
      - alert: ServerErrors
        expr: rate(http_server_request_duration_seconds_count{http_response_status_code=~"5.."}[30s]) > 0
        for: 5s
        labels:
          severity: page
        annotations:
          summary: '{{ $labels.service_name }} fails'
"#;

/// State of the rule's alert as the API shows it; `inactive` when it shows none.
fn state(agent: &Agent<'_>) -> Result<String> {
    let answer = agent.json("/api/v1/alerts")?;
    let alerts = answer.pointer("/data/alerts").and_then(Value::as_array).context("no data.alerts")?;
    let mine: Vec<&Value> = alerts
        .iter()
        .filter(|alert| alert.pointer("/labels/alertname").and_then(Value::as_str) == Some("ServerErrors"))
        .collect();
    ensure!(mine.len() <= 1, "one failing server, {} alerts: {answer}", mine.len());
    let state = mine.first().map_or(Some("inactive"), |alert| alert.get("state").and_then(Value::as_str));
    Ok(state.context("an alert without a state")?.to_owned())
}

/// Asks `/fail` once every fifth of a second until told to stop; each time over a connection of its own.
fn traffic(rig: &Rig, port: u16, stop: &AtomicBool) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        rig.client(CLIENT, "asker", &["http", &port.to_string(), "/fail", "1"])?;
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

fn watch(agent: &Agent<'_>, nginx: &Nginx, webhook: &Webhook) -> Result<()> {
    let start = Instant::now();
    let mut seen = Vec::new();
    let mut reach = |wanted: &str, limit: u64| {
        wait::until(&format!("the alert to be {wanted}; so far {seen:?}"), Duration::from_secs(limit), || {
            let now = state(agent)?;
            if seen.last().is_none_or(|(_, last)| *last != now) {
                println!("{:6.1} s {now}", start.elapsed().as_secs_f64());
                seen.push((start.elapsed(), now.clone()));
            }
            Ok((now == wanted).then(|| start.elapsed()))
        })
    };
    // Some good answers first: the rate of a series that is born with its first failure is another matter.
    reach("inactive", 5)?;
    thread::sleep(Duration::from_secs(3));
    reach("inactive", 1)?;
    nginx.fail(true)?;
    let pending = reach("pending", 20)?;
    let firing = reach("firing", 20)?;
    println!("pending for {:.1} s", (firing - pending).as_secs_f64());
    ensure!(firing - pending >= Duration::from_secs(4), "`for: 5s` was not waited for");
    wait::until("the firing notification", Duration::from_secs(10), || {
        Ok((!webhook.statuses("ServerErrors").is_empty()).then_some(()))
    })?;
    ensure!(webhook.statuses("ServerErrors") == ["firing"], "{:?}", webhook.statuses("ServerErrors"));
    nginx.fail(false)?;
    let stopped = start.elapsed();
    let resolved = reach("inactive", 60)?;
    println!("resolved {:.1} s after the last failure", (resolved - stopped).as_secs_f64());
    wait::until("the resolved notification", Duration::from_secs(10), || {
        Ok((webhook.statuses("ServerErrors").len() >= 2).then_some(()))
    })?;
    // Nothing may follow: no repeat, no second resolution.
    thread::sleep(Duration::from_secs(5));
    let order: Vec<&str> = seen.iter().map(|(_, state)| state.as_str()).collect();
    ensure!(order == ["inactive", "pending", "firing", "inactive"], "states: {order:?}");
    Ok(())
}

#[test]
fn a_failing_server_raises_one_alert_that_resolves_when_it_recovers() -> Result<()> {
    Rig::run(|rig| {
        let webhook = Webhook::start()?;
        let nginx = Nginx::start(rig, None)?;
        let config = format!("exporters:\n  webhook:\n    url: {}\n", webhook.url());
        let launch = Launch { rules: Some(RULES.to_owned()), config: Some(config), ..Launch::default() };
        let agent = Agent::launch(rig, &launch)?;
        let rules = agent.json("/api/v1/rules")?;
        let rule = rules.pointer("/data/groups/0/rules/0").context("no rule in /api/v1/rules")?;
        ensure!(rule.get("name").and_then(Value::as_str) == Some("ServerErrors"), "{rule}");

        let stop = AtomicBool::new(false);
        let watched = thread::scope(|scope| {
            let traffic = scope.spawn(|| traffic(rig, nginx.port, &stop));
            let watched = watch(&agent, &nginx, &webhook);
            stop.store(true, Ordering::Relaxed);
            traffic.join().map_err(|_| anyhow::anyhow!("the traffic panicked"))?.and(watched)
        });
        webhook.bodies().iter().for_each(|(_, body)| println!("webhook: {body}"));
        watched?;
        let heard = webhook.statuses("ServerErrors");
        println!("the webhook heard {heard:?}");
        ensure!(heard == ["firing", "resolved"], "the webhook heard {heard:?}");
        agent.stop()
    })
}
