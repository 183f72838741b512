//! Rule: no Rust file has more than 600 lines of shipped code; what needs more is two things.

use super::Finding;
use super::tree::Tree;

const MOST_LINES: usize = 600;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &tree.sources {
        let lines = source.shipped().count();
        if lines > MOST_LINES {
            let message = format!("{lines} lines without tests, {MOST_LINES} are allowed");
            findings.push(Finding::new(&source.path, MOST_LINES + 1, message));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_shipped_lines_count() {
        let line = "fn f() {}\n";
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", line.repeat(500));
        let tree = Tree::of(&[
            ("a/full.rs", &(line.repeat(MOST_LINES) + &tests)),
            ("a/over.rs", &(line.repeat(MOST_LINES + 1) + &tests)),
            ("tests/long.rs", &line.repeat(2 * MOST_LINES)),
        ]);
        let found = check(&tree);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].path, std::path::Path::new("a/over.rs"));
    }
}
