//! Spans as lines of JSON, the same as `seismo spans --json` prints, to the end of a file or to standard output.
//!
//! A thread of its own writes, so that a slow disk or reader holds nobody up: at most [`QUEUE`] spans wait for it, the rest
//! is lost and counted. Lines are written whole; a file is neither rotated nor bounded here.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Account, Counts, LossReason};
use crate::model::span::Span;
use crate::model::span_json;

/// Spans that may wait to be written.
const QUEUE: usize = 8192;
/// Time between two looks at whether the thread is done.
const LOOK: Duration = Duration::from_millis(5);

crate::section! {
    /// Spans as lines of JSON.
    pub struct Config {
        /// File that lines are added to; `-` is standard output. Not set: nowhere. It grows without a bound.
        pub path: Option<String> = None,
    }
}

#[derive(Debug)]
struct Shared {
    counts: Mutex<Counts>,
    account: Arc<Account>,
}

impl Shared {
    fn count(&self, count: impl FnOnce(&mut Counts)) {
        let mut counts: MutexGuard<'_, Counts> = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        count(&mut counts);
        self.account.show(*counts, 0);
    }
}

/// The end that spans are handed to.
#[derive(Debug)]
pub struct Lines {
    shared: Arc<Shared>,
    queue: SyncSender<Arc<Span>>,
    writing: JoinHandle<()>,
}

/// Where lines go.
pub type Out = Box<dyn Write + Send>;

/// Opens the file; `None` where nothing is to be written.
pub fn open(config: &Config) -> Result<Option<Out>, String> {
    let Some(path) = config.path.as_deref() else { return Ok(None) };
    if path == "-" {
        return Ok(Some(Box::new(io::stdout())));
    }
    let file = OpenOptions::new().create(true).append(true).open(path);
    Ok(Some(Box::new(file.map_err(|error| format!("export.lines.path: {path}: {error}"))?)))
}

impl Lines {
    /// Starts the thread that writes.
    pub fn start(out: Out, account: Arc<Account>) -> Result<Self, String> {
        let (queue, spans) = sync_channel(QUEUE);
        let shared = Arc::new(Shared { counts: Mutex::default(), account });
        let writing = std::thread::Builder::new().name("seismo-lines".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || write(&shared, &spans, out)
        });
        Ok(Self { shared, queue, writing: writing.map_err(|error| error.to_string())? })
    }

    /// Takes a span; never waits.
    pub fn take(&self, span: Arc<Span>) {
        let refused = self.queue.try_send(span).is_err();
        self.shared.count(|counts| {
            counts.offered += 1;
            counts.lose(LossReason::QueueFull, refused.into());
        });
    }

    /// Writes what is left within `grace`, and counts what was not. Says how many spans that is.
    pub fn finish(self, grace: Duration) -> u64 {
        drop(self.queue);
        let mut left = grace;
        while !self.writing.is_finished() && !left.is_zero() {
            std::thread::sleep(LOOK.min(left));
            left = left.saturating_sub(LOOK);
        }
        let mut lost = 0;
        self.shared.count(|counts| {
            lost = counts.queued();
            counts.lose(LossReason::Shutdown, lost);
        });
        lost
    }
}

fn write(shared: &Shared, spans: &Receiver<Arc<Span>>, mut out: Out) {
    let mut told = false;
    while let Ok(first) = spans.recv() {
        // As many as there are in one go, but none waits for others.
        let mut text = format!("{}\n", span_json::span(&first));
        let mut count = 1;
        for span in spans.try_iter().take(255) {
            text.push_str(&format!("{}\n", span_json::span(&span)));
            count += 1;
        }
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        if let Err(error) = &written
            && !told
        {
            log::warn!("spans cannot be written: {error}; they are lost, and counted");
            told = true;
        }
        shared.count(|counts| match written {
            Ok(()) => counts.sent += count,
            Err(_) => counts.lose(LossReason::Write, count),
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::model::span::SpanId;

    fn span(number: u64) -> Arc<Span> {
        Arc::new(Span { span_id: SpanId(number.to_be_bytes()), start_ns: 1, end_ns: 2, ..Span::example() })
    }

    #[derive(Clone, Default)]
    struct Paper {
        text: Arc<Mutex<Vec<u8>>>,
        /// Held while nobody may write.
        gate: Arc<Mutex<()>>,
        broken: bool,
    }

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _open = self.gate.lock().unwrap();
            if self.broken {
                return Err(io::Error::other("torn"));
            }
            self.text.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn start(paper: &Paper) -> (Lines, Arc<Account>) {
        let account = Arc::new(Account::new("lines", crate::exporters::Items::Spans));
        (Lines::start(Box::new(paper.clone()), Arc::clone(&account)).unwrap(), account)
    }

    #[test]
    fn every_span_is_a_line_in_its_order() {
        let paper = Paper::default();
        let (lines, account) = start(&paper);
        (0..1000).for_each(|number| lines.take(span(number)));
        assert_eq!(lines.finish(Duration::from_secs(60)), 0);
        let text = String::from_utf8(paper.text.lock().unwrap().clone()).unwrap();
        let ids: Vec<u64> = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .map(|span| u64::from_str_radix(span["spanId"].as_str().unwrap(), 16).unwrap())
            .collect();
        assert_eq!(ids, (0..1000).collect::<Vec<_>>());
        assert_eq!((account.counts().sent, account.counts().queued()), (1000, 0));
    }

    #[test]
    fn a_reader_that_does_not_read_holds_up_nobody_and_what_is_lost_is_counted() {
        let paper = Paper::default();
        let (lines, account) = start(&paper);
        let closed = paper.gate.lock().unwrap();
        let total = 3 * QUEUE as u64;
        (0..total).for_each(|number| lines.take(span(number)));
        let counts = account.counts();
        assert!(counts.lost_for(LossReason::QueueFull) >= total - QUEUE as u64 - 256, "{counts:?}");
        let left = lines.finish(Duration::ZERO);
        let counts = account.counts();
        assert_eq!((counts.lost_for(LossReason::Shutdown), counts.queued()), (left, 0));
        assert!(left > 0, "{counts:?}");
        drop(closed);
    }

    #[test]
    fn what_cannot_be_written_is_lost_for_that_reason() {
        let (lines, account) = start(&Paper { broken: true, ..Paper::default() });
        (0..10).for_each(|number| lines.take(span(number)));
        lines.finish(Duration::from_secs(60));
        assert_eq!(account.counts().lost_for(LossReason::Write), 10);
    }
}
