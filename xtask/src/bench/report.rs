//! Results as people read them: one line a row with median, quartiles, target and verdict; the kernel programs below.

use std::collections::BTreeMap;

use super::judge::Judged;
use super::programs::Line;
use super::statistics::Quartiles;
use super::targets::{Target, Verdict};

/// The table of all rows.
pub fn table(results: &[Judged]) -> String {
    let mut cells = vec![["what", "measured", "target", "verdict", ""].map(str::to_owned)];
    for Judged { row, outcome, verdict, here } in results {
        let (measured, note) = match outcome {
            Ok(measured) => (number(&measured.quartiles, row.unit), measured.note.clone()),
            Err(reason) => (String::new(), reason.lines().collect::<Vec<_>>().join(" ")),
        };
        let wanted = row.target.map(|target| target_text(&target, here.as_ref())).unwrap_or_default();
        let verdict = match verdict {
            Verdict::Met => "met",
            Verdict::WithinBound => "within bound",
            Verdict::Missed => "MISSED",
            Verdict::Disturbed => "disturbed",
            Verdict::NoTarget => "",
            Verdict::NotMeasured => "not measured:",
        };
        cells.push([row.name.to_owned(), measured, wanted, verdict.to_owned(), note]);
    }
    aligned(&cells)
}

/// The kernel programs with what they cost a run.
pub fn programs(lines: &[Line]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let mut cells = vec![["kernel program", "hook", "ns a run", "over empty", "instructions"].map(str::to_owned)];
    for line in lines {
        let every = if line.every_call { ", every call" } else { "" };
        let over = line.over_empty_ns.map(|over| number(&over, "ns")).unwrap_or_default();
        cells.push([
            format!("{}{every}", line.program),
            line.hook.clone(),
            number(&line.run_ns, "ns"),
            over,
            line.verified_instructions.to_string(),
        ]);
    }
    aligned(&cells)
}

fn number(quartiles: &Quartiles, unit: &str) -> String {
    let digits = if unit == "×" || quartiles.median.abs() < 1.0 { 3 } else { 1 };
    let Quartiles { lower, median, upper } = quartiles;
    let unit = if unit == "×" { String::new() } else { format!(" {unit}") };
    format!("{median:.digits$}{unit} [{lower:.digits$}–{upper:.digits$}]")
}

/// As it was set, and what that is here.
fn target_text(target: &Target, here: Option<&Target>) -> String {
    let sign = if target.at_least { '≥' } else { '≤' };
    let bound = target.bound.map(|bound| format!(" ({bound})")).unwrap_or_default();
    let here = here.map_or_else(String::new, |here| {
        let bound = here.bound.map(|bound| format!(" ({bound:.2})")).unwrap_or_default();
        format!(", here {:.2}{bound}", here.limit)
    });
    format!("{sign} {}{bound}{here}", target.limit)
}

/// Columns as wide as their widest cell; the last one is left as it is.
fn aligned<const COLUMNS: usize>(cells: &[[String; COLUMNS]]) -> String {
    let mut widths = BTreeMap::new();
    for (column, cell) in cells.iter().flat_map(|line| line.iter().enumerate()) {
        let width = widths.entry(column).or_insert(0);
        *width = cell.chars().count().max(*width);
    }
    let mut text = String::new();
    for line in cells {
        let padded: String = line
            .iter()
            .zip(widths.values())
            .map(|(cell, width)| format!("{cell}{}  ", " ".repeat(width - cell.chars().count())))
            .collect();
        text.push_str(padded.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::table;
    use crate::bench::judge::{Measured, Outcome, judge};
    use crate::bench::targets::{ROWS, Row};

    fn measured(name: &str, values: &[f64]) -> (&'static Row, Outcome) {
        (row(name), Ok(Measured::new(values.to_vec()).unwrap()))
    }

    fn row(name: &str) -> &'static Row {
        ROWS.iter().find(|row| row.name == name).unwrap()
    }

    #[test]
    fn a_line_shows_median_quartiles_target_and_verdict() {
        let results = judge(vec![
            measured("getppid, null test", &[0.999, 1.001, 1.002]),
            measured("getppid, floor", &[1.21]),
            measured("getppid, default metrics", &[1.28, 1.29, 1.31]),
            measured("getppid, every call timed", &[1.9]),
            measured("scrape CPU", &[2.5]),
            (row("records without loss, 64 B, one consumer"), Err("no producer\nhere".to_owned())),
        ]);
        let expected = [
            "what                                      measured             target                         verdict",
            "getppid, null test                        1.001 [1.000–1.002]",
            "getppid, floor                            1.210 [1.210–1.210]",
            "getppid, default metrics                  1.290 [1.285–1.300]  ≤ 1.3 (1.4), here 1.30 (1.40)  met            ×1.066 of the floor",
            "getppid, every call timed                 1.900 [1.900–1.900]  ≤ 1.85 (2), here 1.85 (2.00)   within bound   ×1.570 of the floor",
            "scrape CPU                                2.5 ms [2.5–2.5]     ≤ 1                            MISSED",
            "records without loss, 64 B, one consumer                       ≥ 3 (1)                        not measured:  no producer here",
        ];
        assert_eq!(table(&results).lines().collect::<Vec<_>>(), expected);
    }
}
