//! The matrix as text: a table program × kernel for the terminal, and `docs/kernels.md`.
//!
//! Made from saved or fresh verdicts alone; nothing is measured here.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::suite::Outcome;
use super::verdicts::{Column, Matrix, Verdict};

/// One line for each program and a cell for each kernel, then each fact against a program once.
pub fn table(matrix: &Matrix) -> String {
    let mut rows = vec![header("program", matrix)];
    for program in programs(matrix) {
        rows.push(
            std::iter::once(program.clone()).chain(matrix.values().map(|column| cell(column, &program))).collect(),
        );
    }
    let mut out = String::new();
    for row in &rows {
        let width = |index: usize| rows.iter().filter_map(|row| row.get(index)).map(String::len).max().unwrap_or(0);
        let cells = row.iter().enumerate().map(|(index, cell)| match index {
            0 => format!("{cell:<0$}", width(index)),
            _ => format!("  {cell:>0$}", width(index)),
        });
        out += cells.collect::<String>().trim_end();
        out.push('\n');
    }
    for line in facts(matrix) {
        out += &format!("{line}\n");
    }
    out
}

/// `docs/kernels.md`.
pub fn page(matrix: &Matrix) -> String {
    let mut out = "# Kernels\n\n\
        What each kernel said of each program, and what became of the tests there. Written by\n\
        `cargo xtask vm --kernel all --save`, which boots Debian's cloud kernels in QEMU; the numbers are also the\n\
        budget that `cargo xtask vm` holds against the next ones.\n\n"
        .to_owned();
    let mut line = |text: &str| out += &format!("{text}\n");
    for (kernel, column) in matrix {
        line(&format!("- {kernel}: `{}`", column.release));
    }
    line("\n## Programs\n\nThe number of instructions that the verifier walked, or why the program is not there.\n");
    line(&markdown(&header("program", matrix)));
    line(&markdown(&rule(matrix)));
    for program in programs(matrix) {
        let cells = matrix.values().map(|column| cell(column, &program));
        line(&markdown(&std::iter::once(format!("`{program}`")).chain(cells).collect::<Vec<_>>()));
    }
    line("");
    for fact in facts(matrix) {
        line(&format!("- {fact}"));
    }
    let names = tests(matrix);
    if !names.is_empty() {
        line("\n## Tests\n\nThe tests of the target `kernel`, each in a virtual machine of that kernel.\n");
        line(&markdown(&header("test", matrix)));
        line(&markdown(&rule(matrix)));
        for name in &names {
            let cells = matrix.values().map(|column| column.tests.get(name).map_or("not run", word).to_owned());
            line(&markdown(&std::iter::once(format!("`{name}`")).chain(cells).collect::<Vec<_>>()));
        }
        let mut facts: Vec<String> = Vec::new();
        for (kernel, column) in matrix {
            for (name, outcome) in &column.tests {
                if let Outcome::NotHere(fact) = outcome {
                    facts.push(format!("- {kernel}: `{name}`: {fact}"));
                }
            }
        }
        line(&format!("\n{}", facts.join("\n")));
    }
    out.truncate(out.trim_end().len());
    out + "\n"
}

/// One word of a test's outcome.
pub fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "ok",
        Outcome::Failed => "FAILED",
        Outcome::NotHere(_) => "not here",
    }
}

fn header(what: &str, matrix: &Matrix) -> Vec<String> {
    std::iter::once(what.to_owned()).chain(matrix.keys().cloned()).collect()
}

fn rule(matrix: &Matrix) -> Vec<String> {
    std::iter::once("---".to_owned()).chain(matrix.keys().map(|_| "--:".to_owned())).collect()
}

fn markdown(cells: &[String]) -> String {
    format!("| {} |", cells.join(" | "))
}

fn cell(column: &Column, program: &str) -> String {
    let Some(line) = column.programs.iter().find(|line| line.program == program) else { return "-".to_owned() };
    match (line.verdict, line.instructions) {
        (Verdict::Loads, Some(count)) => count.to_string(),
        (Verdict::Loads, None) => "loads".to_owned(),
        (Verdict::Unsupported, _) => "unsupported".to_owned(),
        (Verdict::Refused, _) => "REFUSED".to_owned(),
    }
}

/// Every program once, in the order of the newest kernel's list.
fn programs(matrix: &Matrix) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for line in matrix.values().rev().flat_map(|column| &column.programs) {
        if !names.contains(&line.program) {
            names.push(line.program.clone());
        }
    }
    names
}

fn tests(matrix: &Matrix) -> Vec<String> {
    let names: std::collections::BTreeSet<_> =
        matrix.values().flat_map(|column| column.tests.keys().cloned()).collect();
    names.into_iter().collect()
}

/// Kernel and fact with the programs that it stands against.
fn facts(matrix: &Matrix) -> Vec<String> {
    let mut lines = Vec::new();
    for (kernel, column) in matrix {
        let mut by_fact: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for line in column.programs.iter().filter(|line| line.verdict != Verdict::Loads) {
            by_fact.entry(&line.reason).or_default().push(&line.program);
        }
        for (fact, programs) in by_fact {
            let mut line = String::new();
            let _ = write!(line, "{kernel}: {}: {fact}", programs.join(", "));
            lines.push(line);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::verdicts::Line;

    fn matrix() -> Matrix {
        let line = |verdict, instructions, reason: &str| Line {
            program: "payload_send".to_owned(),
            hook: String::new(),
            verdict,
            instructions,
            reason: reason.to_owned(),
        };
        let old = Column {
            release: "5.10.0".to_owned(),
            programs: vec![line(Verdict::Unsupported, None, "no such tracepoint")],
            tests: BTreeMap::from([("tcp::a".to_owned(), Outcome::NotHere("no such tracepoint".to_owned()))]),
            ..Column::default()
        };
        let new = Column {
            release: "7.3.4".to_owned(),
            programs: vec![line(Verdict::Loads, Some(15228), "")],
            tests: BTreeMap::from([("tcp::a".to_owned(), Outcome::Passed)]),
            ..Column::default()
        };
        Matrix::from([("5.10".to_owned(), old), ("7".to_owned(), new)])
    }

    #[test]
    fn the_table_has_a_cell_for_each_program_and_kernel_and_says_each_fact() {
        let expected = "program              5.10      7\n\
                        payload_send  unsupported  15228\n\
                        5.10: payload_send: no such tracepoint\n";
        assert_eq!(table(&matrix()), expected);
    }

    #[test]
    fn the_page_lists_what_does_not_apply_with_its_fact() {
        let page = page(&matrix());
        for expected in [
            "- 5.10: `5.10.0`\n",
            "| `payload_send` | unsupported | 15228 |\n",
            "| `tcp::a` | not here | ok |\n",
            "- 5.10: `tcp::a`: no such tracepoint\n",
        ] {
            assert!(page.contains(expected), "{expected} in {page}");
        }
    }
}
