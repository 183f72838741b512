//! What the numbers mean: verdicts against targets, slowdowns over the floor of the same run, disturbed workloads.
//!
//! A workload whose null test is off was measured next to something else; its slowdowns get no verdict, good or bad. A target
//! counts in what it is a ratio to: twice the price of an empty program on this machine is twice the target.

use super::condition::Condition;
use super::statistics::Quartiles;
use super::targets::{Measure, Row, Target, Verdict, Workload};

/// A null test further than this from 1 means that something else ran.
const NULL_TOLERANCE: f64 = 0.03;

/// A row's numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    pub values: Vec<f64>,
    pub quartiles: Quartiles,
    /// What makes it comparable with another machine's.
    pub per: Option<Per>,
    pub note: String,
}

/// A factor that turns a number into a ratio to something of the same run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Per {
    pub factor: f64,
    pub of: &'static str,
}

impl Measured {
    /// `None` when there is nothing, or something that is not a number.
    pub fn new(values: Vec<f64>) -> Option<Self> {
        let quartiles = Quartiles::of(&values)?;
        Some(Self { values, quartiles, per: None, note: String::new() })
    }
}

/// Numbers, or why there are none.
pub type Outcome = Result<Measured, String>;

/// A row with all that is known about it.
#[derive(Debug)]
pub struct Judged {
    pub row: &'static Row,
    pub outcome: Outcome,
    pub verdict: Verdict,
    /// Its target on this machine, where that is another one.
    pub here: Option<Target>,
}

/// Judges all rows of one run; their order stays.
pub fn judge(outcomes: Vec<(&'static Row, Outcome)>) -> Vec<Judged> {
    let medians = |wanted: Condition| -> Vec<(Workload, f64)> {
        let median = |(row, outcome): &(&Row, Outcome)| match (row.measure, outcome) {
            (Measure::Slowdown(workload, of), Ok(measured)) if of == wanted => {
                Some((workload, measured.quartiles.median))
            }
            _ => None,
        };
        outcomes.iter().filter_map(median).collect()
    };
    let (nulls, floors) = (medians(Condition::Null), medians(Condition::Floor));
    outcomes.into_iter().map(|(row, outcome)| judge_row(row, outcome, &nulls, &floors)).collect()
}

fn judge_row(row: &'static Row, outcome: Outcome, nulls: &[(Workload, f64)], floors: &[(Workload, f64)]) -> Judged {
    let Ok(mut measured) = outcome else { return Judged { row, outcome, verdict: Verdict::NotMeasured, here: None } };
    let factor = match row.measure {
        Measure::Slowdown(workload, _) => floors.iter().find(|(of, _)| *of == workload).map(|(_, floor)| 1.0 / floor),
        Measure::Program(_) | Measure::Agent(_) => measured.per.map(|per| per.factor),
    };
    let there = |(target, factor): (Target, f64)| Some(target.times(row.set_where? / factor));
    let here = row.target.zip(factor).and_then(there);
    let target = here.or(row.target);
    let mut verdict = target.map_or(Verdict::NoTarget, |target| target.verdict(measured.quartiles.median));
    if let Measure::Slowdown(workload, condition) = row.measure {
        let of_workload =
            |medians: &[(Workload, f64)]| medians.iter().find(|(of, _)| *of == workload).map(|(_, median)| *median);
        if let Some(floor) = of_workload(floors).filter(|_| !matches!(condition, Condition::Null | Condition::Floor)) {
            let over = measured.quartiles.median / floor;
            note(&mut measured, &format!("×{over:.3} of the floor"));
        }
        if let Some(null) = of_workload(nulls).filter(|null| (null - 1.0).abs() > NULL_TOLERANCE) {
            note(&mut measured, &format!("something else ran: the null test read {null:.3}"));
            verdict = Verdict::Disturbed;
        }
    }
    Judged { row, outcome: Ok(measured), verdict, here }
}

/// Adds to what is said beside the number.
pub fn note(measured: &mut Measured, text: &str) {
    if !measured.note.is_empty() {
        measured.note.push_str("; ");
    }
    measured.note.push_str(text);
}

#[cfg(test)]
mod tests {
    use super::{Judged, Measured, Outcome, Per, judge};
    use crate::bench::targets::{ROWS, Row, Verdict};

    fn judged(rows: &[(&str, f64)]) -> Vec<Judged> {
        let outcome = |(name, value): &(&str, f64)| -> (&'static Row, Outcome) {
            let row = ROWS.iter().find(|row| row.name == *name).unwrap();
            (row, Measured::new(vec![*value]).ok_or_else(|| "broken".to_owned()))
        };
        judge(rows.iter().map(outcome).collect())
    }

    fn verdicts(judged: &[Judged]) -> Vec<Verdict> {
        judged.iter().map(|judged| judged.verdict).collect()
    }

    #[test]
    fn a_null_test_that_is_off_takes_the_verdicts_of_its_workload_alone() {
        let rows = [
            ("getppid, null test", 1.031),
            ("getppid, default metrics", 1.25),
            ("pipe ping-pong, null test", 0.98),
            ("pipe ping-pong, scheduler family", 1.04),
            ("scrape CPU", 0.5),
        ];
        use Verdict::{Disturbed, Met, NoTarget};
        let judged = judged(&rows);
        assert_eq!(verdicts(&judged), [Disturbed, Disturbed, NoTarget, Met, Met]);
        assert_eq!(judged[1].outcome.as_ref().unwrap().note, "something else ran: the null test read 1.031");
    }

    #[test]
    fn a_slowdown_is_related_to_the_floor_of_its_own_workload() {
        let judged = judged(&[
            ("getppid, floor", 1.2),
            ("getppid, default metrics", 1.26),
            ("pipe ping-pong, scheduler family", 1.04),
        ]);
        let notes: Vec<_> = judged.iter().map(|judged| judged.outcome.as_ref().unwrap().note.as_str()).collect();
        assert_eq!(notes, ["", "×1.050 of the floor", ""]);
    }

    #[test]
    fn a_target_is_a_ratio_to_what_hooks_and_calls_cost_here() {
        let slow =
            judged(&[("getppid, floor", 1.7), ("getppid, default metrics", 1.8), ("getppid, every call timed", 3.0)]);
        assert_eq!(verdicts(&slow), [Verdict::NoTarget, Verdict::Met, Verdict::Missed]);
        let quick = judged(&[("getppid, floor", 1.1), ("getppid, default metrics", 1.29)]);
        assert_eq!(verdicts(&quick), [Verdict::NoTarget, Verdict::Missed]);
        // What must cost nothing may cost nothing anywhere.
        let none = judged(&[("getppid, floor", 1.7), ("getppid, spans without the syscall family", 1.06)]);
        assert_eq!(verdicts(&none), [Verdict::NoTarget, Verdict::Missed]);
        let row = ROWS.iter().find(|row| row.name == "scrape CPU").unwrap();
        let mut measured = Measured::new(vec![1.9]).unwrap();
        measured.per = Some(Per { factor: 1e6 / 220.0, of: "bare getppid calls" });
        assert_eq!(verdicts(&judge(vec![(row, Ok(measured))])), [Verdict::Met]);
    }

    #[test]
    fn what_could_not_be_measured_has_no_other_verdict() {
        assert_eq!(verdicts(&judged(&[("scrape CPU", f64::NAN)])), [Verdict::NotMeasured]);
    }
}
