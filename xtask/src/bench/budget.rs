//! The saved budget: what each row may cost in ratios that hold on other machines too, and the comparison with it.
//!
//! A slowdown is kept as its ratio to the floor of its run, a program as its ratio to an empty one, CPU time as a number
//! of bare `getppid` calls of that machine; memory, an idle agent and the rate of records as they are. `most` is the worse
//! quartile that was saved and a twentieth of the median more. A row fails when even the better quartile of a new run is beyond `most`: one disturbed burst, or
//! a median that wanders within its own spread, fails nothing. A row whose null test was off is not compared, and said
//! so; one that is in the budget and could not be measured fails.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::condition::Condition;
use super::judge::Judged;
use super::statistics::Quartiles;
use super::targets::{Measure, Verdict, Workload};

/// Share of the median that is added to the worse quartile.
const ROOM: f64 = 0.05;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    /// Where it was measured: kernel and number of CPUs.
    pub measured_on: String,
    pub rows: BTreeMap<String, Bound>,
}

/// What a row may cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bound {
    /// What the numbers are ratios to, or their unit.
    pub of: String,
    pub median: f64,
    /// For a row of which more is better: the least.
    pub most: f64,
}

/// What a comparison says of one row.
#[derive(Clone, Debug, PartialEq)]
pub enum Finding {
    Kept,
    /// One line.
    Exceeded(String),
    /// Nobody can tell; one line.
    Unknown(String),
}

/// A row's quartiles in the unit of the budget.
struct Comparable {
    of: String,
    quartiles: Quartiles,
}

impl Budget {
    pub fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} holds no budget", file.display()))
    }

    pub fn write(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    /// Takes over what was measured undisturbed; the other rows stay as they were. Names of those that were disturbed.
    pub fn take(&mut self, results: &[Judged], measured_on: String) -> Vec<&'static str> {
        self.measured_on = measured_on;
        let mut disturbed = Vec::new();
        for judged in results.iter().filter(|judged| judged.row.target.is_some()) {
            if judged.verdict == Verdict::Disturbed {
                disturbed.push(judged.row.name);
            } else if let Some(Comparable { of, quartiles }) = comparable(judged, results) {
                let room = quartiles.median.abs() * ROOM;
                let most = if at_least(judged) { quartiles.lower - room } else { quartiles.upper + room };
                let bound = Bound { of, median: rounded(quartiles.median), most: rounded(most) };
                self.rows.insert(judged.row.name.to_owned(), bound);
            }
        }
        disturbed
    }

    /// What is to be said of each result that has a budget.
    pub fn compare(&self, results: &[Judged]) -> Vec<Finding> {
        let finding = |judged: &Judged| Some(compare(judged, results, self.rows.get(judged.row.name)?));
        results.iter().filter_map(finding).collect()
    }
}

fn compare(judged: &Judged, results: &[Judged], bound: &Bound) -> Finding {
    let name = judged.row.name;
    if let Err(reason) = &judged.outcome {
        return Finding::Exceeded(format!("{name}: has a budget and was not measured: {reason}"));
    }
    if judged.verdict == Verdict::Disturbed {
        return Finding::Unknown(format!("{name}: not compared, its null test was off"));
    }
    match comparable(judged, results) {
        Some(Comparable { of, quartiles }) if of == bound.of => {
            let least = at_least(judged);
            let better = if least { quartiles.upper } else { quartiles.lower };
            let Bound { median, most, .. } = bound;
            if (least && better < *most) || (!least && better > *most) {
                let now = quartiles.median;
                Finding::Exceeded(format!("{name}: {now:.3} [{better:.3}] {of}, was {median:.3}, may be {most:.3}"))
            } else {
                Finding::Kept
            }
        }
        Some(Comparable { of, .. }) => {
            Finding::Unknown(format!("{name}: measured {of}, its budget is {}: save it again", bound.of))
        }
        None => Finding::Unknown(format!("{name}: not compared, what it is related to was not measured")),
    }
}

fn at_least(judged: &Judged) -> bool {
    judged.row.target.is_some_and(|target| target.at_least)
}

/// In ratios that mean the same on another machine.
fn comparable(judged: &Judged, results: &[Judged]) -> Option<Comparable> {
    let measured = judged.outcome.as_ref().ok()?;
    let quartiles = measured.quartiles;
    match judged.row.measure {
        Measure::Slowdown(workload, _) => {
            let floor = floor(workload, results)?;
            Some(Comparable { of: "of the floor".to_owned(), quartiles: quartiles.times(1.0 / floor) })
        }
        Measure::Program(_) | Measure::Agent(_) => match measured.per {
            Some(per) => Some(Comparable { of: per.of.to_owned(), quartiles: quartiles.times(per.factor) }),
            None => Some(Comparable { of: judged.row.unit.to_owned(), quartiles }),
        },
    }
}

fn floor(workload: Workload, results: &[Judged]) -> Option<f64> {
    let floor = results.iter().find(|other| other.row.measure == Measure::Slowdown(workload, Condition::Floor))?;
    floor.outcome.as_ref().ok().map(|measured| measured.quartiles.median)
}

