//! The files that the rules look at: Rust sources and Markdown documents below the root, and the names of all files.
//!
//! Build products and hidden folders are left out. Tests make trees up.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::source::Source;

pub(super) struct Tree {
    /// Every file, relative to the root.
    pub(super) files: BTreeSet<PathBuf>,
    pub(super) sources: Vec<Source>,
    /// Markdown: path and text.
    pub(super) documents: Vec<(PathBuf, String)>,
}

impl Tree {
    pub(super) fn load(root: &Path) -> Result<Self> {
        let mut files = Vec::new();
        walk(root, Path::new(""), &mut files)?;
        let texts = files.into_iter().map(|path| {
            let wanted = path.extension().is_some_and(|extension| extension == "rs" || extension == "md");
            let text = if wanted {
                fs::read_to_string(root.join(&path)).with_context(|| format!("cannot read {}", path.display()))?
            } else {
                String::new()
            };
            Ok((path, text))
        });
        Ok(Self::sort(texts.collect::<Result<_>>()?))
    }

    #[cfg(test)]
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        Self::sort(files.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect())
    }

    fn sort(files: Vec<(PathBuf, String)>) -> Self {
        let mut tree = Self { files: BTreeSet::new(), sources: Vec::new(), documents: Vec::new() };
        for (path, text) in files {
            tree.files.insert(path.clone());
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("rs") => tree.sources.push(Source::new(path, &text)),
                Some("md") => tree.documents.push((path, text)),
                _ => {}
            }
        }
        let tests: Vec<_> = tree.sources.iter().flat_map(Source::test_modules).collect();
        let of_tests = |path: &Path| tests.iter().any(|module| path.with_extension("").starts_with(module));
        tree.sources.iter_mut().filter(|source| of_tests(&source.path)).for_each(Source::mark_as_test);
        tree
    }

    /// The source at a path.
    pub(super) fn source(&self, path: &Path) -> Option<&Source> {
        self.sources.iter().find(|source| source.path == path)
    }
}

fn walk(root: &Path, folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let here = root.join(folder);
    let mut entries = fs::read_dir(&here)
        .and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
        .with_context(|| format!("cannot list {}", here.display()))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let path = folder.join(&name);
        if entry.file_type()?.is_dir() {
            let hidden = name.to_string_lossy().starts_with('.') && name != ".ci";
            if !hidden && name != "target" && name != "node_modules" {
                walk(root, &path, files)?;
            }
        } else {
            files.push(path);
        }
    }
    Ok(())
}
