//! Prometheus rule files to checked groups of alert rules.
//!
//! Everything that could fail later fails here: expressions, templates, durations, names, and how far back
//! an expression looks. All errors of all files are told, one line each: `FILE:LINE: key: message`.
//! Recording rules are refused: nothing in the agent keeps what they would record.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::Path;

use regex::Regex;
use serde_saphyr::Spanned;

use super::file::{File, GroupText, RuleText, read};
use super::template::Template;
use crate::promql::{self, Expr, ValueType, parse_duration};
use crate::section::Interval;
use crate::store::{Matcher, MetricsConfig};

/// Rules that are evaluated together.
#[derive(Clone, Debug)]
pub struct Group {
    pub name: String,
    pub file: String,
    /// `None`: the configured evaluation interval.
    pub interval_ms: Option<i64>,
    /// How far in the past the group is evaluated.
    pub query_offset_ms: i64,
    /// Alerts per rule above which the rule is in error; 0: no limit.
    pub limit: usize,
    pub rules: Vec<Rule>,
}

/// An alert rule.
#[derive(Clone, Debug)]
pub struct Rule {
    pub name: String,
    pub expr: Expr,
    pub hold_ms: i64,
    pub keep_firing_ms: i64,
    /// As they are written.
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub(super) label_templates: Vec<(String, Template)>,
    pub(super) annotation_templates: Vec<(String, Template)>,
}

/// Everything that is wrong with the files, a line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError(pub Vec<String>);

impl fmt::Display for RuleError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for RuleError {}

/// Reads rule files. `history` is how far back the store remembers.
pub fn load(patterns: &[String], history: Interval) -> Result<Vec<Group>, RuleError> {
    let mut problems = Vec::new();
    let mut groups = Vec::new();
    let files: Vec<String> = patterns.iter().flat_map(|pattern| expand(pattern, &mut problems)).collect();
    for file in files {
        match fs::read_to_string(&file) {
            Ok(text) => match read_text(&file, &text, history) {
                Ok(read) => groups.extend(read),
                Err(error) => problems.extend(error.0),
            },
            Err(error) => problems.push(format!("{file}: {error}")),
        }
    }
    if problems.is_empty() { Ok(groups) } else { Err(RuleError(problems)) }
}

/// Groups from the text of a file; its name is for messages.
pub(super) fn read_text(file: &str, text: &str, history: Interval) -> Result<Vec<Group>, RuleError> {
    let mut problems = Vec::new();
    let groups = Reader { file, history, problems: &mut problems }.read(text);
    if problems.is_empty() { Ok(groups) } else { Err(RuleError(problems)) }
}

/// The selectors of all rules: what the store has to keep.
pub fn selectors(groups: &[Group]) -> Vec<Vec<Matcher>> {
    groups.iter().flat_map(|group| &group.rules).flat_map(|rule| rule.expr.selectors()).collect()
}

/// What `seismo rules check` says of files that are sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report(Vec<(String, usize)>);

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(file, rules)| writeln!(out, "Checking {file}\n  SUCCESS: {rules} rules found"))
    }
}

/// Checks files as [`load`] reads them, with the default history of the store.
pub fn check(patterns: &[String]) -> Result<Report, RuleError> {
    let history = MetricsConfig::default().history;
    let (mut report, mut problems) = (Vec::new(), Vec::new());
    for file in patterns.iter().flat_map(|pattern| expand(pattern, &mut problems)).collect::<Vec<_>>() {
        match load(std::slice::from_ref(&file), history) {
            Ok(groups) => report.push((file, groups.iter().map(|group| group.rules.len()).sum())),
            Err(error) => problems.extend(error.0),
        }
    }
    if problems.is_empty() { Ok(Report(report)) } else { Err(RuleError(problems)) }
}

/// Files that a pattern names, sorted. A pattern without `*` and `?` is a file, there or not.
fn expand(pattern: &str, problems: &mut Vec<String>) -> Vec<String> {
    let (folder, name) = match pattern.rsplit_once('/') {
        Some((folder, name)) => (Some(folder), name),
        None => (None, pattern),
    };
    if !name.contains(['*', '?']) {
        return vec![pattern.to_owned()];
    }
    let expression = format!("^{}$", regex::escape(name).replace(r"\*", ".*").replace(r"\?", "."));
    let wanted = match Regex::new(&expression) {
        Ok(wanted) => wanted,
        Err(error) => {
            problems.push(format!("{pattern}: {error}"));
            return vec![];
        }
    };
    let place = match folder {
        Some("") => "/",
        Some(folder) => folder,
        None => ".",
    };
    let entries = match fs::read_dir(Path::new(place)) {
        Ok(entries) => entries,
        Err(error) => {
            problems.push(format!("{place}: {error}"));
            return vec![];
        }
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let files = names.filter(|name| wanted.is_match(name));
    let mut files: Vec<String> =
        files.map(|name| folder.map_or(name.clone(), |folder| format!("{folder}/{name}"))).collect();
    files.sort();
    files
}

struct Reader<'a> {
    file: &'a str,
    history: Interval,
    problems: &'a mut Vec<String>,
}

