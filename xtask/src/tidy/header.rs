//! Rule: every Rust file begins with a `//!` header that says what it is for.

use super::Finding;
use super::tree::Tree;

/// A header shorter than this says nothing.
const LEAST_LETTERS: usize = 14;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &tree.sources {
        let letters: usize = source
            .lines
            .iter()
            .map_while(|line| line.text.strip_prefix("//!"))
            .map(|text| text.chars().filter(|letter| letter.is_alphanumeric()).count())
            .sum();
        if letters == 0 {
            findings.push(Finding::new(&source.path, 1, "begins without a //! header"));
        } else if letters < LEAST_LETTERS {
            findings.push(Finding::new(&source.path, 1, "its //! header does not say what the file is for"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_telling_header_is_found() {
        let tree = Tree::of(&[
            ("a/good.rs", "//! Turns what comes in into what goes out.\nfn f() {}\n"),
            ("a/none.rs", "fn f() {}\n//! Too late to be a header of this file.\n"),
            ("a/empty.rs", "//!\n//! (later)\n"),
        ]);
        let found: Vec<_> = check(&tree).into_iter().map(|finding| finding.path).collect();
        assert_eq!(found, [std::path::Path::new("a/none.rs"), std::path::Path::new("a/empty.rs")]);
    }
}
