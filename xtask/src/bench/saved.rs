//! All results of a run as a file, written with `--json`: every value, for whoever wants to look closer.
//!
//! What a change must keep is a file of its own: `budget`.

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
    /// The target on this machine, where that is another one.
    pub target_here: Option<Target>,
    pub quartiles: Option<Quartiles>,
    pub values: Vec<f64>,
    /// What else is known about it, or why it was not measured.
    pub note: String,
}

impl Saved {
    pub fn new(results: &[Judged], programs: Vec<Line>, quick: bool) -> Result<Self> {
        let rows = results
            .iter()
            .map(|Judged { row, outcome, verdict, here }| SavedRow {
                name: row.name.to_owned(),
                unit: row.unit.to_owned(),
                verdict: *verdict,
                target: row.target,
                target_here: *here,
                quartiles: outcome.as_ref().ok().map(|measured| measured.quartiles),
                values: outcome.as_ref().map(|measured| measured.values.clone()).unwrap_or_default(),
                note: outcome.as_ref().map_or_else(String::clone, |measured| measured.note.clone()),
            })
            .collect();
        let kernel = shell::output(Command::new("uname").arg("-srm"))?.trim().to_owned();
        Ok(Self { kernel, cpus: std::thread::available_parallelism()?.get(), quick, rows, programs })
    }

    pub fn write(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
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
    fn a_saved_file_is_read_back_as_it_was() {
        let saved = saved(&[("scrape CPU", 0.5), ("idle CPU per second", f64::NAN)]);
        let text = serde_json::to_string(&saved).unwrap();
        let back: Saved = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&back).unwrap(), text);
        assert_eq!(back.rows[1].note, "broken");
    }
}
