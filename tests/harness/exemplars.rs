//! Exemplars off the agent's page in OpenMetrics: `…_bucket{…} 7 # {trace_id="…",span_id="…"} 0.02 1700000000.123`.

use anyhow::{Context, Result, ensure};

use crate::exposition::{Labels, Page};
use crate::http;

/// One exemplar with the series of its bucket.
#[derive(Clone, Debug)]
pub struct Exemplar {
    pub name: String,
    pub labels: Labels,
    /// Requests in this bucket and those below.
    pub count: f64,
    pub trace_id: String,
    pub span_id: String,
    pub seconds: f64,
    pub unix_seconds: f64,
}

/// All exemplars that the agent at `port` shows to who asks for OpenMetrics.
pub fn read(port: u16) -> Result<Vec<Exemplar>> {
    let answer = http::get_as(port, "/metrics", "application/openmetrics-text;version=1.0.0")?;
    ensure!(answer.head.contains("application/openmetrics-text; version=1.0.0"), "{}", answer.head);
    let page = answer.ok()?;
    ensure!(page.ends_with("# EOF\n"), "the page has no end");
    let lines = page.lines().filter_map(|line| line.split_once(" # "));
    lines.map(|(sample, exemplar)| parse(sample, exemplar).with_context(|| format!("{sample} # {exemplar}"))).collect()
}

fn parse(sample: &str, exemplar: &str) -> Result<Exemplar> {
    let family = sample.split_once("_bucket{").context("not a bucket")?.0;
    let bucket = one(&format!("# TYPE {family} histogram\n{sample}\n"))?;
    // What follows a sample's name has the same form: labels, value and time.
    let (labels, time) = exemplar.rsplit_once(' ').context("no time")?;
    let own = one(&format!("# TYPE e gauge\ne{labels}\n"))?;
    let label = |name: &str| own.1.get(name).cloned().with_context(|| name.to_owned());
    ensure!(own.1.len() == 2, "other labels: {:?}", own.1);
    Ok(Exemplar {
        name: bucket.0,
        labels: bucket.1,
        count: bucket.2,
        trace_id: label("trace_id")?,
        span_id: label("span_id")?,
        seconds: own.2,
        unix_seconds: time.parse()?,
    })
}

fn one(text: &str) -> Result<(String, Labels, f64)> {
    let sample = Page::parse(text)?.samples.pop().context("no sample")?;
    Ok((sample.name, sample.labels, sample.value))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn an_exemplar_is_read_with_its_bucket() {
        let read =
            parse("a_bucket{le=\"0.1\",x=\"y\"} 3", "{trace_id=\"ab\",span_id=\"cd\"} 0.02 1700000000.123").unwrap();
        assert_eq!((read.name.as_str(), read.labels["le"].as_str(), read.count), ("a_bucket", "0.1", 3.0));
        assert_eq!((read.trace_id.as_str(), read.span_id.as_str()), ("ab", "cd"));
        assert_eq!((read.seconds, read.unix_seconds), (0.02, 1_700_000_000.123));
        assert!(parse("a_sum 3", "{trace_id=\"ab\",span_id=\"cd\"} 0.02 1").is_err());
        assert!(parse("a_bucket{le=\"1.0\"} 3", "{trace_id=\"ab\"} 0.02 1").is_err());
    }
}
