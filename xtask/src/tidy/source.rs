//! A Rust file as the rules see it: its lines with comments and literals blanked, and which of them are test code.
//!
//! Test code is what follows `#[cfg(test)]` (to the end of that item), the file of a module declared there, files named
//! `tests.rs` or `*_tests.rs`, and everything in the `tests` package. Not a parser: attributes on expressions and macros that build items are not
//! understood, which the rules can live with.

use std::path::{Path, PathBuf};

pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) lines: Vec<Line>,
}

pub(super) struct Line {
    /// From 1.
    pub(super) number: usize,
    /// As written.
    pub(super) text: String,
    /// With comments and the insides of literals replaced by spaces.
    pub(super) code: String,
    pub(super) test: bool,
}

impl Source {
    pub(super) fn new(path: PathBuf, text: &str) -> Self {
        let code = blank(text);
        let tests = test_lines(&code);
        let all = is_test_file(&path);
        let lines = text
            .lines()
            .zip(code.lines())
            .enumerate()
            .map(|(index, (text, code))| Line {
                number: index + 1,
                text: text.to_owned(),
                code: code.to_owned(),
                test: all || tests.iter().any(|range| range.contains(&index)),
            })
            .collect();
        Self { path, lines }
    }

    /// Paths (without extension) of the modules that are declared for tests only, as `#[cfg(test)] mod x;`.
    pub(super) fn test_modules(&self) -> impl Iterator<Item = PathBuf> + '_ {
        let stem = self.path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let folder = match stem {
            "mod" | "lib" | "main" => self.path.parent().unwrap_or(Path::new("")).to_path_buf(),
            _ => self.path.with_extension(""),
        };
        self.lines
            .iter()
            .filter(|line| line.test)
            .filter_map(|line| line.code.trim().strip_prefix("mod ")?.strip_suffix(';'))
            .map(move |name| folder.join(name))
    }

    /// The whole file is test code.
    pub(super) fn mark_as_test(&mut self) {
        for line in &mut self.lines {
            line.test = true;
        }
    }

    /// Lines that are shipped.
    pub(super) fn shipped(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| !line.test)
    }
}

fn is_test_file(path: &Path) -> bool {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    stem == "tests" || stem.ends_with("_tests") || path.components().any(|part| part.as_os_str() == "tests")
}

/// Whether `code` holds `word` as a whole identifier; the byte offsets where it does.
pub(super) fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    code.match_indices(word).map(|(start, _)| start).filter(move |&start| {
        let bytes = code.as_bytes();
        !part(start.checked_sub(1).and_then(|before| bytes.get(before))) && !part(bytes.get(start + word.len()))
    })
}

/// The identifier at the start of `code`, perhaps empty.
pub(super) fn identifier(code: &str) -> &str {
    let end = code.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(code.len());
    code.split_at(end).0
}

/// The text with comments and the insides of literals as spaces; lines stay where they are.
fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    // What was written last; tells a raw string's `r` from a name that ends in one.
    let mut previous = ' ';
    while let Some(next) = rest.chars().next() {
        let in_name = previous.is_ascii_alphanumeric() || previous == '_';
        let taken = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(length) = raw_string(rest).filter(|_| !in_name) {
            length
        } else if next == '"' {
            quoted(rest, '"')
        } else if next == '\'' && is_character(rest) {
            quoted(rest, '\'')
        } else {
            previous = next;
            out.push(next);
            rest = rest.split_at(next.len_utf8()).1;
            continue;
        };
        let (literal, after) = rest.split_at(taken);
        // A literal stays visible as an empty string, so that `f("")` does not become `f()`.
        let quotes = !literal.starts_with('/') && literal.len() >= 2;
        for (index, letter) in literal.char_indices() {
            let edge = quotes && (index == 0 || index + letter.len_utf8() == literal.len());
            out.push(if letter == '\n' {
                '\n'
            } else if edge {
                '"'
            } else {
                ' '
            });
        }
        previous = ' ';
        rest = after;
    }
    out
}

fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut index = 0;
    while let Some(rest) = text.get(index..).filter(|rest| !rest.is_empty()) {
        let step = if rest.starts_with("/*") {
            depth += 1;
            2
        } else if rest.starts_with("*/") {
            depth = depth.saturating_sub(1);
            2
        } else {
            rest.chars().next().map_or(1, char::len_utf8)
        };
        index += step;
        if depth == 0 {
            break;
        }
    }
    index.min(text.len())
}

