//! The queue of one signal and the task that empties it: batches in, requests out, each batch counted by how it ends.
//!
//! Spans and points of metrics have a queue, a connection and an account each, so that one never waits for the other. The
//! decisions are [`Outbox`]'s; this is its clock, its lock and its socket. Nothing here knows what is in a batch.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::Config;
use super::answer::Answer;
use super::outbox::{Batch, Outbox, Step};
use super::settings::Settings;
use super::transport::Transport;
use crate::clock;
use crate::exporters::{Account, LossReason};

/// What the two sides of the queue share.
struct Shared {
    outbox: Mutex<Outbox>,
    /// Something was put in, or the end has come.
    changed: Notify,
    account: Arc<Account>,
}

impl Shared {
    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, outbox: &Outbox) {
        self.account.show(outbox.counts(), outbox.bytes());
    }
}

/// The end that batches are handed to.
pub(super) struct Sender {
    shared: Arc<Shared>,
    sending: JoinHandle<()>,
}

impl Sender {
    /// Starts to send, within a runtime.
    pub(super) fn start(
        config: &Config,
        settings: Settings,
        queue_bytes: u64,
        account: Arc<Account>,
    ) -> Result<Self, String> {
        let (signal, limit) = (settings.signal, settings.timeout.0);
        log::info!("{} are sent to {}", signal.things(), settings.target);
        let outbox = Mutex::new(Outbox::new(config, queue_bytes, signal.things()));
        let shared = Arc::new(Shared { outbox, changed: Notify::new(), account });
        let sending = tokio::spawn(send(Arc::clone(&shared), Transport::new(settings)?, limit));
        Ok(Self { shared, sending })
    }

    /// So many will come in a batch.
    pub(super) fn offer(&self, items: u64) {
        let mut outbox = self.shared.outbox();
        outbox.offered(items);
        self.shared.show(&outbox);
    }

    /// Queues a batch of what was offered; never waits.
    pub(super) fn put(&self, batch: Batch) {
        let mut outbox = self.shared.outbox();
        outbox.put(batch);
        self.shared.show(&outbox);
        drop(outbox);
        self.shared.changed.notify_one();
    }

    /// What was offered and is not going to come.
    pub(super) fn lose(&self, reason: LossReason, items: u64) {
        let mut outbox = self.shared.outbox();
        outbox.lose(reason, items);
        self.shared.show(&outbox);
    }

    /// Sends what is left, each batch once, within `grace`; counts what could not be sent. Says how much that is.
    pub(super) async fn finish(self, grace: Duration) -> u64 {
        self.shared.outbox().close();
        self.shared.changed.notify_one();
        let sending = self.sending.abort_handle();
        if tokio::time::timeout(grace, self.sending).await.is_err() {
            sending.abort();
        }
        let mut outbox = self.shared.outbox();
        let lost = outbox.abandon();
        self.shared.show(&outbox);
        lost
    }
}

/// Sends batch after batch until the outbox is closed and has nothing more to send.
async fn send(shared: Arc<Shared>, mut transport: Transport, limit: Duration) {
    loop {
        let step = shared.outbox().step(clock::monotonic_ns());
        match step {
            Step::Nothing => shared.changed.notified().await,
            Step::End => return,
            Step::Wait(until_ns) => {
                let pause = Duration::from_nanos(until_ns.saturating_sub(clock::monotonic_ns()));
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = shared.changed.notified() => {}
                }
            }
            Step::Send(batch) => {
                let answer = tokio::time::timeout(limit, transport.send(batch.body)).await.unwrap_or_else(|_| {
                    transport.disconnect();
                    Answer::Later { after: None, why: format!("no answer within {} ms", limit.as_millis()) }
                });
                let mut outbox = shared.outbox();
                outbox.answered(answer, clock::monotonic_ns());
                shared.show(&outbox);
            }
        }
    }
}
