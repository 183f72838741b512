//! A strict reader of the Prometheus text format: what it accepts, every scraper accepts.
//!
//! Refused, with the line's number: a sample before its `# TYPE`, a family in two places, a series twice,
//! an unknown escape, a value that is no number, a missing last newline.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};

pub type Labels = BTreeMap<String, String>;

#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: Labels,
    pub value: f64,
}

/// One scrape.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Family to type.
    pub types: BTreeMap<String, String>,
    pub samples: Vec<Sample>,
}

impl Page {
    pub fn parse(text: &str) -> Result<Self> {
        ensure!(text.is_empty() || text.ends_with('\n'), "the last line has no end");
        let mut page = Self::default();
        let mut family = String::new();
        let mut seen = BTreeSet::new();
        for (number, line) in text.lines().enumerate() {
            page.line(line, &mut family, &mut seen).with_context(|| format!("line {}: {line}", number + 1))?;
        }
        Ok(page)
    }

    fn line(&mut self, line: &str, family: &mut String, seen: &mut BTreeSet<(String, Labels)>) -> Result<()> {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            match (words.next(), words.next(), words.next()) {
                (Some("HELP"), Some(_), _) => {}
                (Some("TYPE"), Some(name), Some(kind)) => {
                    ensure!(["counter", "gauge", "histogram", "summary", "untyped"].contains(&kind), "type {kind}");
                    ensure!(self.types.insert(name.to_owned(), kind.to_owned()).is_none(), "second TYPE of {name}");
                    name.clone_into(family);
                }
                _ => bail!("neither HELP nor TYPE"),
            }
            return Ok(());
        }
        let sample = parse_sample(line)?;
        ensure!(belongs(&sample.name, family, self.types.get(family)), "not a sample of '{family}'");
        ensure!(seen.insert((sample.name.clone(), sample.labels.clone())), "the series is there twice");
        self.samples.push(sample);
        Ok(())
    }

    /// Samples of a name whose labels have the given values.
    pub fn select<'a>(&'a self, name: &'a str, with: &'a [(&str, &str)]) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| {
            sample.name == name
                && with.iter().all(|(label, value)| sample.labels.get(*label).is_some_and(|own| own == value))
        })
    }

    /// Sum over the series; 0 when there is none.
    pub fn sum(&self, name: &str, with: &[(&str, &str)]) -> f64 {
        self.select(name, with).fold(0.0, |sum, sample| sum + sample.value)
    }

    /// Sum over the series of each value of a label; series without it count under the empty string.
    pub fn by(&self, name: &str, label: &str, with: &[(&str, &str)]) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for sample in self.select(name, with) {
            let value = sample.labels.get(label).cloned().unwrap_or_default();
            *sums.entry(value).or_insert(0) += sample.value as u64;
        }
        sums
    }

    /// Sum over the series of a control group, by the end of its path (`metrics.workload_labels: [cgroup]`).
    pub fn of_group(&self, group: &str, name: &str, with: &[(&str, &str)]) -> f64 {
        let of_group = |sample: &&Sample| sample.labels.get("cgroup").is_some_and(|own| own.ends_with(group));
        self.select(name, with).filter(of_group).map(|sample| sample.value).sum()
    }

    pub fn has(&self, name: &str) -> bool {
        self.samples.iter().any(|sample| sample.name == name)
    }
}

fn belongs(sample: &str, family: &str, kind: Option<&String>) -> bool {
    let suffixes: &[&str] = match kind.map(String::as_str) {
        Some("histogram") => &["_bucket", "_sum", "_count"],
        Some("summary") => &["", "_sum", "_count"],
        Some(_) => &[""],
        None => &[],
    };
    sample.strip_prefix(family).is_some_and(|rest| suffixes.contains(&rest))
}

fn parse_sample(line: &str) -> Result<Sample> {
    let end = line.find(['{', ' ']).context("no value")?;
    let (name, mut rest) = line.split_at(end);
    ensure!(is_name(name), "'{name}' is no metric name");
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = parse_labels(inside, &mut labels)?;
    }
    let mut words = rest.split_whitespace();
    let value = match words.next().context("no value")? {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        number => number.parse().with_context(|| format!("'{number}' is no number"))?,
    };
    if let Some(time) = words.next() {
        time.parse::<i64>().with_context(|| format!("'{time}' is no time"))?;
    }
    ensure!(words.next().is_none(), "something follows the value");
    Ok(Sample { name: name.to_owned(), labels, value })
}

/// Reads up to the closing brace and returns what follows it.
fn parse_labels<'a>(mut text: &'a str, labels: &mut Labels) -> Result<&'a str> {
    loop {
        if let Some(rest) = text.strip_prefix('}') {
            return Ok(rest);
        }
        let (name, rest) = text.split_once("=\"").context("a label has no value")?;
        ensure!(is_name(name) && !name.contains(':'), "'{name}' is no label name");
        let mut value = String::new();
        let mut characters = rest.char_indices();
        let end = loop {
            match characters.next().context("a label has no end")? {
                (at, '"') => break at + 1,
                (_, '\\') => match characters.next().map(|(_, escaped)| escaped) {
                    Some('n') => value.push('\n'),
                    Some(escaped @ ('\\' | '"')) => value.push(escaped),
                    other => bail!("escape {other:?}"),
                },
                (_, character) => value.push(character),
            }
        };
        ensure!(labels.insert(name.to_owned(), value).is_none(), "label {name} is there twice");
        text = rest.get(end..).context("a label has no end")?;
        text = text.strip_prefix(',').unwrap_or(text);
    }
}

fn is_name(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':')
        && text.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::Page;

    const HEAD: &str = "# HELP a_total Something\n# TYPE a_total counter\n";

    #[test]
    fn a_page_is_read_with_escapes_and_summed_by_label() {
        let text = format!("{HEAD}a_total{{x=\"1\",y=\"a\\\"b\\\\c\\nd\"}} 3\na_total{{x=\"2\"}} 4 1700000000000\n");
        let page = Page::parse(&text).unwrap();
        assert_eq!(page.sum("a_total", &[]), 7.0);
        assert_eq!(page.sum("a_total", &[("x", "2")]), 4.0);
        assert_eq!(page.by("a_total", "x", &[]), [("1".to_owned(), 3), ("2".to_owned(), 4)].into());
        assert_eq!(page.samples[0].labels["y"], "a\"b\\c\nd");
    }

    #[test]
    fn a_histogram_owns_its_three_kinds_of_sample() {
        let text = "# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nh_sum 0.5\nh_count 1\n";
        assert_eq!(Page::parse(text).unwrap().samples.len(), 3);
    }

    #[test]
    fn what_a_scraper_may_refuse_is_refused() {
        let wrong = [
            "a_total 1\n".to_owned(),
            format!("{HEAD}a_total 1"),
            format!("{HEAD}a_total 1\na_total 2\n"),
            format!("{HEAD}a_total one\n"),
            format!("{HEAD}a_total{{x=\"1}} 1\n"),
            format!("{HEAD}a_total{{x=\"\\t\"}} 1\n"),
            format!("{HEAD}a_total{{x=\"1\",x=\"2\"}} 1\n"),
            format!("{HEAD}a_total{{x-y=\"1\"}} 1\n"),
            format!("{HEAD}a_total 1\n# TYPE b gauge\nb 1\na_total{{x=\"1\"}} 1\n"),
            format!("{HEAD}{HEAD}"),
            format!("{HEAD}\n"),
        ];
        for text in wrong {
            assert!(Page::parse(&text).is_err(), "accepted: {text}");
        }
    }
}
