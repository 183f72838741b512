//! Rule files as they are written: the shape of the YAML, with the place of every value that can be wrong.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_saphyr::Spanned;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub groups: Vec<GroupText>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupText {
    pub name: Spanned<String>,
    pub interval: Option<Spanned<String>>,
    pub query_offset: Option<Spanned<String>>,
    #[serde(default)]
    pub limit: usize,
    #[serde(default)]
    pub labels: BTreeMap<String, Spanned<String>>,
    #[serde(default)]
    pub rules: Vec<Spanned<RuleText>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleText {
    pub alert: Option<Spanned<String>>,
    pub record: Option<Spanned<String>>,
    pub expr: Spanned<String>,
    #[serde(rename = "for")]
    pub hold: Option<Spanned<String>>,
    pub keep_firing_for: Option<Spanned<String>>,
    #[serde(default)]
    pub labels: BTreeMap<String, Spanned<String>>,
    #[serde(default)]
    pub annotations: BTreeMap<String, Spanned<String>>,
}

/// What is wrong with the shape, on one line: `(line, key, message)`.
pub(super) fn read(text: &str) -> Result<File, (u64, String, String)> {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(File { groups: vec![] });
    }
    serde_saphyr::from_str(text).map_err(|error| {
        let line = error.location().map_or(1, |location| location.line());
        let message = error.without_snippet().to_string();
        let message = message.lines().next().unwrap_or_default();
        // The place is told apart, before the message.
        let message = message.rsplit_once(" at line ").map_or(message, |(message, _)| message);
        (line, key_on_line(text, line), message.to_owned())
    })
}

/// The key that a line begins with, for the reader's eye; empty when it begins with none.
fn key_on_line(text: &str, line: u64) -> String {
    let line = usize::try_from(line).ok().and_then(|line| text.lines().nth(line.checked_sub(1)?));
    let key = line.unwrap_or_default().trim_start_matches([' ', '-']).split_once(':').map_or("", |(key, _)| key);
    key.trim_matches(['"', '\'', ' ']).to_owned()
}
