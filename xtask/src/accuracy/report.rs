//! Judgements as people read them: a line for each run, the links by method, what is missing, and what misses a target.
//!
//! The targets stand here and nowhere else. The same text is printed and, in Markdown, saved as docs/accuracy.md.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::judge::{Judgement, Links, share};

/// Spans found of those expected, and right of those found, where nothing was lost on purpose.
const SPANS: f64 = 0.999;
/// Right links of those that a deterministic method made.
const DETERMINISTIC: f64 = 0.995;
/// Wrong parents of all that were judged.
const WRONG: f64 = 0.01;
/// Whole traces where a thread has its request to itself.
const WHOLE_THREADS: f64 = 0.99;
/// Whole traces elsewhere, up to [`WHOLE_UP_TO`] requests at the same time.
const WHOLE: f64 = 0.9;
const WHOLE_UP_TO: usize = 16;
/// Methods that decide by what was seen, not by what is likely.
const DETERMINISTIC_METHODS: &[&str] = &["in_band", "task", "thread", "connection", "-"];

/// One run of a case.
#[derive(Debug, Serialize)]
pub(super) struct Cell {
    pub(super) case: &'static str,
    pub(super) condition: String,
    pub(super) concurrency: usize,
    pub(super) thread_per_request: bool,
    /// Records were lost on purpose: what is missing is no fault.
    pub(super) lossy: bool,
    pub(super) requests_per_second: f64,
    pub(super) latency_us: Errors,
    pub(super) start_us: Errors,
    pub(super) judgement: Judgement,
    pub(super) missed: Vec<String>,
}

/// How far spans of the load generator are from its own clock, µs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Errors {
    pub(super) median: f64,
    /// Of the absolute values.
    pub(super) p99: f64,
}

impl Errors {
    pub(super) fn of(differences: &[i64]) -> Self {
        let mut sorted = differences.to_vec();
        sorted.sort_unstable();
        let median = at(&sorted, 0.5);
        sorted.iter_mut().for_each(|difference| *difference = difference.abs());
        sorted.sort_unstable();
        Self { median, p99: at(&sorted, 0.99) }
    }
}

/// ns to µs.
fn at(sorted: &[i64], quantile: f64) -> f64 {
    let last = sorted.len().saturating_sub(1) as f64;
    sorted.get((last * quantile).round() as usize).map_or(0.0, |value| *value as f64 / 1e3)
}

impl Cell {
    pub(super) fn judged(mut self) -> Self {
        let judgement = &self.judgement;
        let mut missed = Vec::new();
        let mut at_least = |what: &str, found: f64, wanted: f64| {
            if found < wanted {
                missed.push(format!("{what} {} < {}", percent(found), percent(wanted)));
            }
        };
        if !self.lossy {
            at_least("spans found", judgement.spans.recall(), SPANS);
        }
        at_least("spans right", judgement.spans.precision(), SPANS);
        for (method, links) in &judgement.methods {
            if DETERMINISTIC_METHODS.contains(&method.as_str()) {
                let made = links.right + links.wrong;
                at_least(&format!("links by {method}"), share(links.right, made), DETERMINISTIC);
            }
        }
        at_least("parents not wrong", 1.0 - judgement.wrong_share(), 1.0 - WRONG);
        if !self.lossy && self.concurrency <= WHOLE_UP_TO {
            let wanted = if self.thread_per_request { WHOLE_THREADS } else { WHOLE };
            at_least("whole traces", judgement.whole_share(), wanted);
        }
        if judgement.failed > 0 {
            missed.push(format!("{} requests failed", judgement.failed));
        }
        if judgement.breakdown.sums_off > 0 {
            missed.push(format!("{} breakdowns do not add up", judgement.breakdown.sums_off));
        }
        self.missed = missed;
        self
    }
}

/// One decimal more than needed would be a lie with a few hundred requests; 100 % is said only of all.
fn percent(share: f64) -> String {
    let text = format!("{:.1}", share * 100.0);
    if share < 1.0 && text == "100.0" { ">99.9".to_owned() } else { text }
}

