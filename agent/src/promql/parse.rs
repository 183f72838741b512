//! From PromQL text to a checked expression; `promql-parser` reads the grammar.
//!
//! Whatever this agent cannot evaluate is refused here with its name and, where the text shows it, its
//! place. Bounds: see `guard`.

use std::fmt;
use std::time::Duration;

use promql_parser::label::{MatchOp as ParsedOp, Matchers};
use promql_parser::parser::{self, BinModifier, Expr as Parsed, LabelModifier, Offset, VectorMatchCardinality};

use super::aggregate::{self, AGGREGATIONS};
use super::binary::{Binary, Matching};
use super::expr::{Expr, Node, Selector};
use super::functions::{self, FUNCTIONS};
use super::guard::guard;
use super::value::ValueType;
use crate::store::query::METRIC_NAME;
use crate::store::{MatchOp, Matcher};

/// Why an expression is refused. Line and column count from 1, within the expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    pub line: usize,
    pub column: usize,
    pub message: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: {}", self.line, self.column, self.message)
    }
}

impl std::error::Error for ParseError {}

/// What is refused: a message, and the word of the text that it is about.
pub(super) struct Refusal {
    word: String,
    message: String,
}

impl Refusal {
    pub(super) fn new(word: impl Into<String>, message: impl Into<String>) -> Self {
        Self { word: word.into(), message: message.into() }
    }
}

/// Reads and checks an expression.
pub fn parse(text: &str) -> Result<Expr, ParseError> {
    // Newlines inside an error message would make one error look like several.
    let read = |()| parser::parse(text).map_err(|message| Refusal::new("", message.replace('\n', " ")));
    match guard(text).and_then(read).and_then(lower) {
        Ok(root) => Ok(Expr { root, text: text.trim().to_owned() }),
        Err(Refusal { word, message }) => {
            let (line, column) = place(text, &word);
            Err(ParseError { line, column, message })
        }
    }
}