/// Length of the raw string at the start, if there is one.
fn raw_string(text: &str) -> Option<usize> {
    let start = ["r", "br", "cr"].into_iter().find_map(|prefix| text.strip_prefix(prefix))?;
    let hashes = start.len() - start.trim_start_matches('#').len();
    let inside = start.trim_start_matches('#').strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let length = inside.find(&end).map_or(inside.len(), |at| at + end.len());
    Some(text.len() - inside.len() + length)
}

/// Length of a literal that ends at an unescaped `quote`.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (index, letter) in text.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if letter == quote => return index + quote.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

/// A character literal, not a lifetime.
fn is_character(text: &str) -> bool {
    let mut letters = text.chars().skip(1);
    match (letters.next(), letters.next()) {
        (Some('\\'), _) => true,
        (Some(_), second) => second == Some('\''),
        _ => false,
    }
}

/// Ranges of line indices (from 0) that a `#[cfg(test)]` covers, in blanked code.
fn test_lines(code: &str) -> Vec<std::ops::Range<usize>> {
    let mut ranges = Vec::new();
    for (start, _) in code.match_indices("#[cfg(test)]") {
        let mut depth = 0_usize;
        let end = code.char_indices().skip_while(|(index, _)| *index < start).find(|(_, letter)| {
            match letter {
                '{' | '[' | '(' => depth += 1,
                ']' | ')' => depth = depth.saturating_sub(1),
                '}' => {
                    depth = depth.saturating_sub(1);
                    return depth == 0;
                }
                // `mod tests;`, a `use`, a constant.
                ';' => return depth == 0,
                _ => {}
            }
            false
        });
        let line = |index: usize| code.get(..index).map_or(0, |before| before.matches('\n').count());
        ranges.push(line(start)..line(end.map_or(code.len(), |(index, _)| index)) + 1);
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_and_lines_kept() {
        for (text, code) in [
            ("a // b\nc", "a     \nc"),
            ("a /* b /* c */ d */ e", "a                   e"),
            ("f(\"todo!()\")", "f(\"       \")"),
            ("f(\"a\\\"b\") c", "f(\"    \") c"),
            ("x = r#\"a \" b\"#;", "x = \"        \";"),
            ("br\"a\"", "\"   \""),
            ("for\"a\"", "for\" \""),
            ("'a' 'b", "\" \" 'b"),
            ("&'a str, '\\''", "&'a str, \"  \""),
            ("\"a\nb\" c", "\" \n \" c"),
        ] {
            assert_eq!(blank(text), code, "{text}");
        }
    }

    #[test]
    fn test_code_ends_with_its_item() {
        let source = Source::new(
            PathBuf::from("agent/src/a.rs"),
            "fn a() {}\n#[cfg(test)]\nuse x::{y};\nfn b() {}\n#[cfg(test)]\nmod tests {\n    fn t() {}\n}\nfn c() {}\n",
        );
        let tests: Vec<_> = source.lines.iter().filter(|line| line.test).map(|line| line.number).collect();
        assert_eq!(tests, [2, 3, 5, 6, 7, 8]);
    }

    #[test]
    fn modules_declared_for_tests_are_named_with_their_place() {
        let text = "#[cfg(test)]\nmod cases;\nmod eval;\n";
        for (path, module) in [("a/mod.rs", "a/cases"), ("a/b.rs", "a/b/cases"), ("a/lib.rs", "a/cases")] {
            let source = Source::new(PathBuf::from(path), text);
            assert_eq!(source.test_modules().collect::<Vec<_>>(), [Path::new(module)], "{path}");
        }
    }

    #[test]
    fn files_of_tests_are_test_code_throughout() {
        for (path, test) in [
            ("tests/e2e/main.rs", true),
            ("agent/src/store/tests.rs", true),
            ("a/b_tests.rs", true),
            ("a/testsuite.rs", false),
        ] {
            assert_eq!(is_test_file(Path::new(path)), test, "{path}");
        }
    }

    #[test]
    fn words_are_whole_identifiers() {
        assert_eq!(words("aya aya_log xaya aya::x", "aya").collect::<Vec<_>>(), [0, 17]);
    }
}