/// To four significant digits: a file that people read.
fn rounded(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::{Bound, Budget, Finding};
    use crate::bench::judge::{Judged, Measured, Outcome, Per, judge};
    use crate::bench::targets::{ROWS, Row};

    fn measured(name: &str, values: &[f64]) -> (&'static Row, Outcome) {
        let row = ROWS.iter().find(|row| row.name == name).unwrap();
        (row, Measured::new(values.to_vec()).ok_or_else(|| "broken".to_owned()))
    }

    fn judged(rows: &[(&str, &[f64])]) -> Vec<Judged> {
        judge(rows.iter().map(|(name, values)| measured(name, values)).collect())
    }

    const METRICS: &str = "getppid, default metrics";

    /// A budget of 1.2 [1.1–1.3] of the floor: at most 1.36.
    fn budget() -> Budget {
        let mut budget = Budget::default();
        let disturbed = budget.take(&judged(&[("getppid, floor", &[2.0]), (METRICS, &[2.2, 2.4, 2.6])]), String::new());
        assert_eq!(disturbed, [""; 0]);
        budget
    }

    #[test]
    fn a_slowdown_is_saved_over_its_floor_with_room_beyond_its_own_spread() {
        let bound = Bound { of: "of the floor".to_owned(), median: 1.2, most: 1.31 };
        assert_eq!(budget().rows[METRICS], bound);
        assert_eq!(budget().rows.len(), 1, "a floor has no budget");
    }

    #[test]
    fn a_row_fails_when_even_its_better_quartile_is_beyond_the_budget() {
        let compared = |values: &[f64]| {
            budget().compare(&judged(&[("getppid, floor", &[1.0]), (METRICS, values)])).into_iter().next().unwrap()
        };
        assert_eq!(compared(&[1.1, 1.2, 1.3]), Finding::Kept);
        // A median beyond it, a spread that reaches within it.
        assert_eq!(compared(&[1.3, 1.31, 1.35, 1.36, 1.4]), Finding::Kept);
        assert_eq!(
            compared(&[1.32, 1.36, 1.4]),
            Finding::Exceeded(
                "getppid, default metrics: 1.360 [1.340] of the floor, was 1.200, may be 1.310".to_owned()
            )
        );
    }

    #[test]
    fn the_floor_of_the_same_run_counts_and_not_the_saved_one() {
        let slow_hooks = judged(&[("getppid, floor", &[1.2]), (METRICS, &[1.5])]);
        assert_eq!(budget().compare(&slow_hooks), [Finding::Kept]);
        let none = judged(&[(METRICS, &[1.2])]);
        assert!(matches!(&budget().compare(&none)[..], [Finding::Unknown(why)] if why.contains("related to")));
    }

    #[test]
    fn a_disturbed_row_is_neither_compared_nor_saved() {
        let null = ("getppid, null test", &[1.2][..]);
        let disturbed = judged(&[null, ("getppid, floor", &[1.0]), (METRICS, &[9.0])]);
        assert!(matches!(&budget().compare(&disturbed)[..], [Finding::Unknown(why)] if why.contains("null test")));
        let mut kept = budget();
        assert_eq!(kept.take(&disturbed, String::new()), [METRICS]);
        assert_eq!(kept.rows, budget().rows);
    }

    #[test]
    fn a_row_that_can_no_longer_be_measured_fails_and_one_without_a_budget_does_not() {
        let broken = judged(&[("getppid, floor", &[1.0]), (METRICS, &[f64::NAN]), ("scrape CPU", &[f64::NAN])]);
        let expected = "getppid, default metrics: has a budget and was not measured: broken";
        assert_eq!(budget().compare(&broken), [Finding::Exceeded(expected.to_owned())]);
    }

    #[test]
    fn where_more_is_better_the_budget_is_a_least() {
        const RATE: &str = "records without loss, 64 B, one consumer";
        let mut budget = Budget::default();
        budget.take(&judged(&[(RATE, &[3.0, 4.0, 5.0])]), String::new());
        assert_eq!(budget.rows[RATE], Bound { of: "M/s".to_owned(), median: 4.0, most: 3.3 });
        assert_eq!(budget.compare(&judged(&[(RATE, &[3.4])])), [Finding::Kept]);
        assert!(matches!(&budget.compare(&judged(&[(RATE, &[3.2])]))[..], [Finding::Exceeded(_)]));
    }

    #[test]
    fn time_is_compared_in_units_of_the_machine_that_was_measured() {
        let scrape = |ms: f64, getppid_ns: f64| {
            let (row, outcome) = measured("scrape CPU", &[ms]);
            let per = Some(Per { factor: 1e6 / getppid_ns, of: "bare getppid calls" });
            judge(vec![(row, outcome.map(|measured| Measured { per, ..measured }))])
        };
        let mut budget = Budget::default();
        budget.take(&scrape(1.0, 100.0), String::new());
        assert_eq!(budget.rows["scrape CPU"].median, 10_000.0);
        // A machine half as fast.
        assert_eq!(budget.compare(&scrape(2.0, 200.0)), [Finding::Kept]);
        assert!(matches!(&budget.compare(&scrape(2.0, 100.0))[..], [Finding::Exceeded(_)]));
        assert!(matches!(&budget.compare(&judged(&[("scrape CPU", &[0.1])]))[..], [Finding::Unknown(_)]));
    }

    #[test]
    fn a_budget_is_read_back_as_it_was_written() {
        let file = std::env::temp_dir().join(format!("seismo-budget-{}.json", std::process::id()));
        budget().write(&file).unwrap();
        let back = Budget::read(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert_eq!(back, budget());
    }
}
