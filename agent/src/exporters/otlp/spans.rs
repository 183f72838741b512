//! Finished spans → batches of so many, or as many as came in a while, for the queue of spans.

use std::sync::Arc;
use std::time::Duration;

use super::Config;
use super::encode::Encoder;
use super::outbox::Batch;
use super::sender::Sender;
use super::settings::Signal;
use crate::exporters::Account;
use crate::model::span::Span;

/// The end that spans are handed to.
pub struct Otlp {
    sender: Sender,
    encoder: Encoder,
    batch: Vec<Arc<Span>>,
    /// When the oldest span of the batch came.
    since_ns: u64,
    batch_spans: usize,
    batch_wait_ns: u64,
}

impl Otlp {
    /// Starts to send, within a runtime; `None` where no spans are to be sent.
    pub fn start(config: &Config, account: Arc<Account>) -> Result<Option<Self>, String> {
        let Some(settings) = config.settings(Signal::Traces).transpose()? else { return Ok(None) };
        let encoder = Encoder::new(config, settings.compression)?;
        Ok(Some(Self {
            sender: Sender::start(config, settings, config.queue_bytes.0, account)?,
            encoder,
            batch: Vec::new(),
            since_ns: 0,
            batch_spans: config.batch_spans.max(1),
            batch_wait_ns: config.batch_wait.as_ns(),
        }))
    }

    /// Takes a span; never waits.
    pub fn take(&mut self, span: Arc<Span>, now_ns: u64) {
        if self.batch.is_empty() {
            self.since_ns = now_ns;
        }
        self.batch.push(span);
        self.sender.offer(1);
        if self.batch.len() >= self.batch_spans {
            self.flush();
        }
    }

    /// Sends a batch that has waited long enough.
    pub fn tick(&mut self, now_ns: u64) {
        if !self.batch.is_empty() && now_ns.saturating_sub(self.since_ns) >= self.batch_wait_ns {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if !self.batch.is_empty() {
            let (body, items) = (self.encoder.body(&self.batch), self.batch.len() as u64);
            self.batch.clear();
            self.sender.put(Batch { body, items });
        }
    }

    /// Sends what is left, each batch once, within `grace`; counts what could not be sent. Says how many spans that is.
    pub async fn finish(mut self, grace: Duration) -> u64 {
        self.flush();
        self.sender.finish(grace).await
    }
}
