//! Results as a file: written with `--json`, read again by `--compare` as the budget that a change must keep.
//!
//! A row fails when it is worse than the saved one by more than the room between its target and its bound.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::judge::Judged;
use super::programs::Line;
use super::statistics::Quartiles;
use super::targets::{Target, Verdict};
use crate::shell;

#[derive(Debug, Serialize, Deserialize)]
pub struct Saved {
    /// Of the kernel that was measured on, as `uname -srm` prints it.
    pub kernel: String,
    pub cpus: usize,
    pub quick: bool,
    pub rows: Vec<SavedRow>,
    #[serde(default, skip_deserializing)]
    pub programs: Vec<Line>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct SavedRow {
    pub name: String,
    pub unit: String,
    pub verdict: Verdict,
    pub target: Option<Target>,
    pub quartiles: Option<Quartiles>,
    pub values: Vec<f64>,
    /// What else is known about it, or why it was not measured.
    pub note: String,
}

impl Saved {
    pub fn new(results: &[Judged], programs: Vec<Line>, quick: bool) -> Result<Self> {
        let rows = results
            .iter()
            .map(|Judged { row, outcome, verdict }| SavedRow {
                name: row.name.to_owned(),
                unit: row.unit.to_owned(),
                verdict: *verdict,
                target: row.target,
                quartiles: outcome.as_ref().ok().map(|measured| measured.quartiles),
                values: outcome.as_ref().map(|measured| measured.values.clone()).unwrap_or_default(),
                note: outcome.as_ref().map_or_else(String::clone, |measured| measured.note.clone()),
            })
            .collect();
        let kernel = shell::output(Command::new("uname").arg("-srm"))?.trim().to_owned();
        Ok(Self { kernel, cpus: std::thread::available_parallelism()?.get(), quick, rows, programs })
    }

    pub fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} holds no saved results", file.display()))
    }

    pub fn write(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    /// Rows that are worse than in `budget` by more than their room, or that nobody can tell of; one line each.
    pub fn worse_than(&self, budget: &Self) -> Vec<String> {
        self.rows
            .iter()
            .filter_map(|row| row.worse_than(budget.rows.iter().find(|before| before.name == row.name)?))
            .collect()
    }
}

impl SavedRow {
    fn worse_than(&self, before: &Self) -> Option<String> {
        let (name, target, before) = (&self.name, self.target?, before.quartiles?.median);
        let Some(now) = self.quartiles.map(|now| now.median) else {
            return Some(format!("{name}: was {before:.3}, not measured now: {}", self.note));
        };
        let (loss, room) = (if target.at_least { before - now } else { now - before }, target.room());
        if self.verdict == Verdict::Disturbed {
            return Some(format!("{name}: {now:.3}, was {before:.3}; {}", self.note));
        }
        (loss > room).then(|| format!("{name}: {now:.3}, was {before:.3}; worse by more than {room:.3}"))
    }
}

#[cfg(test)]
mod tests {
    use super::Saved;
    use crate::bench::judge::{Measured, judge};
    use crate::bench::targets::ROWS;

    fn saved(rows: &[(&str, f64)]) -> Saved {
        let outcomes = rows
            .iter()
            .map(|(name, value)| {
                let row = ROWS.iter().find(|row| row.name == *name).unwrap();
                (row, Measured::new(vec![*value]).ok_or_else(|| "broken".to_owned()))
            })
            .collect();
        Saved::new(&judge(outcomes), Vec::new(), true).unwrap()
    }

    #[test]
    fn a_row_fails_when_it_is_worse_by_more_than_target_and_bound_are_apart() {
        let budget = saved(&[("getppid, default metrics", 1.25), ("records without loss, 64 B, one consumer", 4.0)]);
        let within = saved(&[("getppid, default metrics", 1.34), ("records without loss, 64 B, one consumer", 2.1)]);
        assert_eq!(within.worse_than(&budget), [""; 0]);
        let beyond = saved(&[("getppid, default metrics", 1.36), ("records without loss, 64 B, one consumer", 1.9)]);
        assert_eq!(
            beyond.worse_than(&budget),
            [
                "getppid, default metrics: 1.360, was 1.250; worse by more than 0.100",
                "records without loss, 64 B, one consumer: 1.900, was 4.000; worse by more than 2.000",
            ]
        );
    }

    #[test]
    fn a_row_that_can_no_longer_be_measured_fails() {
        let worse = saved(&[("scrape CPU", f64::NAN)]).worse_than(&saved(&[("scrape CPU", 0.5)]));
        assert_eq!(worse, ["scrape CPU: was 0.500, not measured now: broken"]);
    }

    #[test]
    fn rows_without_target_or_without_a_saved_value_are_not_compared() {
        let budget = saved(&[("getppid, floor", 1.0)]);
        let now = saved(&[("getppid, floor", 9.0), ("scrape CPU", 50.0)]);
        assert_eq!(now.worse_than(&budget), [""; 0]);
    }

    #[test]
    fn a_saved_file_is_read_back_as_it_was() {
        let saved = saved(&[("scrape CPU", 0.5), ("idle CPU per second", f64::NAN)]);
        let text = serde_json::to_string(&saved).unwrap();
        let back: Saved = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&back).unwrap(), text);
        assert_eq!(back.rows[1].note, "broken");
    }
}