/// Units of a duration and their length in ms, in the order in which they may stand.
const DURATION_UNITS: [(&str, u64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// A Prometheus duration (`5s`, `1h30m`, `0`).
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration such as 30s or 1h30m");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (mut rest, mut millis, mut units) = (text, 0u64, DURATION_UNITS.as_slice());
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let unit_at = rest.find(|each: char| !each.is_ascii_digit()).ok_or_else(wrong)?;
        let (digits, after) = rest.split_at(unit_at);
        let after_unit = after.find(|each: char| each.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(after_unit);
        let place = units.iter().position(|(name, _)| *name == unit).ok_or_else(wrong)?;
        // More than 32 bits is more than the grammar's library counts.
        let count: u32 = digits.parse().map_err(|_| wrong())?;
        let length = units.get(place).map_or(0, |(_, length)| *length);
        millis = u64::from(count).checked_mul(length).and_then(|part| millis.checked_add(part)).ok_or_else(wrong)?;
        units = units.get(place + 1..).unwrap_or_default();
        rest = after;
    }
    Ok(Duration::from_millis(millis))
}

fn lower(parsed: Parsed) -> Result<Node, Refusal> {
    match parsed {
        Parsed::NumberLiteral(number) => Ok(Node::Number(number.val)),
        Parsed::Paren(paren) => lower(*paren.expr),
        Parsed::Unary(unary) => Ok(Node::Negate(Box::new(lower(*unary.expr)?))),
        Parsed::VectorSelector(vector) => Ok(Node::Selector(selector(vector)?)),
        Parsed::MatrixSelector(matrix) => {
            let range_ms = millis(matrix.range);
            if range_ms == 0 {
                return Err(Refusal::new("[", "a range is at least 1 ms long"));
            }
            Ok(Node::Range { range_ms, selector: selector(matrix.vs)? })
        }
        Parsed::Aggregate(aggregate) => {
            let name = aggregate.op.to_string();
            let aggregation = aggregate::find(&name).ok_or_else(|| {
                let known: Vec<&str> = AGGREGATIONS.iter().map(|known| known.name).collect();
                Refusal::new(&name, format!("the aggregation {name} is not supported yet (have: {})", known.join(", ")))
            })?;
            let of = lower(*aggregate.expr)?;
            expect(&name, &of, ValueType::Vector)?;
            let grouping = aggregate.modifier.map_or_else(|| Matching::On(vec![]), modifier);
            Ok(Node::Aggregate { aggregation, grouping, of: Box::new(of) })
        }
        Parsed::Call(call) => {
            let name = call.func.name;
            let function = functions::find(name).ok_or_else(|| {
                let known: Vec<&str> = FUNCTIONS.iter().map(|known| known.name).collect();
                Refusal::new(name, format!("the function {name}() is not supported yet (have: {})", known.join(", ")))
            })?;
            let arguments = call.args.args.into_iter().map(|each| lower(*each)).collect::<Result<Vec<_>, _>>()?;
            if arguments.len() != function.takes.len() {
                let message = format!("{name}() takes {} arguments, not {}", function.takes.len(), arguments.len());
                return Err(Refusal::new(name, message));
            }
            arguments.iter().zip(function.takes).try_for_each(|(argument, takes)| expect(name, argument, *takes))?;
            Ok(Node::Call { function, arguments })
        }
        Parsed::Binary(parsed) => binary(parsed),
        Parsed::Subquery(_) => Err(Refusal::new("", "subqueries are not supported yet")),
        Parsed::StringLiteral(_) => Err(Refusal::new("", "strings as values are not supported yet")),
        Parsed::Extension(extension) => Err(Refusal::new("", format!("{} is not PromQL", extension.expr.name()))),
    }
}

fn expect(name: &str, node: &Node, takes: ValueType) -> Result<(), Refusal> {
    let given = node.value_type();
    if given == takes {
        return Ok(());
    }
    Err(Refusal::new(name, format!("{name} takes an argument of type {}, not {}", takes.name(), given.name())))
}

fn binary(parsed: parser::BinaryExpr) -> Result<Node, Refusal> {
    let symbol = parsed.op.to_string();
    let op = Binary::find(&symbol)
        .ok_or_else(|| Refusal::new(&symbol, format!("the operator {symbol} is not supported yet")))?;
    let (left, right) = (lower(*parsed.lhs)?, lower(*parsed.rhs)?);
    let types = [left.value_type(), right.value_type()];
    if types.contains(&ValueType::Matrix) {
        return Err(Refusal::new(&symbol, format!("{symbol} is not defined on a range vector")));
    }
    if op.is_set() && types.contains(&ValueType::Scalar) {
        return Err(Refusal::new(&symbol, format!("{symbol} is not defined on a scalar")));
    }
    let modifier = parsed.modifier.unwrap_or_default();
    let return_bool = modifier.return_bool;
    if op.is_comparison() && !return_bool && types == [ValueType::Scalar, ValueType::Scalar] {
        return Err(Refusal::new(&symbol, "comparisons between scalars must use the bool modifier"));
    }
    let matching = matching(modifier)?;
    Ok(Node::Binary { op, return_bool, matching, left: Box::new(left), right: Box::new(right) })
}

fn matching(modifier: BinModifier) -> Result<Matching, Refusal> {
    let group = match modifier.card {
        VectorMatchCardinality::OneToOne | VectorMatchCardinality::ManyToMany => None,
        VectorMatchCardinality::ManyToOne(_) => Some("group_left"),
        VectorMatchCardinality::OneToMany(_) => Some("group_right"),
    };
    if let Some(group) = group {
        return Err(Refusal::new(group, format!("{group} is not supported yet")));
    }
    if modifier.fill_values.lhs.is_some() || modifier.fill_values.rhs.is_some() {
        return Err(Refusal::new("fill", "fill is not supported yet"));
    }
    Ok(modifier.matching.map_or_else(|| Matching::Ignoring(vec![]), self::modifier))
}

fn modifier(parsed: LabelModifier) -> Matching {
    match parsed {
        LabelModifier::Include(labels) => Matching::On(labels.labels),
        LabelModifier::Exclude(labels) => Matching::Ignoring(labels.labels),
    }
}

fn selector(parsed: parser::VectorSelector) -> Result<Selector, Refusal> {
    if parsed.at.is_some() {
        return Err(Refusal::new("@", "the @ modifier is not supported yet"));
    }
    let Matchers { matchers, or_matchers } = parsed.matchers;
    if !or_matchers.is_empty() {
        return Err(Refusal::new("or", "'or' between label matchers is not PromQL"));
    }
    let offset_ms = match parsed.offset {
        None => 0,
        Some(Offset::Pos(back)) => millis(back),
        Some(Offset::Neg(ahead)) => -millis(ahead),
    };
    let name = parsed.name.map(|name| Matcher::equal(METRIC_NAME, name));
    let others = matchers.into_iter().map(|matcher| Matcher {
        name: matcher.name,
        op: match matcher.op {
            ParsedOp::Equal => MatchOp::Equal,
            ParsedOp::NotEqual => MatchOp::NotEqual,
            ParsedOp::Re(regex) => MatchOp::Regex(regex),
            ParsedOp::NotRe(regex) => MatchOp::NotRegex(regex),
        },
        value: matcher.value,
    });
    Ok(Selector { matchers: name.into_iter().chain(others).collect(), offset_ms })
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Line and column of the first place where `word` stands alone; the beginning when it is nowhere.
fn place(text: &str, word: &str) -> (usize, usize) {
    let part_of_word = |character: char| character.is_alphanumeric() || character == '_';
    let alone = |at: usize| {
        let (before, after) = (&text[..at], &text[at + word.len()..]);
        !word.starts_with(part_of_word) || !(before.ends_with(part_of_word) || after.starts_with(part_of_word))
    };
    let found = if word.is_empty() { None } else { text.match_indices(word).map(|(at, _)| at).find(|at| alone(*at)) };
    let before = &text[..found.unwrap_or(0)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_evaluated_is_refused_by_name_and_place() {
        let cases = [
            ("absent(up)", "1:1: the function absent() is not supported yet (have: delta, histogram_quantile, "),
            ("sum(\n  predict_linear(up[5m], 9))", "2:3: the function predict_linear() is not supported yet"),
            ("topk(3, up)", "1:1: the aggregation topk is not supported yet (have: avg, count, max, min, sum)"),
            ("rate(up[5m:1m])", "1:1: subqueries are not supported yet"),
            ("up @ 123", "1:4: the @ modifier is not supported yet"),
            ("a * on(x) group_left b", "1:11: group_left is not supported yet"),
            ("rate(up)", "1:1: expected type matrix in call to function 'rate', got vector"),
            ("sum(up[5m])", "1:1: expected type vector in aggregation expression, got matrix"),
            ("1 > 2", "1:1: comparisons between scalars must use BOOL modifier"),
            ("up[0]", "1:3: a range is at least 1 ms long"),
            ("up[1e300]", "1:4: 1e300 is longer than 100 years"),
            ("up[5m:1e300]", "1:7: 1e300 is longer than 100 years"),
            ("up offset - inf", "1:13: inf is longer than 100 years"),
            ("up[5000000000s1ms]", "1:4: \"5000000000s1ms\" is not a duration"),
            ("nope(up)", "1:1: "),
            ("rate(up[5m]", "1:1: "),
            ("up{a=~\"(\"}", "1:1: "),
            ("", "1:1: "),
            ("\"text\"", "1:1: strings as values are not supported yet"),
        ];
        for (text, expected) in cases {
            let error = parse(text).unwrap_err().to_string();
            println!("{text:?}: {error}");
            assert!(error.starts_with(expected), "{text:?}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
        assert!(parse(&"a".repeat(20_000)).is_err());
    }

    #[test]
    fn selectors_and_reach_are_known_without_evaluating() {
        let expr = parse("sum(rate(a_total{x=\"1\"}[5m] offset 1m)) / b > 2").unwrap();
        assert_eq!(expr.reach_ms(), 360_000);
        let names: Vec<String> = expr.selectors().iter().map(|matchers| matchers[0].value.clone()).collect();
        assert_eq!(names, ["a_total", "b"]);
        assert_eq!(expr.text(), "sum(rate(a_total{x=\"1\"}[5m] offset 1m)) / b > 2");
    }

    #[test]
    fn no_text_exhausts_the_stack_or_panics() {
        let nested = |open: &str, close: &str| format!("{}up{}", open.repeat(4000), close.repeat(4000));
        for text in [nested("(", ")"), nested("-", ""), nested("", " + up"), nested("", " or up"), nested("sum(", ")")]
        {
            let error = parse(&text).unwrap_err();
            assert!(error.message.contains("more than 256 operators") || error.message.contains("longer"), "{error}");
        }
        let whole = "sum by (offset) (rate(a{b=\"\\\"[1e300]'\", c=~'x|y'}[5m] offset 1m)) > 0 and b offset -30s";
        assert!(parse(whole).is_ok());
        for end in (0..whole.len()).filter(|end| whole.is_char_boundary(*end)) {
            // A prefix may be an expression of its own; what counts is that there is an answer.
            let answer = parse(&whole[..end]).map(|expr| expr.reach_ms());
            assert!(answer.is_err() || answer.is_ok_and(|reach| reach <= 360_000));
        }
    }

    #[test]
    fn durations_are_prometheus_durations() {
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        assert_eq!(parse_duration("0s"), Ok(Duration::ZERO));
        assert_eq!(parse_duration("1d250ms"), Ok(Duration::from_millis(86_400_250)));
        for wrong in ["", "5", "1.5", "5 s", "m", "5x", "1e3", "inf", "nan", "5s1m", "1s1s", "9999999999999999999y"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
