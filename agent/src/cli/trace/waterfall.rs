//! A trace on a terminal: one line a span with its offset, its duration and a bar in scale, filled by what its time went
//! to; below it what is odd about it; at the end what the bar's letters mean.
//!
//! Letters within a bar are shares, not an order in time. A span shorter than a column has a bar of one. Text from outside
//! is made harmless, long names are cut; a terminal narrower than [`LEAST_WIDTH`] gets lines that wrap.

use std::collections::BTreeSet;
use std::io::{self, Write};

use super::tree::{Part, Placed};
use crate::model::display::{clip, duration, printable};
use crate::model::thread::STATES;

const LEAST_WIDTH: usize = 60;
/// Columns of an offset and of a duration.
const TIME_WIDTH: usize = 7;
/// Deeper spans are not indented further.
const MOST_INDENT: usize = 12;
/// Letter and colour (SGR) of each state; the same order as [`STATES`].
const LOOKS: [(char, &str); STATES.len()] = [
    ('#', "32"), // on_cpu
    ('q', "33"), // runqueue
    ('d', "35"), // disk
    ('n', "34"), // network
    ('f', "31"), // futex
    ('s', "36"), // sleep
    ('t', "91"), // throttled
    ('.', "90"), // unknown
];
/// Where nothing is known of where its time went.
const PLAIN: char = '=';

/// Writes the trace; `spans` is not empty.
pub(super) fn draw(out: &mut dyn Write, id: &str, spans: &[Placed], width: usize, coloured: bool) -> io::Result<()> {
    let width = width.max(LEAST_WIDTH);
    let start_ns = spans.iter().map(|placed| placed.part.start_ns).min().unwrap_or(0);
    let end_ns = spans.iter().map(|placed| placed.part.end_ns).max().unwrap_or(start_ns);
    let services: BTreeSet<&str> = spans.iter().map(|placed| placed.part.service.as_str()).collect();
    let count = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    let (of, by) = (count(spans.len(), "span"), count(services.len(), "service"));
    writeln!(out, "trace {id}: {of} of {by} in {}", duration(end_ns - start_ns))?;

    let longest = spans.iter().map(|placed| label(placed).chars().count()).max().unwrap_or(0);
    let names = longest.clamp(10, width * 9 / 20);
    let columns = width - names - 2 * (TIME_WIDTH + 1) - 3;
    let scale = Scale { start_ns, length_ns: (end_ns - start_ns).max(1), columns };
    for placed in spans {
        let part = &placed.part;
        let name = format!("{:<names$}", clip(&label(placed), names));
        let name = if coloured && part.error.is_some() { format!("\x1b[31m{name}\x1b[0m") } else { name };
        let (offset, length) = (duration(part.start_ns - start_ns), duration(part.end_ns - part.start_ns));
        let (before, bar) = scale.bar(part);
        let bar = " ".repeat(before) + &paint(&bar, coloured);
        writeln!(out, "{name} {offset:>TIME_WIDTH$} {length:>TIME_WIDTH$} |{bar}")?;
        let odd = oddities(placed);
        if !odd.is_empty() {
            writeln!(out, "{}  {}", " ".repeat(indent(placed)), odd.join("; "))?;
        }
    }
    legend(out, spans, coloured)
}

fn indent(placed: &Placed) -> usize {
    2 * placed.depth.min(MOST_INDENT)
}

fn label(placed: &Placed) -> String {
    let part = &placed.part;
    let text = format!("{} {} {}", part.service, part.kind, part.name);
    format!("{}{}", " ".repeat(indent(placed)), printable(&text))
}

/// What a reader must know to trust the line.
fn oddities(placed: &Placed) -> Vec<String> {
    let part = &placed.part;
    let mut odd = Vec::new();
    match part.error.as_deref() {
        Some("") => odd.push("error".to_owned()),
        Some(error) => odd.push(format!("error {}", printable(error))),
        None => {}
    }
    if let Some(why) = &part.incomplete {
        odd.push(format!("not whole: {}", printable(why)));
    }
    if placed.orphan {
        odd.push("its parent is not here".to_owned());
    }
    if let Some((method, confidence)) = &part.link {
        let sure = confidence.map(|confidence| format!(" {confidence:.2}")).unwrap_or_default();
        odd.push(format!("linked by {}{sure}", printable(method)));
    }
    odd
}

/// The trace's time on the bar's columns.
struct Scale {
    start_ns: u64,
    length_ns: u64,
    columns: usize,
}

impl Scale {
    fn column(&self, ns: u64) -> usize {
        let place = u128::from(ns) * self.columns as u128 / u128::from(self.length_ns);
        usize::try_from(place).unwrap_or(self.columns).min(self.columns)
    }