impl Reader<'_> {
    fn read(&mut self, text: &str) -> Vec<Group> {
        let File { groups } = match read(text) {
            Ok(file) => file,
            Err((line, key, message)) => {
                self.problem(line, &key, &message);
                return vec![];
            }
        };
        let mut names = BTreeSet::new();
        for group in &groups {
            let name = &group.name;
            if name.value.is_empty() {
                self.problem(name.referenced.line(), "name", "a group needs a name");
            } else if !names.insert(name.value.as_str()) {
                let message = format!("the group name {:?} is there twice", name.value);
                self.problem(name.referenced.line(), "name", &message);
            }
        }
        groups.into_iter().map(|group| self.group(group)).collect()
    }

    fn group(&mut self, text: GroupText) -> Group {
        let GroupText { name, interval, query_offset, limit, labels, rules } = text;
        let interval_ms = interval.map(|interval| self.duration("interval", Some(&interval)));
        let query_offset_ms = self.duration("query_offset", query_offset.as_ref());
        let rules = rules.into_iter().filter_map(|rule| self.rule(rule, &labels, query_offset_ms)).collect();
        let interval_ms = interval_ms.filter(|interval| *interval > 0);
        Group { name: name.value, file: self.file.to_owned(), interval_ms, query_offset_ms, limit, rules }
    }

    fn rule(
        &mut self,
        text: Spanned<RuleText>,
        group_labels: &BTreeMap<String, Spanned<String>>,
        query_offset_ms: i64,
    ) -> Option<Rule> {
        let line = text.referenced.line();
        let RuleText { alert, record, expr, hold, keep_firing_for, labels, annotations } = text.value;
        let name = match (alert, record) {
            (Some(alert), None) if !alert.value.is_empty() => alert.value,
            (None, Some(record)) => {
                let message = "recording rules are not supported: the agent keeps no recorded series; \
                               write the expression into the alert, or record it in Prometheus";
                self.problem(record.referenced.line(), "record", message);
                return None;
            }
            (Some(_), Some(record)) => {
                self.problem(record.referenced.line(), "record", "a rule has either alert or record, not both");
                return None;
            }
            _ => {
                self.problem(line, "alert", "a rule needs a name");
                return None;
            }
        };
        // A rule's own labels win over those of its group.
        let mut all_labels = group_labels.clone();
        all_labels.extend(labels);
        let label_templates = self.templates("labels", &all_labels);
        let annotation_templates = self.templates("annotations", &annotations);
        let hold_ms = self.duration("for", hold.as_ref());
        let keep_firing_ms = self.duration("keep_firing_for", keep_firing_for.as_ref());
        let expr = self.expr(&expr, query_offset_ms)?;
        let texts = |labels: BTreeMap<String, Spanned<String>>| {
            labels.into_iter().map(|(name, text)| (name, text.value)).collect()
        };
        let (labels, annotations) = (texts(all_labels), texts(annotations));
        Some(Rule { name, expr, hold_ms, keep_firing_ms, labels, annotations, label_templates, annotation_templates })
    }

    fn expr(&mut self, text: &Spanned<String>, query_offset_ms: i64) -> Option<Expr> {
        let line = text.referenced.line();
        let expr = match promql::parse(&text.value) {
            Ok(expr) => expr,
            Err(error) => {
                self.problem(line, "expr", &error.to_string());
                return None;
            }
        };
        if expr.value_type() == ValueType::Matrix {
            self.problem(line, "expr", "a rule's expression is an instant vector or a scalar, not a range vector");
        }
        let history_ms = i64::try_from(self.history.0.as_millis()).unwrap_or(i64::MAX);
        let reach_ms = expr.reach_ms().saturating_add(query_offset_ms);
        if reach_ms > history_ms {
            let reach = Interval::millis(reach_ms.unsigned_abs());
            let message = format!("looks {reach} back, but the store's history is {}", self.history);
            self.problem(line, "expr", &message);
        }
        Some(expr)
    }

    fn templates(&mut self, key: &str, texts: &BTreeMap<String, Spanned<String>>) -> Vec<(String, Template)> {
        let mut templates = Vec::new();
        for (name, text) in texts {
            let line = text.referenced.line();
            let path = format!("{key}.{name}");
            let word = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
                && name.chars().all(|each| each.is_ascii_alphanumeric() || each == '_');
            if !word || (key == "labels" && name == "__name__") {
                self.problem(line, &path, "not a name for a label");
            }
            if key == "labels" && name == "alertname" {
                self.problem(line, &path, "is set by the rule's name");
            }
            match Template::parse(&text.value) {
                Ok(template) => templates.push((name.clone(), template)),
                Err(message) => self.problem(line, &path, &message),
            }
        }
        templates
    }

    fn duration(&mut self, key: &str, text: Option<&Spanned<String>>) -> i64 {
        let Some(text) = text else { return 0 };
        match parse_duration(&text.value) {
            Ok(duration) => i64::try_from(duration.as_millis()).unwrap_or(i64::MAX),
            Err(message) => {
                self.problem(text.referenced.line(), key, &message);
                0
            }
        }
    }

    fn problem(&mut self, line: u64, key: &str, message: &str) {
        let key = if key.is_empty() { String::new() } else { format!("{key}: ") };
        self.problems.push(format!("{}:{line}: {key}{message}", self.file));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
#[path = "rule_tests.rs"]
mod tests;
