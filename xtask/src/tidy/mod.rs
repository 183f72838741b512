//! `cargo xtask tidy`: the project's rules, run as a test because a rule that lives only in a document rots.
//!
//! A rule is one row: its name and a function from the source tree to findings, with tests on made-up trees that show
//! it can fail. Everything is textual: no compiler, well under a second, false alarms are fixed here.

mod forbidden;
mod header;
mod imports;
mod links;
mod registry;
mod size;
mod source;
mod tree;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::workspace;
use tree::Tree;

/// Check the project's rules
#[derive(clap::Args)]
pub struct Arguments {}

struct Rule {
    name: &'static str,
    check: fn(&Tree) -> Vec<Finding>,
}

/// Every rule.
const RULES: &[Rule] = &[
    Rule { name: "header", check: header::check },
    Rule { name: "size", check: size::check },
    Rule { name: "import", check: imports::units },
    Rule { name: "boundary", check: imports::boundaries },
    Rule { name: "pure", check: imports::pure_stages },
    Rule { name: "registry", check: registry::listed },
    Rule { name: "stem", check: registry::same_stems },
    Rule { name: "file-name", check: forbidden::file_names },
    Rule { name: "glob-import", check: forbidden::glob_imports },
    Rule { name: "leftover", check: forbidden::leftovers },
    Rule { name: "exit", check: forbidden::exits },
    Rule { name: "link", check: links::check },
];

/// A place that breaks a rule.
#[derive(Debug, PartialEq)]
struct Finding {
    path: PathBuf,
    /// From 1.
    line: usize,
    message: String,
}

impl Finding {
    fn new(path: &Path, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_path_buf(), line, message: message.into() }
    }
}

struct Violation {
    rule: &'static str,
    finding: Finding,
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { path, line, message } = &self.finding;
        write!(out, "{}:{line}: {}: {message}", path.display(), self.rule)
    }
}

pub fn command(_: &Arguments) -> Result<()> {
    check(&workspace::root())
}

/// Fails when the tree breaks a rule, after printing where.
pub fn check(root: &Path) -> Result<()> {
    let violations = violations(&Tree::load(root)?);
    for violation in &violations {
        println!("{violation}");
    }
    if !violations.is_empty() {
        bail!("tidy: {} places break a rule", violations.len());
    }
    Ok(())
}

fn violations(tree: &Tree) -> Vec<Violation> {
    RULES
        .iter()
        .flat_map(|rule| (rule.check)(tree).into_iter().map(|finding| Violation { rule: rule.name, finding }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_source_tree_keeps_the_rules() {
        let found: Vec<_> =
            violations(&Tree::load(&workspace::root()).unwrap()).iter().map(ToString::to_string).collect();
        assert!(found.is_empty(), "\n{}\n", found.join("\n"));
    }

    #[test]
    fn a_violation_names_file_line_and_rule() {
        let tree = Tree::of(&[("agent/src/store/util.rs", "//! Keeps what is kept.\nfn main() { todo!() }\n")]);
        let found: Vec<_> = violations(&tree).iter().map(ToString::to_string).collect();
        assert!(found.iter().any(|line| line.starts_with("agent/src/store/util.rs:1: file-name: ")), "{found:?}");
        assert!(found.iter().any(|line| line.starts_with("agent/src/store/util.rs:2: leftover: ")), "{found:?}");
    }
}
