//! Runs the evaluation cases in `cases/*.test`: Prometheus' own test language, as far as it is used here.
//!
//! `clear`, `load STEP` with series lines (`metric{a="b"} 1 2 _ stale 0+10x5`), `eval instant at T EXPR` with
//! expected elements, `eval_fail instant at T EXPR` with an expected part of the message. The expected values
//! were computed by hand from Prometheus' definitions.

use std::fmt::Write;

use super::{Value, eval_instant, parse, parse_duration};
use crate::store::query::{STALE_MARKER, Visit, selects};
use crate::store::{Labels, MatchOp, Matcher, Query};

#[derive(Default)]
struct Loaded(Vec<(Labels, Vec<(i64, f64)>)>);

impl Query for Loaded {
    fn select(&self, matchers: &[Matcher], after_ms: i64, until_ms: i64, visit: &mut Visit<'_>) {
        for (labels, samples) in self.0.iter().filter(|(labels, _)| selects(matchers, labels)) {
            let window: Vec<(i64, f64)> =
                samples.iter().copied().filter(|(time, _)| after_ms < *time && *time <= until_ms).collect();
            if !window.is_empty() {
                visit(labels, &window);
            }
        }
    }
}

fn millis(text: &str) -> i64 {
    parse_duration(text).map_or_else(|error| panic!("{error}"), |duration| duration.as_millis() as i64)
}

/// `name{labels}` through the parser of selectors.
fn labels(text: &str) -> Labels {
    if text == "{}" {
        return Labels::default();
    }
    let selectors = parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).selectors();
    Labels::new(selectors.into_iter().flatten().map(|matcher| {
        assert!(matches!(matcher.op, MatchOp::Equal), "{text}");
        (matcher.name, matcher.value)
    }))
}

/// Splits a line at the blank after its series.
fn split(line: &str) -> (&str, &str) {
    let end = match (line.find('}'), line.find(' ')) {
        (Some(brace), Some(blank)) if line[..blank].contains('{') || line.starts_with('{') => {
            brace.max(blank.min(brace)) + 1
        }
        (_, Some(blank)) => blank,
        _ => panic!("no value in {line:?}"),
    };
    (line[..end].trim(), line[end..].trim())
}

fn number(text: &str) -> f64 {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is not a number"))
}

/// `1`, `_`, `stale`, `_x3`, `5x2` (three samples), `0+10x5` (six samples), `10-1x3`.
fn values(text: &str) -> Vec<Option<f64>> {
    let mut out = Vec::new();
    for item in text.split_whitespace() {
        let (item, times) = match item.split_once('x') {
            Some((item, times)) => (item, Some(number(times) as usize)),
            None => (item, None),
        };
        if item == "_" {
            out.extend(std::iter::repeat_n(None, times.unwrap_or(1)));
            continue;
        }
        if item == "stale" {
            out.push(Some(STALE_MARKER));
            continue;
        }
        let (start, step) = match item[1..].find(['+', '-']) {
            Some(sign) if times.is_some() => (number(&item[..sign + 1]), number(&item[sign + 1..])),
            _ => (number(item), 0.0),
        };
        out.extend((0..=times.unwrap_or(0)).map(|index| Some(start + step * index as f64)));
    }
    out
}

fn same(one: f64, other: f64) -> bool {
    one == other || (one.is_nan() && other.is_nan()) || (one - other).abs() <= 1e-12 * one.abs().max(other.abs())
}

fn show(points: &[(Labels, f64)]) -> String {
    points.iter().fold(String::new(), |mut out, (labels, value)| {
        let _ = write!(out, "\n  {labels} {value}");
        out
    })
}

fn evaluate(store: &Loaded, at: &str, expr: &str) -> Result<Vec<(Labels, f64)>, String> {
    let parsed = parse(expr).map_err(|error| error.to_string())?;
    match eval_instant(&parsed, store, millis(at)).map_err(|error| error.to_string())? {
        Value::Scalar(number) => Ok(vec![(Labels::default(), number)]),
        Value::Vector(points) => Ok(points.into_iter().map(|point| (point.labels, point.value)).collect()),
        Value::Matrix(_) => Err("a range vector".to_owned()),
    }
}

/// Number of evaluations in the file.
fn run(name: &str, text: &str) -> usize {
    let mut store = Loaded::default();
    let mut evaluations = 0;
    let mut lines =
        text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#')).peekable();
    while let Some((number_of_line, line)) = lines.next() {
        let mut block = Vec::new();
        while let Some((_, next)) = lines.next_if(|(_, next)| next.starts_with(' ')) {
            block.push(next.trim());
        }
        let place = format!("{name}:{}: {line}", number_of_line + 1);
        if line == "clear" {
            store = Loaded::default();
        } else if let Some(step) = line.strip_prefix("load ") {
            let step = millis(step);
            for series in block {
                let (metric, samples) = split(series);
                let samples = values(samples).into_iter().enumerate();
                let samples = samples.filter_map(|(index, value)| Some((index as i64 * step, value?)));
                store.0.push((labels(metric), samples.collect()));
            }
        } else if let Some(eval) = line.strip_prefix("eval instant at ") {
            let (at, expr) = eval.split_once(' ').unwrap_or_else(|| panic!("{place}"));
            let mut seen = evaluate(&store, at, expr).unwrap_or_else(|error| panic!("{place}: {error}"));
            let mut expected: Vec<(Labels, f64)> = block
                .iter()
                .map(|line| {
                    line.parse().map_or_else(
                        |_| (labels(split(line).0), number(split(line).1)),
                        |alone| (Labels::default(), alone),
                    )
                })
                .collect();
            seen.sort_by(|one, other| one.0.cmp(&other.0));
            expected.sort_by(|one, other| one.0.cmp(&other.0));
            let equal = seen.len() == expected.len()
                && seen.iter().zip(&expected).all(|(one, other)| one.0 == other.0 && same(one.1, other.1));
            assert!(equal, "{place}\nexpected:{}\nseen:{}", show(&expected), show(&seen));
            evaluations += 1;
        } else if let Some(eval) = line.strip_prefix("eval_fail instant at ") {
            let (at, expr) = eval.split_once(' ').unwrap_or_else(|| panic!("{place}"));
            let error = evaluate(&store, at, expr).expect_err(&place);
            assert!(block.iter().all(|part| error.contains(part)), "{place}: {error}");
            evaluations += 1;
        } else {
            panic!("{place}: not a command");
        }
    }
    evaluations
}

macro_rules! case_files {
    ($($name:ident),+ $(,)?) => {
        $(
            #[test]
            fn $name() {
                let evaluations = run(stringify!($name), include_str!(concat!("cases/", stringify!($name), ".test")));
                assert!(evaluations > 0);
            }
        )+

        #[test]
        fn every_case_file_is_listed() {
            let mut files: Vec<String> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/promql/cases"))
                .expect("the directory is there")
                .map(|file| file.expect("readable").file_name().to_string_lossy().into_owned())
                .collect();
            files.sort();
            assert_eq!(files, [$(concat!(stringify!($name), ".test")),+]);
        }
    };
}

case_files!(aggregate, binary, quantile, range, selector);