const COLUMNS: [&str; 14] = [
    "case",
    "condition",
    "at once",
    "spans found %",
    "right %",
    "incomplete",
    "duration off, µs (p99)",
    "start off, µs (p99)",
    "links between right %",
    "inside right %",
    "orphans %",
    "wrong %",
    "whole traces %",
    "breakdown %",
];

fn row(cell: &Cell) -> [String; 14] {
    let judgement = &cell.judgement;
    let of_links = |count: usize, links: &Links| percent(share(count, links.judged().max(1)));
    let inside = &judgement.inside;
    let breakdown = &judgement.breakdown;
    let errors = |errors: &Errors| format!("{:.0} ({:.0})", errors.median, errors.p99);
    [
        cell.case.to_owned(),
        cell.condition.clone(),
        cell.concurrency.to_string(),
        percent(judgement.spans.recall()),
        percent(judgement.spans.precision()),
        judgement.spans.incomplete.to_string(),
        errors(&cell.latency_us),
        errors(&cell.start_us),
        of_links(judgement.between.right, &judgement.between),
        of_links(inside.right, inside),
        of_links(inside.orphans, inside),
        percent(judgement.wrong_share()),
        percent(judgement.whole_share()),
        percent(share(breakdown.server_spans_with, breakdown.server_spans.max(1))),
    ]
}

/// Links made, over all runs without loss, by case and method; the last column is of all links that there are.
fn methods(cells: &[Cell]) -> Vec<[String; 6]> {
    let mut sums: BTreeMap<(&str, &str), Links> = BTreeMap::new();
    let mut all: BTreeMap<&str, usize> = BTreeMap::new();
    for cell in cells.iter().filter(|cell| !cell.lossy) {
        *all.entry(cell.case).or_default() += cell.judgement.links().judged();
        for (method, links) in &cell.judgement.methods {
            let sum = sums.entry((cell.case, method)).or_default();
            *sum = sum.plus(*links);
        }
    }
    let line = |((case, method), links): (&(&str, &str), &Links)| {
        let made = links.right + links.wrong + links.dangling;
        let of_all = share(links.right, all.get(case).copied().unwrap_or(0).max(1));
        let [case, method] = [case, method].map(|text| (*text).to_owned());
        [case, method, made.to_string(), links.wrong.to_string(), percent(links.precision()), percent(of_all)]
    };
    sums.iter().map(line).collect()
}

/// Everything as Markdown, which is also readable as it is.
pub(super) fn text(cells: &[Cell], failures: &[(String, String)]) -> String {
    let mut text = table(&COLUMNS, &cells.iter().map(row).collect::<Vec<_>>());
    let methods = methods(cells);
    if !methods.is_empty() {
        text += "\nLinks by method, where nothing was lost on purpose:\n\n";
        text += &table(&["case", "method", "made", "wrong", "right %", "of all links %"], &methods);
    }
    text += "\nTargets:\n\n";
    for cell in cells {
        let verdict =
            if cell.missed.is_empty() { "met".to_owned() } else { format!("MISSED: {}", cell.missed.join("; ")) };
        let _ = writeln!(text, "- {}, {}, {} at once: {verdict}", cell.case, cell.condition, cell.concurrency);
    }
    for (what, why) in failures {
        let _ = writeln!(text, "- {what}: NOT MEASURED: {}", why.lines().collect::<Vec<_>>().join(" "));
    }
    let notes: Vec<String> = cells.iter().flat_map(notes).collect();
    if !notes.is_empty() {
        text += "\nNoticed:\n\n";
        text.extend(notes.iter().map(|note| format!("- {note}\n")));
    }
    text
}

/// What the figures do not tell.
fn notes(cell: &Cell) -> Vec<String> {
    let judgement = &cell.judgement;
    let of = format!("{}, {}, {} at once", cell.case, cell.condition, cell.concurrency);
    let mut notes = Vec::new();
    if !judgement.spans.missing.is_empty() && !cell.lossy {
        let missing: Vec<_> = judgement.spans.missing.iter().map(|(what, count)| format!("{count} {what}")).collect();
        notes.push(format!("{of}: missing {}", missing.join(", ")));
    }
    for (count, what) in [
        (judgement.spans.doubled, "calls told twice"),
        (judgement.spans.unexpected, "spans of no call"),
        (judgement.links().dangling + judgement.roots.dangling, "parents that were not found themselves"),
        (judgement.mixed_traces, "trace ids over several requests"),
    ] {
        if count > 0 {
            notes.push(format!("{of}: {count} {what}"));
        }
    }
    notes
}

