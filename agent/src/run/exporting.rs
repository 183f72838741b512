//! Spans on their way out: every finished span is shown to the sampler, and those of the traces that are kept go to the
//! exporters.
//!
//! A thread of its own with a runtime of its own, so that neither the pipeline nor the API ever waits for a backend. The
//! pipeline hands spans over without waiting (`Spans::tap`). Nothing of this runs unless a place to send to is configured.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use crate::alerts::Engine;
use crate::cli::WrongFile;
use crate::clock;
use crate::config::Config;
use crate::exporters::lines::{self, Lines};
use crate::exporters::otlp::Otlp;
use crate::exporters::{self, Account, Items};
use crate::metrics::record_exemplar;
use crate::model::metric::{Kind, Metric, Sample, Source, Value};
use crate::model::span::Span;
use crate::store::spans::Spans;
use crate::traces::sample::{Sampler, Shown};

/// Between two looks at batches and decisions that have waited long enough.
const TICK: Duration = Duration::from_millis(100);
/// Between two looks at which alerts fire.
const ALERTS_NS: u64 = 1_000_000_000;
/// Spans taken in one go.
const TAKEN: usize = 256;
/// How long sending may take once the agent stops.
const GRACE: Duration = Duration::from_millis(500);

pub static OVERRUN: Metric = Metric {
    name: "seismo.export.overrun",
    unit: "{span}",
    kind: Kind::Counter,
    description: "Finished spans that came faster than they could be chosen from for export",
    labels: &[],
};

struct Overrun(Arc<AtomicU64>);

impl Source for Overrun {
    fn collect(&self, out: &mut Vec<Sample>) {
        let value = Value::Count(self.0.load(Ordering::Relaxed));
        out.push(Sample { metric: &OVERRUN, labels: Vec::new(), value });
    }
}

/// What runs where spans are exported.
pub struct Exporting {
    spans: mpsc::Receiver<Arc<Span>>,
    sampler: Sampler,
    shown: Arc<Shown>,
    otlp: Arc<Account>,
    lines: Option<(lines::Out, Arc<Account>)>,
    config: exporters::Config,
    sources: Vec<Arc<dyn Source>>,
}

impl Exporting {
    /// Takes every span of the store from now on; `None` where spans go nowhere.
    pub fn new(config: &Config, store: &mut Spans) -> Result<Option<Self>> {
        if !config.export.is_wanted() {
            return Ok(None);
        }
        let (spans, refused) = store.tap(config.export.backlog);
        let (shown, otlp) = (Arc::new(Shown::default()), Arc::new(Account::new("otlp", Items::Spans)));
        let mut sources: Vec<Arc<dyn Source>> = vec![Arc::clone(&shown) as Arc<dyn Source>, Arc::new(Overrun(refused))];
        if config.export.otlp.takes_spans() {
            sources.push(Arc::clone(&otlp) as Arc<dyn Source>);
        }
        let of_lines = Arc::new(Account::new("lines", Items::Spans));
        let lines = lines::open(&config.export.lines).map_err(WrongFile)?;
        if lines.is_some() {
            sources.push(Arc::clone(&of_lines) as Arc<dyn Source>);
        }
        let lines = lines.map(|out| (out, of_lines));
        let sampler = Sampler::new(config.sampling.clone());
        Ok(Some(Self { spans, sampler, shown, otlp, lines, config: config.export.clone(), sources }))
    }

    /// The exporters' own metrics.
    pub fn sources(&mut self) -> Vec<Arc<dyn Source>> {
        std::mem::take(&mut self.sources)
    }

    /// Starts the thread. It ends after `stopped` has become true, which is when no more spans come.
    pub fn start(self, engine: Arc<Mutex<Engine>>, stopped: watch::Receiver<bool>) -> Result<JoinHandle<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new()
            .name("seismo-export".to_owned())
            .spawn(move || {
                if let Err(error) = runtime.block_on(self.run(&engine, stopped)) {
                    log::error!("spans are not exported: {error}");
                }
            })
            .context("starting the export")
    }

    async fn run(mut self, engine: &Mutex<Engine>, mut stopped: watch::Receiver<bool>) -> Result<(), String> {
        let mut otlp = Otlp::start(&self.config.otlp, Arc::clone(&self.otlp))?;
        let lines = self.lines.map(|(out, account)| Lines::start(out, account)).transpose()?;
        let mut every = tokio::time::interval(TICK);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut taken, mut kept) = (Vec::with_capacity(TAKEN), Vec::new());
        let (mut next_alerts_ns, mut end) = (0, false);
        while !end {
            tokio::select! {
                count = self.spans.recv_many(&mut taken, TAKEN) => end = count == 0,
                _ = every.tick() => {}
                _ = stopped.wait_for(|stopped| *stopped) => {
                    // The pipeline has ended: what it handed over is here.
                    while let Ok(span) = self.spans.try_recv() {
                        taken.push(span);
                    }
                    end = true;
                }
            }
            let now_ns = clock::monotonic_ns();
            if now_ns >= next_alerts_ns {
                next_alerts_ns = now_ns + ALERTS_NS;
                self.sampler.set_alerts(firing(engine));
            }
            for span in taken.drain(..) {
                self.sampler.offer(span, now_ns, &mut kept);
            }
            self.sampler.tick(now_ns);
            if end {
                self.sampler.finish();
            }
            self.shown.set(self.sampler.counts());
            for span in kept.drain(..) {
                record_exemplar(&span);
                if let Some(lines) = &lines {
                    lines.take(Arc::clone(&span));
                }
                if let Some(otlp) = &mut otlp {
                    otlp.take(span, now_ns);
                }
            }
            if let Some(otlp) = &mut otlp {
                otlp.tick(now_ns);
            }
        }
        let unsent = match otlp {
            Some(otlp) => otlp.finish(GRACE).await,
            None => 0,
        };
        let unwritten = lines.map_or(0, |lines| lines.finish(GRACE));
        if unsent + unwritten > 0 {
            log::warn!("{unsent} spans could not be sent and {unwritten} not be written before the end");
        }
        Ok(())
    }
}

/// Labels of the alerts that fire.
fn firing(engine: &Mutex<Engine>) -> Vec<BTreeMap<String, String>> {
    engine.lock().unwrap_or_else(PoisonError::into_inner).firing().map(|alert| alert.labels.clone()).collect()
}
