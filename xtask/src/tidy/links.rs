//! Rule: a link in the README or the documents to a file of the project leads to a file.

use std::path::{Component, Path, PathBuf};

use super::Finding;
use super::tree::Tree;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in &tree.documents {
        let mut code_block = false;
        for (index, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                code_block = !code_block;
            }
            if code_block {
                continue;
            }
            for target in targets(line).filter(|target| !exists(tree, path, target)) {
                findings.push(Finding::new(path, index + 1, format!("the link to '{target}' leads nowhere")));
            }
        }
    }
    findings
}

/// The files that a line of Markdown links to, outside of code.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.split('`')
        .step_by(2)
        .flat_map(|prose| prose.split("](").skip(1))
        .filter_map(|rest| rest.split([')', ' ']).next())
        .filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
        .filter_map(|target| target.split('#').next())
        .filter(|target| !target.is_empty())
}

fn exists(tree: &Tree, document: &Path, target: &str) -> bool {
    let Some(path) = resolve(document.parent().unwrap_or(Path::new("")), target) else { return false };
    tree.files.contains(&path) || tree.files.iter().any(|file| file.starts_with(&path))
}

/// The path without `.` and `..`; nothing when it leaves the project.
fn resolve(folder: &Path, target: &str) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for part in folder.join(target).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => path.pop().then_some(())?,
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_missing_files_are_found_and_others_left_alone() {
        let tree = Tree::of(&[
            (
                "README.md",
                "[a](docs/a.md) [b](docs/b.md#part) [web](https://example.org/x) [top](#top)\n[dir](docs) [out](../x)\n",
            ),
            (
                "docs/a.md",
                "[up](../README.md) `[code](none.md)` [gone](b.md)\n```\n[code](none.md)\n```\n[x](/etc/passwd)\n",
            ),
        ]);
        let found: Vec<_> =
            check(&tree).into_iter().map(|finding| (finding.path.display().to_string(), finding.line)).collect();
        let place = |path: &str, line| (path.to_owned(), line);
        assert_eq!(found, [place("README.md", 1), place("README.md", 2), place("docs/a.md", 1), place("docs/a.md", 5)]);
    }
}