    /// Columns before the bar, and its letters.
    fn bar(&self, part: &Part) -> (usize, Vec<char>) {
        let before = self.column(part.start_ns - self.start_ns).min(self.columns.saturating_sub(1));
        let end = self.column(part.end_ns - self.start_ns).max(before + 1);
        (before, letters(&part.time, end - before))
    }
}

/// So many letters, shared out by time; each state with at least half a column has one.
fn letters(time: &[u64], columns: usize) -> Vec<char> {
    let total: u128 = time.iter().map(|ns| u128::from(*ns)).sum();
    if total == 0 {
        return vec![PLAIN; columns];
    }
    let mut out = Vec::with_capacity(columns);
    let mut so_far = 0_u128;
    for (ns, (letter, _)) in time.iter().zip(LOOKS) {
        so_far += u128::from(*ns);
        let upto = (so_far * columns as u128 + total / 2) / total;
        out.resize(usize::try_from(upto).unwrap_or(columns).min(columns), letter);
    }
    out
}

fn paint(bar: &[char], coloured: bool) -> String {
    if !coloured {
        return bar.iter().collect();
    }
    let runs = bar.chunk_by(|one, other| one == other);
    runs.map(|run| {
        let colour = LOOKS.iter().find(|(letter, _)| run.first() == Some(letter)).map_or("37", |(_, colour)| colour);
        format!("\x1b[{colour}m{}\x1b[0m", run.iter().collect::<String>())
    })
    .collect()
}

/// The states that there are, with their time in all spans.
fn legend(out: &mut dyn Write, spans: &[Placed], coloured: bool) -> io::Result<()> {
    let mut known = Vec::new();
    for (state, (name, (letter, _))) in STATES.iter().zip(LOOKS).enumerate() {
        let ns: u64 = spans.iter().filter_map(|placed| placed.part.time.get(state)).sum();
        if ns > 0 {
            known.push(format!("{} {name}", paint(&[letter], coloured)));
        }
    }
    if spans.iter().any(|placed| placed.part.time.iter().all(|ns| *ns == 0)) {
        known.push(format!("{PLAIN} not known"));
    }
    writeln!(out, "{}  (shares of a span's time, not its order)", known.join("  "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::super::tree::{Part, order};
    use super::{draw, letters};

    fn span(id: &str, parent: &str, service: &str, times: (u64, u64), attributes: Value) -> Value {
        json!({
            "spanId": id, "parentSpanId": parent, "name": "GET /items/{id}", "kind": if parent.is_empty() { 3 } else { 2 },
            "startTimeUnixNano": (1_000_000_000 + times.0 * 1000).to_string(),
            "endTimeUnixNano": (1_000_000_000 + times.1 * 1000).to_string(),
            "status": { "code": if service == "stock" { 2 } else { 0 } },
            "attributes": attributes, "resource": { "service.name": service },
        })
    }

    fn shop() -> String {
        let times = json!({ "seismo.time.on_cpu": 50_000, "seismo.time.network": 100_000 });
        let stock = json!({ "error.type": "503\x1b[2J", "seismo.incomplete": "gap",
            "seismo.link.method": "thread", "seismo.link.confidence": 0.97 });
        let spans = [
            span("a", "", "visitor", (0, 200), json!({ "seismo.time.network": 200_000 })),
            span("b", "a", "shop", (20, 170), times),
            span("c", "gone", "stock", (199, 200), stock),
        ];
        let mut out = Vec::new();
        draw(&mut out, "ab", &order(spans.iter().map(Part::read).collect()), 80, false).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_trace_is_a_waterfall_with_bars_in_scale_and_what_is_odd() {
        let expected = "\
trace ab: 3 spans of 3 services in 200µs
visitor client GET /items/{id}     0ns   200µs |nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn
  shop server GET /items/{id}   20.0µs   150µs |   ########nnnnnnnnnnnnnnn
stock server GET /items/{id}     199µs  1.00µs |                              =
  error 503·[2J; not whole: gap; its parent is not here; linked by thread 0.97
# on_cpu  n network  = not known  (shares of a span's time, not its order)
";
        assert_eq!(shop(), expected);
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        assert!(shop().lines().all(|line| line.chars().count() <= 80), "{}", shop());
    }

    #[test]
    fn letters_are_shared_out_by_time_and_fill_the_bar() {
        let text = |time: [u64; 8], columns| letters(&time, columns).into_iter().collect::<String>();
        assert_eq!(text([0; 8], 3), "===");
        assert_eq!(text([1, 0, 0, 1, 0, 0, 0, 0], 4), "##nn");
        assert_eq!(text([u64::MAX, 1, 1, 1, 1, 1, 1, u64::MAX], 6), "###...");
        assert_eq!(text([1, 0, 0, 0, 0, 0, 0, 999], 10), "..........");
    }
}
