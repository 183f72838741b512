//! The one-screen summary of a running agent: [`Summary`] → text, drawn over the last one.
//!
//! [`render`] is pure and never exceeds the given size; [`Screen`] writes it with two escape sequences and
//! keeps no state on the terminal, so that an agent that is killed leaves nothing to repair.

#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use crate::model::display::{clip, duration, printable, three_digits};
use crate::model::span::{Span, SpanKind, StatusCode};

/// Services shown.
const TOP_SERVICES: usize = 8;
/// Lines of the log and of losses shown.
const MAX_LINES: usize = 5;

/// One service's requests as its server side saw them, over the last interval.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceRow {
    pub service: String,
    pub requests_per_s: f64,
    pub errors_per_s: f64,
    pub p50_ns: Option<u64>,
    pub p99_ns: Option<u64>,
}

/// Everything on the screen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Address of the HTTP API.
    pub listen: String,
    pub uptime: Duration,
    /// Unix time, ns.
    pub now_ns: u64,
    /// Why the agent is not ready.
    pub not_ready: Option<String>,
    pub probes_active: usize,
    pub probes_total: usize,
    /// `probe: reason` of those that failed or lack something.
    pub probes_wanting: Vec<String>,
    pub records_per_s: f64,
    /// `stage reason` and how many, since the start; without the ones that are zero.
    pub losses: Vec<(String, u64)>,
    /// In any order; the busiest are shown.
    pub services: Vec<ServiceRow>,
    /// Newest first.
    pub spans: Vec<Arc<Span>>,
    /// Last lines of the log, oldest first.
    pub log: Vec<String>,
}

/// The summary as at most `height` lines of at most `width` characters.
pub fn render(summary: &Summary, width: usize, height: usize) -> String {
    let mut lines = head(summary);
    lines.push(String::new());
    lines.extend(services(summary));
    let tail = tail(summary);
    let room = height.saturating_sub(lines.len() + tail.len() + 2);
    if room > 0 && !summary.spans.is_empty() {
        lines.push(String::new());
        lines.push(format!("{:<10} {:<20} {:<6} {:<7} {:>8}  NAME", "AGO", "SERVICE", "KIND", "STATUS", "DURATION"));
        lines.extend(summary.spans.iter().take(room).map(|span| span_line(span, summary.now_ns)));
    }
    lines.extend(tail);
    lines.truncate(height);
    let clipped: Vec<_> = lines.iter().map(|line| clip(line.trim_end(), width)).collect();
    clipped.join("\n")
}

fn head(summary: &Summary) -> Vec<String> {
    let uptime = humantime::format_duration(Duration::from_secs(summary.uptime.as_secs()));
    let mut lines = vec![
        format!("seismo   up {uptime}   http://{}", summary.listen),
        format!(
            "probes   {} of {} active   {} records/s",
            summary.probes_active,
            summary.probes_total,
            three_digits(summary.records_per_s)
        ),
    ];
    if let Some(reason) = &summary.not_ready {
        lines.push(format!("NOT READY: {}", printable(reason)));
    }
    lines.extend(summary.probes_wanting.iter().take(MAX_LINES).map(|line| format!("         {}", printable(line))));
    if summary.losses.is_empty() {
        lines.push("lost     nothing".to_owned());
    }
    lines.extend(summary.losses.iter().take(MAX_LINES).map(|(what, count)| format!("lost     {count} {what}")));
    lines
}

fn services(summary: &Summary) -> Vec<String> {
    let mut rows: Vec<_> = summary.services.iter().collect();
    rows.sort_by(|a, b| b.requests_per_s.total_cmp(&a.requests_per_s).then_with(|| a.service.cmp(&b.service)));
    let mut lines =
        vec![format!("{:<24} {:>10} {:>10} {:>8} {:>8}", "SERVICE", "REQUESTS/S", "ERRORS/S", "P50", "P99")];
    if rows.is_empty() {
        lines.push("no requests yet; payloads are only read of what --scope names".to_owned());
    }
    let shown = |ns: Option<u64>| ns.map_or_else(|| "-".to_owned(), duration);
    lines.extend(rows.iter().take(TOP_SERVICES).map(|row| {
        format!(
            "{:<24} {:>10} {:>10} {:>8} {:>8}",
            clip(&printable(&row.service), 24),
            three_digits(row.requests_per_s),
            three_digits(row.errors_per_s),
            shown(row.p50_ns),
            shown(row.p99_ns)
        )
    }));
    if rows.len() > TOP_SERVICES {
        lines.push(format!("and {} more", rows.len() - TOP_SERVICES));
    }
    lines
}

fn span_line(span: &Span, now_ns: u64) -> String {
    let kind = match span.kind {
        SpanKind::Server => "server",
        SpanKind::Client => "client",
    };
    let status = if span.status == StatusCode::Error { "error" } else { "ok" };
    format!(
        "{:<10} {:<20} {kind:<6} {status:<7} {:>8}  {}",
        duration(now_ns.saturating_sub(span.end_ns)),
        clip(&printable(&span.resource.service_name), 20),
        duration(span.end_ns.saturating_sub(span.start_ns)),
        printable(&span.name)
    )
}

fn tail(summary: &Summary) -> Vec<String> {
    let skipped = summary.log.len().saturating_sub(MAX_LINES);
    let lines: Vec<_> = summary.log.iter().skip(skipped).map(|line| printable(line)).collect();
    if lines.is_empty() { lines } else { std::iter::once(String::new()).chain(lines).collect() }
}

/// The terminal that the summary is drawn on.
#[derive(Debug)]
pub struct Screen(());

impl Screen {
    /// `None` when standard output is no terminal: then nothing is drawn.
    pub fn open() -> Option<Self> {
        io::stdout().is_terminal().then_some(Self(()))
    }

    /// Draws over what was drawn before.
    pub fn draw(&mut self, summary: &Summary) -> io::Result<()> {
        let (width, height) =
            terminal_size::terminal_size().map_or((80, 24), |(width, height)| (width.0.into(), height.0.into()));
        // The last row stays empty: a line break there would scroll.
        let text = render(summary, width, usize::saturating_sub(height, 1));
        let mut out = io::stdout().lock();
        // Home; each line clears what is left of the old one; then clear below.
        write!(out, "\x1b[H{}\x1b[K\r\n\x1b[J", text.replace('\n', "\x1b[K\r\n"))?;
        out.flush()
    }
}
