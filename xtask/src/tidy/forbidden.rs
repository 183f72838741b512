//! Rules about what may not be written at all: names that say nothing, glob imports, leftovers, exits.

use super::Finding;
use super::source::{Line, words};
use super::tree::Tree;

/// A file of odds and ends has no reason to end.
pub(super) fn file_names(tree: &Tree) -> Vec<Finding> {
    let names = ["util", "utils", "common", "helpers", "helper", "misc"];
    let mut findings = Vec::new();
    for source in &tree.sources {
        let stem = source.path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if names.contains(&stem) {
            findings.push(Finding::new(&source.path, 1, format!("'{stem}' does not say what is in the file")));
        }
    }
    findings
}

/// A reader must see where a name comes from; tests may take all of the module they test.
pub(super) fn glob_imports(tree: &Tree) -> Vec<Finding> {
    find(tree, |line| {
        let code = line.code.trim();
        let import = words(code, "use").next() == Some(0) || code.starts_with("pub use") || code.starts_with("pub(");
        let allowed = line.test && code == "use super::*;";
        (import && code.contains("::*") && !allowed).then(|| "imports by name only".to_owned())
    })
}

/// Nothing unfinished, switched off or left behind is committed.
pub(super) fn leftovers(tree: &Tree) -> Vec<Finding> {
    find(tree, |line| {
        let code = &line.code;
        let called = ["todo", "unimplemented", "dbg"].into_iter().find(|name| {
            words(code, name).any(|at| code.get(at + name.len()..).is_some_and(|rest| rest.starts_with('!')))
        });
        if let Some(name) = called {
            return Some(format!("{name}! is left over"));
        }
        (code.contains("#[ignore]") || code.contains("#[ignore ")).then(|| "a test that does not run".to_owned())
    })
}

/// Only `main` ends the process: elsewhere it would skip what others still have to do.
pub(super) fn exits(tree: &Tree) -> Vec<Finding> {
    let main = |path: &std::path::Path| path.file_name().is_some_and(|name| name == "main.rs");
    tree.sources
        .iter()
        .filter(|source| !main(&source.path))
        .flat_map(|source| {
            source
                .lines
                .iter()
                .filter(|line| {
                    ["process::exit", "process::abort"].iter().any(|exit| words(&line.code, exit).next().is_some())
                })
                .map(|line| Finding::new(&source.path, line.number, "ends the process; return an error instead"))
        })
        .collect()
}

fn find(tree: &Tree, rule: impl Fn(&Line) -> Option<String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &tree.sources {
        for line in &source.lines {
            if let Some(message) = rule(line) {
                findings.push(Finding::new(&source.path, line.number, message));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(rule: fn(&Tree) -> Vec<Finding>, path: &str, text: &str) -> Vec<usize> {
        rule(&Tree::of(&[(path, text)])).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_file_of_odds_and_ends_is_found() {
        assert_eq!(lines(file_names, "agent/src/flows/util.rs", ""), [1]);
        assert_eq!(lines(file_names, "agent/src/flows/table.rs", ""), Vec::<usize>::new());
    }

    #[test]
    fn glob_imports_are_found_outside_of_a_tests_super() {
        let text = "use a::*;\nuse a::{b::*, c};\npub use a::*;\nuse a::b;\nuse super::*;\nlet x = a::b * c;\n\
                    #[cfg(test)]\nmod tests {\n    use super::*;\n    use other::*;\n}\n";
        assert_eq!(lines(glob_imports, "a.rs", text), [1, 2, 3, 5, 10]);
    }

    #[test]
    fn leftovers_are_found_in_code_and_not_in_text() {
        let text = "todo!()\nunimplemented!(\"x\")\ndbg!(x)\n#[ignore]\n#[ignore = \"slow\"]\n\
                    // todo!()\nlet s = \"dbg!(x)\";\nmy_todo!()\nlet todo = 1;\n";
        assert_eq!(lines(leftovers, "a.rs", text), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn the_process_ends_in_main_alone() {
        let text = "std::process::exit(1);\nuse std::process::{self};\nprocess::abort();\n";
        assert_eq!(lines(exits, "agent/src/run.rs", text), [1, 3]);
        assert_eq!(lines(exits, "agent/src/main.rs", text), Vec::<usize>::new());
    }
}
