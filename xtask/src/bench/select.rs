//! Which rows are measured: all, or those that the command line names, with what they are read by.
//!
//! A name is a benchmark (`getppid`, `agent` …), `peers`, or part of a row's name (`runqlat`). A slowdown is nothing
//! without the null test and the floor of its workload, so these come with it.

use anyhow::{Result, bail};
use clap::ValueEnum as _;

use super::condition::Condition;
use super::targets::{Benchmark, Measure, ROWS, Row};

/// The other tools' rows, all of them.
const PEERS: &str = "peers";

/// Rows in their order. Without names all, `peers` only if wanted.
pub fn rows(names: &[String], peers: bool) -> Result<Vec<&'static Row>> {
    let is_peer = |row: &Row| matches!(row.measure, Measure::Slowdown(_, Condition::Peer(_)));
    let mut chosen: Vec<bool> = ROWS.iter().map(|row| names.is_empty() && (peers || !is_peer(row))).collect();
    for name in names {
        let benchmark = Benchmark::from_str(name, true).ok();
        let named = |row: &Row| match benchmark {
            Some(benchmark) => row.benchmark() == benchmark && (peers || !is_peer(row)),
            None if name == PEERS => is_peer(row),
            None => row.name.contains(name.as_str()),
        };
        if !ROWS.iter().any(named) {
            let benchmarks: Vec<_> =
                Benchmark::value_variants().iter().filter_map(|it| it.to_possible_value()).collect();
            let known: Vec<_> = benchmarks.iter().map(|it| it.get_name()).collect();
            bail!("no row is called {name:?} (have: {}, {PEERS}, and parts of the rows' names)", known.join(", "));
        }
        chosen.iter_mut().zip(ROWS).for_each(|(chosen, row)| *chosen |= named(row));
    }
    let needs = |reference: &Row| match reference.measure {
        Measure::Slowdown(workload, Condition::Null | Condition::Floor) => {
            let of_workload = |row: &Row| matches!(row.measure, Measure::Slowdown(of, _) if of == workload);
            ROWS.iter().zip(&chosen).any(|(row, chosen)| *chosen && of_workload(row))
        }
        _ => false,
    };
    Ok(ROWS.iter().zip(&chosen).filter(|(row, chosen)| **chosen || needs(row)).map(|(row, _)| row).collect())
}

#[cfg(test)]
mod tests {
    use super::rows;

    fn names(names: &[&str], peers: bool) -> Vec<&'static str> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        rows(&names, peers).unwrap().into_iter().map(|row| row.name).collect()
    }

    #[test]
    fn a_part_of_a_name_brings_the_null_test_and_the_floor_of_its_workload() {
        assert_eq!(
            names(&["getppid, syscount -L"], true),
            ["getppid, null test", "getppid, floor", "getppid, syscount -L"]
        );
        assert_eq!(names(&["scrape"], true), ["scrape CPU"]);
    }

    #[test]
    fn peers_are_there_by_default_and_can_be_left_out() {
        let with = names(&[], true);
        let without = names(&[], false);
        assert!(with.contains(&"HTTP nginx + wrk, biolatency") && !without.contains(&"HTTP nginx + wrk, biolatency"));
        assert!(without.contains(&"HTTP nginx + wrk, default metrics"));
        assert!(names(&["http"], true).len() > names(&["http"], false).len());
        assert!(names(&["peers"], true).iter().all(|name| !name.contains("metrics")));
    }

    #[test]
    fn a_name_that_no_row_has_is_refused() {
        let refused = rows(&["getpid".to_owned()], true).unwrap_err().to_string();
        assert!(refused.starts_with("no row is called \"getpid\" (have: getppid, read-write, "), "{refused}");
    }
}
