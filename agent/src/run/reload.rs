//! SIGHUP: the configuration is read again; its scope and its probe families take effect without a restart.
//!
//! A file that is wrong, or a scope that names what is not there, is told in the log and changes nothing. Other keys
//! that differ are named: they take effect at the next start.

use std::sync::Arc;

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};

use super::Reload;
use super::probe_control::ProbeControl;
use super::scope_control::Refusal;
use crate::config::Config;

/// Serves every SIGHUP; returns only if no signals can be had.
pub async fn on_hangup(running: &Config, reload: Option<Reload>, probes: Arc<ProbeControl>) -> Result<&'static str> {
    let mut hangup = signal(SignalKind::hangup())?;
    let reload = reload.map(Arc::new);
    loop {
        if hangup.recv().await.is_none() {
            return Ok("no more signals come");
        }
        let Some(reload) = reload.clone() else { continue };
        let (running, probes) = (running.clone(), Arc::clone(&probes));
        // Files are read, and the pipeline is waited for: not in the thread that serves the API.
        let done = tokio::task::spawn_blocking(move || match reload() {
            Ok(config) => take(&running, config, &probes),
            Err(error) => log::error!("SIGHUP: nothing is changed: {error:#}"),
        });
        if let Err(error) = done.await {
            log::error!("SIGHUP: {error}");
        }
    }
}

fn take(running: &Config, config: Config, probes: &ProbeControl) {
    let other = differing(running, &config);
    if !other.is_empty() {
        log::warn!("SIGHUP: only scope and probes are taken over; at the next start also: {}", other.join(", "));
    }
    // How many connections were taken up is logged where it is done.
    match probes.change_scope(config.scope) {
        Ok(_) => match probes.apply(&config.probes) {
            0 => {}
            failed => log::error!("SIGHUP: {failed} probe families are not as the configuration wants them"),
        },
        Err(Refusal::Wrong(message) | Refusal::Failed(message)) => {
            log::error!("SIGHUP: nothing is changed: {message}");
        }
    }
}

/// First parts of the keys that differ and only take effect at the next start; of `probes` that is one key.
fn differing(running: &Config, config: &Config) -> Vec<String> {
    let keys = |config: &Config| match serde_json::to_value(config) {
        Ok(serde_json::Value::Object(keys)) => keys,
        _ => serde_json::Map::new(),
    };
    let (before, after) = (keys(running), keys(config));
    let others = after
        .into_iter()
        .filter(|(key, value)| key != "scope" && key != "probes" && before.get(key) != Some(value))
        .map(|(key, _)| key);
    others.chain((running.probes.stats != config.probes.stats).then(|| "probes.stats".to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::{Config, differing};

    #[test]
    fn what_only_a_restart_changes_is_named() {
        let running = Config::default();
        let mut config = Config::default();
        assert!(differing(&running, &config).is_empty());
        config.scope.include.push(crate::config::scope::ScopeItem::All);
        config.spans.capacity = 7;
        config.capture.drop_one_in = 3;
        config.probes.scheduler = false;
        assert_eq!(differing(&running, &config), ["capture", "spans"]);
        config.probes.stats = true;
        assert_eq!(differing(&running, &config), ["capture", "spans", "probes.stats"]);
    }
}
