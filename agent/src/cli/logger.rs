//! The agent's log: records of the `log` crate → one line each on standard error, as text or JSON.
//!
//! While a summary is drawn on the same terminal, lines are held back (the last 200) and shown inside it.
//! A line that cannot be written is given up: there is nowhere left to say so.

use std::collections::VecDeque;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Mutex, OnceLock, PoisonError};

use jiff::Timestamp;
use log::{LevelFilter, Log, Metadata, Record};

use crate::config::{self, LogFormat, LogLevel};

const MAX_HELD: usize = 200;

#[derive(Debug)]
struct Logger {
    format: LogFormat,
    /// Lines held back; `None` while they are written at once.
    held: Mutex<Option<VecDeque<String>>>,
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Starts the log; once in a process.
pub fn start(section: &config::Log) -> anyhow::Result<()> {
    let logger = LOGGER.get_or_init(|| Logger { format: section.format, held: Mutex::new(None) });
    log::set_logger(logger).map_err(|error| anyhow::anyhow!("the log was started twice: {error}"))?;
    log::set_max_level(match section.level {
        LogLevel::Error => LevelFilter::Error,
        LogLevel::Warn => LevelFilter::Warn,
        LogLevel::Info => LevelFilter::Info,
        LogLevel::Debug => LevelFilter::Debug,
        LogLevel::Trace => LevelFilter::Trace,
    });
    Ok(())
}

/// Holds lines back from now on, if standard error is the terminal that a summary is drawn on.
pub fn hold() {
    if let Some(logger) = LOGGER.get()
        && io::stderr().is_terminal()
    {
        logger.held.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default();
    }
}

/// The last lines held back, oldest first.
pub fn held(count: usize) -> Vec<String> {
    let Some(logger) = LOGGER.get() else { return Vec::new() };
    let held = logger.held.lock().unwrap_or_else(PoisonError::into_inner);
    held.as_ref()
        .map(|lines| lines.iter().skip(lines.len().saturating_sub(count)).cloned().collect())
        .unwrap_or_default()
}

/// Writes what was held back and holds nothing back any more.
pub fn release() {
    let Some(logger) = LOGGER.get() else { return };
    for line in logger.held.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default() {
        write(&line);
    }
}

impl Log for Logger {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let line = line(self.format, Timestamp::now(), record);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match held.as_mut() {
            Some(lines) => {
                if lines.len() >= MAX_HELD {
                    lines.pop_front();
                }
                lines.push_back(line);
            }
            None => write(&line),
        }
    }

    fn flush(&self) {}
}

fn write(line: &str) {
    // One write, so that lines of several threads do not mix.
    let _nobody_reads = io::stderr().write_all(format!("{line}\n").as_bytes());
}

fn line(format: LogFormat, time: Timestamp, record: &Record<'_>) -> String {
    let message = record.args().to_string();
    match format {
        LogFormat::Text => {
            // A message may quote captured text: no line breaks, no escape sequences.
            let message = crate::model::display::printable(&message);
            format!("{time:.3} {:<5} {}: {message}", record.level(), record.target())
        }
        LogFormat::Json => serde_json::json!({
            "time": format!("{time:.3}"),
            "level": record.level().as_str().to_ascii_lowercase(),
            "target": record.target(),
            "message": message,
        })
        .to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use jiff::Timestamp;
    use log::{Level, Record};

    use super::{LogFormat, line};

    fn shown(format: LogFormat) -> String {
        let time: Timestamp = "2026-01-02T03:04:05.006Z".parse().unwrap();
        let arguments = format_args!("a\n\x1b[1mb");
        line(format, time, &Record::builder().level(Level::Warn).target("seismo::api").args(arguments).build())
    }

    #[test]
    fn a_record_is_one_line_with_time_level_and_target() {
        assert_eq!(shown(LogFormat::Text), "2026-01-02T03:04:05.006Z WARN  seismo::api: a··[1mb");
    }

    #[test]
    fn a_record_as_json_keeps_the_message_as_it_was() {
        let read: serde_json::Value = serde_json::from_str(&shown(LogFormat::Json)).unwrap();
        let expected = serde_json::json!({
            "time": "2026-01-02T03:04:05.006Z", "level": "warn", "target": "seismo::api", "message": "a\n\u{1b}[1mb",
        });
        assert_eq!(read, expected);
    }
}