fn table<const N: usize>(columns: &[&str; N], rows: &[[String; N]]) -> String {
    let width = |index: usize| {
        let cells = rows.iter().filter_map(|row| row.get(index)).map(|cell| cell.chars().count());
        cells.chain(columns.get(index).map(|name| name.chars().count())).max().unwrap_or(0)
    };
    let line = |cells: &[String]| {
        let padded = cells.iter().enumerate().map(|(index, cell)| {
            let space = width(index).saturating_sub(cell.chars().count());
            format!(" {cell}{} |", " ".repeat(space))
        });
        format!("|{}\n", padded.collect::<String>())
    };
    let mut text = line(&columns.map(str::to_owned));
    text += &format!("|{}\n", (0..N).map(|index| format!("{}|", "-".repeat(width(index) + 2))).collect::<String>());
    text.extend(rows.iter().map(|row| line(row)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accuracy::judge::Spans;

    fn cell(spans: Spans, inside: Links) -> Cell {
        let judgement = Judgement { requests: 10, whole: 9, spans, inside, ..Judgement::default() };
        Cell {
            case: "node",
            condition: "-".to_owned(),
            concurrency: 4,
            thread_per_request: false,
            lossy: false,
            requests_per_second: 1.0,
            latency_us: Errors::default(),
            start_us: Errors::default(),
            judgement,
            missed: Vec::new(),
        }
    }

    #[test]
    fn what_reaches_every_target_is_said_to_meet_them() {
        let spans = Spans { expected: 140, found: 140, ..Spans::default() };
        let good = cell(spans, Links { right: 60, orphans: 1, ..Links::default() }).judged();
        assert_eq!(good.missed, [""; 0]);
        assert!(text(&[good], &[]).contains("node, -, 4 at once: met"));
    }

    #[test]
    fn each_target_that_is_missed_is_named_with_its_figure() {
        let spans = Spans { expected: 140, found: 130, doubled: 2, ..Spans::default() };
        let mut bad = cell(spans, Links { right: 50, wrong: 10, ..Links::default() });
        bad.thread_per_request = true;
        bad.judgement.methods.insert("thread".to_owned(), Links { right: 50, wrong: 10, ..Links::default() });
        bad.judgement.methods.insert("statistics".to_owned(), Links { right: 1, wrong: 9, ..Links::default() });
        let missed = bad.judged().missed;
        let expected = [
            "spans found 92.9",
            "spans right 98.5",
            "links by thread 83.3",
            "parents not wrong 83.3",
            "whole traces 90.0",
        ];
        assert_eq!(missed.len(), expected.len(), "{missed:?}");
        assert!(missed.iter().zip(expected).all(|(missed, expected)| missed.starts_with(expected)), "{missed:?}");
    }

    #[test]
    fn lost_records_excuse_missing_spans_and_no_wrong_parents() {
        let spans = Spans { expected: 140, found: 90, ..Spans::default() };
        let mut lossy = cell(spans, Links { right: 50, wrong: 10, ..Links::default() });
        lossy.lossy = true;
        let missed = lossy.judged().missed;
        assert!(matches!(missed.as_slice(), [one] if one.starts_with("parents not wrong")), "{missed:?}");
    }

    #[test]
    fn all_is_said_only_of_all() {
        assert_eq!(
            (percent(1.0).as_str(), percent(0.99999).as_str(), percent(0.9949).as_str()),
            ("100.0", ">99.9", "99.5")
        );
    }

    #[test]
    fn errors_are_a_signed_median_and_a_far_end_without_sign() {
        let differences: Vec<i64> = (-99..=1).map(|microseconds| microseconds * 1000).collect();
        assert_eq!(Errors::of(&differences), Errors { median: -49.0, p99: 98.0 });
        assert_eq!(Errors::of(&[]), Errors::default());
    }

    #[test]
    fn what_could_not_be_measured_says_why() {
        assert!(text(&[], &[("go".to_owned(), "no go\nhere".to_owned())]).contains("- go: NOT MEASURED: no go here"));
    }
}
