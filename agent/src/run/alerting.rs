//! Alert rules at work: every interval the sources are gathered into the stores of recent samples, the rules are stepped
//! over theirs, and each change of state goes to the log and to the webhook.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use super::RunOptions;
use super::samples::Samples;
use crate::alerts::{self, Config as AlertConfig, Engine};
use crate::cli::WrongFile;
use crate::clock;
use crate::config::Config;
use crate::exporters::webhook::{Sender, Webhook};
use crate::model::alert::Alert;
use crate::model::metric::Source;

/// How long notifications under way may take once the agent stops.
const GRACE: Duration = Duration::from_millis(500);

/// The rules, what they look at, and whom they tell.
pub struct Alerting {
    engine: Arc<Mutex<Engine>>,
    samples: Arc<Samples>,
    config: AlertConfig,
    webhook: Option<(Sender, Webhook)>,
    sources: Vec<Arc<dyn Source>>,
    interval: Duration,
}

impl Alerting {
    /// Reads the rule files; wrong ones are refused here, before anything starts.
    pub fn new(config: &Config, options: &RunOptions) -> Result<Self> {
        let mut alerts = config.alerts.clone();
        alerts.rules.extend(options.rules.iter().map(|path| path.to_string_lossy().into_owned()));
        if options.webhook.is_some() {
            alerts.webhook.clone_from(&options.webhook);
        }
        let groups =
            alerts::load(&alerts.rules, config.samples.history).map_err(|error| WrongFile(error.to_string()))?;
        let shortest = groups.iter().filter_map(|group| group.interval_ms).min();
        let samples = Samples::new(&config.samples, alerts::selectors(&groups), !groups.is_empty());
        let engine = Engine::new(groups, &alerts);
        let webhook = alerts
            .webhook
            .as_deref()
            .map(|url| Webhook::new(url, alerts.certificate.as_deref(), alerts.notification_queue))
            .transpose()
            .map_err(|error| WrongFile(format!("webhook: {error}")))?;
        let mut sources: Vec<Arc<dyn Source>> = vec![engine.account(), samples.account()];
        if let Some((_, webhook)) = &webhook {
            sources.push(webhook.account());
        }
        let interval =
            shortest.and_then(|millis| u64::try_from(millis).ok()).map_or(alerts.evaluation_interval.0, |millis| {
                alerts.evaluation_interval.0.min(Duration::from_millis(millis))
            });
        let (engine, samples) = (Arc::new(Mutex::new(engine)), Arc::new(samples));
        Ok(Self { engine, samples, config: alerts, webhook, sources, interval })
    }

    pub fn engine(&self) -> Arc<Mutex<Engine>> {
        Arc::clone(&self.engine)
    }

    pub fn samples(&self) -> Arc<Samples> {
        Arc::clone(&self.samples)
    }

    /// The rules' own metrics.
    pub fn sources(&mut self) -> Vec<Arc<dyn Source>> {
        std::mem::take(&mut self.sources)
    }

    /// Steps until the agent stops; then notifications under way get a short grace.
    pub async fn run(self, mut stopped: watch::Receiver<bool>) {
        let Self { engine, samples, config, webhook, interval, .. } = self;
        let (sender, mut sending) = match webhook {
            Some((sender, webhook)) => (Some(sender), Some(tokio::spawn(webhook.run()))),
            None => (None, None),
        };
        let mut every = tokio::time::interval(interval);
        every.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (start, start_ms) = (Instant::now(), clock::wall_ns() / 1_000_000);
        loop {
            let tick = tokio::select! {
                tick = every.tick() => tick,
                _ = stopped.wait_for(|stopped| *stopped) => break,
            };
            if samples.are_unwanted() {
                continue;
            }
            // The time as scheduled: a step that is late by a millisecond must not make a `for` last an interval longer.
            let since_start = tick.saturating_duration_since(start).as_millis();
            let now_ms = i64::try_from(u128::from(start_ms) + since_start).unwrap_or(i64::MAX);
            let (samples, engine) = (Arc::clone(&samples), Arc::clone(&engine));
            // Gathering reads kernel maps: off the thread that serves.
            let stepped = tokio::task::spawn_blocking(move || {
                let mut changes = Vec::new();
                samples.step(now_ms, |store| {
                    engine.lock().unwrap_or_else(PoisonError::into_inner).step(now_ms, store, &mut changes);
                });
                changes
            })
            .await;
            match stepped {
                Ok(changes) => notify(&changes, sender.as_ref(), &config),
                Err(error) => {
                    log::error!("alert rules stopped: {}", anyhow!(error));
                    break;
                }
            }
        }
        drop(sender);
        if let Some(sending) = &mut sending
            && tokio::time::timeout(GRACE, sending).await.is_err()
        {
            log::warn!("notifications were still waiting for the webhook");
        }
    }
}

fn notify(changes: &[Alert], sender: Option<&Sender>, config: &AlertConfig) {
    let Some(sender) = sender else { return };
    for body in changes.iter().filter_map(|alert| alerts::payload(alert, config)) {
        sender.send(body);
    }
}
